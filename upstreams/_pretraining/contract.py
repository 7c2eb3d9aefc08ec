"""The contract of upstreams that can be trained from scratch: a loss on batches, sizes, recipes, and files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch

from core.audio import SAMPLE_RATE
from upstreams._base import Upstream
from upstreams._pretraining import checkpoint as checkpoints


@dataclass(frozen=True)
class Clusters:
    """What is to be predicted, where that is found by clustering: k-means over frames of the training recordings.

    Attributes:
        count: of the clusters.
        layer: of the upstream that the iteration before gave, 0 is the input of the first block; None takes MFCC.
        fit_frames: k-means is fitted on about so many frames, those of randomly drawn recordings.
        centred: MFCC have their mean over each recording taken out first, and with it rooms and channels.
    """

    count: int
    layer: int | None = None
    fit_frames: int = 1_000_000
    centred: bool = False


@dataclass(frozen=True)
class PretrainRecipe:
    """How an upstream of one size is trained.

    Attributes:
        steps: optimiser updates.
        batch_seconds: audio of an update, padding included.
        learning_rate: peak, reached after the warm-up and then decayed linearly to zero.
        warmup: proportion of the training.
        clip: largest gradient norm; 0 does not clip.
        weight_decay: AdamW's.
        betas: AdamW's.
        epsilon: AdamW's.
        crop_seconds: longer recordings give a random piece of this length, another one each time; never more than a
            micro-batch holds.
        micro_batches: parts of an update's audio that are computed one after the other, or by as many processes. Their
            losses are averaged. They decide the result, not the number of processes.
        minutes: where above zero, training ends after so long instead of after `steps`.
        clusters: the targets, for those that need some.
    """

    steps: int
    batch_seconds: float
    learning_rate: float
    warmup: float = 0.07
    clip: float = 5.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    crop_seconds: float = 15.0
    micro_batches: int = 1
    minutes: float = 0.0
    clusters: Clusters | None = None

    @property
    def micro_batch_seconds(self) -> float:
        """Audio of a micro-batch, padding included."""
        return self.batch_seconds / self.micro_batches

    def problem(self) -> str | None:
        """What can't be trained by; None where all is well."""
        wanted = {
            "steps must be at least 1": self.steps >= 1,
            "batch_seconds must be above 0": self.batch_seconds > 0,
            "micro_batches must be at least 1": self.micro_batches >= 1,
            "crop_seconds must be above 0": self.crop_seconds > 0,
            "learning_rate must be above 0": self.learning_rate > 0,
            "warmup must be a proportion below 1": 0 <= self.warmup < 1,
            "betas must be two proportions below 1": len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
            "clusters must be at least 2": self.clusters is None or self.clusters.count >= 2,
        }
        return next((words for words, is_met in wanted.items() if not is_met), None)


class TrainingBatch(NamedTuple):
    """What a loss is computed on.

    Attributes:
        wavs: float32 (batch, samples) at 16 kHz, zero on padding.
        wav_lengths: valid samples, int64 (batch,).
        targets: cluster of every frame, int64 (frames,) for each utterance; None where the recipe has no clusters.
        step: of the training, from 1: some losses have a temperature that falls.
    """

    wavs: torch.Tensor
    wav_lengths: torch.Tensor
    targets: list[torch.Tensor] | None = None
    step: int = 1


class PretrainLoss(NamedTuple):
    """A scalar to go down, and what else tells how it goes, as scalars without gradient."""

    loss: torch.Tensor
    figures: dict[str, torch.Tensor]


class TrainableUpstream(Upstream):
    """An upstream that `pretrain` can train. A subclass takes its configuration, and no more, as its only argument.

    Args:
        config: sizes of the network and of its training task.

    Attributes:
        config_type: dataclass of the network's sizes and its training task.
        sizes: name -> configuration.
        recipes: name of a size -> how it is trained, a recipe an iteration: each starts from fresh weights, and may
            take its targets from the upstream that the one before gave.
        file_suffix: of what `save` writes; empty for a folder.
        equal_lengths: the utterances of a batch are cut to its shortest, so that the loss sees no padding.
    """

    config_type: ClassVar[type[Any]]
    sizes: ClassVar[Mapping[str, Any]]
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]]
    file_suffix: ClassVar[str] = ".safetensors"
    equal_lengths: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def untrained(cls, config: Any, recipe: PretrainRecipe) -> Self:
        """With random weights, as the recipe's training begins."""
        del recipe  # for those whose targets are counted in it
        return cls(config)

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> Upstream:
        """Loads what `save` wrote; without a checkpoint the weights are untrained, and the name says so."""
        if checkpoint is None:
            upstream = cls.untrained(cls.sizes["tiny"], cls.recipes["tiny"][-1])
            upstream.label = f"{cls.card.name} (untrained)"
            return upstream
        path = Path(checkpoint)
        upstream = cls(checkpoints.configuration_for(path, cls.card.name, cls.config_type))
        checkpoints.load_weights(path, upstream)
        return upstream

    @classmethod
    def read_notes(cls, path: Path) -> Mapping[str, Any]:
        """What `save` was given as notes.

        Raises: CheckpointError: missing, damaged, or not one of ours.
        """
        return dict(checkpoints.read_metadata(path)["notes"])

    def save(self, path: Path, notes: Mapping[str, Any]) -> None:
        """Writes weights, configuration and notes (how it was trained) atomically."""
        checkpoints.save(path, self.card.name, self.configuration(), self, notes)

    def configuration(self) -> Mapping[str, Any]:
        """See Upstream.configuration."""
        return asdict(self.config)

    @abstractmethod
    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """The self-supervised loss of a batch.

        Args:
            batch: of waveforms.
            generator: the source of randomness for masks; dropout draws from torch's own, which is seeded as well.
        """

    def collapsed(self, figures: Mapping[str, float]) -> str | None:
        """What is wrong where the figures of the loss say that it is solved without learning anything; else None."""
        del figures
        return None

    @property
    def num_targets(self) -> int:
        """How many clusters are told apart; 0 where the loss needs no targets."""
        return 0

    @property
    def min_training_samples(self) -> int:
        """The shortest recording that is trained on."""
        return self.min_samples

    @property
    def skips_layers(self) -> bool:
        """Whether an update may leave parameters out."""
        return False


def trainable(entry: type[Upstream]) -> bool:
    """Whether `pretrain` can train an upstream of the registry."""
    return issubclass(entry, TrainableUpstream)


def samples_of(seconds: float) -> int:
    """Seconds in samples."""
    return int(seconds * SAMPLE_RATE)
