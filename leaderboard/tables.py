"""The leaderboard as terminal tables, as a picture of them, and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from typing import NamedTuple

import pandas as pd
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from leaderboard.board import INTERVAL_NOTE, Board, Column, Leaderboard, PublishedRow, ResultCell, Row
from leaderboard.board_curves import BudgetScore, ConditionScore, Interval
from leaderboard.checkpoint_series import curves_of_series, series_notes
from leaderboard.condition_scores import in_order
from leaderboard.families import families_of
from leaderboard.leaks import FLAG, leak_notes

READING = f"Bold is the best of a column, underlined what can't be told apart from it. {INTERVAL_NOTE}"


class CellText(NamedTuple):
    """A cell in words.

    Attributes:
        value: mean and, of several seeds, their standard deviation.
        interval: with brackets; empty where there is none.
        letters: of the ties, on other speakers, and behind a space on the same ones.
        published: what was published of the same upstream, and the difference.
        best, tied: as in `ResultCell`.
    """

    value: str
    interval: str = ""
    letters: str = ""
    published: str = ""
    best: bool = False
    tied: bool = False


class Line(NamedTuple):
    """A row in words: name, parameters, score, and a cell a column; a family where it is known."""

    name: str
    params: str
    score: str
    cells: list[CellText]
    published: bool = False
    family: str = ""


ABSENT = CellText("-")


def headings(board: Board) -> list[str]:
    """Of all columns."""
    scored = [" ".join((board.score.name, board.score.unit)).strip()] if has_scores(board) else []
    return ["upstream", "params", *scored, *(column.heading for column in board.columns)]


def has_scores(board: Board) -> bool:
    """Whether any row has a score."""
    return any(row.score is not None for row in board.rows) or any(row.score is not None for row in board.published)


def has_families(board: Board) -> bool:
    """Whether the rows are of more than one family."""
    return len(families_of(board.rows)) > 1


def lines(board: Board) -> list[Line]:
    """Measured rows, then the published ones."""
    return [*(_measured(row, board) for row in board.rows), *(_published(row, board) for row in board.published)]


def _measured(row: Row, board: Board) -> Line:
    cells = [cell_text(row.cells[column.key]) if column.key in row.cells else ABSENT for column in board.columns]
    name = f"{row.name} {FLAG}" if row.leaks else row.name
    return Line(name, _millions(row.params), _score(row.score), cells, family=row.family)


def _published(row: PublishedRow, board: Board) -> Line:
    values = [row.values.get(column.key) for column in board.columns]
    cells = [ABSENT if value is None else CellText(f"{value:.2f}") for value in values]
    return Line(f"{row.name} (published)", _millions(row.params), _score(row.score), cells, published=True)


def cell_text(cell: ResultCell) -> CellText:
    """A cell in words."""
    spread = "" if cell.std is None else f" ± {cell.std:.1f}"
    interval = "" if cell.interval is None else _interval(cell.interval)
    letters = " ".join(filter(None, (cell.letters, cell.letters_same_speakers)))
    published = cell.published
    beside = "" if published is None else f"published {published.value:.2f}, here {published.difference:+.2f}"
    return CellText(f"{cell.mean:.1f}{spread}", interval, letters, beside, cell.best, cell.tied)


def _interval(interval: Interval) -> str:
    """A wide one needs no decimals."""
    digits = 0 if interval.high - interval.low >= 5 else 1
    return f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.1f}"


def _millions(params: int | None) -> str:
    if params is None:
        return "?"
    return "0" if params == 0 else f"{params / 1e6:.1f} M"


def notes(board: Board) -> list[str]:
    """What has to be said to read this board, besides the board's `interval_note`."""
    texts = [f"{board.score.name}: {board.score.explanation}"] if has_scores(board) else []
    unknown = sorted({column.metric for column in board.columns if not column.known})
    if unknown:
        texts.append(
            f"Metric {', '.join(unknown)} is not known here: its values are those of the records, without intervals "
            f"and tests; install the package that registers it."
        )
    if board.published:
        sources = dict.fromkeys(source for row in board.published for source in row.source.split("; "))
        texts.append(f"Published rows were not measured here; they come from {'; '.join(sources)}.")
    return [*texts, *leak_notes(board), *series_notes(board)]


