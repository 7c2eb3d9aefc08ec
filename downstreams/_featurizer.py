"""The featurizer: a learned softmax-weighted sum over an upstream's layers (SUPERB, arXiv:2105.01051), or one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.lengths import pad

BLOCK_NUMBERS = 160_000  # converted at a time on a CPU: in both precisions they fit its second-level cache


class Featurizer(nn.Module):
    """Mixes the layers of hidden states.

    The sum is linear, so it commutes with the mean over time: fed with layer means it gives the mean of what it would
    give frame by frame. The optional layer norm does not, so it has to be done before the mean is taken.

    Args:
        num_layers: how many layers come in.
        normalise: layer-normalise every hidden state over its width, without gain or bias, before the sum.
        layer: the only one that counts, nothing is learned then; None learns a sum of all.
    """

    def __init__(self, num_layers: int, normalise: bool = False, layer: int | None = None) -> None:
        super().__init__()
        self.normalise = normalise
        self.layer = layer
        self.weights: torch.Tensor
        if layer is None:
            self.weights = nn.Parameter(torch.zeros(num_layers))
        else:
            weights = torch.full((num_layers,), -torch.inf)  # no other layer has a share after the softmax
            weights[layer] = 0
            self.register_buffer("weights", weights)

    def forward(self, layers: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """The weighted sum over the second last axis.

        Args:
            layers: of a padded batch (..., num_layers, hidden_size), or a list of utterances, each (frames,
                num_layers, hidden_size) in any precision.

        Returns: (..., hidden_size); of a list (utterances, longest, hidden_size), zero on padding.
        """
        if self.layer is not None:
            return self._only(layers, self.layer)
        if not isinstance(layers, torch.Tensor):
            return _Mix.apply(self.layer_weights(), self.normalise, *layers)
        if self.normalise:
            layers = functional.layer_norm(layers, layers.shape[-1:])
        return self.layer_weights() @ layers

    def _only(self, layers: torch.Tensor | Sequence[torch.Tensor], layer: int) -> torch.Tensor:
        if isinstance(layers, torch.Tensor):
            features = layers[..., layer, :]
        else:
            features = pad([frames[:, layer].to(self.weights) for frames in layers])[0]
        return functional.layer_norm(features, features.shape[-1:]) if self.normalise else features

    def layer_weights(self) -> torch.Tensor:
        """The weights after softmax (num_layers,): they start equal and always sum to one."""
        return self.weights.softmax(dim=0)


class _Mix(torch.autograd.Function):
    """The weighted sum of utterances as they lie in the cache: neither copied, nor padded, nor converted as a whole.

    Half precision is read a block at a time, in both directions. It costs no more than the sum of numbers that lie in
    memory in single precision, where to convert them first would cost several times as much as the sum itself.
    """

    @staticmethod
    def forward(ctx: Any, weights: torch.Tensor, normalise: bool, *utterances: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weights, *utterances)
        ctx.normalise = normalise
        width = utterances[0].shape[-1]
        mixed = weights.new_zeros(len(utterances), max(map(len, utterances)), width)
        for row, frames in zip(mixed, utterances, strict=True):
            for start, block in _blocks(frames, weights, normalise):
                torch.matmul(weights, block, out=row[start : start + len(block)])
        return mixed

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        weights, *utterances = ctx.saved_tensors
        by_weight = torch.zeros_like(weights)
        for row, frames in zip(slope, utterances, strict=True):
            for start, block in _blocks(frames, weights, ctx.normalise):
                # As row times matrix: the same product the other way round takes five times as long on a CPU.
                by_weight += torch.bmm(row[start : start + len(block), None], block.mT).sum(dim=0)[0]
        return by_weight, None, *(None for _ in utterances)


def _blocks(frames: torch.Tensor, like: torch.Tensor, normalise: bool) -> Iterator[tuple[int, torch.Tensor]]:
    """(first frame, block) in the precision and on the device of the weights; the next block may overwrite this one."""
    size = max(1, BLOCK_NUMBERS // frames[0].numel()) if like.device.type == "cpu" else len(frames)
    room = None if frames.dtype == like.dtype else like.new_empty(min(size, len(frames)), *frames.shape[1:])
    for start in range(0, len(frames), size):
        block = frames[start : start + size]
        block = block.to(like) if room is None else room[: len(block)].copy_(block)
        yield start, functional.layer_norm(block, block.shape[-1:]) if normalise else block
