"""The metric contract as a list of checks: one function a promise, over sample references."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from core.checks import described, require
from core.errors import MetricError
from core.metrics import Metric
from downstreams.labels._base import LABELS, Labels

Check = Callable[[Metric], None]
TOLERANCE = 1e-9
ALIGNMENTS = ("classes", "words", "characters", "turns")
# References that come from no kind of labels alone: trials, searches, and text whose slots are marked.
FURTHER = (
    (True, False, True, True, False, False, True, False),
    tuple({"search": place % 2, "holds": place in (0, 3, 5)} for place in range(8)),
    ("go to B-city rome E-city", "B-city oslo E-city at B-time nine E-time", "B-time noon E-time", "go"),
)


def check_declaration_complete(metric: Metric) -> None:
    """Name, title and hub_task are filled in; direction, kind, bounds and alignment are among those there are."""
    for field in ("name", "title", "hub_task"):
        require(bool(getattr(metric, field)), f"{field} is empty: fill it in")
    require(metric.direction in ("higher", "lower"), f"direction is {metric.direction!r}: say 'higher' or 'lower'")
    require(metric.kind in ("ratio", "mean", "corpus"), f"kind is {metric.kind!r}: say 'ratio', 'mean' or 'corpus'")
    require(
        metric.align in (None, "classes", "words", "characters", "turns"), f"align is {metric.align!r}, which is none"
    )
    low, high = metric.bounds
    require(low is None or high is None or low < high, f"bounds are {metric.bounds}: the lower one comes first")


def check_statistics_are_alike(metric: Metric) -> None:
    """Every item adds equally many finite numbers; of trials the second is 1 or 0."""
    for references in _accepted(metric):
        rows = [metric.statistics(one, other) for one in references for other in references]
        require(len({len(row) for row in rows}) == 1, "items add unequally many statistics")
        require(all(math.isfinite(number) for row in rows for number in row), "statistics are NaN or infinite")
        kinds = {row[1:2] for row in rows} if metric.trials else set()
        require(
            kinds <= {(0,), (1,)}, "trials say something else than 1 for a target and 0 for another behind the score"
        )


def check_perfect_predictions_score_the_optimum(metric: Metric) -> None:
    """The references themselves get the best value that the bounds allow."""
    for references in _accepted(metric):
        value = metric.compute(references, references)
        best = metric.optimum
        require(best is None or value == best, f"perfect predictions score {value}, the bounds promise {best}")


def check_values_stay_within_bounds(metric: Metric) -> None:
    """Wrong predictions have values within the bounds, never better than the right ones."""
    low, high = metric.bounds
    for references in _accepted(metric):
        wrong = _half_wrong(references)
        value = metric.compute(wrong, references)
        inside = (low is None or value >= low - TOLERANCE) and (high is None or value <= high + TOLERANCE)
        require(inside, f"a value of {value} lies outside the bounds {metric.bounds}")
        better = metric.sign * (value - metric.compute(references, references))
        require(better <= TOLERANCE, f"wrong predictions score {value}, better than right ones")


def check_order_changes_nothing(metric: Metric) -> None:
    """A corpus has the same value in any order of its items."""
    for references in _accepted(metric):
        wrong = _half_wrong(references)
        forth = metric.compute(wrong, references)
        back = metric.compute(wrong[::-1], references[::-1])
        require(abs(forth - back) <= TOLERANCE, f"{forth} becomes {back} when the items are reversed")


def check_weights_are_repetitions(metric: Metric) -> None:
    """An item of weight 2 counts as if it were there twice: what confidence intervals are drawn by."""
    for references in _accepted(metric):
        wrong = _half_wrong(references)
        rows = np.array(list(map(metric.statistics, wrong, references)), dtype=np.float64)
        weights = np.ones((1, len(rows)))
        weights[0, 0] = 2
        weighted = float(metric.weighted(rows, np.ones(len(rows)), weights)[0])
        repeated = metric.of(np.concatenate([rows[:1], rows]))
        require(abs(weighted - repeated) <= TOLERANCE, f"{repeated} with an item twice, {weighted} with its weight 2")


CHECKS: tuple[Check, ...] = (
    check_declaration_complete,
    check_statistics_are_alike,
    check_perfect_predictions_score_the_optimum,
    check_values_stay_within_bounds,
    check_order_changes_nothing,
    check_weights_are_repetitions,
)


def _accepted(metric: Metric) -> Iterator[list[Any]]:
    """The sample references that the metric can compare.

    Raises: ContractError: it can compare none.
    """
    found, said = False, ""
    for references in (*map(_references, dict.fromkeys(LABELS)), *map(list, FURTHER)):
        try:
            for reference in references:
                metric.statistics(reference, reference)
        except Exception as error:  # a word error rate of speaker turns, for one
            said = said or f" ({described(error)})"
            continue
        try:
            metric.compute(references, references)
        except MetricError:  # an error rate of trials that are all of one kind, for one
            continue
        found = True
        yield references
    require(found, f"it can compare the references of no kind of labels{said}: register the kind that it is for first")


def _references(labels: type[Labels]) -> list[Any]:
    known = labels.from_train(labels.samples, "label")
    references = [known.reference(sample) for sample in labels.samples]
    if not labels.heard:
        return references
    shortest = min(signals.shape[1] for signals in references)  # each is compared with the others
    return [signals[:, :shortest] for signals in references]


def _half_wrong(references: list[Any]) -> list[Any]:
    """The first half in another order, the others right."""
    half = len(references) // 2
    return [*references[1:half], references[0], *references[half:]]
