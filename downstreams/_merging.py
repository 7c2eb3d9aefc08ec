"""Fewer frames a second: neighbours joined to their mean."""

from __future__ import annotations

import torch
from torch.nn import functional

from core.lengths import padding_mask


def merged(features: torch.Tensor, lengths: torch.Tensor, stride: int) -> torch.Tensor:
    """Means of `stride` neighbouring frames; a last, incomplete group has what there is.

    Args:
        features: (batch, frames, size).
        lengths: valid frames (batch,).
        stride: 1 leaves them as they are.

    Returns: (batch, frames / stride, size), of which `merged_lengths` are valid.
    """
    if stride == 1:
        return features
    mask = padding_mask(lengths, features.shape[1])
    missing = -features.shape[1] % stride
    valid = functional.pad((~mask).to(features.dtype), (0, missing)).unflatten(1, (-1, stride))
    kept = functional.pad(features.masked_fill(mask[:, :, None], 0), (0, 0, 0, missing))
    counts = valid.sum(dim=2).clamp(min=1)
    return kept.unflatten(1, (-1, stride)).sum(dim=2) / counts[:, :, None]


def merged_lengths(lengths: torch.Tensor, stride: int) -> torch.Tensor:
    """Groups of `stride` frames, the last of which may be incomplete."""
    return (lengths + stride - 1).div(stride, rounding_mode="floor")