def stability(board: Board) -> Iterator[str]:
    """A sentence for every comparison with another head."""
    for each in board.heads:
        order = "no order to compare" if each.tau is None else f"Kendall's tau {each.tau:.2f}"
        flipped = ", ".join(f"{first}/{second}" for first, second in each.flipped)
        yield (
            f"{each.task.upper()} with head {each.head} instead of {each.default_head}: {order} over "
            f"{len(each.upstreams)} upstreams" + (f"; in another order: {flipped}" if flipped else "")
        )


def best_layers(board: Board) -> Iterator[str]:
    """A sentence for every task of which single layers were tried: each upstream's best one beside its learned sum."""
    for column in (column for column in board.columns if column.primary):
        sign = 1 if column.direction == "higher" else -1
        told = []
        for row in board.rows:
            cell = row.cells.get(column.key)
            if cell is not None and cell.single_layers and len(cell.layer_weights) > 1:
                best = max(cell.single_layers, key=lambda score: sign * score.mean)
                interval = "" if best.interval is None else f" {_interval(best.interval)}"
                told.append(f"{row.name} layer {best.layer} with {best.mean:.1f}{interval}, the sum {cell.mean:.1f}")
        if told:
            yield f"{column.heading} of the best single layer, as seen on test: {'; '.join(told)}."


def tuning_sentences(board: Board) -> Iterator[str]:
    """A sentence for every fine-tuned upstream and task: what it adds to the frozen one, and what it costs."""
    columns = {column.task: column for column in board.columns if column.primary}
    for each in board.tunings:
        column = columns[each.task]
        within = "" if each.difference_interval is None else f" {_interval(each.difference_interval)}"
        p = "" if each.p_holm is None else f", p {each.p_holm:.3f}{'' if each.different else ': not told apart'}"
        if each.p_same_speakers is not None:
            p += f"; of these same speakers p {each.p_same_speakers:.3f}"
        costs = [
            f"{_counted(each.trained_parameters)} instead of {_counted(each.frozen_trained_parameters)} parameters",
            f"{_counted(each.audio_seconds)} instead of {_counted(each.frozen_audio_seconds)} s of audio",
            f"{_counted(each.seconds)} instead of {_counted(each.frozen_seconds)} s of training",
        ]
        value = f"{each.mean:.1f} after {each.frozen_mean:.1f} {column.unit}".rstrip()
        yield f"{each.name}, {column.label}: {value} ({each.difference:+.1f}{within}{p}); {', '.join(costs)}"


def _counted(amount: float | None) -> str:
    if amount is None:
        return "?"
    if amount < 10:
        return f"{amount:.1f}"
    return f"{amount / 1e6:.2f} M" if amount >= 1e6 else f"{amount:,.0f}"


