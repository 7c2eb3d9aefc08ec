"""The time left, on made-up clocks: within a factor 1.5 of the truth from a tenth on, and bars that do not leap."""

import heapq
import itertools
from dataclasses import dataclass

import pytest

from core.audio import duration_seconds
from core.processors import usable_cores
from frostbench.grid import costs
from frostbench.grid.costs import Costs
from frostbench.grid.plan import Grid, make_cells
from frostbench.jobs.forecast import Cost, Forecast, Stage, Work
from frostbench.jobs.local import LocalExecutor
from frostbench.jobs.progress import Watcher, WholeBar
from frostbench.pretraining.duration import STARTING, TINY_SECONDS, stages_of
from frostbench.pretraining.run import pretrain_all
from tasks._base import resolve_task
from upstreams._pretraining.plan import PretrainingSettings, planned


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Truth:
    """What a job really takes.

    Attributes:
        work: what is expected of it.
        per_job: seconds before the first unit.
        per_unit: seconds of a unit.
        ends: share of its amount that is made.
        every: share of the amount between two messages.
    """

    work: Work
    per_job: float
    per_unit: float
    ends: float = 1.0
    every: float = 0.1

    def events(self):
        """(seconds since it began, amount told, units made, None before the end)"""
        step, made, seconds = self.every * self.work.amount, 0.0, self.per_job
        while made < self.ends * self.work.amount - 1e-6:
            made += step
            seconds += step * self.per_unit
            yield seconds, step, None
        if made < self.work.amount - 1e-6:
            yield seconds, self.work.amount - made, None  # what an early end leaves out counts as done
        yield seconds, None, made


def simulated(stages: list[list[Truth]], workers: int, look: float = 1.0):
    """(time, seconds left by the forecast, share of the whole bar) of a run of these jobs, and when it ended."""
    clock = Clock()
    forecast = Forecast([Stage(str(n), [job.work for job in jobs]) for n, jobs in enumerate(stages)], workers, clock)
    bar, looks, next_look = WholeBar(forecast), [], 0.0

    def pass_time(until: float) -> None:
        nonlocal next_look
        while next_look < until:
            clock.now = next_look
            looks.append((clock.now, forecast.left(), bar.share()))
            next_look += look
        clock.now = until

    for number, jobs in enumerate(stages):
        forecast.begin(str(number), [job.work for job in jobs], workers)
        waiting, events, order = list(range(len(jobs))), [], itertools.count()

        def start(waiting=waiting, events=events, order=order, jobs=jobs) -> None:
            if waiting:
                job = waiting.pop(0)
                forecast.follow(job, None)
                for after, amount, made in jobs[job].events():
                    heapq.heappush(events, (clock.now + after, next(order), job, amount, made))

        for _ in range(workers):
            start()
        while events:
            at, _, job, amount, made = heapq.heappop(events)
            pass_time(at)
            if made is None:
                forecast.follow(job, amount)
            else:
                forecast.ended(job, made)
                start()
    end = clock.now
    forecast.end()
    return looks, end, forecast


def worst(looks, end: float, since: float = 0.1) -> float:
    factors = [
        max(left, end - at) / max(min(left, end - at), 1.0) for at, left, _ in looks if since * end < at < end - 2
    ]
    return max(factors)


