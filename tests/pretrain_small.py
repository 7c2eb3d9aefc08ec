"""A process that pretrains: CORPUS FOLDER NAME [KEY=VALUE ...]. Others kill it, or start it twice."""

import sys
from dataclasses import replace
from pathlib import Path


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import pytest
    import torch
    from accelerate import PartialState
    from queue_method import QueueMethod, register
    from small_pretraining import plan, small_sizes

    from core.manifest import read_manifest
    from upstreams._pretraining.contract import PretrainRecipe
    from upstreams._pretraining.plan import PretrainingSettings, pretrain

    torch.set_num_threads(1)
    corpus, folder, name, *changes = sys.argv[1:]
    values = {key: float(value) for key, value in (change.split("=") for change in changes)}
    with pytest.MonkeyPatch.context() as patch:
        small_sizes(patch)
        register(patch)
        settings = PretrainingSettings(save_seconds=0.0, evaluations=0)
        what = plan(name)
        of_recipe = {key: int(values.pop(key)) for key in list(values) if key in PretrainRecipe.__dataclass_fields__}
        recipes = tuple(replace(recipe, **of_recipe) for recipe in what.recipes)
        what = replace(what, recipes=recipes, config=replace(what.config, **values))
        pretrain(what, read_manifest(Path(corpus)), Path(folder), settings, device="cpu")
        rank, count = PartialState(cpu=True).process_index, PartialState(cpu=True).num_processes
        with (Path(folder) / "processes").open("a") as file:
            file.write(f"{rank}/{count}\n")
        if name == "queue_method":  # with what is not saved
            torch.save(QueueMethod.last.state_dict(), Path(folder) / f"state-{rank}of{count}.pt")


if __name__ == "__main__":
    main()
