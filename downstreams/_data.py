"""Cached features with their targets, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from core.feature_cache import FeatureCache
from core.lengths import pad
from downstreams._labels import Labels


class Batch(NamedTuple):
    """Layers (batch, frames, num_layers, hidden_size), valid frames (batch,), and one target tensor an utterance."""

    layers: torch.Tensor
    lengths: torch.Tensor
    targets: list[torch.Tensor]


class Examples(Protocol):
    """A split: features and targets."""

    @property
    def lengths(self) -> Sequence[int]:
        """Valid frames of every utterance."""

    def batch(self, indices: Sequence[int]) -> Batch:
        """The utterances at these places, padded."""


@dataclass(frozen=True)
class PooledExamples:
    """Layer means, all in memory: (utterances, 1, num_layers, hidden_size)."""

    features: torch.Tensor
    targets: list[torch.Tensor]

    @property
    def lengths(self) -> Sequence[int]:
        """A mean counts as one frame."""
        return [1] * len(self.targets)

    def batch(self, indices: Sequence[int]) -> Batch:
        """See Examples.batch."""
        places = torch.tensor(indices)
        lengths = torch.ones(len(indices), dtype=torch.int64)
        return Batch(self.features[places], lengths, [self.targets[index] for index in indices])


@dataclass(frozen=True)
class FrameExamples:
    """Frames, left on disk and mapped when a batch asks for them."""

    cache: FeatureCache
    keys: Sequence[str]
    targets: list[torch.Tensor]

    @property
    def lengths(self) -> Sequence[int]:
        """Valid frames of every utterance."""
        return [self.cache.rows(key) for key in self.keys]

    def batch(self, indices: Sequence[int]) -> Batch:
        """See Examples.batch."""
        arrays = [torch.from_numpy(self.cache.get(self.keys[index]).astype(np.float32)) for index in indices]
        layers, lengths = pad(arrays)
        return Batch(layers, lengths, [self.targets[index] for index in indices])


def load_examples(cache: FeatureCache, keys: Sequence[str], values: Sequence[Any], labels: Labels) -> Examples:
    """Features of a cache with encoded labels; means are read into memory, frames stay on disk."""
    targets = [labels.encode(value) for value in values]
    if cache.kind == "frames":
        return FrameExamples(cache, keys, targets)
    features = torch.from_numpy(np.stack([cache.get(key) for key in keys]))
    return PooledExamples(features, targets)


def training_batches(examples: Examples, batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Places of utterances, without end: every epoch all of them in a new order, neighbours of about one length.

    Where all are equally long this is a plain shuffle. The last batch of an epoch may be small.
    """
    lengths = torch.tensor(examples.lengths, dtype=torch.float32)
    while True:
        order = torch.randperm(len(lengths), generator=generator)
        if lengths.max() > 1:
            # Blurred by up to a quarter: even batches, but other ones every epoch.
            blur = 1 + 0.25 * torch.rand(len(lengths), generator=generator)
            order = order[(lengths * blur)[order].argsort(stable=True)]
        batches = order.split(batch_size)
        for number in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[number].tolist()


def evaluation_batches(examples: Examples, batch_size: int) -> list[list[int]]:
    """Places of all utterances in order of length."""
    order = sorted(range(len(examples.lengths)), key=lambda index: -examples.lengths[index])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