class CurveText(NamedTuple):
    """A table of curves in words: its title, the columns, and the rows, each a name and a text a column."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def curve_texts(board: Board) -> Iterator[CurveText]:
    """The curves of a board, a table a task and kind: series over checkpoints, parts of train, and conditions."""
    for column in (column for column in board.columns if column.primary):
        yield from _curve_text(*_over_steps(board, column), head="series")
        cells = {row.name: row.cells[column.key] for row in board.rows if column.key in row.cells}
        parts = [(each.seconds, each.budget) for cell in cells.values() for each in cell.budgets]
        budgets = {name: {each.budget: each for each in cell.budgets} for name, cell in cells.items()}
        yield from _curve_text(
            f"{column.heading} by labelled speech of train", [name for _, name in sorted(parts)], budgets
        )
        heard = {each.condition for cell in cells.values() for each in cell.conditions}
        conditions = {name: {each.condition: each for each in cell.conditions} for name, cell in cells.items()}
        yield from _curve_text(f"{column.heading} in conditions of test", sorted(heard, key=in_order), conditions)


def _over_steps(board: Board, column: Column) -> tuple[str, list[str], dict[str, dict[str, ResultCell]]]:
    series = dict(curves_of_series(board, column))
    steps = sorted({each.step for checkpoints in series.values() for each in checkpoints})
    found = {name: {f"{each.step:,}": each.cell for each in checkpoints} for name, checkpoints in series.items()}
    return f"{column.heading} by step of training", [f"{step:,}" for step in steps], found


def _curve_text(
    title: str,
    keys: Sequence[str],
    found: Mapping[str, Mapping[str, BudgetScore] | Mapping[str, ConditionScore] | Mapping[str, ResultCell]],
    head: str = "upstream",
) -> Iterator[CurveText]:
    columns = list(dict.fromkeys(keys))
    rows = [
        [name, *(_point(scores[key]) if key in scores else "-" for key in columns)]
        for name, scores in found.items()
        if scores
    ]
    if rows:
        yield CurveText(title, [head, *columns], rows)


def _point(score: BudgetScore | ConditionScore | ResultCell) -> str:
    return f"{score.mean:.1f}" + ("" if score.interval is None else f" {_interval(score.interval)}")


def _drawn_curve(found: CurveText) -> Table:
    drawn = Table(*map(escape, found.columns), title=escape(found.title), title_justify="left")
    for row in found.rows:
        drawn.add_row(*map(escape, row))
    return drawn


def rich_tables(board: Leaderboard, explained: bool = False) -> Iterator[Group]:
    """For the terminal: the best of a column is bold, what ties with it underlined.

    Args:
        board: all boards, those of other heads as well.
        explained: whether what is to be said of each stands below, and its curves; `READING` is for all of them.
    """
    for each in (*board.boards, *board.variants):
        drawn = Table(show_lines=True)
        drawn.add_column("upstream\nparams")
        if has_scores(each):
            drawn.add_column("\n".join(escape(headings(each)[2]).split()), justify="right")
        for column in each.columns:
            drawn.add_column(escape(column.heading.replace(" ", "\n", 1)), justify="right")
        for line in lines(each):
            scored = [line.score] if has_scores(each) else []
            name = f"{escape(line.name)}\n[dim]{line.params}[/]"
            drawn.add_row(name, *scored, *map(_styled, line.cells), style="dim" if line.published else None)
        said = [*notes(each), *stability(each), *best_layers(each)] if explained else []
        said += tuning_sentences(each)
        # No titles and captions of the table: they would be broken at its width.
        curves = map(_drawn_curve, curve_texts(each)) if explained else ()
        yield Group(Text(each.title, style="italic"), drawn, *map(Text, said), *curves)


def layer_tables(layers: pd.DataFrame) -> Iterator[Table]:
    """A table a task of what heads on one layer alone come to, as the mean over seeds; none where there are none.

    Args:
        layers: as `frames.layers` returns it.
    """
    alone = layers.dropna(subset=["value"]).sort_values("layer", kind="stable")
    return _tables_of_means(alone, "layer", "of one layer alone")


def budget_tables(budgets: pd.DataFrame) -> Iterator[Table]:
    """A table a task of what heads on parts of train come to, as the mean over seeds; none where there are none.

    Args:
        budgets: as `frames.budgets` returns it.
    """
    return _tables_of_means(budgets.sort_values("seconds", kind="stable"), "budget", "by labelled speech of train")


def series_tables(series: pd.DataFrame) -> Iterator[Table]:
    """A table a task of what the checkpoints of a series come to, as the mean over seeds; none where there are none.

    Args:
        series: as `frames.series` returns it.
    """
    named = series.assign(upstream=series["series"]).sort_values("step", kind="stable")
    return _tables_of_means(named, "step", "by step of training")


def condition_tables(conditions: pd.DataFrame) -> Iterator[Table]:
    """A table a task of what heads come to in conditions, as the mean over seeds; none where there are none.

    Args:
        conditions: as `frames.conditions` returns it.
    """
    places = conditions["condition"].map(in_order)
    return _tables_of_means(
        conditions.loc[places.sort_values(kind="stable").index], "condition", "in conditions of test"
    )


def _tables_of_means(found: pd.DataFrame, key: str, what: str) -> Iterator[Table]:
    """Values by upstream and a key, whose values are columns in the order of their coming."""
    for (task, corpus, recipe, metric), rows in found.groupby(["task", "corpus", "recipe", "metric"], sort=False):
        means = rows.groupby(["upstream", key], sort=False)["value"].mean().unstack()[list(rows[key].unique())]
        title = f"{task}: {metric} {what} ({corpus}, recipe {recipe})"
        drawn = Table("upstream", *map(str, means.columns), title=escape(title), title_justify="left")
        for upstream, values in means.iterrows():
            texts = ("-" if pd.isna(value) else f"{value:.1f}" for value in values)
            drawn.add_row(escape(str(upstream)), *texts)
        yield drawn


def _styled(cell: CellText) -> str:
    style = "bold" if cell.best else "underline" if cell.tied else ""
    first = f"[{style}]{cell.value}[/]" if style else cell.value
    second = f"[dim]{escape(cell.interval)}[/] {cell.letters}".rstrip() if cell.interval else ""
    return "\n".join(text for text in (first, second, f"[dim]{cell.published}[/]" if cell.published else "") if text)


def svg(board: Leaderboard) -> str:
    """The terminal's tables as a picture."""
    drawn = list(rich_tables(board))
    width = max(Console(width=200).measure(each).maximum for each in drawn) + 2
    console = Console(width=width, record=True, file=StringIO())
    for each in drawn:
        console.print(each)
    picture = console.export_svg(title="Frostbench")
    return re.sub(r"@font-face\s*{.*?}\s*", "", picture, flags=re.DOTALL)  # whoever looks at it shall load no fonts


