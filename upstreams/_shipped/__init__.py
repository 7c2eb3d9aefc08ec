"""Checkpoints that come with the program: what the name alone of an upstream means. `build.py` makes them."""

from __future__ import annotations

from pathlib import Path

from core.errors import CheckpointError
from upstreams._pretraining.contract import TrainableUpstream

FOLDER = Path(__file__).parent
UNTRAINED = "untrained"  # behind `@`: random weights, always the same ones


def shipped() -> list[str]:
    """Names of the upstreams whose checkpoint comes with the program."""
    return sorted(path.name.removesuffix(".safetensors") for path in FOLDER.iterdir() if _is_checkpoint(path))


def shipped_checkpoint(kind: type[TrainableUpstream]) -> Path:
    """The checkpoint that comes with the program.

    Raises: CheckpointError: this upstream has none; says how to train it.
    """
    name = kind.card.name
    path = FOLDER / f"{name}{kind.file_suffix}"
    if not path.exists():
        trained = f"checkpoints/{name}-tiny{kind.file_suffix}"
        raise CheckpointError(
            f"{name}: no checkpoint of it comes with Frostbench; train one with: frostbench pretrain {name} --corpus "
            f"mini, then write {name}@{trained}; random weights are {name}@{UNTRAINED}"
        )
    return path


def _is_checkpoint(path: Path) -> bool:
    return path.suffix == ".safetensors" or (path.is_dir() and (path / "config.json").is_file())
