"""Serving one epoch of cached frames against plain sequential reads of the same bytes, warm and cold.

Serving means every batch of a training epoch, in its random order, padded in memory; reading means read() of the
segments from first to last byte into one buffer. Cold needs the right to drop the page cache (root).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from benchmarks._material import scratch
from benchmarks._measure import Ratio, Report, by_turns, medians, parser
from core.feature_cache import FeatureCache
from downstreams._data import FrameExamples, load_examples, training_batches
from downstreams._labels import CharacterLabels
from tasks._base import TASKS

BUFFER_BYTES = 1 << 23
DROP = Path("/proc/sys/vm/drop_caches")
SHAPE = (13, 768)  # HuBERT base


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
        examples, segments = filled(folder, size)
        size = sum(path.stat().st_size for path in segments)
        sides = {"serve": lambda: serve(examples), "read": lambda: read(segments)}
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


def filled(folder: Path, size: int) -> tuple[FrameExamples, list[Path]]:
    """A cache of about so many bytes, and its segments; utterances of 2 to 12 s at 50 frames a second."""
    cache = FeatureCache(folder, "0" * 64, "frames")
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((600, *SHAPE)).astype(np.float16)
    keys: list[str] = []
    written = 0
    while written < size:
        arrays = {f"{len(keys) + number:064d}": noise[: rng.integers(100, 601)] for number in range(32)}
        cache.add(arrays)
        keys += arrays
        written += sum(array.nbytes for array in arrays.values())
    labels = CharacterLabels.from_train(["a"], "text")
    examples = load_examples(cache, [(key,) for key in keys], ["a"] * len(keys), labels)
    return examples, sorted(folder.rglob("*.npy"))


def serve(examples: FrameExamples) -> None:
    """Every batch of an epoch."""
    recipe = TASKS.get("asr").recipe("superb")
    batches = training_batches(examples, recipe, torch.Generator().manual_seed(0))
    count = -(-len(examples.lengths) // recipe.batch_size)
    for _ in range(count):
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
