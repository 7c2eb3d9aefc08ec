"""A teacher: a slow average of a network that is trained, without gradient, by torch's AveragedModel."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Teacher(nn.Module):
    """Begins as a copy of the student and follows it; never trains, and never asks for a gradient.

    Args:
        student: whose parameters are averaged.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        # The number of updates that it counts is a buffer, so an interrupted training goes on as it was. The first
        # update of a fresh AveragedModel copies the student once more; this one averages from the start.
        self.average = AveragedModel(student).requires_grad_(False).eval()
        self.average.n_averaged.fill_(1)

    @property
    def network(self) -> nn.Module:
        """The average, of the student's class."""
        return self.average.module

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Moves every parameter to momentum * its value + (1 - momentum) * the student's."""
        self.average.multi_avg_fn = get_ema_multi_avg_fn(momentum)
        self.average.update_parameters(student)


def cosine_to_one(start: float, done: float) -> float:
    """BYOL's momentum: from `start` at the beginning of the training to 1 at its end (arXiv:2006.07733)."""
    return 1 - (1 - start) * (math.cos(math.pi * min(1.0, done)) + 1) / 2


def linear_to(start: float, end: float, until: float, done: float) -> float:
    """data2vec's momentum: straight from `start` to `end`, reached at the proportion `until` of the training."""
    return end if until <= 0 or done >= until else start + (end - start) * done / until
