"""What an update of speech recognition costs, with SUPERB's head (BLSTM 2 x 1024) on HuBERT base by default.

Four sides on the same recordings in batches of 16:
- frostbench: `train` from cached frames (reading, mixing of layers, SpecAugment, head, CTC, backward, clipping, Adam);
- bare: the head alone on mixed features in memory (forward, CTC, backward, Adam), the same lengths and texts;
- least: the bare head and what learned weights of the layers add whoever computes them: the slope of the features,
  clipping, and two reads of the frames (the mix has to be known before its slope is), with no arithmetic on them;
- s3prl 0.4.18, whose upstream computes the same recordings again at every update (where `make s3prl-env` was run).

Prints a profile of Frostbench's update, too. One thread each; s3prl gets two if it is faster with them.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch

from benchmarks import _s3prl
from benchmarks._material import clips, save_hubert, scratch
from benchmarks._measure import Ratio, Report, by_turns, medians, parser
from core.audio import duration_seconds
from core.feature_cache import FeatureCache
from core.manifest import Utterance
from downstreams._base import HEADS, FeatureShape
from downstreams._data import Batch, Examples, load_examples, training_batches
from downstreams._downstream import Downstream
from downstreams._recipe import Recipe
from downstreams._spec_augment import augment
from downstreams._training import TrainingRun, clip_gradients, train
from downstreams.labels._base import Labels
from frostbench.jobs.base import set_up_worker
from tasks._base import TASKS
from tasks.corpora._base import open_corpus
from upstreams._base import Upstream
from upstreams._extraction.fill import caches_of, extract, lay_out
from upstreams._resolve import build_upstream

CPU = torch.device("cpu")
RATE = 1e-4
UPDATES = {"superb": 8, "fast": 40}  # of one measurement: the one look at valid shall not count


def main() -> None:
    """Measures and prints."""
    options = _options()
    set_up_worker(1)
    report = Report("asr_update", options.quick, facts={**vars(options)})
    recipe = TASKS.get("asr").recipe(options.recipe)
    batches = 1 if options.quick else options.batches or UPDATES[options.recipe]
    with scratch() as folder:
        model = save_hubert(folder / "hubert", "256x4" if options.quick else options.size)
        upstream = build_upstream(f"hf:{model}")
        rows = even_rows(recipe.batch_size * batches)
        material = Material(upstream, rows, folder / "cache", recipe)
        sides = {"frostbench": material.ours, "bare": material.bare, "least": material.least}
        for side in sides.values():
            side(1)
        repeats = 1 if options.quick else options.repeats
        seconds = by_turns(
            {name: _times(side, batches) for name, side in sides.items()}, repeats, before=material.prepare
        )
        best = {name: value / batches for name, value in medians(seconds).items()}
        report.ratios.append(
            Ratio(f"{recipe.name}: update / bare head", best["frostbench"] / best["bare"], 1.05, "at most",
                  f"frostbench {best['frostbench']:.3f} s, bare {best['bare']:.3f} s an update")
        )  # fmt: skip
        least = best["least"] / best["bare"]
        report.ratios.append(Ratio("  the least it can be", least, detail=f"{best['least']:.3f} s an update"))
        report.facts |= {"seconds": seconds, "profile": material.profile(batches)}
        report.ratios += [Ratio(f"  of which {part}", share) for part, share in report.facts["profile"].items()]
        if recipe.name == "superb" and not options.without_s3prl:
            report.ratios.append(against_s3prl(report, folder, model, upstream, rows, best["frostbench"], options))
    report.show()


def _options() -> argparse.Namespace:
    asked = parser(__doc__)
    asked.add_argument("--recipe", choices=("superb", "fast"), default="superb")
    asked.add_argument("--size", choices=("768x12", "256x4"), default="768x12", help="of HuBERT")
    asked.add_argument("--batches", type=int, help=f"updates of one measurement; {UPDATES} if left out")
    asked.add_argument("--without-s3prl", action="store_true")
    return asked.parse_args()


def _times(side: Callable[[int], None], count: int) -> Callable[[], None]:
    return lambda: side(count)


def even_rows(count: int) -> list[Utterance]:
    """So many of mini's train rows with a text, all of about the median length: every update costs the same."""
    rows = sorted(open_corpus("mini").with_label("text").split("train"), key=lambda row: duration_seconds(row.path))
    start = (len(rows) - count) // 2
    return rows[start : start + count]