def text_frame(board: Board, styled: Callable[[CellText], str], escaped: Callable[[str], str]) -> pd.DataFrame:
    """A board in words, a row an upstream: what Markdown and LaTeX are written from.

    Where the rows are of more than one family, it is the second column; the terminal has no room for it.

    Args:
        board: measured rows come first, then the published ones.
        styled: a cell -> its text.
        escaped: any other text -> the same in the language of the table.
    """
    scored = has_scores(board)
    rows = [
        [*map(escaped, [line.name, line.params, *([line.score] if scored else [])]), *map(styled, line.cells)]
        for line in lines(board)
    ]
    frame = pd.DataFrame(rows, columns=[escaped(name) for name in headings(board)])
    if has_families(board):
        frame.insert(1, escaped("family"), [escaped(line.family) for line in lines(board)])
    return frame


def to_markdown(board: Leaderboard) -> str:
    """One Markdown table a board, with what is to be said about it."""
    parts = []
    for each in (*board.boards, *board.variants):
        frame = text_frame(each, _marked, _plain)
        texts = 2 if has_families(each) else 1
        align = (*("left",) * texts, *("right",) * (frame.shape[1] - texts))
        table: str = frame.to_markdown(index=False, disable_numparse=True, colalign=align if len(frame) else None)
        told = (*notes(each), *stability(each), *best_layers(each), *tuning_sentences(each))
        said = [f"**{_plain(each.title)}**", table, *map(_plain, told)]
        parts.append("\n\n".join([*said, *map(_marked_curve, curve_texts(each))]))
    left_out = [f"Left out: {_plain(each)}" for each in board.left_out]
    return "\n\n".join([*parts, *left_out, _plain(INTERVAL_NOTE)]) + "\n"


def _marked_curve(found: CurveText) -> str:
    rows = [list(map(_plain, row)) for row in found.rows]
    align = ("left", *("right",) * (len(found.columns) - 1))
    table: str = pd.DataFrame(rows, columns=list(map(_plain, found.columns))).to_markdown(
        index=False, disable_numparse=True, colalign=align
    )
    return f"**{_plain(found.title)}**\n\n{table}"


def _marked(cell: CellText) -> str:
    value = f"**{cell.value}**" if cell.best else f"*{cell.value}*" if cell.tied else cell.value
    return " ".join(_plain(text) for text in (value, cell.interval, cell.letters, cell.published) if text)


def _plain(text: str) -> str:
    """Names are text: HTML and bars in them stay visible, whoever renders the Markdown."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
