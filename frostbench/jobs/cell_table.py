"""What became of each cell so far, as a table of upstreams and tasks that a terminal shows while a grid runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from rich.markup import escape
from rich.table import Table

State = Literal["waiting", "running", "done", "failed"]
WAITING, RUNNING = "·", "…"


class CellNews(NamedTuple):
    """Where a cell is now.

    Attributes:
        upstream: its name.
        task: its name.
        seed: of its training.
        state: what becomes of it.
        value: of its main metric, once it is done.
        unit: of the value; may be empty.
        fold: what it was tested on, where the task has folds.
        layer: the only one that its head is given; None is a sum of all.
        budget: how much of train its head is given; None is all.
        condition: what test is heard in; None is as it was recorded.
    """

    upstream: str
    task: str
    seed: int
    state: State
    value: float | None = None
    unit: str = ""
    fold: str | None = None
    layer: int | None = None
    budget: str | None = None
    condition: str | None = None

    @property
    def place(self) -> tuple[int, str | None, int | None, str | None, str | None]:
        """Among the cells of its upstream and task."""
        return self.seed, self.fold, self.layer, self.budget, self.condition

    @property
    def has_row(self) -> bool:
        """Whether it stands in a row of the leaderboard, not on a curve beside it."""
        return (self.layer, self.budget, self.condition) == (None, None, None)

    def line(self) -> str:
        """For a log, once it is done."""
        fold = "" if self.fold is None else f", {self.fold}"
        layer = "" if self.layer is None else f", layer {self.layer}"
        budget = "" if self.budget is None else f", {self.budget} of train"
        condition = "" if self.condition is None else f", {self.condition}"
        found = f"{self.upstream}, {self.task}, seed {self.seed}{fold}{layer}{budget}{condition}"
        return f"{found}: {self.value:.1f} {self.unit}".rstrip()


@dataclass
class _Entry:
    """The cells of an upstream and a task: by their places what became of each."""

    states: dict[tuple[int, str | None, int | None, str | None, str | None], CellNews] = field(default_factory=dict)

    def text(self) -> str:
        """The mean so far of those with a row, or where there are none of all, and how many of them it is of."""
        shown = [news for news in self.states.values() if news.has_row] or list(self.states.values())
        states = [news.state for news in shown]
        values = [news.value for news in shown if news.value is not None]
        if "failed" in states:
            return "[red]failed"
        if not values:
            return RUNNING if "running" in states else WAITING
        part = "" if len(values) == len(states) else f" [dim]{len(values)}/{len(states)}[/]"
        return f"{sum(values) / len(values):.1f}{part}"

    def is_open(self) -> bool:
        """Whether any of its cells is neither done nor failed."""
        return any(news.state in ("waiting", "running") for news in self.states.values())


class CellTable:
    """A table of all cells that were asked for.

    Args:
        cells: all of them, in the order in which upstreams and tasks are to be shown.
    """

    def __init__(self, cells: Iterable[CellNews]) -> None:
        self._rows: dict[str, dict[str, _Entry]] = {}
        self._tasks: dict[str, None] = {}
        for news in cells:
            self.take(news)

    def take(self, news: CellNews) -> None:
        """Takes in where a cell is now."""
        self._tasks[news.task] = None
        entry = self._rows.setdefault(news.upstream, {}).setdefault(news.task, _Entry())
        entry.states[news.place] = news

    def drawn(self, height: int) -> Table:
        """The table in so many lines at most, those left out first whose cells all are done."""
        names = self._shown(max(1, height - 2))  # below the heading, above how many are left out
        table = Table(box=None, pad_edge=False)
        table.add_column("upstream", overflow="ellipsis", no_wrap=True)
        for task in self._tasks:
            table.add_column(task, justify="right", no_wrap=True)
        for name in names:
            row = self._rows[name]
            table.add_row(escape(name), *(row[task].text() if task in row else "" for task in self._tasks))
        if len(names) < len(self._rows):
            table.add_row(f"[dim]and {len(self._rows) - len(names)} more")
        return table

    def _shown(self, most: int) -> Sequence[str]:
        names = list(self._rows)
        open_ones = [name for name in names if any(entry.is_open() for entry in self._rows[name].values())]
        done = [name for name in names if name not in open_ones]
        room = max(0, most - len(open_ones))
        kept = set(open_ones[:most]) | set(done[len(done) - room :] if room else [])
        return [name for name in names if name in kept]
