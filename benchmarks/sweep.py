"""12 runs (4 learning rates x 3 seeds) trained together against the same 12 one after the other.

Both sides are `run_grid` in this process on one core, with everything in the feature cache; what is timed is the stage
that trains heads, including its reading and its looks at valid. One after the other means 12 grids of one learning rate
and one seed each.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch

from benchmarks._material import UPSTREAMS, scratch, write_task
from benchmarks._measure import Ratio, Report, medians, parser
from tasks._base import TASKS, resolve_task
from tasks._planner import Grid, run_grid
from tasks._progress import Watcher
from tasks._runner import Folders
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
            seconds = sides.measure(1 if options.quick else options.repeats)
        together, alone = medians(seconds).values()
        runs = len(SEEDS) * len(sides.rates)
        detail = f"{runs} runs of {steps} updates: together {together:.1f} s ({runs * steps / together:.0f} updates/s)"
        detail += f", one after the other {alone:.1f} s ({runs * steps / alone:.0f}/s)"
        report.ratios.append(Ratio(f"{task}: together / one after the other", together / alone, 0.7, "at most", detail))
        report.facts[task] = seconds
    report.show()


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

    def measure(self, repeats: int) -> dict[str, list[float]]:
        """Seconds of both sides, by turns; the first run of all fills the cache and is thrown away."""
        self.train(self.all, SEEDS)
        seconds: dict[str, list[float]] = {"together": [], "alone": []}
        for _ in range(repeats):
            seconds["together"].append(self.train(self.all, SEEDS))
            runs = [self.train(task, (seed,)) for task, seed in product(self.single, SEEDS)]
            seconds["alone"].append(sum(runs))
        return seconds

    def train(self, task: str, seeds: Sequence[int]) -> float:
        """Seconds of the stage that trains heads, none of which is there yet."""
        for name in ("cache/heads", "results"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        clock = Clock()
        grid = Grid((self.upstream,), (resolve_task(task),), seeds)
        folders = Folders(self.folder / "cache", self.folder / "results")
        done = run_grid(grid, self.manifest, folders, torch.device("cpu"), 1, clock)
        assert done.computed == len(seeds), done.failures
        return clock.begun["evaluating on test"] - clock.begun["training heads"]


if __name__ == "__main__":
    main()
