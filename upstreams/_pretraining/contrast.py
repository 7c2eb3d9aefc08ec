"""Contrast: the one true vector among others, by their similarities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional


class Contrast(NamedTuple):
    """A contrastive loss, and how well the true ones are found.

    Attributes:
        loss: mean cross-entropy of the true one, a scalar.
        accuracy: how often it is the most similar, without gradient.
        chance: how often it would be by chance, without gradient.
    """

    loss: torch.Tensor
    accuracy: torch.Tensor
    chance: torch.Tensor

    def figures(self) -> dict[str, torch.Tensor]:
        """What `collapsed` wants to know of it."""
        return {"contrast_accuracy": self.accuracy, "chance": self.chance}


def from_logits(logits: torch.Tensor, targets: torch.Tensor) -> Contrast:
    """The contrast of candidates (queries, candidates), of which `targets` (queries,) are the true ones."""
    found = logits.detach().argmax(dim=1) == targets
    chance = torch.isfinite(logits.detach()).sum(dim=1).float().reciprocal().mean()
    return Contrast(functional.cross_entropy(logits, targets), found.float().mean(), chance)


def info_nce(queries: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor, temperature: float) -> Contrast:
    """InfoNCE with negatives that all queries share (MoCo's form, arXiv:1911.05722).

    Args:
        queries: unit vectors (count, size).
        positives: of each query, unit vectors (count, size).
        negatives: unit vectors (others, size).
        temperature: similarities are divided by it.
    """
    true = (queries * positives).sum(dim=1, keepdim=True)
    logits = torch.cat([true, queries @ negatives.T], dim=1) / temperature
    return from_logits(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> Contrast:
    """SimCLR's loss (arXiv:2002.05709): each view's partner among all other vectors of both views, mean over 2N.

    Args:
        first: vectors (clips, size) of one view, of any length.
        second: of the other view, in the same order.
        temperature: cosines are divided by it.
    """
    both = functional.normalize(torch.cat([first, second]), dim=1)
    logits = both @ both.T / temperature
    itself = torch.eye(len(both), dtype=torch.bool, device=both.device)
    partner = torch.arange(len(both), device=both.device).roll(len(first))
    return from_logits(logits.masked_fill(itself, float("-inf")), partner)


def batch_contrast(queries: torch.Tensor, keys: torch.Tensor, temperature: float) -> Contrast:
    """Each query's key of the same place among the keys of the batch, one direction; similarities are dot products."""
    logits = queries @ keys.T / temperature
    return from_logits(logits, torch.arange(len(logits), device=logits.device))
