"""What bfloat16 and int8 frames change in scores: every cell computed in each way, with the same seeds.

`--precision bfloat16` is compared in every task, `--frames int8` in those whose head looks at frames. All is run by the
command line. The folder keeps features and trained heads, so that a later call goes on where this one ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from benchmarks._material import scores_of, scratch
from benchmarks._measure import Ratio, Report, frostbench, mean_and_deviation, parser
from downstreams._base import HEADS
from tasks._base import TASKS
from tasks.corpora._base import open_corpus

WAYS = {"float32": (), "bfloat16": ("--precision", "bfloat16"), "int8": ("--frames", "int8")}


def main() -> None:
    """Measures and prints."""
    asked = parser(__doc__)
    asked.add_argument("--upstream", action="append", required=True, help="several")
    asked.add_argument(
        "--task", action="append", choices=TASKS.names(), help="several; all that the corpus serves if left out"
    )
    asked.add_argument("--corpus", default="mini", help="as `run` takes it")
    asked.add_argument("--seeds", type=int, default=3, help="from 0; heads of all tasks are trained with each")
    asked.add_argument("--folder", type=Path, default=Path("score_effects"), help="of features and heads")
    options = asked.parse_args()
    labels = {label for row in open_corpus(options.corpus).utterances for label in row.labels}
    tasks = options.task or [task.name for task in TASKS if task.label in labels]
    report = Report("score_effects", options.quick, facts={**vars(options)})
    for spec in options.upstream:
        for task in tasks:
            report.ratios += compare(spec, task, options.corpus, options.seeds, options.folder, options.quick)
    report.show()


def compare(spec: str, task: str, corpus: str, seeds: int, folder: Path, quick: bool) -> list[Ratio]:
    """The lines of one upstream and task: how far each way is from float32 and frames in half precision."""
    frames = HEADS.get(TASKS.get(task).head).needs == "frames"
    ways = [way for way in WAYS if frames or way != "int8"]
    scores: dict[str, list[float]] = {}
    asked = ["--corpus", corpus, "--upstream", spec, "--task", task, *(("--limit", "20") if quick else ())]
    asked += [part for seed in range(seeds) for part in ("--seed", str(seed))]
    for way in ways:
        with scratch() as results:  # a new one, since records of other seeds or of a quick run are none of ours
            frostbench("run", *asked, *WAYS[way], "--cache", folder, "--output", results)
            scores[way] = scores_of(results)
    return [line(f"{Path(spec).name} {task}: {way}", scores[ways[0]], scores[way]) for way in ways[1:]]


def line(name: str, usual: Sequence[float], other: Sequence[float]) -> Ratio:
    """Points between the means, and what they are means of."""
    differences = [there - here for here, there in zip(usual, other, strict=True)]
    by_seed = ", ".join(f"{difference:+.1f}" for difference in differences)
    detail = f"{mean_and_deviation(usual)} -> {mean_and_deviation(other)}; by seed {by_seed}"
    return Ratio(f"{name}, points", mean(differences), detail=detail)


if __name__ == "__main__":
    main()
