"""Time to the same valid WER: the fast recipe of speech recognition against the `superb` one, from the same frames.

The fast recipe runs first, to its end; its best valid WER is what the other has to reach. Time is that of training,
looks at valid included, of one learning rate each. The superb side looks at valid every --look updates, other than its
recipe, so that the moment can be seen; it is stopped once it needs more than --give-up times as long.
"""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from benchmarks._material import scratch
from benchmarks._measure import Ratio, Report, parser
from core.feature_cache import FeatureCache
from core.metrics import get_metric
from downstreams._base import HEADS, FeatureShape
from downstreams._data import load_examples
from downstreams._downstream import Downstream
from downstreams._recipe import Recipe
from downstreams._training import TrainingRun, train
from frostbench.jobs.base import set_up_worker
from tasks._base import TASKS
from tasks._rows import clips_of, task_rows
from tasks.corpora._base import open_corpus
from upstreams._extraction.fill import caches_of, extract, lay_out
from upstreams._resolve import build_upstream

TASK = TASKS.get("asr")
CPU = torch.device("cpu")


class Reached(Exception):  # noqa: N818
    """Stops a training: it is where it should be, or too late."""


def main() -> None:
    """Measures and prints."""
    options = _options()
    set_up_worker(1)
    report = Report("asr_recipes", options.quick, facts={**vars(options)})
    fast = replace(TASK.recipe("fast"), **({"steps": 20, "eval_every": 10} if options.quick else {}))
    superb = replace(TASK.recipe("superb"), eval_every=10 if options.quick else options.look)
    with scratch() as folder:
        sides = Sides(options, folder)
        curve = sides.train(fast, options.fast_rate)
        target = min(wer for _, wer in curve)
        needed = next(seconds for seconds, wer in curve if wer <= target)
        until = (2 if options.quick else options.give_up) * needed
        other = sides.train(superb, options.superb_rate, target, until)
    seconds, wer = other[-1]
    reached = wer <= target
    detail = f"valid WER {target:.1f} %: fast {needed:.0f} s; superb "
    detail += f"{seconds:.0f} s" if reached else f"at {min(wer for _, wer in other):.1f} % when stopped"
    name = "superb / fast" if reached else "superb / fast, at least"
    report.ratios = [Ratio(name, seconds / needed, 5, "at least", detail)]
    report.facts |= {"fast": curve, "superb": other}
    report.show()


def _options() -> argparse.Namespace:
    asked = parser(__doc__)
    asked.add_argument("--corpus", default="mini", help="as for frostbench run")
    asked.add_argument("--upstream", default="fbank", help="as for frostbench run")
    asked.add_argument("--limit", type=int, help="rows a split")
    asked.add_argument("--fast-rate", type=float, default=4e-3)
    asked.add_argument("--superb-rate", type=float, default=1e-3, help="s3prl's own is 1e-4, which is slower at first")
    asked.add_argument("--look", type=int, default=50, help="updates between the superb side's looks at valid")
    asked.add_argument("--give-up", type=float, default=10.0, help="times the fast side's seconds")
    return asked.parse_args()


class Sides:
    """Frames of a corpus, extracted once, and trainings on them."""

    def __init__(self, options: argparse.Namespace, folder: Any) -> None:
        self.upstream = build_upstream(options.upstream)
        rows = task_rows(open_corpus(options.corpus), TASK, None, 40 if options.quick else options.limit)
        batches = lay_out(clips_of([(rows.all_clips(), "frames")]), self.upstream.window_samples)
        caches = caches_of(folder, self.upstream.digest(), {"frames"})
        extract(self.upstream, batches, caches, CPU)
        self.cache: FeatureCache = caches["frames"]
        self.rows = rows.examples

    def train(
        self, recipe: Recipe, rate: float, target: float = -1.0, until: float = float("inf")
    ) -> list[tuple[float, float]]:
        """(Seconds, valid WER) of every look at valid until the target is reached or time is up."""
        labels = HEADS.get("ctc").labels_from_train([row.label for row in self.rows["train"]], TASK.label, recipe)
        rate_of_frames = self.upstream.downsample_rate
        data = {
            split: load_examples(self.cache, [r.keys for r in rows], [r.label for r in rows], labels, rate_of_frames)
            for split, rows in self.rows.items()
        }
        references = [labels.reference(row.label) for row in self.rows["valid"]]
        torch.manual_seed(0)
        shape = FeatureShape(self.upstream.hidden_size, self.upstream.downsample_rate)
        downstream = Downstream("ctc", self.upstream.num_layers, shape, labels, recipe)
        curve: list[tuple[float, float]] = []
        metric = get_metric(TASK.selecting)
        started = time.perf_counter()

        def score(predictions: list[Any]) -> float:
            curve.append((time.perf_counter() - started, metric.compute(predictions, references)))
            if curve[-1][1] <= target or curve[-1][0] > until:
                raise Reached
            return curve[-1][1]

        with suppress(Reached):
            train(downstream, data, score, metric.sign, recipe, TrainingRun(rate, 0), CPU)
        return curve


if __name__ == "__main__":
    main()
