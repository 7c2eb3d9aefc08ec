"""Cached features with their targets, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from core.feature_cache import FeatureCache
from core.lengths import bounded_batches
from downstreams._recipe import Recipe
from downstreams.labels._base import LabelContext, Labels

NO_LIMIT = 1 << 62
READ_BYTES = 1 << 29  # of waveforms that stay in memory: two hours of what is heard and a target
Targets = Sequence[torch.Tensor] | torch.Tensor  # one tensor an utterance, or all stacked where they have one shape


Layers = list[torch.Tensor] | torch.Tensor


class Batch(NamedTuple):
    """Layers, valid frames (batch,), and the utterances' targets.

    The layers are padded, (batch, frames, num_layers, hidden_size), or a list of utterances as they lie in the cache,
    (frames, num_layers, hidden_size) in half precision: the featurizer takes both, and mixes before it pads.
    """

    layers: Layers
    lengths: torch.Tensor
    targets: Targets

    def to(self, device: torch.device) -> Batch:
        """The batch with features and lengths on a device."""
        if isinstance(self.layers, torch.Tensor):
            return Batch(self.layers.to(device), self.lengths.to(device), self.targets)
        return Batch([frames.to(device) for frames in self.layers], self.lengths.to(device), self.targets)


def stacked(targets: Targets) -> torch.Tensor:
    """Targets of one shape as one tensor (batch, ...)."""
    return targets if isinstance(targets, torch.Tensor) else torch.stack(list(targets))


class Examples(Protocol):
    """A split: features and targets."""

    @property
    def targets(self) -> Sequence[torch.Tensor]:
        """Encoded label of every utterance."""

    @property
    def lengths(self) -> Sequence[int]:
        """Valid frames of every utterance."""

    def batch(self, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """The utterances at these places, padded. Where there is something to draw, it is drawn by the generator."""


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
    targets: Sequence[torch.Tensor]

    @property
    def lengths(self) -> Sequence[int]:
        """A mean counts as one frame."""
        return [1] * len(self.targets)

    @cached_property
    def _by_layer(self) -> torch.Tensor:
        """(num_layers, clips, 1, hidden_size): a batch of it is the operand of one product, without a copy."""
        return self.features.movedim(2, 0).contiguous()

    @cached_property
    def _stacked(self) -> torch.Tensor:
        return torch.stack(list(self.targets))

    def batch(self, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """See Examples.batch."""
        places = torch.tensor([drawn(self.places[index], generator) for index in indices])
        layers = self._by_layer.index_select(1, places)  # (num_layers, batch, 1, hidden_size)
        return Batch(layers.movedim(0, 2), torch.ones_like(places), self._stacked[torch.tensor(indices)])


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
    targets: Sequence[torch.Tensor]

    @property
    def lengths(self) -> Sequence[int]:
        """Valid frames of every utterance; the clips of one are equally long."""
        return [self.cache.rows(clips[0]) for clips in self.keys]

    def batch(self, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """See Examples.batch."""
        layers = [torch.from_numpy(self.cache.get(drawn(self.keys[index], generator))) for index in indices]
        lengths = torch.tensor([len(utterance) for utterance in layers])
        return Batch(layers, lengths, [self.targets[index] for index in indices])


Choice = TypeVar("Choice")


def drawn(choices: Sequence[Choice], generator: torch.Generator | None) -> Choice:
    """One of several; a single one costs no random number."""
    return choices[0] if len(choices) == 1 else choices[int(torch.randint(len(choices), (1,), generator=generator))]


def load_examples(
    cache: FeatureCache, keys: Sequence[Sequence[str]], values: Sequence[Any], labels: Labels, downsample_rate: float
) -> PooledExamples | FrameExamples:
    """Features of a cache with encoded labels; means are read into memory, frames stay on disk.

    Args:
        cache: of the kind that the head needs.
        keys: for each utterance the keys of its clips.
        values: for each utterance its label.
        labels: encodes them.
        downsample_rate: samples per frame of the upstream.
    """
    frames = [cache.rows(clips[0]) for clips in keys] if cache.kind == "frames" else [1] * len(keys)
    targets = encoded(labels, values, frames, downsample_rate)
    if cache.kind == "frames":
        return FrameExamples(cache, keys, targets)
    ends = list(accumulate(map(len, keys), initial=0))
    places = [list(range(start, stop)) for start, stop in pairwise(ends)]
    by_layer = np.stack([cache.get(key)[0] for clips in keys for key in clips], axis=1)[:, :, None]
    return PooledExamples(torch.from_numpy(by_layer).movedim(0, 2), places, targets)


def encoded(
    labels: Labels, values: Sequence[Any], frames: Sequence[int], downsample_rate: float
) -> Sequence[torch.Tensor]:
    """Targets of labels, each for an utterance of so many frames; waveforms are read when one asks for them."""
    contexts = [LabelContext(count, downsample_rate) for count in frames]
    if labels.heard:
        return ReadTargets(labels, values, contexts)
    return list(map(labels.encode, values, contexts))


class ReadTargets(Sequence[torch.Tensor]):
    """Targets that are read when one asks for them; the first ones stay in memory, as far as there is room.

    Args:
        labels: encodes them.
        values: for each utterance its label.
        contexts: for each utterance what the encoding depends on besides.
    """

    def __init__(self, labels: Labels, values: Sequence[Any], contexts: Sequence[LabelContext]) -> None:
        self._labels, self._values, self._contexts = labels, values, contexts
        self._read: dict[int, torch.Tensor] = {}
        self._room = READ_BYTES

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if index in self._read:
            return self._read[index]
        target = self._labels.encode(self._values[index], self._contexts[index])
        if self._room >= target.nbytes:
            self._room -= target.nbytes
            self._read[index] = target
        return target


def heard(labels: Labels, targets: Targets) -> tuple[Sequence[torch.Tensor], ...]:
    """What a head is given besides features: the waveforms of a batch, where its labels are some, else nothing."""
    return ([target[0] for target in targets],) if labels.heard else ()


def training_batches(
    examples: Examples, recipe: Recipe, generator: torch.Generator, most_frames: int = NO_LIMIT
) -> Iterator[list[int]]:
    """Places of utterances, without end: every epoch all of them in a new order, neighbours of about one length.

    Where all are equally long this is a plain shuffle. The last batch of an epoch may be small. With
    `recipe.balanced` an epoch draws as many utterances, every class equally often, and drops the last, small batch.

    Args:
        examples: a split.
        recipe: size and kind of the batches.
        generator: decides the order.
        most_frames: a batch has no more, padding included, unless a single utterance does.
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
        batches = bounded_batches(order.tolist(), examples.lengths, most_frames, recipe.batch_size)
        if recipe.balanced and len(batches) > 1 and len(batches[-1]) < recipe.batch_size:
            batches = batches[:-1]
        for number in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[number]


def _class_weights(examples: Examples) -> torch.Tensor:
    """One over the count of each utterance's class."""
    _, classes, counts = torch.stack(list(examples.targets)).unique(dim=0, return_inverse=True, return_counts=True)
    return 1 / counts[classes].double()


def evaluation_batches(examples: Examples, batch_size: int, most_frames: int = NO_LIMIT) -> list[list[int]]:
    """Places of all utterances in order of length, in batches of so many and of so many frames at most."""
    lengths = examples.lengths
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return bounded_batches(order, lengths, most_frames, batch_size)
