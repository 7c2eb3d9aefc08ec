"""The contract of upstreams that can be trained from scratch: an encoder, an objective, sizes, recipes and files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeGuard

import torch
from torch import nn

from core.audio import SAMPLE_RATE
from core.fingerprints import Fingerprint
from core.hidden_states import HiddenStates
from upstreams._base import Upstream
from upstreams._encoders.network import Network, take_sizes
from upstreams._encoders.notes import heard_by
from upstreams._pretraining import checkpoint as checkpoints
from upstreams._pretraining.optimisers import OPTIMISERS, SCHEDULES
from upstreams._pretraining.targets import TargetRecipe

# Metadata of a configuration's field that came later than trainings which it does not concern: while it has its
# default, the digest of a training leaves it out.
LATER: Mapping[str, bool] = {"later": True}


@dataclass(frozen=True)
class PretrainRecipe:
    """How an upstream of one size is trained.

    Attributes:
        steps: optimiser updates.
        batch_seconds: audio of an update, padding included.
        learning_rate: peak, reached after the warm-up; what follows is the schedule's.
        warmup: proportion of the training.
        clip: largest gradient norm; 0 does not clip.
        weight_decay: of the optimiser.
        betas: of the optimiser; the first is the momentum of sgd.
        epsilon: of the optimiser.
        crop_seconds: longer recordings give a random piece of this length, another one each time; never more than a
            micro-batch holds.
        micro_batches: parts of an update's audio that are computed one after the other, or by as many processes. Their
            losses are averaged. They decide the result, not the number of processes.
        minutes: where above zero, training ends after so long instead of after `steps`.
        targets: what is computed from the recordings before training begins, for losses that predict something else
            than their own input.
        optimiser: adam, adamw or sgd.
        schedule: of the learning rate behind the warm-up: linear and cosine fall to zero, constant stays.
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
    targets: TargetRecipe | None = None
    optimiser: str = "adamw"
    schedule: str = "linear"

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
            f"optimiser must be one of {', '.join(OPTIMISERS)}": self.optimiser in OPTIMISERS,
            f"schedule must be one of {', '.join(SCHEDULES)}": self.schedule in SCHEDULES,
        }
        unfit = None if self.targets is None else self.targets.problem()
        return next((words for words, is_met in wanted.items() if not is_met), unfit)


class TrainingBatch(NamedTuple):
    """What a loss is computed on.

    Attributes:
        wavs: float32 (batch, samples) at 16 kHz, zero on padding.
        wav_lengths: valid samples, int64 (batch,).
        rows: the place of each recording among those that are trained on, int64 (batch,).
        targets: what the recipe's targets have for every frame of each utterance, (frames, ...): int64 or float32;
            None where the recipe has none.
        step: of the training, from 1.
        done: proportion of the training that was done before this update, by updates or by the clock.
    """

    wavs: torch.Tensor
    wav_lengths: torch.Tensor
    rows: torch.Tensor
    targets: list[torch.Tensor] | None = None
    step: int = 1
    done: float = 0.0

    def to(self, device: torch.device) -> TrainingBatch:
        """A copy of the batch on a device."""
        targets = None if self.targets is None else [each.to(device) for each in self.targets]
        return self._replace(
            wavs=self.wavs.to(device),
            wav_lengths=self.wav_lengths.to(device),
            rows=self.rows.to(device),
            targets=targets,
        )


@dataclass(frozen=True)
class PretrainLoss:
    """The loss of a batch, and what else its computation gave.

    Attributes:
        loss: a scalar to go down.
        figures: what else describes the training, scalars without gradient.
        kept: what `after_update` is to be given, without gradient: tensors (count, ...), of any count.
    """

    loss: torch.Tensor
    figures: Mapping[str, torch.Tensor] = field(default_factory=dict)
    kept: Mapping[str, torch.Tensor] = field(default_factory=dict)


