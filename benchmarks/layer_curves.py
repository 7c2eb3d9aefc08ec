"""A head on every single layer beside the one on the learned sum (`run --layers each`), against the sum alone.

The features lie in the cache, no head does. What is timed is the whole command, as a user waits for it: imports, heads
on every core, evaluation on test. The folder keeps the features, so that a later call has no pass to wait for.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from benchmarks._material import scratch
from benchmarks._measure import Ratio, Report, by_turns, frostbench, medians, parser
from core.records import RecordStore

TASKS = ("ks", "sid", "ic")
MOST_SECONDS = 120.0  # for the curves of three upstreams on three tasks, on two cores


def main() -> None:
    """Measures and prints."""
    asked = parser(__doc__)
    asked.add_argument("--upstream", action="append", help="several; apc and hubert, as they ship, if left out")
    asked.add_argument("--task", action="append", choices=TASKS, help="several; all of them if left out")
    asked.add_argument("--folder", type=Path, default=Path("layer_curves"), help="of features")
    options = asked.parse_args()
    upstreams, tasks = options.upstream or ["apc", "hubert"], options.task or list(TASKS)
    command = ["run", *(word for name in upstreams for word in ("--upstream", name))]
    command += [word for name in tasks for word in ("--task", name)]
    command += ["--corpus", "mini", *(("--limit", "20") if options.quick else ()), "--cache", str(options.folder)]
    with scratch() as results:
        frostbench(*command, "--output", results / "warm")
        ways: dict[str, tuple[str, ...]] = {"sum": (), "each": ("--layers", "each")}
        computed: dict[str, list[float]] = {way: [] for way in ways}

        def run(way: str) -> None:
            done = frostbench(*command, *ways[way], "--output", results / way)
            computed[way].append(done.cpu_seconds)

        sides = {way: partial(run, way) for way in ways}
        repeats = 1 if options.quick else options.repeats
        seconds = by_turns(sides, repeats, before=lambda: forget_heads(options.folder, results))
        runs = len(RecordStore(results / "each").paths())  # measured last
    report = Report(
        "layer_curves", options.quick, facts={**vars(options), "seconds": seconds, "computed": computed, "runs": runs}
    )
    best, work = medians(seconds), medians(computed)
    report.ratios = [
        Ratio("each layer and the sum / the sum alone", best["each"] / best["sum"], detail=told(best)),
        Ratio("the same in computing, on all cores", work["each"] / work["sum"], detail=told(work)),
        Ratio(f"seconds of all curves / {MOST_SECONDS:g}", best["each"] / MOST_SECONDS, 1.0, "at most",
              f"{len(upstreams)} upstreams, {len(tasks)} tasks, {runs} heads"),
    ]  # fmt: skip
    report.show()


def told(seconds: Mapping[str, float]) -> str:
    """The seconds of each side in words."""
    return ", ".join(f"{side} {value:.1f} s" for side, value in seconds.items())


def forget_heads(features: Path, results: Path) -> None:
    """What was trained and recorded before is not there any more."""
    for folder in (features / "heads", results / "sum", results / "each"):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