def a_run(factor: float = 1.0, *, fast: float = 1.0, slow: float = 1.0, ends: float = 1.0, share: float = 1.0):
    """Extraction, 6 fast trainings and 6 slow ones, and evaluation; each as many times as expensive as expected."""
    extraction = [Work(("extract", "a"), 600, Cost(1, 0.05), step=12)] * 2
    quick = [Work(("train", "ks", upstream), 18_000, Cost(1, 4e-4), step=900) for upstream in "abcdef"]
    long = [Work(("train", "asr", upstream), 1_000, Cost(2, 0.1, share), step=100) for upstream in "abcdef"]
    test = [Work(("test", "ks", upstream), 1, Cost(0.5, 0)) for upstream in "abcdef"]
    return [
        [Truth(work, factor, 0.05 * factor, every=0.02) for work in extraction],
        [Truth(work, 2 * factor * slow, 0.1 * factor * slow, ends) for work in long]
        + [Truth(work, factor * fast, 4e-4 * factor * fast, every=0.05) for work in quick],
        [Truth(work, 0.5 * factor, 0, every=1) for work in test],
    ]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_with_the_right_costs_it_is_right_from_the_start(workers):
    looks, end, _ = simulated(a_run(), workers)
    assert worst(looks, end, since=0.0) < 1.1


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0, 4.0])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_machine_of_another_speed_is_noticed_within_a_tenth(workers, factor):
    looks, end, _ = simulated(a_run(factor), workers, look=0.5)
    assert worst(looks, end) < 1.5
    assert worst(looks, end, since=0.0) > 1.5, "the costs are too near to show anything"


def test_slow_updates_are_not_fast_ones():
    """By counts 11,000 slow updates of 120,000 are nothing: a bar that counts them is wrong by factors."""
    looks, end, _ = simulated(a_run(), 2)
    at, left, _ = next(look for look in looks if look[0] > 0.5 * end)
    assert left == pytest.approx(end - at, rel=0.1)


def test_costs_of_one_task_are_corrected_by_that_task():
    looks, end, _ = simulated(a_run(slow=4.0), 2)
    assert worst(looks, end, since=0.0) > 3
    assert worst(looks, end) < 1.5


@pytest.mark.parametrize("ends", [0.6, 0.9])
def test_trainings_that_end_early_are_learned_and_the_bar_never_leaps(ends):
    looks, end, _ = simulated(a_run(ends=ends, share=0.75), 2, look=0.25)
    assert worst(looks, end) < 1.5
    shares = [share for *_, share in looks]
    steps = [later - earlier for earlier, later in itertools.pairwise(shares)]
    assert min(steps) >= 0, "a bar that goes back"
    assert max(steps) < 0.02, "a bar that leaps"
    assert shares[-1] > 0.9


def test_what_was_measured_makes_the_next_run_right_from_the_start():
    wrong = a_run(4.0, slow=2.0)
    _, _, forecast = simulated(wrong, 2)
    measured = forecast.costs()
    assert measured["train", "asr", "a"].per_unit == pytest.approx(0.8)
    assert measured["train", "asr", "a"].per_job == pytest.approx(16.0)
    again = [
        [
            Truth(Work(job.work.kind, job.work.amount, measured[job.work.kind]), job.per_job, job.per_unit)
            for job in stage
        ]
        for stage in wrong
    ]
    looks, end, _ = simulated(again, 2)
    assert worst(looks, end, since=0.0) < 1.1


def test_a_killed_attempt_counts_for_nothing_and_a_failed_job_teaches_nothing():
    clock = Clock()
    work = Work(("train", "ks", "a"), 100, Cost(0, 1.0))
    forecast = Forecast([Stage("train", [work, work])], 1, clock)
    forecast.begin("train", [work, work], 1)
    forecast.follow(0, None)
    clock.now = 50.0
    forecast.follow(0, 50.0)
    assert forecast.left() == pytest.approx(150.0)
    forecast.follow(0, None)
    assert forecast.left() == pytest.approx(200.0)
    clock.now = 51.0
    forecast.ended(0, failed=True)
    assert forecast.costs() == {}
    assert forecast.left() == pytest.approx(100.0)


def test_what_was_there_before_takes_no_time():
    clock = Clock()
    work = Work(("train", "ks", "a"), 100, Cost(0, 1.0), present=60)
    forecast = Forecast([Stage("train", [work])], 1, clock)
    assert forecast.left() == 40
    forecast.begin("train", [work], 1)
    forecast.follow(0, None)
    forecast.follow(0, 60.0)
    clock.now = 20.0
    forecast.follow(0, 20.0)
    assert forecast.left() == pytest.approx(20.0)


