"""Optimisers and learning-rate schedules by the names that a recipe gives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from upstreams._pretraining.contract import PretrainRecipe

Parameters = Iterable[nn.Parameter]


def _adamw(parameters: Parameters, recipe: PretrainRecipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters,
        recipe.learning_rate,
        betas=recipe.betas,
        eps=recipe.epsilon,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _adam(parameters: Parameters, recipe: PretrainRecipe) -> torch.optim.Optimizer:
    """Weight decay is added to the gradient, as the name has it in torch."""
    return torch.optim.Adam(
        parameters,
        recipe.learning_rate,
        betas=recipe.betas,
        eps=recipe.epsilon,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _sgd(parameters: Parameters, recipe: PretrainRecipe) -> torch.optim.Optimizer:
    """The first of the betas is the momentum; the second and epsilon play no part."""
    return torch.optim.SGD(
        parameters, recipe.learning_rate, momentum=recipe.betas[0], weight_decay=recipe.weight_decay, fused=True
    )


# LARS, which vision recipes of thousands of images an update use, is not in torch, and small batches do without.
OPTIMISERS: Mapping[str, Callable[[Parameters, PretrainRecipe], torch.optim.Optimizer]] = {
    "adam": _adam,
    "adamw": _adamw,
    "sgd": _sgd,
}
# Proportion of what follows the warm-up that is left -> factor of the peak learning rate.
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda left: float(left > 0),
    "cosine": lambda left: 0.5 * (1 - math.cos(math.pi * min(1.0, left))),
    "linear": lambda left: left,
}


def build_optimiser(parameters: Parameters, recipe: PretrainRecipe) -> torch.optim.Optimizer:
    """The optimiser that a recipe names, over the parameters that ask for a gradient."""
    return OPTIMISERS[recipe.optimiser]([each for each in parameters if each.requires_grad], recipe)


def rate_factor(schedule: str, done: float, then: float, warmup: float) -> float:
    """The learning rate of an update as a factor of the peak: linear warm-up, then what the schedule says.

    Args:
        schedule: a name of SCHEDULES.
        done: proportion of the training before the update.
        then: after it.
        warmup: proportion of the warm-up.
    """
    rising = then / warmup if warmup else 1.0
    decayed = SCHEDULES[schedule]((1 - done) / (1 - warmup))
    return max(0.0, min(1.0, rising, decayed))
