"""What a person sees while something runs: bars with the time left on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.text import Text

from frostbench.jobs.base import Outcome

LINE_SECONDS = 15.0  # between two lines of a log


class Watcher:
    """What a grid tells while it runs; this one keeps silent."""

    def stage(self, title: str, total: float, unit: str) -> None:
        """A stage begins: its size, in the unit that `advance` counts."""

    def advance(self, amount: float) -> None:
        """Something was done of the current stage."""

    def done(self, outcome: Outcome) -> None:
        """A job ended."""

    def failed(self, name: str, error: str) -> None:
        """Something failed; what comes after it goes on."""

    def say(self, line: str) -> None:
        """Something a person should know before it happens."""


class RateColumn(ProgressColumn):
    """How much is done in a second, since the stage began."""

    def render(self, task: Task) -> Text:
        """See ProgressColumn.render."""
        elapsed = task.finished_time if task.finished else task.elapsed
        rate = task.completed / elapsed if elapsed else 0.0
        return Text(f"{_rounded(rate)}/s", style="progress.data.speed")


class TerminalWatcher(Watcher):
    """Draws a bar a stage where there is a terminal, else writes a line now and then.

    Args:
        console: where to; messages for people go to standard error, so that results can be piped.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeLeftColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar: TaskID | None = None
        self._failures: set[str] = set()
        self._title, self._unit, self._total, self._done = "", "", 0.0, 0.0
        self._started = self._said = time.monotonic()

    def __enter__(self) -> TerminalWatcher:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def stage(self, title: str, total: float, unit: str) -> None:
        """See Watcher.stage."""
        self._title, self._unit, self._total, self._done = title, unit, total, 0.0
        self._started = self._said = time.monotonic()
        if total and self._console.is_terminal:
            self._bar = self._bars.add_task(title, total=round(total), unit=unit)

    def advance(self, amount: float) -> None:
        """See Watcher.advance."""
        self._done += amount
        if self._bar is not None:
            self._bars.update(self._bar, completed=round(self._done))
        elif time.monotonic() - self._said > LINE_SECONDS:
            self._said = time.monotonic()
            elapsed = self._said - self._started
            left = elapsed * (self._total / self._done - 1) if self._done else 0.0
            self._console.print(
                f"{self._title}: {self._done:.0f} of {self._total:.0f} {self._unit}, "
                f"{_rounded(self._done / elapsed)}/s, "
                f"about {left:.0f} s left",
                highlight=False,
            )

    def say(self, line: str) -> None:
        """See Watcher.say."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def done(self, outcome: Outcome) -> None:
        """See Watcher.done."""
        if outcome.error is not None:
            self.failed(outcome.job.name, outcome.error)

    def failed(self, name: str, error: str) -> None:
        """See Watcher.failed. Jobs that share an upstream mostly fail alike: the same line is written once."""
        line = f"failed: {name}: {error}"
        if line not in self._failures:
            self._failures.add(line)
            self._console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)


def _rounded(rate: float) -> str:
    return f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"
