"""What a newcomer waits for: the run of `make benchmark`, from nothing, with its processes.

Told are the seconds until the first cell, until the table of the quick tasks (those whose heads read means) is whole,
and until the end; how right the time left was (see `time_left`); and the passes beside bare ones, which do nothing but
compute hidden states, on a part of the same batches.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks._material import scratch
from benchmarks._measure import Ratio, Report, parser
from benchmarks.time_left import Log, worst_of
from core.audio import SAMPLE_RATE, read_audio
from core.lengths import pad
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid, Plan, make_cells
from frostbench.grid.run import run_grid
from frostbench.jobs.cell_table import CellNews
from frostbench.jobs.local import LocalExecutor
from tasks._base import TASKS
from tasks.corpora._base import open_corpus
from upstreams._resolve import build_upstream

QUICK, FIRST, WHOLE = ("ks", "sid", "ic"), 180.0, 480.0  # tasks; seconds that are promised on two slow cores
PART = 20  # one batch of so many passes an upstream barely


class Waiting(Log):
    """Also notes when each cell is done, and when a stage begins."""

    def __init__(self) -> None:
        super().__init__()
        self.cells_done: list[tuple[float, str]] = []
        self.stages: list[tuple[float, str]] = []
        self._began = time.monotonic()

    def stage(self, title: str, total: float, unit: str) -> None:
        """See Watcher.stage."""
        super().stage(title, total, unit)
        self.stages.append((time.monotonic() - self._began, title))

    def cell(self, news: CellNews) -> None:
        """See Watcher.cell."""
        if news.state == "done":
            self.cells_done.append((time.monotonic() - self._began, news.task))


def of_make_benchmark() -> list[str]:
    """The upstreams that `make benchmark` evaluates."""
    found = re.search(r"(?m)^SHIPPED := (.+)$", (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8"))
    assert found is not None, "the Makefile names them"
    return found[1].split()


def main() -> None:
    """Measures and prints."""
    asked = parser(__doc__)
    asked.add_argument("--upstream", action="append", help="several; those of make benchmark if left out")
    options = asked.parse_args()
    upstreams = options.upstream or (["fbank"] if options.quick else of_make_benchmark())
    limit = 60 if options.quick else None
    tasks = [TASKS.get(name) for name in QUICK]
    grid = Grid(upstreams, [*tasks, TASKS.get("asr")], (0,), limit=limit, quick_seeds=(1, 2))
    report = Report("first_table", options.quick, facts={**vars(options), "upstreams": upstreams})
    with scratch() as folder:
        folders, log = Folders(folder / "cache", folder / "results"), Waiting()
        run_grid(grid, open_corpus("mini"), folders, LocalExecutor("cpu", preload=run_grid.__module__), log)
        whole = log.end()
        if log.failures:
            raise SystemExit("\n".join(log.failures))
        plan = make_cells(grid, open_corpus("mini"), folders.cache / "upstreams")
    quick = [at for at, task in log.cells_done if task in QUICK][: len(upstreams) * len(QUICK)]  # of the first seed
    table = quick[-1]
    passes = _seconds_of("extracting features", log.stages)
    bare = bare_seconds(upstreams, plan) / LocalExecutor("cpu").workers
    since = f"from a tenth of {whole:.0f} s on"
    report.ratios = [
        Ratio("table of the quick tasks / 3 minutes", table / FIRST, 1.0, "at most",
              f"first cell after {log.cells_done[0][0]:.0f} s, all of the quick tasks after {table:.0f} s"),
        Ratio("the run / 8 minutes", whole / WHOLE, 1.0, "at most", f"{whole:.0f} s"),
        Ratio("passes against bare ones", passes / bare, None, "at most",
              f"{passes:.0f} s, bare {bare:.0f} s (files are decoded, frames kept and written besides)"),
        Ratio("worst factor of the time left", worst_of(log)[1], 1.5, "at most", since),
    ]  # fmt: skip
    report.facts |= {"stages": log.stages, "looks": log.looks}
    report.show()


def _seconds_of(title: str, stages: Sequence[tuple[float, str]]) -> float:
    """How long a stage took, until the next began."""
    return sum(then - at for (at, name), (then, _) in pairwise(stages) if name == title)


def bare_seconds(upstreams: Sequence[str], plan: Plan) -> float:
    """Seconds of one core in which all batches of the plan pass all upstreams, by every so-manieth batch."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    total = 0.0
    for spec in upstreams:
        upstream = build_upstream(spec)
        batches = plan.clips.all.batches(max(1, upstream.window_samples), upstream.batch_seconds)
        part = batches[:: min(PART, len(batches))]
        audio = [pad([_heard(clip.path, clip.start, clip.stop) for clip in batch]) for batch in part]
        with torch.inference_mode():
            upstream.extract(*audio[0])
            began = time.perf_counter()
            for wavs, lengths in audio:
                upstream.extract(wavs, lengths)
            seconds = time.perf_counter() - began
        heard = sum(clip.samples for batch in part for clip in batch) / SAMPLE_RATE
        everything = sum(clip.samples for batch in batches for clip in batch) / SAMPLE_RATE
        total += seconds * everything / heard
    return total


def _heard(path: Path, start: int, stop: int | None) -> torch.Tensor:
    return read_audio(path)[start:stop]


if __name__ == "__main__":
    main()
