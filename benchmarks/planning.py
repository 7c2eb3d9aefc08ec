"""What it takes to find out what is to be done: planning a large grid, and `make benchmark` with nothing left to do.

Planning is everything between the command and the first job of 20 upstreams x 3 seeds on 150,000 rows with four crops
each, as SUPERB's speaker identification has them. The upstreams are tiny: hashing weights is not counted. Files are
decoded and their digests computed once before, as a first command does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import soundfile
import torch

from benchmarks import _finished
from benchmarks._material import scratch
from benchmarks._measure import Ratio, Report, parser, run
from core.audio import SAMPLE_RATE
from core.records import RecordStore
from downstreams._recipe import FAST_UTTERANCE
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid, make_cells
from frostbench.grid.run import run_grid
from frostbench.jobs.base import Job
from tasks._audio import AudioRecipe
from tasks._base import TASKS, Task
from tasks.corpora._base import open_corpus

PLUG_IN = Path(__file__).parent / "_upstreams.py"
UPSTREAMS, SEEDS = 20, (0, 1, 2)
SAMPLES, CROP = 1_600, 800


class Reached(Exception):  # noqa: N818
    """The first job is there: planning is over."""


class Stop:
    """An executor that ends planning."""

    workers = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, jobs: Sequence[Job], *rest: Any) -> Any:
        """Whatever comes is too late."""
        raise Reached


def main() -> None:
    """Measures and prints."""
    asked = parser(__doc__)
    asked.add_argument("--rows", type=int, default=150_000, help="of the corpus")
    options = asked.parse_args()
    torch.set_num_threads(1)
    report = Report("planning", options.quick, facts={**vars(options)})
    rows, repeats = (300, 1) if options.quick else (options.rows, options.repeats)
    with scratch() as folder:
        many_files(folder / "corpus", rows)
        report.ratios += planning(folder, repeats, rows)
    with scratch() as folder:
        _finished.finish(folder)
        finished = [run(_finished.make(folder)) for _ in range(repeats)]
    seconds = sorted(each.seconds for each in finished)
    report.facts["make benchmark"] = seconds
    middle = seconds[len(seconds) // 2]
    report.ratios.append(
        Ratio("make benchmark with nothing to do, of 15 s", middle / 15, 1.0, "at most", f"{middle:.1f} s")
    )
    report.show()


def planning(folder: Path, repeats: int, rows: int) -> list[Ratio]:
    """Seconds to the first job, and to the end where every record is there."""
    task = cropping()
    specs = [f"{PLUG_IN}:Numbered@{number}" for number in range(UPSTREAMS)]
    grid, folders = Grid(specs, (task,), SEEDS), Folders(folder / "cache", folder / "results")

    def plan() -> Any:
        return run_grid(grid, open_corpus(str(folder / "corpus")), folders, Stop())

    reached(plan)  # the digests of the files, and that they can be decoded, are known from here on
    first = [reached(plan) for _ in range(repeats)]
    store = RecordStore(folders.results)
    for cell in make_cells(grid, open_corpus(str(folder / "corpus"))).cells:
        store.path(cell.run).parent.mkdir(parents=True, exist_ok=True)
        store.path(cell.run).touch()
    nothing = [reached(plan) for _ in range(repeats)]
    ratios = []
    for name, seconds in (("to the first job", first), ("with nothing to do", nothing)):
        middle = sorted(seconds)[len(seconds) // 2]
        what = f"{middle:.1f} s of computing, {UPSTREAMS} upstreams x {len(SEEDS)} seeds, {rows:,} rows"
        ratios.append(Ratio(f"planning {name}, of 60 s", middle / 60, 1.0, "at most", what))
    return ratios


def reached(plan: Callable[[], Any]) -> float:
    """Seconds that the process computed until planning was over, one after the other, whoever else used the cores."""
    started = time.process_time()
    with suppress(Reached):
        plan()
    return time.process_time() - started


def cropping() -> Task:
    """Speaker identification with four crops of a recording, as the `superb` recipe has them."""
    sid = TASKS.get("sid")
    recipe, audio = replace(FAST_UTTERANCE, name="crops"), AudioRecipe(crop_samples=CROP, crops=4)
    return replace(sid, name="sid-crops", recipes={"crops": recipe}, audio={"crops": audio})


def many_files(folder: Path, rows: int) -> None:
    """A corpus of recordings that differ, each of a tenth of a second and a file of its own."""
    (folder / "audio").mkdir(parents=True)
    soundfile.write(folder / "silence.wav", np.zeros(SAMPLES), SAMPLE_RATE, subtype="PCM_U8")
    silence = (folder / "silence.wav").read_bytes()[:-4]
    lines = []
    for number in range(rows):
        name = f"audio/{number:06d}.wav"
        (folder / name).write_bytes(silence + number.to_bytes(4))
        split = ("train", "train", "train", "train", "valid", "test")[number // 10 % 6]
        lines.append(json.dumps({"file_name": name, "split": split, "speaker": f"s{number % 10}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
