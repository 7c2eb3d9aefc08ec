"""A process that pretrains: CORPUS FOLDER NAME [KEY=VALUE of the recipe ...]. Others kill it, or start it twice."""

import sys
from pathlib import Path


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import pytest
    import torch
    from small_pretraining import plan, small_sizes

    from core.manifest import read_manifest
    from upstreams._pretraining import Circumstances, pretrain

    torch.set_num_threads(1)
    corpus, folder, name, *changes = sys.argv[1:]
    values = {key: int(value) for key, value in (change.split("=") for change in changes)}
    with pytest.MonkeyPatch.context() as patch:
        small_sizes(patch)
        circumstances = Circumstances(save_seconds=0.0, looks=0)
        pretrain(plan(name, **values), read_manifest(Path(corpus)), Path(folder), circumstances, device="cpu")


if __name__ == "__main__":
    main()
