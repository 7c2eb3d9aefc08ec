"""`--task all`: the tasks that a corpus serves, and why the others are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from core.errors import BenchmarkError
from core.extras import require_extra
from core.manifest import Manifest
from core.metrics import get_metric
from tasks._base import Task

ALL = "all"


class Served(NamedTuple):
    """The tasks that a corpus serves, and name of each other one -> why it does not."""

    tasks: list[Task]
    left_out: Mapping[str, str]


def tasks_of_all(asked: object) -> bool:
    """Whether all tasks are asked for, alone.

    Raises: BenchmarkError: others are named beside them.
    """
    names = [asked] if isinstance(asked, str) else asked if isinstance(asked, Sequence) else []
    if ALL in names and len(names) > 1:
        raise BenchmarkError("--task all stands alone: leave the other tasks out, or name each")
    return ALL in names


def served_by(manifest: Manifest, tasks: Sequence[Task]) -> Served:
    """Those of the tasks that have rows in a corpus, and whose metrics are installed.

    Raises: BenchmarkError: there is none.
    """
    labels = {label for row in manifest.utterances for label, value in row.labels.items() if value is not None}
    reasons = {task.name: reason for task in tasks if (reason := _reason(task, manifest, labels))}
    if len(reasons) == len(tasks):
        raise BenchmarkError(f"{manifest.source}: serves no task (labels found: {', '.join(sorted(labels)) or 'none'})")
    return Served([task for task in tasks if task.name not in reasons], reasons)


def _reason(task: Task, manifest: Manifest, labels: set[str]) -> str:
    """Why a task is left out; empty if it is not."""
    needed = [key for key in (task.label, task.against, task.folds) if key is not None]
    lacking = [key for key in needed if key not in labels]
    if lacking:
        return manifest.lacking.get(lacking[0], f"no row has '{lacking[0]}'")
    for metric in map(get_metric, task.metrics):
        try:
            if metric.extra is not None:
                require_extra(metric.extra, f"metric {metric.name}")
        except BenchmarkError as error:
            return str(error)
    return ""
