"""Serving one epoch of cached frames against plain sequential reads of the same bytes, warm and cold.

Serving means that every frame of every batch of a training epoch, in its random order, comes into memory once; reading
means read() of the segments from first to last byte into one buffer. Warm is an epoch of a training under way, cold the
first one after the page cache was dropped, which needs root. Mixing, the weighted sum that a training reads frames for,
is timed beside it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from benchmarks._material import scratch
from benchmarks._measure import Ratio, Report, by_turns, medians, parser
from core.feature_cache import FeatureCache
from downstreams._data import Batch, FrameExamples, load_examples, training_batches
from downstreams._featurizer import Featurizer
from downstreams.labels.text import TextLabels
from tasks._base import TASKS

BUFFER_BYTES = 1 << 20
DROP = Path("/proc/sys/vm/drop_caches")
SHAPE = (13, 768)  # HuBERT base
SOURCE = "0" * 64  # stands for an upstream's digest


def main() -> None:
    """Measures and prints."""
    asked = parser(__doc__)
    asked.add_argument("--gigabytes", type=float, default=3.0, help="of frames; has to fit into the page cache")
    options = asked.parse_args()
    torch.set_num_threads(1)
    report = Report("cache_read", options.quick, facts={**vars(options)})
    size = int((0.3 if options.quick else options.gigabytes) * 1e9)
    repeats = 1 if options.quick else options.repeats
    with scratch() as folder:
        keys, segments = filled(folder, size)
        warm(report, folder, keys, segments, repeats)
        if os.access(DROP, os.W_OK):
            again = sides(lambda: opened(folder, keys), segments)
            add(report, "cold", segments, by_turns(again, repeats, before=drop_page_cache))
        else:
            print("cold: not measured, dropping the page cache needs root")
    report.show()


def warm(report: Report, folder: Path, keys: Sequence[str], segments: Sequence[Path], repeats: int) -> None:
    """Epochs of one training. Its cache is closed on return: what is mapped does not leave the page cache."""
    examples = opened(folder, keys)
    those = sides(lambda: examples, segments)
    for side in those.values():
        side()
    add(report, "warm", segments, by_turns(those, repeats))


def sides(examples: Callable[[], FrameExamples], segments: Sequence[Path]) -> dict[str, Callable[[], None]]:
    """What is timed."""
    return {"serve": lambda: serve(examples()), "mix": lambda: mix(examples()), "read": lambda: read(segments)}


def add(report: Report, kind: str, segments: Sequence[Path], seconds: dict[str, list[float]]) -> None:
    """Adds lines to the report."""
    best = medians(seconds)
    size = sum(path.stat().st_size for path in segments)
    detail = ", ".join(f"{name} {value:.2f} s ({size / value / 1e9:.2f} GB/s)" for name, value in best.items())
    report.facts[kind] = seconds
    report.ratios += [
        Ratio(f"{kind}: serve / read", best["serve"] / best["read"], 1.3, "at most", detail),
        Ratio(f"{kind}: mix / read", best["mix"] / best["read"]),
    ]


def filled(folder: Path, size: int) -> tuple[list[str], list[Path]]:
    """Fills a cache with about so many bytes, utterances of 2 to 12 s at 50 frames a second; its keys and segments."""
    cache = FeatureCache(folder, SOURCE, "frames")
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((600, *SHAPE)).astype(np.float16)
    keys: list[str] = []
    written = 0
    while written < size:
        arrays = {f"{len(keys) + number:064d}": noise[: rng.integers(100, 601)] for number in range(32)}
        cache.add(arrays)
        keys += arrays
        written += sum(array.nbytes for array in arrays.values())
    return keys, sorted(folder.rglob("*.npy"))


def opened(folder: Path, keys: Sequence[str]) -> FrameExamples:
    """The cache's utterances, as a training reads them."""
    labels = TextLabels.from_train(["a"], "text")
    cache = FeatureCache(folder, SOURCE, "frames")
    examples = load_examples(cache, [(key,) for key in keys], ["a"] * len(keys), labels, 160)
    assert isinstance(examples, FrameExamples), "frames were asked for"
    return examples


def epoch(examples: FrameExamples) -> Iterator[Batch]:
    """Every batch once, in a training's order."""
    recipe = TASKS.get("asr").recipe("superb")
    batches = training_batches(examples, recipe, torch.Generator().manual_seed(0))
    count = math.ceil(len(examples.keys) / recipe.batch_size)
    return (examples.batch(indices) for indices in islice(batches, count))


def serve(examples: FrameExamples) -> None:
    """Copies every utterance, as read() copies what it reads."""
    for batch in epoch(examples):
        for utterance in batch.layers:
            utterance.clone()


@torch.no_grad()
def mix(examples: FrameExamples) -> None:
    """The features of every batch."""
    featurizer = Featurizer(SHAPE[0])
    for batch in epoch(examples):
        featurizer(batch.layers)


def read(segments: Sequence[Path]) -> None:
    """Every byte of the segments, in order."""
    buffer = bytearray(BUFFER_BYTES)
    for path in segments:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def drop_page_cache() -> None:
    """Lets the kernel forget what it has read of any file."""
    os.sync()
    DROP.write_text("1", encoding="utf-8")


if __name__ == "__main__":
    main()
