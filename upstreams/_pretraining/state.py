"""How a training is run, how it went so far, and the file that an interrupted one goes on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from core.digest import written_then_renamed
from core.errors import CheckpointError
from upstreams._pretraining.contract import TrainableUpstream
from upstreams._pretraining.data import Position
from upstreams._pretraining.processes import Mixed
from upstreams._weight_files import read_torch

Evaluate = Callable[[TrainableUpstream], Mapping[str, float]]
Report = Callable[[float, str], None]
START = Position()


@dataclass(frozen=True)
class TrainerSettings:
    """How a training is run, as opposed to what it computes.

    Attributes:
        name: for messages.
        digest: of all that decides the outcome; a state of another one is not taken up.
        state: file to go on from after an interruption.
        logs: folder for TensorBoard.
        device: where to train; of several processes each takes its own.
        mixed_precision: of forward and backward; weights and optimiser stay float32.
        save_seconds: between two states.
        evaluate: measures the upstream while it is trained, such as by a downstream task.
        evaluations: how often it does, the last time at the end.
        report: called with the proportion done since the last call, and a line on the progress, which may be empty.
    """

    name: str
    digest: str
    state: Path
    logs: Path
    device: str = "cpu"
    mixed_precision: Mixed = "no"
    save_seconds: float = 120.0
    evaluate: Evaluate | None = None
    evaluations: int = 4
    report: Report = lambda share, line: None


@dataclass
class TrainingState:
    """How a training went so far.

    Attributes:
        step: updates done.
        position: of the next update in the data.
        seconds: of training; interruptions and evaluations do not count.
        audio_seconds: trained on, padding not counted.
        pending: figures of each update since the last entry of the curve.
        curve: mean figures of every LOG_EVERY updates, "step" and "loss" among them.
        evaluations: what `evaluate` found, with "step".
        warnings: what went wrong without stopping it.
        reported: proportion that was reported.
    """

    step: int = 0
    position: Position = START
    seconds: float = 0.0
    audio_seconds: float = 0.0
    pending: list[dict[str, float]] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reported: float = 0.0

    def warn(self, line: str) -> None:
        """Notes a warning, of each kind (what stands before its colon) the first."""
        kind = line.split(":")[0]
        if not any(warning.startswith(f"{kind}:") for warning in self.warnings):
            self.warnings.append(line)

    def to_plain(self) -> dict[str, Any]:
        """The state as plain values, which `torch.load` reads without running code."""
        return {**asdict(self), "position": list(self.position)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> TrainingState:
        """The state that `to_plain` gave the values of."""
        return cls(**{**plain, "position": Position(*plain["position"])})


def write_state(path: Path, content: Mapping[str, Any]) -> None:
    """Writes what a training goes on from, atomically."""
    with written_then_renamed(path) as temporary:
        torch.save(dict(content), temporary)


def read_state(path: Path, digest: str) -> dict[str, Any] | None:
    """What an interrupted training left; None where there is nothing.

    Raises: CheckpointError: it is another training's, which is not overwritten, or damaged.
    """
    if not path.exists():
        return None
    content = read_torch(path)
    if content.get("digest") != digest:
        raise CheckpointError(
            f"{path}: is the state of an interrupted training with other settings or data; "
            f"repeat that one, name another --output, or delete the file"
        )
    return content
