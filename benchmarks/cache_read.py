"""Serving one epoch of cached frames against plain sequential reads of the same bytes, warm and cold.

Serving means every batch of a training epoch, in its random order, padded in memory; reading means read() of the
segments from first to last byte into one buffer. Cold needs the right to drop the page cache (root).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks._material import scratch
from benchmarks._measure import Ratio, Report, by_turns, medians, parser
from core.feature_cache import FeatureCache
from downstreams._data import load_examples, training_batches
from downstreams._labels import CharacterLabels
from tasks._base import TASKS

BUFFER_BYTES = 1 << 23
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
        size = sum(path.stat().st_size for path in segments)
        sides = {"serve": lambda: serve(folder, keys), "read": lambda: read(segments)}
        for side in sides.values():
            side()
        kinds = {"warm": lambda: None, "cold": drop_page_cache}
        if not os.access(DROP, os.W_OK):
            print("cold: not measured, dropping the page cache needs root")
            del kinds["cold"]
        for kind, before in kinds.items():
            seconds = by_turns(sides, repeats, before=before)
            report.facts[kind] = seconds
            best = medians(seconds)
            detail = ", ".join(f"{name} {value:.2f} s ({size / value / 1e9:.2f} GB/s)" for name, value in best.items())
            report.ratios.append(Ratio(f"{kind}: serve / read", best["serve"] / best["read"], 1.3, "at most", detail))
    report.show()


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


def serve(folder: Path, keys: Sequence[str]) -> None:
    """Every batch of an epoch, from a cache opened anew: what is still mapped would not leave the page cache."""
    recipe = TASKS.get("asr").recipe("superb")
    labels = CharacterLabels.from_train(["a"], "text")
    cache = FeatureCache(folder, SOURCE, "frames")
    examples = load_examples(cache, [(key,) for key in keys], ["a"] * len(keys), labels)
    batches = training_batches(examples, recipe, torch.Generator().manual_seed(0))
    for _ in range(math.ceil(len(keys) / recipe.batch_size)):
        examples.batch(next(batches))


def read(segments: list[Path]) -> None:
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
