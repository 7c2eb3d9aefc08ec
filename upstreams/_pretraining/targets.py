"""What a loss predicts, where that is computed from the recordings before the training begins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from core.digest import written_then_renamed
from core.manifest import Utterance
from upstreams._base import Upstream


@dataclass(frozen=True)
class Targets:
    """What is to be predicted at every frame.

    Attributes:
        frames: utterance id -> (frames, ...): whole numbers, such as clusters, or floats, such as a teacher's states.
        quality: what is known of their worth, by name.
    """

    frames: Mapping[str, torch.Tensor]
    quality: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TargetSource:
    """What targets are made from.

    Attributes:
        utterances: of the train split, without those that are too short.
        frame_samples: samples of a frame of the upstream that will predict them.
        previous: the upstream that the iteration before gave; None where the targets do not ask for it.
        seed: of all that is drawn.
        device: where to compute.
    """

    utterances: Sequence[Utterance]
    frame_samples: int
    previous: Upstream | None
    seed: int
    device: torch.device


class TargetRecipe(ABC):
    """How targets are made: a frozen dataclass, whose fields are options of `pretrain` and enter its digest.

    Attributes:
        option_names: field -> the name it has as an option, where that is another one.
    """

    option_names: ClassVar[Mapping[str, str]] = {}

    @property
    @abstractmethod
    def title(self) -> str:
        """What they are called in messages, such as "100 clusters"."""

    @property
    def needs_previous(self) -> bool:
        """Whether they are made from the upstream that the iteration before gave."""
        return False

    def problem(self, num_layers: int | None = None) -> str | None:
        """What can't be made; None where all is well.

        Args:
            num_layers: of the upstream, which is also that of the iteration before; None where it is not built yet.
        """
        return None

    @abstractmethod
    def make(self, source: TargetSource) -> Targets:
        """The targets of all recordings.

        Raises: TrainingError: the recordings or the upstream before can't serve.
        """

    @abstractmethod
    def example(self, frames: int) -> torch.Tensor:
        """Targets (frames, ...) of the right kind, which `check` lets a loss predict."""


def save_targets(path: Path, targets: Targets, digest: str) -> None:
    """Writes targets atomically."""
    metadata = {"digest": digest, **{name: repr(value) for name, value in targets.quality.items()}}
    with written_then_renamed(path) as temporary:
        save_file(dict(targets.frames), temporary, metadata)


def load_targets(path: Path, digest: str) -> Targets | None:
    """Targets that `save_targets` wrote under the same digest; None where there are none."""
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, Any] = dict(file.metadata())
    if metadata.pop("digest") != digest:
        return None
    return Targets(load_file(path), {name: float(value) for name, value in metadata.items()})