class TrainableUpstream(Upstream):
    """An upstream that `pretrain` can train: an encoder, which is kept, and an objective, which trains it.

    All modules and buffers besides `encoder` serve training alone (heads, codebooks, queues, teachers): `prepare` makes
    them, they are part of the state that an interrupted training goes on from, and neither saved nor counted nor
    digested. A subclass takes its configuration, and no more, as its only argument.

    Args:
        config: sizes of the network and of its training task.
        encoder: a module that keeps the contract of a network.

    Attributes:
        config_type: dataclass of the network's sizes and its training task.
        sizes: name -> configuration.
        recipes: name of a size -> how it is trained, a recipe an iteration: each starts from fresh weights, and may
            take its targets from the upstream that the one before gave.
        file_suffix: of what `save` writes; empty for a folder.
        formerly_saved: beginnings of the names of tensors that older files hold besides the encoder's.
        equal_lengths: the utterances of a batch are cut to its shortest, so that the loss sees no padding.
        min_utterances: a micro-batch holds at least so many.
        frames_differ: whether frames of one utterance have to differ in a healthy encoder; losses on one vector an
            utterance say no.
    """

    config_type: ClassVar[type[Any]]
    sizes: ClassVar[Mapping[str, Any]]
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]]
    file_suffix: ClassVar[str] = ".safetensors"
    formerly_saved: ClassVar[tuple[str, ...]] = ()
    equal_lengths: ClassVar[bool] = False
    min_utterances: ClassVar[int] = 1
    frames_differ: ClassVar[bool] = True

    def __init__(self, config: Any, encoder: Network) -> None:
        super().__init__()
        self.config = config
        self.encoder: Any = encoder
        take_sizes(self, encoder)

    @classmethod
    def untrained(cls, config: Any) -> Self:
        """An upstream with random weights, without what only training needs."""
        return cls(config)  # type: ignore[call-arg]  # a subclass makes its encoder itself

    @property
    def inference_module(self) -> nn.Module:
        """See Upstream.inference_module."""
        return self.encoder

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """Makes what only training needs; called once, before the optimiser is made.

        Args:
            recipe: by which it will be trained.
            recordings: how many it will be trained on; `TrainingBatch.rows` are below that.

        Raises: ContractError: the recipe lacks what the loss needs.
        """

    def trainable_blocks(self) -> Sequence[nn.Module]:
        """See Upstream.trainable_blocks."""
        return tuple(self.encoder.blocks)

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        return self.encoder.encode(wavs, wav_lengths)

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        return self.encoder.frame_lengths(wav_lengths)

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> Upstream:
        """Loads what `save` wrote; without a checkpoint the weights are untrained, and the name says so."""
        if checkpoint is None:
            upstream = cls.untrained(cls.sizes["tiny"])
            upstream.label = f"{cls.card.name} (untrained)"
            return upstream
        path = Path(checkpoint)
        config = checkpoints.configuration_for(path, cls.card.name, cls.config_type)
        upstream = checkpoints.built(path, lambda: cls.untrained(config), cls.formerly_saved)
        upstream.training_data = trained_on(cls.read_notes(path))
        return upstream

    @classmethod
    def read_notes(cls, path: Path) -> Mapping[str, Any]:
        """What `save` was given as notes.

        Raises: CheckpointError: missing, damaged, or not one of ours.
        """
        return dict(checkpoints.read_metadata(path)["notes"])

    @classmethod
    def heard_in_pretraining(cls, checkpoint: str | None) -> Mapping[str, Fingerprint]:
        """See Upstream.heard_in_pretraining; the notes of older checkpoints do not have them."""
        return {} if checkpoint is None else heard_by(cls.read_notes(Path(checkpoint)), checkpoint)

    def save(self, path: Path, notes: Mapping[str, Any]) -> None:
        """Writes the encoder's weights, the configuration and notes (how it was trained) atomically."""
        checkpoints.save(path, self.card.name, self.configuration(), self.encoder, notes)

    def configuration(self) -> Mapping[str, Any]:
        """See Upstream.configuration."""
        return asdict(self.config)

    @abstractmethod
    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """The self-supervised loss of a batch; it changes no state, which is what `after_update` is for.

        Args:
            batch: of waveforms.
            generator: the source of randomness for masks; dropout draws from torch's own, which is seeded as well.
        """

    def after_update(self, kept: Mapping[str, torch.Tensor], done: float) -> None:
        """Changes state between two updates, such as a queue, a memory bank or a teacher; without gradient.

        Every one of several processes is given the same tensors, so all make the same change.

        Args:
            kept: what the losses of this update kept, those of all micro-batches joined in their order.
            done: proportion of the training that was done before this update.
        """

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """What is wrong where the figures of the loss say that it is solved without learning anything; else None.

        Args:
            figures: means over the last updates.
            done: proportion of the training that is done.
        """
        return None

    @property
    def min_training_samples(self) -> int:
        """The shortest recording that is trained on."""
        return self.min_samples

    @property
    def skips_layers(self) -> bool:
        """Whether an update may leave parameters out."""
        return False


def trained_on(notes: Mapping[str, Any]) -> str | None:
    """The corpus that a checkpoint of `pretrain` was trained on, by its notes."""
    corpus = notes.get("corpus")
    name = corpus.get("name") if isinstance(corpus, Mapping) else None
    return name if isinstance(name, str) else None


def trainable(entry: type[Upstream]) -> TypeGuard[type[TrainableUpstream]]:
    """Whether `pretrain` can train an upstream of the registry."""
    return issubclass(entry, TrainableUpstream)


def samples_of(seconds: float) -> int:
    """How many samples at 16 kHz so many seconds have."""
    return int(seconds * SAMPLE_RATE)
