"""Four tasks on mini: every recording passes the upstream once. Two counters: Frostbench's, and the upstream's own.

The upstream writes down a digest of each waveform it hears, so a recording that passes twice shows even if the program
counts wrongly. Heads are trained for one update only; that does not change what has to pass.
"""

from __future__ import annotations

import os
from collections import Counter

from benchmarks._material import UPSTREAMS, scratch, write_task
from benchmarks._measure import Ratio, Report, parser
from core.digest import file_digest
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.grid.upstream_checks import check_upstream
from frostbench.jobs.local import LocalExecutor
from tasks._base import resolve_task
from tasks.corpora._base import open_corpus
from upstreams._facts import UpstreamFacts
from upstreams._resolve import build_upstream

TASKS = ("ks", "sid", "ic", "asr")
DIARY = "FROSTBENCH_PASSES"  # environment variable that the upstream `Counting` reads


def main() -> None:
    """Measures and prints."""
    options = parser(__doc__).parse_args()
    report = Report("one_pass", options.quick)
    manifest = open_corpus("mini")
    with scratch() as folder:
        once = {"steps": 1, "learning_rates": (1e-3,), "eval_every": 1}
        tasks = [resolve_task(write_task(folder, task, None, **once)) for task in TASKS]
        os.environ[DIARY] = str(folder)
        # Of its own accord a run passes noise besides, to check the contract; that is done here before.
        facts = UpstreamFacts.of(f"{UPSTREAMS}:Counting", build_upstream(f"{UPSTREAMS}:Counting"))
        check_upstream(facts, folder / "cache", device="cpu", advance=lambda amount: None)
        for path in folder.glob("*.txt"):
            path.unlink()
        grid = Grid((f"{UPSTREAMS}:Counting",), tasks, (0,), limit=20 if options.quick else None)
        done = run_grid(grid, manifest, Folders(folder / "cache", folder / "results"), LocalExecutor("cpu", 2))
        assert not done.failures, done.failures
        heard = Counter(line for path in folder.glob("*.txt") for line in path.read_text().split())
    wanted = {example.id for cell in done.cells for rows in cell.examples.values() for example in rows}
    recordings = len({file_digest(row.path) for row in manifest.utterances if row.id in wanted})
    passes = heard.total() - 1  # besides, it hears the noise on which its operations are counted, once
    per_task = sum(sum(map(len, cell.examples.values())) for cell in done.cells)
    (passed,) = done.passed.values()
    report.ratios = [
        Ratio("passes that Frostbench counts / recordings", passed / recordings, 1, "at most",
              f"{passed} of {recordings}; a pass for every task would be {per_task}"),
        Ratio("passes that the upstream counts / recordings", passes / recordings, 1, "at most",
              f"{passes}, the most of one waveform {max(heard.values())}"),
    ]  # fmt: skip
    report.facts = {"passed": passed, "heard": passes, "recordings": recordings, "per_task": per_task}
    report.show()


if __name__ == "__main__":
    main()
