"""Resident memory of an extraction, whatever the corpus' length: 1x, 4x and 8x, each with a few very long recordings.

Every extraction runs in a process of its own. Counted is the peak of its resident memory above what it held when the
upstream was loaded. The kind is frames, of which there are most.
"""

from __future__ import annotations

import json
import resource
from pathlib import Path

import torch

from benchmarks._material import clips, mixed_lengths, save_hubert, scratch, speech_corpus
from benchmarks._measure import Ratio, Report, parser, python
from core.manifest import read_manifest
from frostbench.jobs.base import set_up_worker
from upstreams._extraction.fill import caches_of, extract, lay_out
from upstreams._resolve import build_upstream

SIZES = (1, 4, 8)
ALLOWED = 1.5e9  # bytes above the upstream


def main() -> None:
    """Measures and prints."""
    asked = parser(__doc__)
    asked.add_argument("--recordings", type=int, default=12, help="of 2 to 12 s, at 1x")
    asked.add_argument("--long", type=float, default=180.0, help="seconds of each very long recording")
    asked.add_argument("--longs", type=int, default=2, help="how many of them, at every size")
    asked.add_argument("--size", choices=("768x12", "256x4"), default="768x12", help="of HuBERT")
    asked.add_argument("--extract", nargs=3, type=Path, metavar=("CORPUS", "MODEL", "CACHE"), help="as the child does")
    options = asked.parse_args()
    if options.extract:
        print(json.dumps(child(*options.extract)))
        return
    report = Report("memory", options.quick, facts={**vars(options)})
    with scratch() as folder:
        model = save_hubert(folder / "hubert", "256x4" if options.quick else options.size)
        for size in (1,) if options.quick else SIZES:
            lengths = [*mixed_lengths(options.recordings * size), *[options.long] * options.longs]
            speech_corpus(folder / f"corpus{size}", lengths)
            paths = (folder / f"corpus{size}", model, folder / f"cache{size}")
            # A thread, since the other ways of counting threads are the machine's, and each has buffers of its own.
            finished = python("-m", "benchmarks.memory", "--extract", *paths, threads=1)
            facts = json.loads(finished.output.splitlines()[-1])
            above = facts["peak_bytes"] - facts["loaded_bytes"]
            detail = f"{sum(lengths):.0f} s of audio: {facts['loaded_bytes'] / 1e9:.2f} GB when loaded, then peak "
            detail += f"{facts['peak_bytes'] / 1e9:.2f} GB; {above / 1e9:.2f} GB for extraction"
            report.ratios.append(Ratio(f"{size}x: extraction / 1.5 GB", above / ALLOWED, 1.0, "at most", detail))
            report.facts[f"{size}x"] = facts
    report.show()


def child(corpus: Path, model: Path, cache: Path) -> dict[str, int]:
    """Extracts frames of a corpus; bytes of resident memory once loaded, and at the peak."""
    set_up_worker(1)
    upstream = build_upstream(f"hf:{model}")
    caches = caches_of(cache, upstream.digest(), {"frames"})
    loaded = resident_bytes()
    extract(
        upstream, lay_out(clips(read_manifest(corpus), "frames"), upstream.window_samples), caches, torch.device("cpu")
    )
    return {"loaded_bytes": loaded, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def resident_bytes() -> int:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
