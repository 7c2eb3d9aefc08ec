"""Experiment trackers that an evaluation is logged to, through accelerate: TensorBoard, W&B, MLflow, Trackio.

Whatever becomes of a tracker, the evaluation is what it is without: its records are written before.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BenchmarkError
from core.extras import require_extra, require_package
from core.registry import unknown_name
from frostbench.results import Results
from frostbench.tracked_values import TrackedRun, tracked_runs

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

PROJECT = "frostbench"
FOLDER = "trackers"  # beside the records


class Tracker(StrEnum):
    """Those that there are."""

    tensorboard = "tensorboard"
    wandb = "wandb"
    mlflow = "mlflow"
    trackio = "trackio"


def asked_trackers(names: str | Sequence[str]) -> tuple[Tracker, ...]:
    """Trackers by their names, each once.

    Raises: UnknownNameError: no such tracker. BenchmarkError: its package is not installed.
    """
    found: dict[Tracker, None] = {}
    for name in [names] if isinstance(names, str) else names:
        if name not in list(Tracker):
            raise unknown_name("tracker", name, [each.value for each in Tracker])
        require_extra("trackers", f"logging to {name}")
        require_package(name, f"logging to {name}")
        found[Tracker(name)] = None
    return tuple(found)


def log_results(results: Results, trackers: Sequence[Tracker], say: Callable[[str], None]) -> None:
    """Logs what an evaluation came to: a run of each tracker an upstream, and one a series over checkpoints.

    Args:
        results: the runs that were asked for.
        trackers: where to.
        say: is told, once a tracker, what keeps it from being logged to.
    """
    if not trackers:
        return
    try:
        runs = tracked_runs(results.store, results.records, results.board)
    except (BenchmarkError, OSError) as error:
        say(f"warning: nothing is logged: {error}")
        return
    folder = results.folder / FOLDER
    for tracker in trackers:
        try:
            with _state_of_accelerate():
                for run in runs:
                    _log(OPENED[tracker](run.name, folder), run)
        except Exception as error:  # of a service and its client, whatever it raises: the results are there already
            reason = " ".join((str(error).strip() or type(error).__name__).split())
            say(f"warning: {tracker}: can't be logged to ({reason}); the records are complete, run the command again")


def _log(tracker: GeneralTracker, run: TrackedRun) -> None:
    tracker.start()
    try:
        tracker.store_init_configuration(dict(run.config))
        for step, values in sorted(run.curves.items()):  # W&B takes no step that is behind the last one
            tracker.log(dict(values), step=step)
        if run.values:
            tracker.log(dict(run.values), step=max(run.curves, default=0))
    finally:
        tracker.finish()


@contextmanager
def _state_of_accelerate() -> Iterator[None]:
    """accelerate logs by what it knows of processes; a pretraining that follows has to find that out for itself."""
    from accelerate import PartialState

    mine = not PartialState._shared_state
    PartialState(cpu=True)
    try:
        yield
    finally:
        if mine:
            PartialState._reset_state()


def _tensorboard(name: str, folder: Path) -> Any:
    from accelerate.tracking import TensorBoardTracker

    place = folder / "tensorboard"
    run = re.sub(r"[^\w.()#@-]+", "_", name)
    shutil.rmtree(place / run, ignore_errors=True)  # else its curves would be drawn twice
    return TensorBoardTracker(run, place)


def _wandb(name: str, folder: Path) -> Any:
    from accelerate.tracking import WandBTracker

    folder.mkdir(parents=True, exist_ok=True)
    return WandBTracker(os.environ.get("WANDB_PROJECT", PROJECT), name=name, dir=str(folder))


def _mlflow(name: str, folder: Path) -> Any:
    import mlflow
    from accelerate.tracking import MLflowTracker

    if "MLFLOW_TRACKING_URI" in os.environ:
        return MLflowTracker(PROJECT, run_name=name)
    folder.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
    os.environ.pop(
        "MLFLOW_TRACKING_URI", None
    )  # it sets this, too, which the next run would take for the user's choice
    return MLflowTracker(PROJECT, logging_dir=str(folder.resolve() / "mlflow"), run_name=name)


def _trackio(name: str, folder: Path) -> Any:
    from accelerate.tracking import TrackioTracker

    return TrackioTracker(PROJECT, name=name)  # where it keeps runs is its own affair: its dashboard looks there


OPENED: dict[Tracker, Callable[[str, Path], Any]] = {
    Tracker.tensorboard: _tensorboard,
    Tracker.wandb: _wandb,
    Tracker.mlflow: _mlflow,
    Tracker.trackio: _trackio,
}
