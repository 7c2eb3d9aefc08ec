"""12 runs (4 learning rates x 3 seeds) trained together against the same 12 one after the other.

All sides are `run_grid` with everything in the feature cache; what is timed is the stage that trains heads, including
its reading and its looks at valid. Together is one grid, on every core as a user runs it, and on one. One after the
other is 12 grids of one learning rate and one seed each, on one core since one run has no use for a second: with the
linear head's gradients written out, as they are, and by autograd, as they were.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch

from benchmarks._material import UPSTREAMS, scratch, write_task
from benchmarks._measure import Ratio, Report, medians, parser
from downstreams.utterance_linear import UtteranceLinear
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from frostbench.jobs.progress import Watcher
from tasks._base import TASKS, resolve_task
from tasks.corpora._base import open_corpus

SEEDS = (0, 1, 2)


class Clock(Watcher):
    """Notes when stages begin."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}

    def stage(self, title: str, total: float, unit: str) -> None:
        """See Watcher.stage."""
        self.begun[title] = time.perf_counter()


def main() -> None:
    """Measures and prints."""
    asked = parser(__doc__)
    asked.add_argument("--task", action="append", choices=("ks", "sid", "ic"), help="several; ks if left out")
    asked.add_argument("--steps", type=int, default=1_500, help="updates of a run")
    asked.add_argument("--upstream", default=f"{UPSTREAMS}:Wide", help="whose features are trained on")
    options = asked.parse_args()
    steps = 150 if options.quick else options.steps
    torch.set_num_threads(1)
    report = Report("sweep", options.quick, facts={**vars(options)})
    for task in options.task or ["ks"]:
        with scratch() as folder:
            sides = Sides(folder, options.upstream, task, steps)
            seconds = by_turns_of(sides, 1 if options.quick else options.repeats)
        best = medians(seconds)
        updates = len(SEEDS) * len(sides.rates) * steps
        detail = ", ".join(f"{name} {value:.1f} s ({updates / value:.0f} updates/s)" for name, value in best.items())
        report.ratios += [
            Ratio(f"{task}: together / one after the other", best["together"] / best["alone"], 0.7, "at most", detail),
            Ratio(f"{task}: the same on one core", best["together, one core"] / best["alone"]),
            Ratio(f"{task}: the same on one core, by autograd", best["together, one core"] / best["alone, autograd"]),
        ]
        report.facts[task] = seconds
    report.show()


def by_turns_of(sides: Sides, repeats: int) -> dict[str, list[float]]:
    """Seconds of each side, which times itself; by turns."""
    timed = {
        "together": sides.together,
        "together, one core": lambda: sides.train(sides.all, SEEDS),
        "alone": sides.alone,
        "alone, autograd": sides.by_autograd,
    }
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(repeats):
        for name, side in timed.items():
            if turn == 0 or name != "alone, autograd":  # the slowest by far, and no target hangs on it
                seconds[name].append(side())
    return seconds


class Sides:
    """The same 12 runs in two ways.

    Args:
        folder: for caches, records and declarations.
        upstream: whose features are trained on.
        task: name of a built-in task.
        steps: updates of a run.
    """

    def __init__(self, folder: Path, upstream: str, task: str, steps: int) -> None:
        self.folder, self.upstream = folder, upstream
        self.manifest = open_corpus("mini")
        self.rates = TASKS.get(task).recipe(None).learning_rates
        changes = {"steps": steps, "eval_every": steps // 10}
        self.all = write_task(folder, task, None, **changes)
        self.single = [write_task(folder, task, None, **changes, learning_rates=(rate,)) for rate in self.rates]

    def together(self) -> float:
        """All runs in one grid on every core; extracting anew starts the workers, which is not what is timed."""
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        return self.train(self.all, SEEDS, os.cpu_count() or 1)

    def alone(self) -> float:
        """A grid a run."""
        return sum(self.train(task, (seed,)) for task, seed in product(self.single, SEEDS))

    def by_autograd(self) -> float:
        """A grid a run, as every other head trains."""
        UtteranceLinear.closed_form = False
        try:
            return self.alone()
        finally:
            UtteranceLinear.closed_form = True

    def train(self, task: str, seeds: Sequence[int], workers: int = 1) -> float:
        """Seconds of the stage that trains heads, none of which is there yet."""
        for name in ("cache/heads", "results"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        clock = Clock()
        grid = Grid((self.upstream,), (resolve_task(task),), seeds)
        folders = Folders(self.folder / "cache", self.folder / "results")
        done = run_grid(grid, self.manifest, folders, LocalExecutor("cpu", workers), clock)
        assert done.computed == len(seeds), done.failures
        return clock.begun["evaluating on test"] - clock.begun["training heads"]


if __name__ == "__main__":
    main()
