"""What stands behind an encoder in training alone: pooling over time, projections with the norms of the papers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from core.lengths import mean_over_valid, padding_mask


class BatchNorm(nn.BatchNorm1d):
    """By the statistics of the batch, in training and in evaluation: there are no running ones that a teacher lacks.

    Args:
        size: of a row.
        affine: whether it has a scale and a bias.
    """

    def __init__(self, size: int, affine: bool = True) -> None:
        super().__init__(size, affine=affine, track_running_stats=False)


def mlp(
    sizes: Sequence[int],
    *,
    batch_norm: bool = True,
    hidden_bias: bool = True,
    last_bias: bool = True,
    last_norm: bool = False,
) -> nn.Sequential:
    """Linear layers with ReLU between them.

    Args:
        sizes: of the input, of every layer's output.
        batch_norm: whether one stands before each ReLU.
        hidden_bias: of all layers but the last.
        last_bias: of the last layer.
        last_norm: whether a batch norm without scale and bias ends it.
    """
    parts: list[nn.Module] = []
    for number, (size, following) in enumerate(pairwise(sizes), start=2):
        if number < len(sizes):
            parts.append(nn.Linear(size, following, bias=hidden_bias))
            parts += [BatchNorm(following), nn.ReLU()] if batch_norm else [nn.ReLU()]
        else:
            parts.append(nn.Linear(size, following, bias=last_bias))
    if last_norm:
        parts.append(BatchNorm(sizes[-1], affine=False))
    return nn.Sequential(*parts)


def mean_and_max(frames: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
    """Mean and maximum over time side by side, (batch, frames, size) -> (batch, 2 x size), as in BYOL-A.

    Args:
        frames: of each clip.
        lengths: valid frames, int64 (batch,); all of them if None.
    """
    if lengths is None:
        return torch.cat([frames.mean(dim=1), frames.amax(dim=1)], dim=1)
    mask = padding_mask(lengths, frames.shape[1])[:, :, None]
    most = frames.masked_fill(mask, float("-inf")).amax(dim=1)
    return torch.cat([mean_over_valid(frames, lengths), most], dim=1)
