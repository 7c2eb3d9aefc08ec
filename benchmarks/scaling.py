"""Total cost against corpus size, 1x to 8x: extraction and all heads of a KS cell by the command line.

Cost is a fixed part (start, 4 learning rates of a fixed number of updates) and a part that grows. Linear means: no size
is further than 10 % from the straight line through all of them, and 8x does not cost more than 8 times 1x. Cost is
counted in seconds, and in seconds of computing, which other programs on the same cores change less.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from benchmarks._material import mixed_lengths, save_hubert, scratch, speech_corpus, write_task
from benchmarks._measure import Finished, Ratio, Report, frostbench, parser

SIZES = (1, 2, 4, 8)


def main() -> None:
    """Measures and prints."""
    asked = parser(__doc__)
    asked.add_argument("--recordings", type=int, default=18, help="of 2 to 12 s, at 1x")
    asked.add_argument("--size", choices=("768x12", "256x4"), default="256x4", help="of HuBERT")
    asked.add_argument("--task", choices=("ks", "asr"), default="ks", help="asr keeps frames, not means")
    options = asked.parse_args()
    report = Report("scaling", options.quick, facts={**vars(options)})
    recordings, repeats = (6, 1) if options.quick else (options.recordings, options.repeats)
    with scratch() as folder:
        model = save_hubert(folder / "hubert", options.size)
        lengths = {size: mixed_lengths(recordings * size) for size in SIZES}
        task = write_task(folder, options.task, None, steps=20, eval_every=20) if options.quick else options.task
        for size, seconds in lengths.items():
            speech_corpus(folder / f"corpus{size}", seconds)
        measured: dict[int, list[Finished]] = {size: [] for size in SIZES}
        for turn in range(repeats):
            for size in SIZES:
                where = ("--cache", folder / f"cache{size}-{turn}", "--output", folder / f"results{size}-{turn}")
                asked_for = ("--corpus", folder / f"corpus{size}", "--task", task)
                measured[size].append(frostbench("run", "--upstream", f"hf:{model}", *asked_for, *where))
    audio = [sum(lengths[size]) for size in SIZES]
    for unit in ("seconds", "cpu_seconds"):
        costs = [[getattr(finished, unit) for finished in measured[size]] for size in SIZES]
        report.ratios += lines(unit.replace("cpu_", "computing "), audio, [median(cost) for cost in costs])
        report.facts[unit] = dict(zip(SIZES, costs, strict=True))
    report.show()


def lines(unit: str, audio: Sequence[float], costs: Sequence[float]) -> list[Ratio]:
    """How far costs are from a straight line, and from growing faster than the corpus."""
    cost = np.array(costs)
    slope, fixed = np.polyfit(audio, cost, 1)
    off = np.abs(slope * np.array(audio) + fixed - cost) / cost
    detail = ", ".join(f"{size}x {value:.1f} s" for size, value in zip(SIZES, costs, strict=True))
    line = f"line: {fixed:.1f} s + {1000 * slope:.1f} ms an audio second"
    return [
        Ratio(f"{unit}: furthest from the line / cost", float(off.max()), 0.1, "at most", line),
        Ratio(f"{unit}: 8x / 8 times 1x", float(cost[-1] / (8 * cost[0])), 1.1, "at most", detail),
    ]


if __name__ == "__main__":
    main()
