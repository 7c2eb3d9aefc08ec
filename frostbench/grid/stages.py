"""The stages of a grid: jobs on an executor, what a watcher is told of them, and the time that is left of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from frostbench.grid.costs import Costs
from frostbench.jobs.base import Executor, Job, Outcome, Say, ignore_line
from frostbench.jobs.forecast import Forecast, Stage, Work
from frostbench.jobs.progress import Watcher

LEAVING = "ending processes"


class Stages:
    """Runs stages one after the other.

    Args:
        executor: where jobs run; it is entered before the first of them.
        watcher: is told how it goes.
        costs: what work is expected to cost; what is measured is kept there.
        planned: all stages that will come, as far as it is known.
    """

    def __init__(self, executor: Executor, watcher: Watcher, costs: Costs, planned: Sequence[Stage]) -> None:
        self.executor, self.watcher, self.costs = executor, watcher, costs
        self.forecast = Forecast(planned, executor.workers)
        watcher.follow(self.forecast)

    def run(
        self,
        title: str,
        unit: str,
        jobs: Sequence[Job],
        works: Sequence[Work],
        *,
        say: Say = ignore_line,
        made: Callable[[Outcome], float | None] = lambda outcome: None,
        begun: Callable[[Job], None] = lambda job: None,
        done: Callable[[Outcome], None] = lambda outcome: None,
    ) -> list[Outcome]:
        """Runs the jobs of a stage.

        Args:
            title: of the stage.
            unit: of the amounts of work.
            jobs: independent of each other.
            works: what each job takes.
            say: called with the lines that jobs tell.
            made: how much of its amount a job computed, where it may be less.
            begun: called as each job begins.
            done: called as each job ends, after the watcher.
        """
        self.watcher.stage(title, sum(work.amount for work in works), unit)
        self.forecast.begin(title, works, self.executor.workers)
        numbers = {id(job): number for number, job in enumerate(jobs)}

        def end(outcome: Outcome) -> None:
            failed = outcome.error is not None
            self.forecast.ended(numbers[id(outcome.job)], None if failed else made(outcome), failed=failed)
            self.watcher.done(outcome)
            done(outcome)

        def follow(number: int, amount: float | None) -> None:
            self.forecast.follow(number, amount)
            if amount is None:
                begun(jobs[number])

        return self.executor.run(jobs, self.watcher.advance, end, say, follow)

    @contextmanager
    def here(self, title: str, unit: str, work: Work) -> Iterator[Callable[[float], None]]:
        """A stage of one job that this process does itself; it calls what is given with how far it came."""
        self.watcher.stage(title, work.amount, unit)
        self.forecast.begin(title, [work], 1)
        self.forecast.follow(0, None)

        def advance(amount: float) -> None:
            self.watcher.advance(amount)
            self.forecast.follow(0, amount)

        yield advance
        self.forecast.ended(0)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Enters the executor; once it is left, what was measured is kept for the next run."""
        with self.executor:
            yield
            self.forecast.begin(LEAVING, [self.costs.leaving()], 1)
            self.forecast.follow(0, None)
        self.forecast.ended(0)
        self.costs.keep(self.forecast.costs())
        self.forecast.end()