def test_work_that_hangs_is_not_about_to_end():
    clock = Clock()
    work = Work(("train", "ks", "a"), 100, Cost(0, 1.0))
    forecast = Forecast([], 1, clock)
    forecast.begin("train", [work], 1)
    forecast.follow(0, None)
    clock.now = 400.0
    assert forecast.left() == pytest.approx(75.0)  # a quarter of its delay


def test_pretrainings_are_weighed_by_what_their_methods_cost():
    """A second of audio costs one method many times what it costs another; all tiny recipes take about as long."""
    names = ["apc", "simclr", "wav2vec2"]
    checking, training = stages_of([planned(name, "tiny") for name in names], recordings=100)
    assert [stage.title for stage in (checking, training)] == ["checking recordings", "pretraining"]
    amounts = [work.amount for work in training.works]
    assert max(amounts) > 2 * min(amounts)
    seconds = [work.cost.per_job + work.cost.per_unit * work.amount for work in training.works]
    assert seconds == pytest.approx([TINY_SECONDS + STARTING] * 3)
    (_, half) = stages_of([planned("apc", "tiny", steps=planned("apc", "tiny").recipes[0].steps // 2)], 100)
    assert half.works[0].cost.per_unit * half.works[0].amount == pytest.approx(TINY_SECONDS / 2, rel=0.01)
    (_, base) = stages_of([planned("apc", "base")], 100)
    assert base.works[0].cost.per_unit > 3 * training.works[0].cost.per_unit
    (_, by_the_clock) = stages_of([planned("apc", "tiny", minutes=3.0)], 100)
    assert by_the_clock.works[0].cost.per_unit * by_the_clock.works[0].amount == pytest.approx(180)


def test_a_pretraining_foretells_its_end(corpus, tmp_path):
    followed = []

    class Notes(Watcher):
        def follow(self, forecast):
            followed.append(forecast)

        def advance(self, amount):
            followed.append(followed[0].left())

    plans = [planned(name, "tiny", steps=8) for name in ("apc", "mockingjay")]
    settings = PretrainingSettings(evaluations=0)
    outcomes = pretrain_all(plans, corpus, tmp_path, settings, LocalExecutor("cpu", 1), Notes())
    assert [outcome.error for outcome in outcomes] == [None, None]
    forecast, *lefts = followed
    assert lefts[-1] < lefts[0]
    assert forecast.left() == 0
    assert {kind for kind in forecast.costs() if kind[0] == "pretraining"} == {
        ("pretraining", "apc, tiny"), ("pretraining", "mockingjay, tiny")
    }  # fmt: skip


def test_what_is_built_in_follows_the_audio_of_a_task(corpus, tasks_file, tmp_path, monkeypatch):
    """Recordings know their length from their headers alone: a plan that takes them for empty costs nothing."""
    monkeypatch.setattr(costs, "_running", lambda: 0.0)
    asr = resolve_task(f"{tasks_file}:ASR")
    (cell,) = make_cells(Grid(("fbank",), (asr,), (0,)), corpus).cells
    runs = [(cell, candidate) for candidate in cell.candidates]
    work = Costs(tmp_path).training(runs, cell.recipe.steps)
    seconds = [duration_seconds(row.path) for row in corpus.utterances if row.split == "train" and "text" in row.labels]
    audio = cell.recipe.batch_size * sum(seconds) / len(seconds)
    assert work.cost.per_unit == pytest.approx(audio * (costs.OTHER_FRAMES + costs.PER_FEATURE * 240), rel=0.02)
    monkeypatch.setattr(costs, "_running", lambda: 3.0 * usable_cores() - 1)
    assert Costs(tmp_path).training(runs, 1).cost.per_unit == pytest.approx(3 * work.cost.per_unit)
