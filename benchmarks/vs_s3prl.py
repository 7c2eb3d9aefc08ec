"""KS and SID against s3prl 0.4.18, on the same recordings with the same HuBERT weights, recipe, head and batch.

Speed: 10,000 updates of one learning rate and seed. Ours is the whole command from nothing cached, imports, extraction,
three evaluations and all; s3prl's are 10,000 times the seconds of one of its updates, measured in this run with the
number of threads it likes best, its start, evaluations and checkpoints not counted.

Accuracy (--accuracy): test accuracy after an equal number of updates, over several seeds on both sides.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import _s3prl
from benchmarks._material import SIZES, save_hubert, scores_of, scratch, write_task
from benchmarks._measure import ROOT, Ratio, Report, frostbench, mean_and_deviation, parser
from core.manifest import SPLITS, Manifest
from downstreams._recipe import Recipe
from tasks._base import TASKS
from tasks.corpora._base import open_corpus
from upstreams._resolve import build_upstream

UPDATES = 10_000
# Updates that are measured, after one to warm up: about half a minute each on one core.
MEASURED = {"768x12": 5, "256x4": 20}


def main() -> None:
    """Measures and prints."""
    options = _options()
    _s3prl.require_environment()
    report = Report("vs_s3prl", options.quick, facts={**vars(options)})
    manifest = open_corpus(str(options.corpus))
    with scratch() as folder:
        comparison = Comparison(folder, manifest)
        for task in options.task:
            for upstream in options.upstream:
                measure = accuracy if options.accuracy else speed
                measure(report, comparison, task, upstream, options)
    report.show()


def _options() -> argparse.Namespace:
    asked = parser(__doc__)
    asked.add_argument("--corpus", type=Path, default=ROOT.parent / "shared" / "data" / "fsdd",
                       help="folder with a metadata.jsonl whose rows have keyword and speaker")  # fmt: skip
    asked.add_argument("--task", action="append", choices=("ks", "sid"), help="both if left out")
    asked.add_argument("--upstream", action="append", choices=(*SIZES, "fbank"), help="both HuBERTs if left out")
    asked.add_argument("--accuracy", type=int, metavar="UPDATES", help="compare accuracies after so many updates")
    asked.add_argument("--learning-rate", type=float, default=1e-3)
    asked.add_argument("--seeds", type=int, default=3, help="of each side, with --accuracy")
    options = asked.parse_args()
    options.task = options.task or ["ks", "sid"]
    options.upstream = options.upstream or (["256x4"] if options.quick else list(SIZES))
    return options


class Comparison:
    """What both sides read.

    Args:
        folder: for everything that is written.
        manifest: of the corpus.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.paths = _s3prl.copies(manifest, folder / "audio")
        self.models: dict[str, Path] = {}

    def ours(self, upstream: str) -> str:
        """The upstream as our command line names it."""
        if upstream == "fbank":
            return upstream
        if upstream not in self.models:
            self.models[upstream] = save_hubert(self.folder / upstream, upstream)
        return f"hf:{self.models[upstream]}"

    def run_ours(self, task: str, upstream: str, name: str, seeds: range, *more: str, **recipe: Any) -> float:
        """Seconds of the whole command; records are in the folder `name`."""
        declared = write_task(self.folder, task, "superb", **recipe)
        asked = [part for seed in seeds for part in ("--seed", str(seed))]
        where = ("--cache", self.folder / name / "cache", "--output", self.folder / name)
        corpus = ("--corpus", self.manifest.source.parent, *more)
        return frostbench("run", "--upstream", self.ours(upstream), "--task", declared, *asked, *corpus, *where).seconds

    def specification(self, task: str, upstream: str, **more: Any) -> dict[str, Any]:
        """What s3prl shall do: SUPERB's recipe of the task."""
        recipe = TASKS.get(task).recipe("superb")
        label = TASKS.get(task).label
        self.ours(upstream)  # writes the model, if it is one
        named = _s3prl.fbank(self.folder) if upstream == "fbank" else _s3prl.hubert(self.models[upstream])
        rows = {
            split: [(str(self.paths[row.id]), str(row.labels[label])) for row in self.manifest.split(split)]
            for split in SPLITS
        }
        return {"head": "utterance", "upstream": named, "rows": rows, **_batches(task, recipe), **more}


def _batches(task: str, recipe: Recipe) -> dict[str, Any]:
    """s3prl's SID makes its 32 of 4 batches of 8."""
    accumulate = 4 if task == "sid" else 1
    sizes = {"batch_size": recipe.batch_size // accumulate, "accumulate": accumulate}
    return {**sizes, "balanced": recipe.balanced, "gain_db": TASKS.get(task).audio_of(recipe).gain_db}


def speed(report: Report, comparison: Comparison, task: str, upstream: str, options: argparse.Namespace) -> None:
    """Adds our 10,000 updates against s3prl's, extrapolated."""
    rate = options.learning_rate
    counted = 1 if options.quick else MEASURED.get(upstream, 100)
    asked = comparison.specification(task, upstream, updates=1 + counted, learning_rate=rate)
    threads, theirs = _s3prl.fastest(comparison.folder, (1,) if options.quick else (1, 2), **asked)
    _s3prl.require_same(build_upstream(comparison.ours(upstream)), theirs)
    steps = 100 if options.quick else UPDATES
    changes = {"steps": steps, "eval_every": steps // 2, "learning_rates": (rate,)}
    limit = ("--limit", "100") if options.quick else ()
    seconds = comparison.run_ours(task, upstream, f"speed-{task}-{upstream}", range(1), *limit, **changes)
    extrapolated = UPDATES * theirs["seconds_per_update"]
    detail = (
        f"ours {seconds:.0f} s; s3prl {theirs['seconds_per_update']:.2f} s an update ({threads} thread"
        f"{'s' if threads > 1 else ''}), {extrapolated / 3600:.1f} h"
    )
    report.ratios.append(Ratio(f"{task}, {upstream}: s3prl / ours", extrapolated / seconds, 100, "at least", detail))
    report.facts[f"{task}, {upstream}"] = {"ours": seconds, "threads": threads, **theirs}


def accuracy(report: Report, comparison: Comparison, task: str, upstream: str, options: argparse.Namespace) -> None:
    """Adds the difference of the mean accuracies, as a part of s3prl's range over seeds."""
    steps, rate, seeds = options.accuracy, options.learning_rate, range(2 if options.quick else options.seeds)
    name = f"accuracy-{task}-{upstream}"
    comparison.run_ours(task, upstream, name, seeds, steps=steps, eval_every=steps, learning_rates=(rate,))
    ours = scores_of(comparison.folder / name)
    outcomes = [
        _s3prl.drive(comparison.folder, 1, **comparison.specification(
            task, upstream, updates=steps, learning_rate=rate, seed=seed, evaluate=True))
        for seed in seeds
    ]  # fmt: skip
    _s3prl.require_same(build_upstream(comparison.ours(upstream)), outcomes[0])
    theirs = [outcome["accuracy"] for outcome in outcomes]
    report.facts[name] = {"ours": ours, "s3prl": theirs}
    spread = max(theirs) - min(theirs)
    detail = f"{steps} updates at {rate:g}: ours {mean_and_deviation(ours)} %, s3prl {mean_and_deviation(theirs)} %"
    off = abs(mean(ours) - mean(theirs)) / spread
    report.ratios.append(Ratio(f"{task}, {upstream}: difference / s3prl's range", off, 1.0, "at most", detail))


if __name__ == "__main__":
    main()
