"""A process that pretrains: CORPUS FOLDER NAME[,NAME...] [KEY=VALUE ...]. Others kill it, or start it twice."""

import sys
from dataclasses import replace
from pathlib import Path


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import pytest
    import torch
    from accelerate import PartialState
    from queue_method import register
    from small_pretraining import plan, small_sizes

    from core.manifest import read_manifest
    from upstreams._pretraining.contract import PretrainRecipe
    from upstreams._pretraining.plan import PretrainingSettings, pretrain
    from upstreams._pretraining.trainer import Trainer

    torch.set_num_threads(1)
    corpus, folder, names, *changes = sys.argv[1:]
    trainers: list[Trainer] = []
    wait = Trainer.wait
    with pytest.MonkeyPatch.context() as patch:
        small_sizes(patch)
        register(patch)
        patch.setattr(Trainer, "wait", lambda trainer: trainers.append(trainer) or wait(trainer))
        settings = PretrainingSettings(save_seconds=0.0, evaluations=0)
        for name in names.split(","):
            values = {key: float(value) for key, value in (change.split("=") for change in changes)}
            what = plan(name)
            of_recipe = {
                key: int(values.pop(key)) for key in list(values) if key in PretrainRecipe.__dataclass_fields__
            }
            recipes = tuple(replace(recipe, **of_recipe) for recipe in what.recipes)
            what = replace(what, recipes=recipes, config=replace(what.config, **values))
            pretrain(what, read_manifest(Path(corpus)), Path(folder), settings, device="cpu")
            rank, count = PartialState(cpu=True).process_index, PartialState(cpu=True).num_processes
            with (Path(folder) / "processes").open("a") as file:
                file.write(f"{rank}/{count}\n")
            # With what is not saved.
            torch.save(trainers[-1].upstream.state_dict(), Path(folder) / f"{name}-{rank}of{count}.pt")


if __name__ == "__main__":
    main()
