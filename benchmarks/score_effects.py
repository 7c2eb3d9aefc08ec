"""What bfloat16 and int8 frames change in scores: every cell computed in each way, with the same seeds.

`--precision bfloat16` is compared in every task, `--frames int8` in those whose head looks at frames. All is run by the
command line. The folder keeps features and records, so that a later call goes on where this one ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from benchmarks._measure import Ratio, Report, frostbench, parser
from core.records import RecordStore
from downstreams._base import HEADS
from tasks._base import TASKS

WAYS = {"float32": (), "bfloat16": ("--precision", "bfloat16"), "int8": ("--frames", "int8")}


def main() -> None:
    """Measures and prints."""
    asked = parser(__doc__)
    asked.add_argument("--upstream", action="append", required=True, help="several")
    asked.add_argument("--task", action="append", choices=TASKS.names(), help="several; all if left out")
    asked.add_argument("--corpus", default="mini", help="as `run` takes it")
    asked.add_argument("--seeds", type=int, default=3, help="from 0; heads of all tasks are trained with each")
    asked.add_argument("--folder", type=Path, default=Path("score_effects"), help="of features and records")
    options = asked.parse_args()
    report = Report("score_effects", options.quick, facts={**vars(options)})
    for spec in options.upstream:
        for task in options.task or TASKS.names():
            report.ratios += compare(spec, task, options.corpus, options.seeds, options.folder, options.quick)
    report.show()


def compare(spec: str, task: str, corpus: str, seeds: int, folder: Path, quick: bool) -> list[Ratio]:
    """The lines of one upstream and task: how far each way is from float32 and frames in half precision."""
    frames = HEADS.get(TASKS.get(task).head).needs == "frames"
    ways = [way for way in WAYS if frames or way != "int8"]
    scores: dict[str, list[float]] = {}
    for way in ways:
        results = folder / "results" / "-".join((Path(corpus).name, spec.replace("/", "_"), task, way))
        asked = [part for seed in range(seeds) for part in ("--seed", str(seed))]
        limit = ("--limit", "20") if quick else ()
        where = ("--cache", folder / "cache", "--output", results)
        frostbench("run", "--corpus", corpus, "--upstream", spec, "--task", task, *asked, *WAYS[way], *limit, *where)
        records = sorted(RecordStore(results).all(), key=lambda record: record.seed)
        scores[way] = [record.value for record in records]
    return [line(f"{Path(spec).name} {task}: {way}", scores[ways[0]], scores[way]) for way in ways[1:]]


def line(name: str, usual: Sequence[float], other: Sequence[float]) -> Ratio:
    """Points between the means, and what they are means of."""
    differences = [there - here for here, there in zip(usual, other, strict=True)]
    by_seed = ", ".join(f"{difference:+.1f}" for difference in differences)
    return Ratio(f"{name}, points", mean(differences), detail=f"{spelt(usual)} -> {spelt(other)}; by seed {by_seed}")


def spelt(scores: Sequence[float]) -> str:
    """Mean and standard deviation over the seeds."""
    return f"{mean(scores):.1f} ± {stdev(scores):.1f}" if len(scores) > 1 else f"{scores[0]:.1f}"


if __name__ == "__main__":
    main()
