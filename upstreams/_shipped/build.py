"""Puts checkpoints that `make pretrain` wrote beside this file, in half precision.

python -m upstreams._shipped.build checkpoints apc hubert ...
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from upstreams._base import UPSTREAMS
from upstreams._pretraining.contract import trainable
from upstreams._shipped import FOLDER


def main() -> None:
    """Reads the names and copies."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("checkpoints", type=Path, help="folder that frostbench pretrain wrote to")
    asked.add_argument("names", nargs="+")
    options = asked.parse_args()
    for name in options.names:
        print(f"{name}: {ship(options.checkpoints, name) / 1e6:.1f} MB")


def ship(checkpoints: Path, name: str) -> int:
    """Copies a tiny checkpoint in half precision; returns its bytes."""
    kind = UPSTREAMS.get(name)
    if not trainable(kind):
        raise SystemExit(f"{name} is not trained here")
    source, target = checkpoints / f"{name}-tiny{kind.file_suffix}", FOLDER / f"{name}{kind.file_suffix}"
    if source.is_file():
        halve(source, target)
        return target.stat().st_size
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    halve(source / "model.safetensors", target / "model.safetensors")
    return sum(path.stat().st_size for path in target.iterdir())


def halve(source: Path, target: Path) -> None:
    """Writes a safetensors file whose floating-point tensors are float16, but for those with values beyond it."""
    with safe_open(source, framework="pt") as file:
        tensors = {name: _halved(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    save_file(tensors, target, metadata)
    target.chmod(0o644)


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if bool(half.isfinite().all()) else tensor


if __name__ == "__main__":
    main()
