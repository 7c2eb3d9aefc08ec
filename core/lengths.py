"""Lengths, padding masks and padded batches. The only place where masks are made; True means padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch


def padding_mask(lengths: torch.Tensor, size: int | None = None) -> torch.Tensor:
    """Bool (batch, size), True on padding. `size` is the longest length if left out."""
    size = int(lengths.max()) if size is None else size
    return torch.arange(size, device=lengths.device)[None, :] >= lengths[:, None]


def lengths_of(mask: torch.Tensor) -> torch.Tensor:
    """int64 (batch,): the valid positions of a padding mask (batch, size)."""
    return (~mask).sum(dim=1)


def pad(sequences: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero-pads sequences (length_i, ...) to (batch, longest, ...) and gives their lengths, int64 (batch,)."""
    lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths


def unpad(batch: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
    """The valid part (length_i, ...) of each row of a padded batch."""
    return [row[:length] for row, length in zip(batch, lengths.tolist(), strict=True)]


def bounded_batches(
    order: Iterable[int], lengths: Sequence[int], budget: int, most: int | None = None
) -> list[list[int]]:
    """Cuts an order of places into batches.

    Args:
        order: places; neighbours come into one batch.
        lengths: of what is at each place.
        budget: a batch has no more positions, padding included, unless a single one has.
        most: places of a batch at most; None has no end.
    """
    batches: list[list[int]] = []
    longest = 0
    for place in order:
        longest = max(longest, lengths[place])
        if not batches or len(batches[-1]) == most or longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
            longest = lengths[place]
        batches[-1].append(place)
    return batches


def mean_over_valid(batch: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Mean over the valid positions of dimension 1: (batch, frames, ...) -> (batch, ...)."""
    if batch.shape[1] == 1:  # pooled features: a thousand updates a second notice the masks
        return batch[:, 0]
    mask = padding_mask(lengths, batch.shape[1])
    mask = mask.reshape(*mask.shape, *[1] * (batch.dim() - 2))
    counts = lengths.to(batch.dtype).reshape(-1, *[1] * (batch.dim() - 2))
    return batch.masked_fill(mask, 0).sum(dim=1) / counts
