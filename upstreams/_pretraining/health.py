"""Figures that show whether vectors of recordings still differ, and the sentences where they do not.

They are taken of an encoder's own output: a head may end in a batch norm, behind which everything has unit variance.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

ALIKE = 0.1  # spread below it: 1 is evenly in all directions, 0 one point
ONE_DIRECTION = 2.0  # rank below it
EASY, EASY_BEFORE = 0.99, 0.3  # accuracy of a contrast that is solved, and until when in the training that is too early
HARD, HARD_AFTER = 2.0, 0.9  # multiple of chance that is none, and from when on it counts


def spread(vectors: torch.Tensor) -> torch.Tensor:
    """Mean deviation of unit vectors (count, size) over the batch, times the root of the size: 1 in all directions.

    Reference: SimSiam (arXiv:2011.10566), which plots the deviation beside 1 / sqrt(size).
    """
    unit = functional.normalize(vectors.float(), dim=1)
    return unit.std(dim=0, correction=0).mean() * vectors.shape[1] ** 0.5


def rank(vectors: torch.Tensor) -> torch.Tensor:
    """Effective rank of vectors (count, size) about their mean: the exponent of the singular values' entropy."""
    centred = vectors.float() - vectors.float().mean(dim=0)
    values = torch.linalg.svdvals(centred)
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return torch.xlogy(shares, shares).sum().neg().exp()


@torch.no_grad()
def projected(vectors: torch.Tensor) -> dict[str, torch.Tensor]:
    """Spread and rank of what a head makes of the pooled vectors, (count, size).

    A head may give all recordings one vector, after which nothing reaches the encoder; one that ends in a batch norm
    may give them one direction.
    """
    return {"projected_spread": spread(vectors), "projected_rank": rank(vectors)}


@torch.no_grad()
def figures(vectors: torch.Tensor) -> dict[str, torch.Tensor]:
    """Spread and rank of the pooled vectors of a batch, (count, size)."""
    return {"spread": spread(vectors), "rank": rank(vectors)}


def alike(found: Mapping[str, float]) -> str | None:
    """What is wrong where recordings can no longer be distinguished; None where they can."""
    for where, prefix in (("their vectors", ""), ("their projections", "projected_")):
        wide, directions = found.get(f"{prefix}spread", 1.0), found.get(f"{prefix}rank", ONE_DIRECTION)
        if wide < ALIKE:
            return f"recordings all alike: the spread of {where} is {wide:.3f}, 1 is in all directions"
        if directions < ONE_DIRECTION:
            return f"one direction: {where} have an effective rank of {directions:.1f}"
    return None


def contrast_problem(found: Mapping[str, float], done: float) -> str | None:
    """What is wrong where a contrast is solved at once, or never; None where it is neither."""
    accuracy, chance = found["contrast_accuracy"], found["chance"]
    if done < EASY_BEFORE and accuracy >= EASY:
        return (
            f"too easy: {100 * accuracy:.3g} % of the true ones are found after {100 * done:.0f} % of the training, so "
            f"the views share a shortcut; raise strength"
        )
    if done >= HARD_AFTER and accuracy < HARD * chance:
        return f"too hard: {100 * accuracy:.3g} % of the true ones are found, by chance {100 * chance:.3g} % would be"
    return None
