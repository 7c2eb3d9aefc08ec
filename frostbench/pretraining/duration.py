"""How long pretrainings are expected to take, before anything of them is measured."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from frostbench.grid.costs import RECORDING
from frostbench.jobs.forecast import Cost, Stage, Work
from upstreams._pretraining.contract import PretrainRecipe, TrainableUpstream
from upstreams._pretraining.plan import Pretraining, cost_of
from upstreams._pretraining.trainer import LOG_EVERY

# Seconds of one core that the tiny recipe of every method takes, between a fast and a slow one; what is measured
# corrects it.
TINY_SECONDS = 250.0
STARTING = 5.0  # seconds of a training until its first update
CHECKING, PRETRAINING = "checking recordings", "pretraining"  # stages


def stages_of(plans: Sequence[Pretraining], recordings: int) -> list[Stage]:
    """Looking at every recording, then all trainings."""
    return [
        Stage(CHECKING, [Work((CHECKING,), recordings, RECORDING, step=1.0)]),
        Stage(PRETRAINING, [_work(plan) for plan in plans]),
    ]


def _work(plan: Pretraining) -> Work:
    amount = sum(map(cost_of, plan.recipes))
    step = LOG_EVERY * min(recipe.batch_seconds for recipe in plan.recipes)
    if plan.recipes[0].minutes > 0:  # it ends by the clock
        return Work((PRETRAINING, "by the clock"), amount, Cost(STARTING, 1.0), step=1.0)
    cost = Cost(STARTING, _seconds_per_second(plan), trust=TINY_SECONDS / 10)
    return Work((PRETRAINING, f"{plan.upstream}, {plan.size}"), amount, cost, step=step)


def _seconds_per_second(plan: Pretraining) -> float:
    """Of one core, for a second of audio: as of the tiny size, times how many more parameters this one has."""
    kind = plan.kind
    if "tiny" not in kind.sizes:
        return TINY_SECONDS / sum(map(cost_of, plan.recipes))
    recipes = kind.recipes["tiny"]
    larger = _parameters(kind, plan.config, plan.recipes[0]) / _parameters(kind, kind.sizes["tiny"], recipes[0])
    return larger * TINY_SECONDS / sum(map(cost_of, recipes))


def _parameters(kind: type[TrainableUpstream], config: object, recipe: PretrainRecipe) -> int:
    with torch.device("meta"):
        network = kind.untrained(config)
        network.prepare(recipe, recordings=1)
    return max(1, sum(parameter.numel() for parameter in network.parameters()))
