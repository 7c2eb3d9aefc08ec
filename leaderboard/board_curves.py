"""The points of the curves in a cell of the leaderboard: layers, label budgets, conditions; and what an interval is."""

from __future__ import annotations

from typing import NamedTuple


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


class LayerScore(NamedTuple):
    """What heads on one layer alone come to.

    Attributes:
        layer: the layer; 0 is the first that the upstream gives.
        mean: over the seeds.
        interval: 95 %, as that of the cell; None where the predictions are not there.
        seeds: that were run, ascending.
    """

    layer: int
    mean: float
    interval: Interval | None
    seeds: tuple[int, ...]


class BudgetScore(NamedTuple):
    """What heads come to that were given a part of train.

    Attributes:
        budget: as it was asked for, such as 10min; `all` is the cell itself.
        seconds: of the recordings that were drawn, mean over seeds.
        train: how many recordings were drawn, mean over seeds.
        mean: over the seeds, each with a draw of its own.
        interval: 95 %, as that of the cell; None where the predictions are not there.
        seeds: that were run, ascending.
    """

    budget: str
    seconds: float
    train: int
    mean: float
    interval: Interval | None
    seeds: tuple[int, ...]


class ConditionScore(NamedTuple):
    """What heads that were trained without a condition come to in it.

    Attributes:
        condition: as it was asked for, such as noise@20dB; `clean` is the cell itself.
        mean: over the seeds.
        interval: 95 %, as that of the cell; None where the predictions are not there.
        seeds: that were run, ascending.
    """

    condition: str
    mean: float
    interval: Interval | None
    seeds: tuple[int, ...]
