"""Vectors that a training keeps from update to update: a queue of the latest, a bank with a row a recording."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from upstreams._pretraining.contrast import Contrast, from_logits


class Queue(nn.Module):
    """The latest vectors; a new one takes the place of the oldest. Begins with random unit vectors, as in MoCo.

    Args:
        count: how many are kept.
        size: of each.
    """

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.register_buffer("rows", functional.normalize(torch.randn(count, size), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.rows: torch.Tensor
        self.place: torch.Tensor

    @torch.no_grad()
    def push(self, vectors: torch.Tensor) -> None:
        """Adds vectors (count, size), of any count; the last of them are the latest."""
        count = len(self.rows)
        begin = int(self.place) + max(0, len(vectors) - count)
        vectors = vectors[-count:]
        places = (begin + torch.arange(len(vectors), device=self.rows.device)) % count
        self.rows[places] = vectors.to(self.rows)
        self.place.fill_((begin + len(vectors)) % count)


class Bank(nn.Module):
    """A unit vector for every recording, moved whenever the recording is met (InstDisc, arXiv:1805.01978).

    Recordings that were not met yet take no part: in the paper's code their rows are random vectors, of which a small
    network learns in the first epoch that no recording is like its own row, and it does not recover.

    Args:
        count: of the recordings.
        size: of each vector.
        momentum: proportion of the old vector that stays.
    """

    def __init__(self, count: int, size: int, momentum: float) -> None:
        super().__init__()
        bound = 1 / math.sqrt(size / 3)
        self.register_buffer("rows", functional.normalize(torch.empty(count, size).uniform_(-bound, bound), dim=1))
        self.register_buffer("met", torch.zeros(count, dtype=torch.bool))
        self.momentum = momentum
        self.rows: torch.Tensor
        self.met: torch.Tensor

    def contrast(self, vectors: torch.Tensor, places: torch.Tensor, temperature: float) -> Contrast:
        """The contrast of each vector's own row with those of all other recordings that were met.

        Args:
            vectors: unit vectors (count, size).
            places: of their recordings, int64 (count,).
            temperature: cosines are divided by it.
        """
        known = self.met[places]
        if not known.any():
            nothing = vectors.new_zeros(())
            return Contrast(0 * vectors.sum(), nothing, nothing)
        logits = vectors[known] @ self.rows.T / temperature
        return from_logits(logits.masked_fill(~self.met, float("-inf")), places[known])

    @torch.no_grad()
    def move(self, places: torch.Tensor, vectors: torch.Tensor) -> None:
        """Moves rows towards unit vectors, one after the other: an update may meet a recording twice.

        Args:
            places: of the recordings, int64 (count,).
            vectors: float (count, size).
        """
        for place, vector in zip(places.tolist(), vectors.to(self.rows), strict=True):
            mixed = self.momentum * self.rows[place] + (1 - self.momentum) * vector
            self.rows[place] = functional.normalize(mixed, dim=0) if self.met[place] else vector
            self.met[place] = True
