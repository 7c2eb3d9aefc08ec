"""Learning-rate schedules by the names that a recipe gives them."""

from __future__ import annotations

import math
from collections.abc import Callable

from core.registry import Registry

Schedule = Callable[[int, int, int], float]  # update (from 1), updates of the recipe, updates of warm-up -> factor
SCHEDULES: Registry[Schedule] = Registry("schedule", "downstreams", group="frostbench.schedules")


def constant(step: int, steps: int, warmup: int) -> float:
    """A linear rise to the recipe's rate over the warm-up, which is then kept."""
    return min(1.0, step / warmup) if warmup else 1.0


def linear(step: int, steps: int, warmup: int) -> float:
    """A linear rise over the warm-up, then a linear fall to zero over the rest."""
    return step / warmup if step <= warmup else 1 - (step - 1 - warmup) / (steps - warmup)


def inverse_sqrt(step: int, steps: int, warmup: int) -> float:
    """A linear rise over the warm-up, then a fall by the square root of the update (Vaswani et al., 2017)."""
    return step / warmup if step <= warmup else math.sqrt(max(1, warmup) / step)


def inverse_sqrt_s3prl(step: int, steps: int, warmup: int) -> float:
    """SUPERB's for speech translation: after the warm-up the rate drops at once to 1 / sqrt(update) of the recipe's."""
    return step / warmup if step <= warmup else 1 / math.sqrt(step)


for _schedule in (constant, linear, inverse_sqrt, inverse_sqrt_s3prl):
    SCHEDULES.add(_schedule.__name__, _schedule)
