"""Cached features with their targets, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from core.feature_cache import FeatureCache
from core.lengths import pad
from downstreams._labels import Labels
from downstreams._recipe import Recipe


class Batch(NamedTuple):
    """Layers (batch, frames, num_layers, hidden_size), valid frames (batch,), and one target tensor an utterance."""

    layers: torch.Tensor
    lengths: torch.Tensor
    targets: list[torch.Tensor]


class Examples(Protocol):
    """A split: features and targets."""

    @property
    def targets(self) -> list[torch.Tensor]:
        """Encoded label of every utterance."""

    @property
    def lengths(self) -> Sequence[int]:
        """Valid frames of every utterance."""

    def batch(self, indices: Sequence[int]) -> Batch:
        """The utterances at these places, padded."""


@dataclass(frozen=True)
class PooledExamples:
    """Layer means, all in memory.

    Attributes:
        features: of all clips (clips, 1, num_layers, hidden_size).
        places: for each utterance the places of its clips; of several, a batch draws one.
        targets: encoded label of every utterance.
    """

    features: torch.Tensor
    places: list[list[int]]
    targets: list[torch.Tensor]

    @property
    def lengths(self) -> Sequence[int]:
        """A mean counts as one frame."""
        return [1] * len(self.targets)

    def batch(self, indices: Sequence[int]) -> Batch:
        """See Examples.batch."""
        chosen = torch.tensor([drawn(self.places[index]) for index in indices])
        lengths = torch.ones(len(indices), dtype=torch.int64)
        return Batch(self.features[chosen], lengths, [self.targets[index] for index in indices])


@dataclass(frozen=True)
class FrameExamples:
    """Frames, left on disk and mapped when a batch asks for them.

    Attributes:
        cache: where they lie.
        keys: for each utterance the keys of its clips; of several, a batch draws one.
        targets: encoded label of every utterance.
    """

    cache: FeatureCache
    keys: Sequence[Sequence[str]]
    targets: list[torch.Tensor]

    @property
    def lengths(self) -> Sequence[int]:
        """Valid frames of every utterance; the clips of one are equally long."""
        return [self.cache.rows(clips[0]) for clips in self.keys]

    def batch(self, indices: Sequence[int]) -> Batch:
        """See Examples.batch."""
        arrays = [torch.from_numpy(self.cache.get(drawn(self.keys[index])).astype(np.float32)) for index in indices]
        layers, lengths = pad(arrays)
        return Batch(layers, lengths, [self.targets[index] for index in indices])


Choice = TypeVar("Choice")


def drawn(choices: Sequence[Choice]) -> Choice:
    """One of several, by torch's global generator; a single one costs no random number."""
    return choices[0] if len(choices) == 1 else choices[int(torch.randint(len(choices), (1,)))]


def load_examples(
    cache: FeatureCache, keys: Sequence[Sequence[str]], values: Sequence[Any], labels: Labels
) -> PooledExamples | FrameExamples:
    """Features of a cache with encoded labels; means are read into memory, frames stay on disk.

    Args:
        cache: of the kind that the head needs.
        keys: for each utterance the keys of its clips.
        values: for each utterance its label.
        labels: encodes them.
    """
    targets = [labels.encode(value) for value in values]
    if cache.kind == "frames":
        return FrameExamples(cache, keys, targets)
    ends = list(accumulate(map(len, keys), initial=0))
    places = [list(range(start, stop)) for start, stop in pairwise(ends)]
    features = torch.from_numpy(np.stack([cache.get(key) for clips in keys for key in clips]))
    return PooledExamples(features, places, targets)


def training_batches(examples: Examples, recipe: Recipe, generator: torch.Generator) -> Iterator[list[int]]:
    """Places of utterances, without end: every epoch all of them in a new order, neighbours of about one length.

    Where all are equally long this is a plain shuffle. The last batch of an epoch may be small. With
    `recipe.balanced` an epoch draws as many utterances, every class equally often, and drops the last, small batch.
    """
    lengths = torch.tensor(examples.lengths, dtype=torch.float32)
    while True:
        if recipe.balanced:
            order = torch.multinomial(_class_weights(examples), len(lengths), replacement=True, generator=generator)
        else:
            order = torch.randperm(len(lengths), generator=generator)
        if lengths.max() > 1:
            if recipe.even_batches:  # those of one length stay together, too
                order, blur = order.sort().values, torch.zeros(len(lengths))
            else:  # by up to a quarter: even batches, but other ones every epoch
                blur = 0.25 * torch.rand(len(lengths), generator=generator)
            order = order[(lengths * (1 + blur))[order].argsort(stable=True)]
        batches = order.split(recipe.batch_size)
        if recipe.balanced and len(batches) > 1 and len(batches[-1]) < recipe.batch_size:
            batches = batches[:-1]
        for number in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[number].tolist()


def _class_weights(examples: Examples) -> torch.Tensor:
    """One over the count of each utterance's class."""
    _, classes, counts = torch.stack(examples.targets).unique(dim=0, return_inverse=True, return_counts=True)
    return 1 / counts[classes].double()


def evaluation_batches(examples: Examples, batch_size: int) -> list[list[int]]:
    """Places of all utterances in order of length."""
    order = sorted(range(len(examples.lengths)), key=lambda index: -examples.lengths[index])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