@dataclass(frozen=True)
class Material:
    """Cached frames of some recordings, and heads to train on them.

    Attributes:
        upstream: whose frames they are.
        rows: the recordings.
        folder: of the cache.
        recipe: how the head is trained.
        ready: models built before the clock starts.
    """

    upstream: Upstream
    rows: Sequence[Utterance]
    folder: Path
    recipe: Recipe
    ready: list[Downstream] = field(default_factory=list)

    @cached_property
    def labels(self) -> Labels:
        """Characters of the rows."""
        return HEADS.get("ctc").labels_from_train([row.labels["text"] for row in self.rows], "text", self.recipe)

    @cached_property
    def examples(self) -> Examples:
        """The rows' frames, extracted when first asked for."""
        asked = clips(open_corpus("mini"), "frames", self.rows)
        caches = caches_of(self.folder, self.upstream.digest(), {"frames"})
        extract(self.upstream, lay_out(asked, self.upstream.window_samples), caches, CPU)
        cache: FeatureCache = caches["frames"]
        return load_examples(cache, [(clip.key,) for clip in asked], [row.labels["text"] for row in self.rows],
                             self.labels, self.upstream.downsample_rate)  # fmt: skip

    def downstream(self) -> Downstream:
        """A new featurizer and head, in training mode."""
        torch.manual_seed(0)
        shape = FeatureShape(self.upstream.hidden_size, self.upstream.downsample_rate)
        return Downstream("ctc", self.upstream.num_layers, shape, self.labels, self.recipe).train()

    def prepare(self) -> None:
        """Builds the downstream of the next side, whose random numbers would count otherwise."""
        self.ready.append(self.downstream())

    def fresh(self) -> Downstream:
        """A prepared downstream."""
        return self.ready.pop() if self.ready else self.downstream()

    def batches(self, count: int) -> Iterator[list[int]]:
        """Places of the recordings of the first batches."""
        return islice(training_batches(self.examples, self.recipe, torch.Generator().manual_seed(0)), count)

    def ours(self, updates: int) -> None:
        """So many updates by Frostbench's own loop, with the one look at valid that it can't do without."""
        one = load_examples(self.examples.cache, self.examples.keys[:1], [self.rows[0].labels["text"]],
                            self.labels, self.upstream.downsample_rate)  # fmt: skip
        recipe = replace(self.recipe, steps=updates, eval_every=updates)
        train(self.fresh(), {"train": self.examples, "valid": one}, lambda _: 0.0, 1, recipe, TrainingRun(RATE, 0), CPU)

    def bare(self, updates: int) -> None:
        """So many updates of the head alone on tensors in memory."""
        head = self.fresh().head
        optimizer = torch.optim.Adam(head.parameters(), RATE, fused=True)
        for batch, features in self.mixed[:updates]:
            loss = head.loss(head(features, batch.lengths), batch.lengths, batch.targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def least(self, updates: int) -> None:
        """The same with what no way of learning the layers' weights can do without."""
        head = self.fresh().head
        optimizer = torch.optim.Adam(head.parameters(), RATE, fused=True)
        for batch, features in self.mixed[:updates]:
            learned = features.detach().requires_grad_()
            _read(batch)
            loss = head.loss(head(learned, batch.lengths), batch.lengths, batch.targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            _read(batch)
            clip_gradients(head, self.recipe.clip)
            optimizer.step()

    @cached_property
    def mixed(self) -> list[tuple[Batch, torch.Tensor]]:
        """Every batch of an epoch, with its features."""
        featurizer = self.downstream().featurizer.requires_grad_(False)
        epoch = self.batches(-(-len(self.rows) // self.recipe.batch_size))
        return [(batch, featurizer(batch.layers)) for batch in map(self.examples.batch, epoch)]

    def profile(self, updates: int) -> dict[str, float]:
        """The shares of an update's parts, done one after the other as Frostbench does them."""
        downstream = self.downstream()
        optimizer = torch.optim.Adam(downstream.parameters(), RATE, fused=True)
        clock = Stopwatch()
        for indices in self.batches(updates):
            with clock("reading a batch"):
                batch = self.examples.batch(indices)
            with clock("mixing layers"):
                features = downstream.featurizer(batch.layers)
            mixed = features.detach().requires_grad_()  # so that backward can be timed in two parts
            with clock("SpecAugment"):
                given = mixed
                if self.recipe.spec_augment is not None:
                    given = augment(mixed, batch.lengths, self.recipe.spec_augment)
            with clock("head forward"):
                logits = downstream.head(given, batch.lengths)
            with clock("CTC loss"):
                loss = downstream.head.loss(logits, batch.lengths, batch.targets)
            with clock("backward to the features"):
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
            with clock("backward to the layers' weights"):
                features.backward(mixed.grad)
            with clock("norm of the gradients"):
                clip_gradients(downstream, self.recipe.clip)
            with clock("Adam"):
                optimizer.step()
        return clock.shares()


def _read(batch: Batch) -> None:
    """Every byte of the frames, by the cheapest sum there is."""
    for frames in batch.layers:
        frames.flatten().view(torch.int64).sum()


class Stopwatch:
    """Adds up seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times what is inside."""
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started

    def shares(self) -> dict[str, float]:
        """Name -> its part of the whole."""
        whole = sum(self.seconds.values())
        return {name: seconds / whole for name, seconds in self.seconds.items()}


def against_s3prl(
    report: Report,
    folder: Path,
    model: Path,
    upstream: Upstream,
    rows: Sequence[Utterance],
    ours: float,
    options: argparse.Namespace,
) -> Ratio:
    """s3prl's seconds an update against ours."""
    _s3prl.require_environment()
    size = 2 * TASKS.get("asr").recipe("superb").batch_size  # s3prl halves every batch
    threads, theirs = _s3prl.fastest(
        folder,
        (1,) if options.quick else (1, 2),
        head="speech",
        upstream=_s3prl.hubert(model),
        librispeech=str(_s3prl.librispeech(folder / "librispeech", rows)),
        batch_size=size,
        learning_rate=RATE,
        updates=1 + len(rows) // (size // 2),
    )
    _s3prl.require_same(upstream, theirs)
    report.facts["s3prl"] = {"threads": threads, **theirs}
    seconds = theirs["seconds_per_update"]
    detail = f"s3prl {seconds:.2f} s ({threads} thread{'s' if threads > 1 else ''}), ours {ours:.2f} s"
    return Ratio("s3prl's update / ours from the cache", seconds / ours, 2.0, "at least", detail)


if __name__ == "__main__":
    main()
