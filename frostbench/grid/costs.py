"""What each kind of work is expected to cost: as an earlier run measured it here, else built in."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from core.audio import SAMPLE_RATE
from core.digest import digest_of, parsed_json, write_json
from core.processors import usable_cores
from downstreams._recipe import Candidate
from frostbench.grid.cell import Cell
from frostbench.jobs.forecast import Cost, Work
from tasks._audio import samples_of
from tasks._rows import TaskRows
from upstreams._facts import UpstreamFacts

FOLDER = "costs"
KEPT = ("per_job", "per_unit", "share")  # of a Cost
TRUST = 10.0  # seconds: what was measured here before is rarely far from what it will be

# Built in, in seconds of one core of two-core machines (AMD EPYC, Intel Xeon), all with one thread. They need to be
# right within a factor of a few: what is measured corrects them.
RECORDING = Cost(0.0, 3.5e-3)  # decoded, fingerprinted, and compared with the others
CHECKING, COUNTING = Cost(0.7, 0.0), Cost(0.5, 0.0)  # of an upstream
LEAVING = Cost(2.0, 0.0)
PER_PARAMETER = 1.5e-9  # of a second of audio
PER_SECOND = 2.5e-3  # of audio, read and kept by an upstream without parameters
BACKWARD = 4.0  # of a second of audio that an upstream learns from, against one that passes
PER_UPDATE, PER_FEATURE = 4e-4, 4e-8  # of a head on means; most of a search's updates share no batch
FRAMES = {  # of a second of audio in an update of a head on frames, by head and recipe
    ("ctc", "fast"): 2.4e-3,
    ("ctc", "superb"): 1.8e-2,
    ("attention_decoder", "fast"): 2.5e-3,
}
OTHER_FRAMES = 4e-3
EARLY = 0.75  # share of updates, where patience ends trainings
TEST_MEANS, TEST_FRAMES = 0.1, 1.0  # of a cell


class Costs:
    """Costs by kind of work.

    Args:
        cache: folder of the cache, in which they are kept.
    """

    def __init__(self, cache: Path) -> None:
        machine = [platform.processor(), platform.machine(), usable_cores(), torch.cuda.is_available()]
        self._path = cache / FOLDER / f"{digest_of(machine)[:32]}.json"
        self._known: dict[str, list[float]] = {}
        self._slowdown = _slowdown()
        self._seconds: dict[TaskRows, float] = {}  # of a recording of train, in the mean
        with suppress(OSError, ValueError, TypeError, AttributeError):  # absent or damaged: nothing depends on it
            content = parsed_json(self._path.read_text(encoding="utf-8"))
            self._known = {str(kind): [float(value) for value in values] for kind, values in content.items()}

    def keep(self, measured: Mapping[tuple[str, ...], Cost]) -> None:
        """Keeps what a run measured for the next ones."""
        if measured:
            new = {_key(kind): [getattr(cost, name) for name in KEPT] for kind, cost in measured.items()}
            write_json(self._path, {**self._known, **new})

    def checking_recordings(self, corpus: str, count: int) -> Work:
        """Decoding so many recordings."""
        return self._work(("checking recordings", corpus), count, RECORDING, step=1.0)

    def checking(self, upstream: UpstreamFacts) -> Work:
        """The quick checks of an upstream."""
        return self._work(("checking upstreams", _described(upstream)), 1.0, CHECKING)

    def extracting(self, upstream: UpstreamFacts, seconds: float) -> Work:
        """Passing so many seconds of audio."""
        built_in = Cost(1.0, PER_SECOND + PER_PARAMETER * (upstream.params or 0))
        return self._work(("extracting features", _described(upstream)), seconds, built_in, step=upstream.batch_seconds)

    def counting(self, upstream: UpstreamFacts) -> Work:
        """Counting the operations of an upstream."""
        return self._work(("counting operations", _described(upstream)), 1.0, COUNTING)

    def training(self, runs: Sequence[tuple[Cell, Candidate]], updates: float, present: float = 0.0) -> Work:
        """Training heads side by side, so many updates of which so many were made before."""
        cell, _ = runs[0]
        kind = ("training heads", _asked(cell), _described(cell.upstream))
        step = float(cell.recipe.eval_every * len(runs))
        return self._work(kind, updates, self._built_in_training(cell), present, step)

    def finetuning(self, cell: Cell, updates: float, present: float = 0.0) -> Work:
        """Training an upstream with its head, so many updates of which so many were made before."""
        kind = ("fine-tuning", f"{_asked(cell)}, {cell.row}", _described(cell.upstream))
        seconds = self._batch_seconds(cell)
        built_in = Cost(2.0, BACKWARD * seconds * (PER_SECOND + PER_PARAMETER * (cell.upstream.params or 0)))
        looks = 1 if cell.recipe.finetune is None else cell.recipe.finetune.looks
        return self._work(kind, updates, built_in, present, updates / looks)

    def evaluating(self, cell: Cell) -> Work:
        """Evaluating a trained head on test."""
        seconds = TEST_FRAMES if cell.reads_frames else TEST_MEANS
        return self._work(("evaluating on test", _asked(cell), _described(cell.upstream)), 1.0, Cost(seconds, 0.0))

    def leaving(self) -> Work:
        """The end of worker processes."""
        return self._work(("ending processes",), 1.0, LEAVING)

    def _built_in_training(self, cell: Cell) -> Cost:
        recipe, upstream = cell.recipe, cell.upstream
        features = PER_FEATURE * upstream.num_layers * upstream.hidden_size
        if recipe.steps == 0:
            return Cost(2.0, 0.0)
        if not cell.reads_frames:
            return Cost(1.0, PER_UPDATE + features)
        seconds = self._batch_seconds(cell)
        per_second = FRAMES.get((cell.task.head, recipe.name), OTHER_FRAMES) + features
        return Cost(2.0, per_second * seconds, EARLY if recipe.patience else 1.0)

    def _batch_seconds(self, cell: Cell) -> float:
        """Seconds of audio of an update."""
        if cell.rows not in self._seconds:
            samples = [samples_of(clip) for clip in cell.rows.all_clips(["train"])]
            self._seconds[cell.rows] = sum(samples) / len(samples) / SAMPLE_RATE
        seconds = cell.recipe.batch_size * self._seconds[cell.rows]
        return min(seconds, cell.recipe.batch_seconds or seconds)

    def _work(
        self,
        kind: tuple[str, ...],
        amount: float,
        built_in: Cost,
        present: float = 0.0,
        step: float | None = None,
    ) -> Work:
        known = self._known.get(_key(kind), [])
        if len(known) == len(KEPT) and all(math.isfinite(value) and value >= 0 for value in known):
            per_job, per_unit, share = known
            return Work(kind, amount, Cost(per_job, per_unit, share, TRUST), present, step)
        slower = built_in._replace(
            per_job=built_in.per_job * self._slowdown, per_unit=built_in.per_unit * self._slowdown
        )
        return Work(kind, amount, slower, present, step)


def _slowdown() -> float:
    """By what factor what runs here already makes work slower than it is alone."""
    return max(1.0, (_running() + 1) / usable_cores())


def _running() -> float:
    """How many other processes compute now; where the system does not tell, how many did in the last minute."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/loadavg").read_text(encoding="utf-8").split()[3].split("/")[0]) - 1
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _asked(cell: Cell) -> str:
    """The task, as far as it decides what training costs."""
    return f"{cell.task.name}, {cell.task.head}, {cell.recipe.name}, {cell.rows.corpus}"


def _described(upstream: UpstreamFacts) -> str:
    return f"{upstream.name}, {upstream.num_layers} x {upstream.hidden_size}"


def _key(kind: Sequence[str]) -> str:
    return " / ".join(kind)
