"""Every registered metric x every check, and metrics that break them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import skip_without_extra

from core.checks import run_check
from core.metrics import METRICS
from tasks._metric_checks import CHECKS

CASES = [(name, check) for name in METRICS.names() for check in CHECKS]


@pytest.mark.parametrize(("name", "check"), CASES, ids=[f"{name}-{check.__name__}" for name, check in CASES])
def test_contract(name, check):
    skip_without_extra(name)
    assert run_check(check, METRICS.get(name)).error is None


def of_first(rows, weights):
    return np.full(len(weights), 100 * (1 - rows[0, 0]))


def unweighted(rows, weights):
    return np.full(len(weights), 100 * (1 - rows[:, 0].mean()))


ACCURACY, WER = METRICS.get("accuracy"), METRICS.get("wer")
BREAKERS = [
    (replace(ACCURACY, title=""), "check_declaration_complete"),
    (replace(ACCURACY, kind="sum"), "check_declaration_complete"),
    (replace(ACCURACY, bounds=(100.0, 0.0)), "check_declaration_complete"),
    (replace(WER, statistics=lambda prediction, reference: (1,) * len(reference)), "check_statistics_are_alike"),
    (replace(ACCURACY, statistics=lambda prediction, reference: (float("nan"), 1)), "check_statistics_are_alike"),
    (replace(WER, trials=True), "check_statistics_are_alike"),
    (replace(ACCURACY, bounds=(0.0, 1.0)), "check_perfect_predictions_score_the_optimum"),
    (replace(ACCURACY, direction="lower"), "check_values_stay_within_bounds"),
    (replace(WER, bounds=(0.0, 10.0)), "check_values_stay_within_bounds"),
    (replace(ACCURACY, kind="corpus", value=of_first), "check_order_changes_nothing"),
    (replace(ACCURACY, kind="corpus", value=unweighted), "check_weights_are_repetitions"),
]


@pytest.mark.parametrize(("metric", "caught_by"), BREAKERS)
def test_a_broken_metric_is_caught(metric, caught_by):
    (check,) = [check for check in CHECKS if check.__name__ == caught_by]
    assert run_check(check, metric).error is not None


def test_every_check_catches_something():
    assert {caught_by for _, caught_by in BREAKERS} == {check.__name__ for check in CHECKS}
