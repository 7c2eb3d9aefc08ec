"""How long work will take: it begins with what is known of each kind of work, and is corrected by what is measured.

The seconds of a job are `per_job + per_unit * amount`. What is measured of a kind moves the estimate of that kind most,
of its relatives (the same task on another upstream) less, and of everything else least: there it only shows how fast
the machine is. Stages follow each other; within one, jobs are given to the workers in order.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

OTHERS = 0.85  # how much of what is measured of all work, on a scale of logarithms, holds for kinds not measured yet
MOST_OTHERS = 3.0  # the largest factor by which it does
TASK = 2  # how many parts of a kind say what is done, apart from on which upstream
NOTICED = 1.0  # seconds of a kind that must be measured before it says anything about others
OVERDUE = 0.25  # a job that should have ended is expected to take this share of its delay longer
STARTING = 4.0  # seconds until processes have imported what they need
LONGER = 0.25  # of the updates left, which a training makes that has not ended early when others did
WHOLE = 0.98  # a share of updates above it: trainings of this kind do not end early


class Cost(NamedTuple):
    """What work of a kind takes.

    Attributes:
        per_job: seconds of a job, whatever its amount.
        per_unit: seconds of a unit, on one worker.
        share: of the amount that is done; less than 1 where trainings end early.
        trust: seconds that must be measured before they count as much as this does.
    """

    per_job: float
    per_unit: float
    share: float = 1.0
    trust: float = 2.0


@dataclass(frozen=True)
class Work:
    """A job, as far as its time goes.

    Attributes:
        kind: what takes the same time for the same amount, from the general to the particular.
        amount: of units.
        cost: what is expected of the kind before anything is measured.
        present: how much of the amount is there already.
        step: how much is done between two messages of the job; None if it tells nothing until its end.
    """

    kind: tuple[str, ...]
    amount: float
    cost: Cost
    present: float = 0.0
    step: float | None = None


@dataclass(frozen=True)
class Stage:
    """Jobs that run side by side, before the next stage begins."""

    title: str
    works: Sequence[Work]


@dataclass
class _Progress:
    """How far a job came. Times are those of the clock."""

    work: Work
    begun: float | None = None
    first: tuple[float, float] | None = None  # when anything was done for the first time, and how much then
    last: float = 0.0
    done: float = 0.0
    ended: bool = False
    made: float | None = None  # of the amount, where the job says so: a training that ends early counts as done

    @property
    def units(self) -> float:
        """How many units were computed."""
        return max(0.0, self.done - self.work.present) if self.made is None else self.made


@dataclass
class Measured:
    """What was measured of one kind, or of several together.

    Attributes:
        busy: seconds of workers.
        expected: seconds that were expected of the same work.
        made: units computed by jobs that ended.
        asked: units of their amounts.
        least: by what factor work takes longer than expected at least, as running jobs should have told more by now.
    """

    busy: float = 0.0
    expected: float = 0.0
    made: float = 0.0
    asked: float = 0.0
    least: float = 0.0

    def ratio(self, prior: float, trust: float) -> float:
        """By what factor work takes longer than expected; `prior` where nothing was measured, in between else."""
        if self.busy <= 0 or self.expected <= 0:
            return max(prior, self.least)
        weight = self.busy**2 / (self.busy**2 + trust**2)
        mixed = math.exp(weight * math.log(self.busy / self.expected) + (1 - weight) * math.log(prior))
        return max(mixed, self.least)


@dataclass
class Forecast:
    """The time left of a command.

    Args:
        stages: all that is to come, as far as it is known.
        workers: how many jobs run at a time.
        clock: gives seconds.
    """

    stages: Sequence[Stage]
    workers: int = 1
    clock: Callable[[], float] = time.monotonic
    _number: int = -1
    _current: list[_Progress] = field(default_factory=list)
    _past: list[_Progress] = field(default_factory=list)
    _title: str = ""
    _entered: float = 0.0

    def __post_init__(self) -> None:
        self.stages = list(self.stages)
        self._started = self.clock()

    def begin(self, title: str, works: Sequence[Work], workers: int) -> None:
        """A stage begins, with jobs that may differ from what was planned; stages before it do not come any more."""
        self._past += self._current
        later = [number for number in range(self._number + 1, len(self.stages)) if self.stages[number].title == title]
        self._number = later[0] if later else self._number
        self._current, self._title, self.workers = [_Progress(work) for work in works], title, workers
        self._entered = self.clock()

    def follow(self, job: int, amount: float | None) -> None:
        """A job of the stage came so far since the last call; None as an attempt begins."""
        progress, now = self._current[job], self.clock()
        if amount is None:
            progress.begun, progress.done, progress.first, progress.last = now, 0.0, None, now
            return
        progress.done += amount
        if amount > 0 and progress.units > 0:
            progress.last = now
            progress.first = progress.first or (now, progress.units)

    def ended(self, job: int, made: float | None = None, *, failed: bool = False) -> None:
        """A job of the stage ended.

        Args:
            job: its number.
            made: units that it computed, where these are fewer than its amount.
            failed: whether it says nothing about others of its kind.
        """
        progress = self._current[job]
        progress.ended, progress.last = True, self.clock()
        progress.made = progress.work.amount - progress.work.present if made is None else made
        if failed:
            progress.begun = None

    def end(self) -> None:
        """Nothing is to come any more."""
        self._past += self._current
        self._current, self._number = [], len(self.stages)

    @property
    def elapsed(self) -> float:
        """Seconds since the first stage was planned."""
        return self.clock() - self._started

    def stage_left(self) -> float:
        """Seconds until the current stage ends."""
        return self._stage_left(self._measured())

    def left(self) -> float:
        """Seconds until the last stage ends."""
        measured = self._measured()
        later = self.stages[self._number + 1 :]
        whole = (_makespan([], [_expected(work, measured) for work in stage.works], self.workers) for stage in later)
        return self._stage_left(measured) + sum(whole)

    def costs(self) -> Mapping[tuple[str, ...], Cost]:
        """What this run measured of each kind, for the next one."""
        return {kind: _cost(jobs) for kind, jobs in self._finished().items()}

    def _finished(self) -> dict[tuple[str, ...], list[_Progress]]:
        kinds: dict[tuple[str, ...], list[_Progress]] = {}
        for progress in (*self._past, *self._current):
            if progress.ended and progress.begun is not None and progress.made:
                kinds.setdefault(progress.work.kind, []).append(progress)
        return kinds

    def _stage_left(self, measured: Mapping[tuple[str, ...], Measured]) -> float:
        running = [self._rest(job, measured) for job in self._current if job.begun is not None and not job.ended]
        waiting = [_expected(job.work, measured) for job in self._current if job.begun is None and not job.ended]
        starting = STARTING if waiting and self.workers > 1 and not self._has_begun() else 0.0
        return _makespan(running, waiting, self.workers) + max(0.0, starting - (self.clock() - self._entered))

    def _has_begun(self) -> bool:
        """Whether any process of the workers was started."""
        return any(job.begun is not None for job in (*self._past, *self._current))

    def _rest(self, job: _Progress, measured: Mapping[tuple[str, ...], Measured]) -> float:
        """Seconds until a running job ends: what was left when it came further for the last time, less those since."""
        cost = job.work.cost
        share, ratio = _share(job.work, measured), _ratio(job.work, measured)
        end = job.work.amount
        if share < WHOLE:  # one that went on for longer than usual goes on for a part of what is left
            end = max(share * end, job.done + LONGER * (end - job.done))
        per_job = cost.per_job if job.first is None else 0.0
        rest = ratio * (per_job + cost.per_unit * max(0.0, end - max(job.done, job.work.present)))
        since = self.clock() - job.last
        overdue = self._overdue(job)
        return max(rest - since, OVERDUE * since * (1 - 1 / overdue) if overdue > 1 else 0.0)

    def _overdue(self, job: _Progress) -> float:
        """By what factor at least a running job takes longer than expected, as it should have told more by now."""
        if job.begun is None or job.ended:
            return 0.0
        work, cost = job.work, job.work.cost
        units = min(work.amount - work.present, job.units + (work.amount if work.step is None else work.step))
        expected = cost.per_job + cost.per_unit * max(0.0, units)
        return (self.clock() - job.begun) / expected if expected > 0 else 0.0

    def _measured(self) -> Mapping[tuple[str, ...], Measured]:
        """By kind, and by every beginning of a kind."""
        found: dict[tuple[str, ...], Measured] = {}
        for job in (*self._past, *self._current):
            if job.begun is None:
                continue
            for length in range(1, len(job.work.kind) + 1):
                sums = found.setdefault(job.work.kind[:length], Measured())
                sums.least = max(sums.least, self._overdue(job))
                if not (job.ended or job.first):
                    continue
                sums.busy += job.last - job.begun
                sums.expected += job.work.cost.per_job + job.work.cost.per_unit * job.units
                if job.ended:
                    sums.made += job.units
                    sums.asked += job.work.amount - job.work.present
        found[()] = _in_common([sums for kind, sums in found.items() if len(kind) == TASK and sums.busy > NOTICED])
        return found


def _in_common(measured: Sequence[Measured]) -> Measured:
    """What several kinds of work have in common: the speed of the machine, not what was expected wrongly of one."""
    logs = [math.log(sums.busy / sums.expected) for sums in measured if sums.expected > 0]
    if not logs or min(logs) < 0 < max(logs):
        return Measured()
    busy = sum(sums.busy for sums in measured)
    return Measured(busy, busy / math.exp(min(logs, key=abs)))


def _ratio(work: Work, measured: Mapping[tuple[str, ...], Measured]) -> float:
    overall = measured.get((), Measured()).ratio(1.0, work.cost.trust)
    ratio = min(MOST_OTHERS, max(1 / MOST_OTHERS, overall**OTHERS))
    for length in range(min(TASK, len(work.kind)), len(work.kind) + 1):
        ratio = measured.get(work.kind[:length], Measured()).ratio(ratio, work.cost.trust)
    return ratio


def _share(work: Work, measured: Mapping[tuple[str, ...], Measured]) -> float:
    """How much of the amount is made, counting what is known beforehand as half a job."""
    share = work.cost.share
    for length in range(2, len(work.kind) + 1):
        found = measured.get(work.kind[:length], Measured())
        before = work.amount / 2
        share = (share * before + found.made) / (before + found.asked) if before else share
    return share


def _expected(work: Work, measured: Mapping[tuple[str, ...], Measured]) -> float:
    """Seconds of a job that has not begun."""
    units = max(0.0, work.amount - work.present) * _share(work, measured)
    return _ratio(work, measured) * (work.cost.per_job + work.cost.per_unit * units)


def _makespan(running: Sequence[float], waiting: Sequence[float], workers: int) -> float:
    """Seconds until all are done, if each worker that is free takes the next one that waits."""
    free = sorted(running) + [0.0] * max(0, workers - len(running))
    heapq.heapify(free)
    for seconds in waiting:
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free, default=0.0)


def _cost(jobs: Sequence[_Progress]) -> Cost:
    """What was measured of jobs of one kind that ended."""
    seconds = sum(job.last - (job.begun or 0.0) for job in jobs)
    made, asked = sum(job.units for job in jobs), sum(job.work.amount - job.work.present for job in jobs)
    per_unit = 0.0
    after = list(_after_the_first(jobs))
    if sum(units for _, units in after) > 0:
        per_unit = min(sum(each for each, _ in after) / sum(units for _, units in after), seconds / made)
    per_job = (seconds - per_unit * made) / len(jobs)
    return Cost(per_job, per_unit, made / asked if asked else 1.0)


def _after_the_first(jobs: Sequence[_Progress]) -> Iterator[tuple[float, float]]:
    """Of jobs that told more than once how far they came, seconds and units from the first time on."""
    for job in jobs:
        if job.first is not None and job.units > job.first[1]:
            yield job.last - job.first[0], job.units - job.first[1]
