"""SpecAugment on mixed features (Park et al., arXiv:1904.08779), with the widths that s3prl draws for SUPERB."""

from __future__ import annotations

import torch
from torch.nn import functional

from downstreams._recipe import SpecAugment


def augment(features: torch.Tensor, lengths: torch.Tensor, settings: SpecAugment) -> torch.Tensor:
    """Warps and masks each utterance on its own; chance comes from torch's global generator.

    Args:
        features: float (batch, frames, hidden_size).
        lengths: valid frames, int64 (batch,).
        settings: what to do.

    Returns: a new tensor of the same shape; masked values are zero, as in the reference.
    """
    rows = []
    for row, length in zip(features, lengths.tolist(), strict=True):
        valid = _warped(row[:length], settings.warp_frames)
        mask = torch.zeros_like(valid, dtype=torch.bool)
        for _ in range(settings.time_masks):
            start, stop = _span(length, settings.time_width)
            mask[start:stop] = True
        for _ in range(settings.feature_masks):
            start, stop = _span(valid.shape[1], settings.feature_width)
            mask[:, start:stop] = True
        rows.append(torch.cat([valid.masked_fill(mask, 0), row[length:]]))
    return torch.stack(rows)


def _span(size: int, width: int) -> tuple[int, int]:
    """A random piece of an axis: its width uniform in [0, width), at most the axis."""
    chosen = min(int(torch.randint(width, (1,))), size)
    start = int(torch.randint(size - chosen + 1, (1,)))
    return start, start + chosen


def _warped(row: torch.Tensor, window: int) -> torch.Tensor:
    """Stretches the part before a random frame and shrinks the part behind it, or the reverse, bicubically."""
    frames = len(row)
    if window == 0 or frames - window <= window:  # too short to bend
        return row
    centre = int(torch.randint(window, frames - window, (1,)))
    moved = int(torch.randint(centre - window, centre + window, (1,))) + 1
    return torch.cat([_resized(row[:centre], moved), _resized(row[centre:], frames - moved)])


def _resized(part: torch.Tensor, frames: int) -> torch.Tensor:
    """Bicubically over time. Interpolation is linear: what it makes of the unit matrix multiplies the part, because the
    gradient of a product is ten times as fast as that of `interpolate`.
    """
    if frames == 0:
        return part[:0]
    unit = torch.eye(len(part), dtype=part.dtype, device=part.device)
    size = (frames, len(part))
    return functional.interpolate(unit[None, None], size=size, mode="bicubic", align_corners=False)[0, 0] @ part
