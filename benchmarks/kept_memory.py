"""What keeping freed memory saves a pass of extraction, in a process each: CPU seconds, new pages, peak memory.

One side is a worker process as Frostbench sets it up; the other leaves freed memory to the C library.
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks._material import clips, mixed_lengths, save_hubert, scratch, speech_corpus
from benchmarks._measure import Ratio, Report, parser, python
from core.manifest import read_manifest
from frostbench.jobs.base import set_up_worker
from upstreams._extraction.fill import caches_of, extract, lay_out
from upstreams._resolve import build_upstream

SIDES = ("kept", "left")


@dataclass(frozen=True)
class Pass:
    """One pass: CPU seconds of the process, pages the system handed out, and the peak of its resident memory."""

    cpu_seconds: float
    new_pages: int
    peak_bytes: int


def main() -> None:
    """Measures and prints."""
    asked = parser(__doc__)
    asked.add_argument("--recordings", type=int, default=24, help="of 2 to 12 s each")
    asked.add_argument("--size", choices=("768x12", "256x4"), default="768x12", help="of HuBERT")
    asked.add_argument("--pass", dest="child", nargs=4, metavar=("SIDE", "CORPUS", "MODEL", "CACHE"), help="the child")
    options = asked.parse_args()
    if options.child:
        side, *paths = options.child
        print(json.dumps(asdict(one_pass(side, *map(Path, paths)))))
        return
    report = Report("kept_memory", options.quick, facts={**vars(options)})
    passes: dict[str, list[Pass]] = {side: [] for side in SIDES}
    with scratch() as folder:
        model = save_hubert(folder / "hubert", "256x4" if options.quick else options.size)
        corpus = folder / "corpus"
        speech_corpus(corpus, mixed_lengths(6 if options.quick else options.recordings))
        for turn in range(1 if options.quick else options.repeats):
            for side in SIDES:
                cache = folder / f"cache-{side}-{turn}"
                paths = (corpus, model, cache)
                finished = python("-m", "benchmarks.kept_memory", "--pass", side, *paths, threads=1)
                passes[side].append(Pass(**json.loads(finished.output.splitlines()[-1])))
    report.ratios = [
        ratio("CPU time of a pass, freed memory kept / left to the C library", passes, "cpu_seconds", 1, "s", 1.0),
        ratio("new pages", passes, "new_pages", 1e6, "million"),
        ratio("peak memory", passes, "peak_bytes", 1e9, "GB"),
    ]
    report.facts |= {side: [asdict(each) for each in done] for side, done in passes.items()}
    report.show()


def ratio(
    name: str, passes: dict[str, list[Pass]], field: str, scale: float, unit: str, target: float | None = None
) -> Ratio:
    """Medians of both sides divided."""
    kept, left = (median(getattr(each, field) for each in passes[side]) for side in SIDES)
    return Ratio(name, kept / left, target, "at most", f"{kept / scale:.2f} {unit}, {left / scale:.2f} {unit}")


def one_pass(side: str, corpus: Path, model: Path, cache: Path) -> Pass:
    """Extracts in this process, once it is set up."""
    if side == "kept":
        set_up_worker(1)
    else:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
    upstream = build_upstream(f"hf:{model}")
    caches = caches_of(cache, upstream.digest(), {"pooled"})
    batches = lay_out(clips(read_manifest(corpus), "pooled"), upstream.window_samples)
    started, pages = time.process_time(), _used().ru_minflt
    extract(upstream, batches, caches, torch.device("cpu"))
    return Pass(time.process_time() - started, _used().ru_minflt - pages, _used().ru_maxrss * 1024)


def _used() -> Any:
    return resource.getrusage(resource.RUSAGE_SELF)


if __name__ == "__main__":
    main()
