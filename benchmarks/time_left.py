"""Whether the time left is right: what a run predicts of its end every second, against when it ended.

A whole `run` from nothing, in a cache of its own, with processes as a user has them; with `--repeats 2` a second one
that begins with what the first one measured. The number is the worst factor between predicted and true time left, from
a tenth of the run on until its last two seconds, in which a factor says nothing.
"""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import torch

from benchmarks._material import scratch
from benchmarks._measure import Ratio, Report, parser
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.jobs.base import Outcome
from frostbench.jobs.forecast import Forecast
from frostbench.jobs.local import LocalExecutor
from frostbench.jobs.progress import Watcher
from tasks._base import TASKS
from tasks.corpora._base import open_corpus

EVERY = 1.0  # seconds between two looks
FROM, UNTIL = 0.1, 2.0  # share of the run before which, seconds before its end after which nothing is compared


class Log(Watcher):
    """Writes down what is predicted.

    Attributes:
        looks: (seconds since the start, stage, seconds left by the forecast).
        seconds: that it took, once it has ended.
    """

    def __init__(self) -> None:
        self.looks: list[tuple[float, str, float]] = []
        self.failures: list[str] = []
        self.seconds = 0.0
        self._stage = ""
        self._ended = threading.Event()
        self._started = time.monotonic()

    def stage(self, title: str, total: float, unit: str) -> None:
        """See Watcher.stage."""
        self._stage = title

    def follow(self, forecast: Forecast) -> None:
        """See Watcher.follow."""
        threading.Thread(target=self._look, args=(forecast,), daemon=True).start()

    def done(self, outcome: Outcome) -> None:
        """See Watcher.done."""
        if outcome.error is not None:
            self.failures.append(f"{outcome.job.name}: {outcome.error}")

    def end(self) -> float:
        """Stops looking, and returns how many seconds it took."""
        self._ended.set()
        self.seconds = time.monotonic() - self._started
        return self.seconds

    def _look(self, forecast: Forecast) -> None:
        while not self._ended.wait(EVERY):
            self.looks.append((time.monotonic() - self._started, self._stage, forecast.left()))


def main() -> None:
    """Measures and prints."""
    asked = parser(__doc__)
    asked.add_argument("--upstream", action="append", help="several; fbank and mfcc if left out")
    asked.add_argument("--task", action="append", help="several; ks, sid, ic and asr if left out")
    asked.add_argument("--seed", type=int, action="append", help="several; 0 if left out")
    asked.add_argument("--recipe", help="each task's default if left out")
    asked.add_argument("--limit", type=int, help="rows a split")
    options = asked.parse_args()
    torch.set_num_threads(1)
    report = Report("time_left", options.quick, facts={**vars(options)})
    tasks = [TASKS.get(name) for name in options.task or (["ks"] if options.quick else ["ks", "sid", "ic", "asr"])]
    limit = 60 if options.quick else options.limit
    grid = Grid(options.upstream or ["fbank", "mfcc"], tasks, options.seed or [0], options.recipe, limit)
    with scratch() as folder:
        for number in range(1 if options.quick else options.repeats):
            name = "without" if number == 0 else "with"
            ratio = measured(grid, folder, report, f"{name} what an earlier run measured")
            report.ratios.append(ratio)
    report.show()


def measured(grid: Grid, folder: Path, report: Report, name: str) -> Ratio:
    """One run; what earlier ones left but their costs is deleted."""
    for path in [folder / "results", *(folder / "cache").glob("*")]:
        if path.name != "costs":
            shutil.rmtree(path, ignore_errors=True)
    log = Log()
    folders = Folders(folder / "cache", folder / "results")
    run_grid(grid, open_corpus("mini"), folders, LocalExecutor("cpu"), log)
    seconds = log.end()
    if log.failures:
        raise SystemExit("\n".join(log.failures))
    report.facts[name] = {"seconds": seconds, "looks": log.looks}
    for at, stage, left in log.looks[:: max(1, len(log.looks) // 40)]:
        print(f"{at:6.0f} s  {stage:22} left {left:6.0f} s, in truth {seconds - at:6.0f} s")
    at, worst = worst_of(log)
    return Ratio(f"worst factor, {name}", worst, 1.5, "at most", f"at {at:.0f} of {seconds:.0f} s")


def worst_of(log: Log) -> tuple[float, float]:
    """When the prediction of an ended run was furthest from the truth, and by what factor."""
    return max(
        ((at, factor(left, log.seconds - at)) for at, _, left in log.looks
         if FROM * log.seconds < at < log.seconds - UNTIL),
        key=lambda look: look[1],
        default=(0.0, 1.0),
    )  # fmt: skip


def factor(predicted: float, true: float) -> float:
    """By what factor a prediction is wrong, at least 1; a second is the least that is told."""
    larger, smaller = max(predicted, true), min(predicted, true)
    return larger / max(smaller, 1.0) if larger > 1.0 else 1.0


if __name__ == "__main__":
    main()
