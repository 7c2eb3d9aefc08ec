"""A method for tests: keys of a slow teacher, a queue of them, a bank by recording, targets that are floats."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from core.audio import read_audio
from core.hidden_states import HiddenStates
from core.lengths import unpad
from upstreams._base import UPSTREAMS, UpstreamCard
from upstreams._encoders import kaldi
from upstreams._encoders.mel_gru import MelGRU
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainableUpstream, TrainingBatch
from upstreams._pretraining.targets import TargetRecipe, Targets, TargetSource

QUEUE = 50
SIZE = 8


@dataclass(frozen=True)
class QueueConfig:
    """Sizes."""

    hidden_size: int = 16
    momentum: float = 0.9


@dataclass(frozen=True)
class Projections(TargetRecipe):
    """Log mel frames through a fixed random matrix: floats, computed from no upstream."""

    size: int = 3
    option_names: ClassVar[Mapping[str, str]] = {"size": "projection_size"}

    @property
    def title(self) -> str:
        """What they are called."""
        return f"{self.size} projections"

    def problem(self, num_layers: int | None = None) -> str | None:
        """None but for a size of nothing."""
        return None if self.size > 0 else "projection_size must be above 0"

    def make(self, source: TargetSource) -> Targets:
        """One row a frame."""
        matrix = torch.randn(80, self.size, generator=torch.Generator().manual_seed(source.seed)) / 80
        frames = {row.id: kaldi.fbank(read_audio(row.path, row.start, row.stop)) @ matrix for row in source.utterances}
        return Targets(frames, {"spread": float(torch.cat(list(frames.values())).std())})

    def example(self, frames: int) -> torch.Tensor:
        """Ones."""
        return torch.ones(frames, self.size)


class QueueMethod(TrainableUpstream):
    """The queue is filled, the bank written and the teacher moved between updates only."""

    card = UpstreamCard(name="queue_method", title="For tests", paper="none")
    config_type = QueueConfig
    sizes: ClassVar = {"tiny": QueueConfig(), "small": QueueConfig()}
    recipes: ClassVar = {
        size: (PretrainRecipe(30, 6, 3e-3, micro_batches=2, targets=Projections()),) for size in ("tiny", "small")
    }
    min_utterances = 3
    frames_differ = False
    last: ClassVar[QueueMethod]

    def __init__(self, config: QueueConfig = QueueConfig()) -> None:
        super().__init__(config, MelGRU(1, config.hidden_size))
        self.seen: list[tuple[int, float, tuple[int, ...]]] = []

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        assert isinstance(recipe.targets, Projections)
        self.head = nn.Linear(self.hidden_size, SIZE)
        self.regression = nn.Linear(self.hidden_size, recipe.targets.size)
        self.teacher = copy.deepcopy(nn.ModuleList([self.encoder, self.head])).requires_grad_(False)
        self.register_buffer("queue", functional.normalize(torch.randn(QUEUE, SIZE), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("bank", torch.zeros(recordings, SIZE))
        QueueMethod.last = self

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        states = self.encoder.encode(batch.wavs, batch.wav_lengths)
        queries = functional.normalize(self.head(states.pooled()[:, -1]), dim=1)
        encoder, head = self.teacher
        with torch.no_grad():
            pooled: HiddenStates = encoder.encode(batch.wavs, batch.wav_lengths)
            keys = functional.normalize(head(pooled.pooled()[:, -1]), dim=1)
        logits = torch.cat([(queries * keys).sum(dim=1, keepdim=True), queries @ self.queue.T], dim=1)
        contrast = functional.cross_entropy(logits / 0.2, torch.zeros(len(logits), dtype=torch.int64))
        frames = torch.cat(unpad(states.layers[-1], states.lengths))
        wanted = torch.cat([each[:length] for each, length in zip(batch.targets, states.lengths.tolist(), strict=True)])
        self.seen.append((batch.step, batch.done, tuple(batch.rows.tolist())))
        loss = contrast + functional.mse_loss(self.regression(frames), wanted)
        return PretrainLoss(loss, {"contrast": contrast}, {"keys": keys, "rows": batch.rows})

    def after_update(self, kept: Mapping[str, torch.Tensor], done: float) -> None:
        assert not torch.is_grad_enabled()
        places = (self.pointer + torch.arange(len(kept["keys"]))) % QUEUE
        self.queue[places] = kept["keys"]
        self.pointer.copy_((places[-1] + 1) % QUEUE)
        self.bank[kept["rows"]] = kept["keys"]
        momentum = 1 - (1 - self.config.momentum) * (1 - done)
        student = nn.ModuleList([self.encoder, self.head])
        for slow, fast in zip(self.teacher.parameters(), student.parameters(), strict=True):
            slow.lerp_(fast, 1 - momentum)

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        return f"asked at the end: {done:g}" if done == 1 else None


def register(patch) -> None:
    """Enters it in the registry as long as the patch lasts."""
    UPSTREAMS.names()  # discovered before, or the discovery would be patched away with it
    patch.setitem(UPSTREAMS._entries, "queue_method", QueueMethod)
