"""A whole cell (4 learning rates x 3 seeds) from nothing cached, against one bare pass of the upstream.

The cell is run by the command line as a user would. What it takes to start (imports in every process, loading and
digesting the model) is measured with a run of two rows and one update, and reported separately, since the bare pass
does not count its own either.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

from benchmarks._bare_pass import bare_pass_seconds
from benchmarks._material import save_hubert, scratch, write_task
from benchmarks._measure import Ratio, Report, frostbench, parser
from core.audio import duration_seconds
from core.manifest import SPLITS
from tasks._base import TASKS
from tasks.corpora._base import open_corpus

SEEDS = (0, 1, 2)
QUICK_ROWS = 20  # a split


def main() -> None:
    """Measures and prints."""
    asked = parser(__doc__)
    asked.add_argument("--task", action="append", choices=("ks", "sid", "ic"), help="several; ks if left out")
    asked.add_argument("--size", choices=("768x12", "256x4"), default="768x12", help="of HuBERT")
    asked.set_defaults(repeats=1)
    options = asked.parse_args()
    report = Report("cell", options.quick)
    with scratch() as folder:
        model = save_hubert(folder / "hubert", "256x4" if options.quick else options.size)
        for task in options.task or ["ks"]:
            measure(report, folder, model, task, options)
    report.facts |= vars(options)
    report.show()


def measure(report: Report, folder: Path, model: Path, task: str, options: argparse.Namespace) -> None:
    """Adds one task's lines to the report."""
    rows = open_corpus("mini").with_label(TASKS.get(task).label)
    few = QUICK_ROWS if options.quick else None
    limit = ("--limit", str(few)) if few else ()
    paths = [row.path for split in SPLITS for row in rows.split(split)[:few]]
    once = write_task(folder, task, None, steps=1, learning_rates=(1e-3,), eval_every=1)
    start, whole, bare = [], [], []
    for number in range(options.repeats):
        start.append(_seconds(folder / f"{task}{number}-start", model, once, (0,), "--limit", "2"))
        bare.append(bare_pass_seconds(model, paths))
        whole.append(_seconds(folder / f"{task}{number}", model, task, SEEDS, *limit))
    audio = sum(map(duration_seconds, paths))
    cell, fixed, least = median(whole), median(start), median(bare)
    detail = f"{cell - fixed:.1f} s + {fixed:.1f} s to start, bare pass {least:.1f} s ({audio / least:.0f} audio-s/s)"
    report.ratios += [
        Ratio(f"{task}: cell without start / bare pass", (cell - fixed) / least, 1.25, "at most", detail),
        Ratio(f"{task}: cell with start / bare pass", cell / least),
    ]
    report.facts[task] = {"whole": whole, "start": start, "bare": bare, "audio_seconds": audio}


def _seconds(folder: Path, model: Path, task: str, seeds: tuple[int, ...], *more: str) -> float:
    asked = [part for seed in seeds for part in ("--seed", str(seed))]
    where = ("--cache", folder / "cache", "--output", folder / "results")
    return frostbench("run", "--upstream", f"hf:{model}", "--task", task, *asked, *where, *more).seconds


if __name__ == "__main__":
    main()
