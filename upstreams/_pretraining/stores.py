"""Vectors that a training keeps from update to update: a queue of the latest, a bank with a row a recording."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional


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

    Args:
        count: of the recordings.
        size: of each vector.
        momentum: proportion of the old vector that stays.
    """

    def __init__(self, count: int, size: int, momentum: float) -> None:
        super().__init__()
        bound = 1 / math.sqrt(size / 3)
        self.register_buffer("rows", functional.normalize(torch.empty(count, size).uniform_(-bound, bound), dim=1))
        self.momentum = momentum
        self.rows: torch.Tensor

    @torch.no_grad()
    def move(self, places: torch.Tensor, vectors: torch.Tensor) -> None:
        """Moves rows towards unit vectors, one after the other: an update may meet a recording twice.

        Args:
            places: of the recordings, int64 (count,).
            vectors: float (count, size).
        """
        for place, vector in zip(places.tolist(), vectors.to(self.rows), strict=True):
            mixed = self.momentum * self.rows[place] + (1 - self.momentum) * vector
            self.rows[place] = functional.normalize(mixed, dim=0)
