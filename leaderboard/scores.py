"""One number an upstream: SUPERB's score on SUPERB's own corpora, elsewhere the error that FBANK makes and it does not.

SUPERB's formulas are those of the SLT 2022 challenge (superbbenchmark/website-react, policy.js and overall_metrics.js).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from leaderboard.board import Column, ScoreCard

# (task, metric) -> value of FBANK without CMVN, value of the best of 2021: 0 and 1,000 points.
REFERENCE_POINTS: Mapping[tuple[str, str], tuple[float, float]] = {
    ("pr", "per"): (82.01, 3.53),
    ("ks", "accuracy"): (41.3826674, 96.66),
    ("ic", "accuracy"): (9.649354219, 98.76),
    ("sid", "accuracy"): (20.058174, 90.3),
    ("er", "accuracy"): (48.23672168, 67.62),
    ("asr", "wer"): (23.18, 3.62),
    ("qbe", "mtwv"): (0.58, 7.36),
    ("sf", "slot_type_f1"): (69.64, 89.81),
    ("sf", "slot_value_cer"): (52.94, 21.76),
    ("asv", "eer"): (9.56, 5.11),
    ("sd", "der"): (10.05, 5.62),
    ("st", "bleu"): (2.32, 20.01),
    ("se", "pesq"): (2.55, 2.64),
    ("se", "stoi"): (93.6, 94.2),
    ("ss", "si_sdri"): (9.2341, 10.4514),
}
BASELINE = "fbank"

Values = Mapping[tuple[str, str], float]  # (task, metric) -> value


def task_points(values: Values) -> dict[str, float]:
    """Points of every task: linear between FBANK (0) and the best of 2021 (1,000), the metrics of a task averaged.

    Values of other tasks are left out.
    """
    points: dict[str, list[float]] = {}
    for (task, metric), value in values.items():
        if (task, metric) in REFERENCE_POINTS:
            floor, best = REFERENCE_POINTS[task, metric]
            points.setdefault(task, []).append(1000 * (value - floor) / (best - floor))
    return {task: mean(each) for task, each in points.items()}


def superb_score(values: Values, tasks: Sequence[str]) -> float | None:
    """`superb_s`: mean points over the tasks; None where one is missing."""
    points = task_points(values)
    return mean(points[task] for task in tasks) if tasks and set(tasks) <= set(points) else None


def error_reduction(
    errors: Mapping[str, float], baseline: Mapping[str, float], tasks: Sequence[Sequence[str]]
) -> float | None:
    """Percentage of the baseline's errors that an upstream does not make, averaged over the tasks.

    Where it makes more errors than the baseline, the percentage of its own errors that the baseline does not make
    counts against it. So each column lies between -100 and 100, and a task on which the baseline hardly errs can't
    outweigh all others: with one error in 300, twelve would else make -1,100 %.

    Args:
        errors: column -> distance to the metric's optimum, such as an error rate, or 100 minus an accuracy; of decibels
            the energy that they stand for.
        baseline: the same of the baseline.
        tasks: the columns of each task, whose mean is taken first.

    Returns: 100 for no error at all, 0 for the baseline, negative for more errors than it; None where a task is
        missing.
    """
    if not tasks or any(key not in errors or key not in baseline for keys in tasks for key in keys):
        return None
    return mean(mean(_reduction(errors[key], baseline[key]) for key in keys) for keys in tasks)


def _reduction(errors: float, baseline: float) -> float:
    most = max(errors, baseline)
    return 100 * (baseline - errors) / most if most else 0.0


def superb_card(tasks: Sequence[str]) -> ScoreCard:
    """What is shown with SUPERB's score."""
    names = ", ".join(task.upper() for task in tasks)
    return ScoreCard(
        "SUPERB score",
        "",
        f"Mean over {names} of 1000 x (value - FBANK) / (best - FBANK), with the reference points of the SUPERB "
        "challenge (SLT 2022): published FBANK has 0, the best upstream of 2021 on every task has 1000. The published "
        f"score averages ten tasks; here it is over the {len(tasks)} shown, for published rows as well.",
    )


def reduction_card(columns: Sequence[Column], baseline: str | None) -> ScoreCard:
    """What is shown with the mean relative error reduction."""
    names = ", ".join(dict.fromkeys(column.task.upper() for column in columns))
    kinds = dict.fromkeys(map(_error_in_words, columns))
    lacking = "" if baseline else f" No row here: {BASELINE} was not run on all of them."
    return ScoreCard(
        "error reduction",
        "%",
        f"Mean over {names} of the share of FBANK's errors that an upstream does not make: FBANK has 0, no error at "
        f"all is 100. Where it makes more errors, the share of its own that FBANK does not make counts against it. "
        f"Errors are {', or '.join(kinds)}.{lacking}",
    )


def _error_in_words(column: Column) -> str:
    """Such as `100 - Acc` or `WER`."""
    title = column.metric_title
    if column.optimum is None:
        return f"10^(-{title} / 10)" if column.direction == "higher" else f"10^({title} / 10)"
    if not column.optimum:
        return title
    return f"{column.optimum:g} - {title}" if column.direction == "higher" else f"{title} - {column.optimum:g}"
