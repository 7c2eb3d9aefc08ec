"""What a person sees while something runs: bars with the time left on a terminal, plain lines in a log."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from frostbench.jobs.base import Outcome
from frostbench.jobs.cell_table import CellNews, CellTable
from frostbench.jobs.forecast import Forecast

LINE_SECONDS = 15.0  # between two lines of a log
LINES_OF_BARS = 6  # on a narrow terminal, with room for the prompt
CREEP_SECONDS = 3.0  # in which a bar comes most of the way to where it should be


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

    def cells(self, cells: Sequence[CellNews]) -> None:
        """All cells that were asked for, and where each is at the beginning."""

    def cell(self, news: CellNews) -> None:
        """A cell is somewhere else now."""

    def follow(self, forecast: Forecast) -> None:
        """Several stages will come, whose time left is foreseen."""


class DoneColumn(ProgressColumn):
    """How much is done of a stage, and how much in a second since it began; of the whole, which share of its time."""

    def __init__(self) -> None:
        super().__init__()
        self._count = MofNCompleteColumn()

    def render(self, task: Task) -> Text:
        """See ProgressColumn.render."""
        if task.fields.get("whole") is not None:
            return Text(f"{100 * task.completed:.0f} %", style="progress.percentage")
        elapsed = task.finished_time if task.finished else task.elapsed
        rate = task.completed / elapsed if elapsed else 0.0
        text = Text.assemble(self._count.render(task), f" {task.fields['unit']} ")
        return text.append(f"{_rounded(rate)}/s", style="progress.data.speed")


class LeftColumn(TimeRemainingColumn):
    """The time left: as foreseen where a stage is part of a whole that is followed, else by the speed so far."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """See ProgressColumn.render."""
        left = task.fields.get("left")
        if left is None or task.finished:
            return super().render(task)
        return Text(str(timedelta(seconds=round(left()))), style="progress.remaining")


class WholeBar:
    """How much of a command is done, by time: it never goes back, and creeps where the forecast leaps.

    Args:
        forecast: of the command.
    """

    def __init__(self, forecast: Forecast) -> None:
        self._forecast, self._shown, self._at = forecast, 0.0, forecast.elapsed

    def share(self) -> float:
        """Between 0 and 1."""
        elapsed, left = self._forecast.elapsed, self._forecast.left()
        target = elapsed / (elapsed + left) if elapsed + left > 0 else 0.0
        nearer = 1 - math.exp(-max(0.0, elapsed - self._at) / CREEP_SECONDS)
        self._at = elapsed
        self._shown += max(0.0, target - self._shown) * nearer
        return self._shown


class Bars(Progress):
    """Bars of which those of a whole follow its forecast, below a table of cells where there are any."""

    table: CellTable | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """See Progress.get_renderables."""
        if self.table is not None:
            yield self.table.drawn(self.console.height - LINES_OF_BARS)
        for task in self.tasks:
            whole = task.fields.get("whole")
            if whole is not None and not task.finished:
                task.completed = whole.share()
        yield from super().get_renderables()


class TerminalWatcher(Watcher):
    """Draws a bar a stage where there is a terminal, else writes a line now and then.

    Args:
        console: where to; messages for people go to standard error, so that results can be piped.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            DoneColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            LeftColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar: TaskID | None = None
        self._forecast: Forecast | None = None
        self._failures: set[str] = set()
        self._title, self._unit, self._total, self._done = "", "", 0.0, 0.0
        self._started = self._said = time.monotonic()

    def __enter__(self) -> TerminalWatcher:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.table = None  # a table of results follows, or what went wrong
        if self._forecast is not None and self._forecast.left() == 0:
            for task in self._bars.tasks:
                self._bars.update(task.id, completed=task.total)
        self._bars.stop()

    def stage(self, title: str, total: float, unit: str) -> None:
        """See Watcher.stage."""
        self._title, self._unit, self._total, self._done = title, unit, total, 0.0
        self._started = self._said = time.monotonic()
        if total and self._console.is_terminal:
            if self._bar is not None and self._forecast is not None:  # of a command with many stages, the current one
                self._bars.remove_task(self._bar)
            left = None if self._forecast is None else self._forecast.stage_left
            self._bar = self._bars.add_task(title, total=round(total), unit=unit, left=left)

    def follow(self, forecast: Forecast) -> None:
        """See Watcher.follow."""
        self._forecast = forecast
        if self._console.is_terminal:
            self._bars.add_task("whole run", total=1.0, whole=WholeBar(forecast), left=forecast.left)

    def advance(self, amount: float) -> None:
        """See Watcher.advance."""
        self._done += amount
        if self._bar is not None:
            self._bars.update(self._bar, completed=round(self._done))
        elif time.monotonic() - self._said > LINE_SECONDS:
            self._said = time.monotonic()
            self._console.print(self._line(self._said - self._started), highlight=False)

    def _line(self, elapsed: float) -> str:
        """How far a stage came after so many seconds, for a log."""
        done = f"{self._title}: {self._done:.0f} of {self._total:.0f} {self._unit}, {_rounded(self._done / elapsed)}/s"
        if self._forecast is None:
            left = elapsed * (self._total / self._done - 1) if self._done else 0.0
            return f"{done}, about {left:.0f} s left"
        stage, whole = self._forecast.stage_left(), self._forecast.left()
        return f"{done}, about {stage:.0f} s left, {whole:.0f} s of the whole run"

    def say(self, line: str) -> None:
        """See Watcher.say."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def cells(self, cells: Sequence[CellNews]) -> None:
        """See Watcher.cells."""
        self._bars.table = CellTable(cells)

    def cell(self, news: CellNews) -> None:
        """See Watcher.cell."""
        if self._bars.table is not None:
            self._bars.table.take(news)
        if news.state == "done" and not self._console.is_terminal:
            self.say(news.line())

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
