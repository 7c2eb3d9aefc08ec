"""The leaderboard as one HTML file that needs nothing else: no server, no network, and to be read no script either."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from leaderboard._charts import compact
from leaderboard._heat_map import SHADES
from leaderboard._marks import Series, marker, tip
from leaderboard._svg import element, printable, signed
from leaderboard.board import Board, Column, Leaderboard, ResultCell, Row
from leaderboard.board_errors import WrongWaveforms
from leaderboard.domains import domain_of, headings_of, in_domains
from leaderboard.families import families_of
from leaderboard.figures import Figure, figures_of, series_of
from leaderboard.leaks import leak_notes
from leaderboard.sounds import log_mel, mp3, spectrogram

# Circumstances that differ from run to run, or from upstream to upstream: no setting.
STAGES = {
    "wall_seconds", "finished", "upstream_spec", "series", "gflops_per_second", "layer_norms", "finetuning", "leaks",
}  # fmt: skip


@dataclass(frozen=True)
class CellView:
    """What the table shows of a value.

    Attributes:
        text: the value.
        spread: standard deviation over seeds; may be empty.
        letters: of the compact letter display; may be empty.
        letters_same_speakers: the same of these speakers alone.
        mark: best, tied or nothing.
        difference: from the published value; may be empty.
        whisker: low end, value and high end of the interval in percent of the column's width, the better the more to
            the right; empty where there is no interval.
        sort: the number that the column is sorted by.
        tip: heading and lines `name TAB value`, shown on hover, focus or tap.
    """

    text: str
    spread: str
    letters: str
    letters_same_speakers: str
    mark: str
    difference: str
    whisker: tuple[float, ...]
    sort: float
    tip: str


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        series: how it looks.
        score, params, gflops_per_second: of the upstream; None where unknown.
        cells: in the order of the columns.
        source: where published numbers stand.
        family: of the upstream; empty where unknown.
        leaks: what of the tests it was trained on, in words; empty where nothing is known to be.
        lane: place of its family in `BoardView.families`, after them where it is unknown.
    """

    series: Series
    score: float | None
    params: int | None
    gflops_per_second: float | None
    cells: tuple[CellView | None, ...]
    source: str = ""
    family: str = ""
    lane: int = 0
    leaks: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoardView:
    """All that the template shows of a board.

    Attributes:
        board: the results.
        key: names it within the page.
        lines: of the table.
        families: those of the rows, in order.
        series: row name -> how it looks.
        figures: name -> figure.
        confusions: those that are confusion matrices.
        turns: those that show who speaks when.
        single_layers: those that are curves over layers.
        transcripts: (column, its rows with mistakes).
        recordings: (column, its rows with waveforms that were kept).
        settings: what runs have in common: (name, value) of versions, commit and machine.
        setting: run digest -> place in the settings.
        leaks: sentences on recordings of test that are elsewhere, too.
        domains: of many columns, what they ask of speech: (domain, how many neighbours); else empty.
    """

    board: Board
    key: str
    lines: tuple[Line, ...]
    families: tuple[str, ...]
    series: Mapping[str, Series]
    figures: Mapping[str, Figure]
    confusions: tuple[Figure, ...]
    turns: tuple[Figure, ...]
    single_layers: tuple[Figure, ...]
    transcripts: tuple[tuple[Column, tuple[tuple[Row, ResultCell], ...]], ...]
    recordings: tuple[tuple[Column, tuple[tuple[Row, ResultCell], ...]], ...]
    settings: tuple[tuple[tuple[str, str], ...], ...]
    setting: Mapping[str, int]
    domains: tuple[tuple[str, int], ...] = ()
    leaks: tuple[str, ...] = ()


def page(leaderboard: Leaderboard) -> str:
    """The whole file. The same leaderboard gives the same text."""
    environment = Environment(
        loader=PackageLoader("leaderboard", "_page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        compact=compact,
        number=lambda value: signed(value, ".1f"),
        duration=duration,
        marker=_legend_marker,
        domain=lambda column: domain_of(column.task),
        sounds=_sounds,
    )
    environment.globals.update(compact=compact, duration=duration)
    script = _asset("page.js")
    content = environment.get_template("page.html").render(
        views=[_view(board, f"b{i}") for i, board in enumerate((*leaderboard.boards, *leaderboard.variants))],
        hidden=leaderboard.hidden,
        left_out=leaderboard.left_out,
        style=Markup(_asset("palette.css") + _asset("page.css") + _asset("figures.css")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        shades=SHADES,
    )
    return printable(content)


def _asset(name: str) -> str:
    return (files("leaderboard") / "_page" / name).read_text(encoding="utf-8")


def _legend_marker(series: Series) -> Markup:
    return element("svg", marker(series, 7, 7), viewBox="0 0 14 14", width=14, height=14, aria_hidden="true")


def duration(seconds: float) -> str:
    """In words: 12 s, 3 min 5 s, 2 h 7 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _view(board: Board, key: str) -> BoardView:
    board = in_domains(board)
    series = series_of(board)
    figures = figures_of(board)
    runs = [run for row in board.rows for cell in row.cells.values() for run in cell.seeds]
    settings = {run.run: _facts(run.circumstances) for run in runs}
    distinct = list(dict.fromkeys(settings.values()))
    return BoardView(
        board=board,
        key=key,
        lines=tuple(_lines(board, series)),
        domains=tuple(headings_of(board.columns)),
        families=tuple(families_of(board.rows)),
        series=series,
        figures={figure.name: figure for figure in figures},
        confusions=tuple(figure for figure in figures if figure.name.startswith("confusion")),
        turns=tuple(figure for figure in figures if figure.name.startswith("turns")),
        single_layers=tuple(figure for figure in figures if figure.name.startswith("single-layers")),
        transcripts=_with(board, lambda cell: cell.worst),
        recordings=_with(board, lambda cell: cell.worst_waveforms),
        settings=tuple(distinct),
        leaks=tuple(leak_notes(board)),
        setting={run: distinct.index(facts) for run, facts in settings.items()},
    )


def _with(
    board: Board, shown: Callable[[ResultCell], object]
) -> tuple[tuple[Column, tuple[tuple[Row, ResultCell], ...]], ...]:
    """The columns with cells that have something to show, and those."""
    found = (
        (column, tuple((row, row.cells[column.key]) for row in board.rows
                       if column.key in row.cells and shown(row.cells[column.key])))
        for column in board.columns
    )  # fmt: skip
    return tuple((column, rows) for column, rows in found if rows)


def _sounds(wrong: WrongWaveforms) -> list[tuple[str, str, str]]:
    """(name, sound, picture) of each signal; all at one level, and so that none is clipped."""
    wavs = [np.frombuffer(signal, np.float16).astype(np.float32) for signal in wrong.signals]
    peak = max(1.0, *(float(np.abs(wav).max(initial=0)) for wav in wavs))
    energies = [log_mel(wav / peak) for wav in wavs]
    loudest = max(float(each.max()) for each in energies)
    return [
        (name, mp3(wav / peak), spectrogram(each, loudest))
        for name, wav, each in zip(wrong.names, wavs, energies, strict=True)
    ]


def _facts(circumstances: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _told(value)) for name, value in sorted(circumstances.items()) if name not in STAGES)


def _told(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_told(each)}" for name, each in sorted(value.items()))
    if isinstance(value, bool):  # before numbers: True equals 1
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(_told, value)) or "none"
    return "unknown" if value is None else str(value)


def _lines(board: Board, series: Mapping[str, Series]) -> list[Line]:
    spans = [_span(board, column) for column in board.columns]
    rivals = len(board.rows) > 1  # alone nobody is the best
    families = [*families_of(board.rows), ""]
    lines = []
    for row in board.rows:
        cells = [_cell(row, row.cells[column.key], column, span, rivals) if column.key in row.cells else None
                 for column, span in zip(board.columns, spans, strict=True)]  # fmt: skip
        lines.append(
            Line(
                series[row.name],
                row.score,
                row.params,
                row.gflops_per_second,
                tuple(cells),
                family=row.family,
                lane=families.index(row.family),
                leaks=row.leaks,
            )
        )
    for published in board.published:
        shown = [_published_cell(published.name, published.values[column.key], column, published.source)
                 if column.key in published.values else None for column in board.columns]  # fmt: skip
        look = series[f"published:{published.name}"]
        unknown = families.index("")
        lines.append(Line(look, published.score, published.params, None, tuple(shown), published.source, lane=unknown))
    return sorted(lines, key=lambda line: (line.score is None, -(line.score or 0)))


def _span(board: Board, column: Column) -> tuple[float, float]:
    """Where the whiskers of a column begin and end: worst and best bound of its intervals."""
    cells = [row.cells[column.key] for row in board.rows if column.key in row.cells]
    ends = [end for cell in cells for end in (cell.interval or (cell.mean,))]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    return (low, high) if column.direction == "higher" else (high, low)


def _cell(row: Row, cell: ResultCell, column: Column, span: tuple[float, float], rivals: bool) -> CellView:
    worst, best = span
    whisker: tuple[float, ...] = ()
    if cell.interval is not None and best != worst:
        low, at, high = (abs(round(100 * (v - worst) / (best - worst), 1)) for v in (*cell.interval, cell.mean))
        whisker = tuple(sorted((low, at, high)))
    difference = "" if cell.published is None else signed(cell.published.difference, "+.1f")
    return CellView(
        text=signed(cell.mean, ".1f"),
        spread="" if cell.std is None else f"{cell.std:.1f}",
        letters=cell.letters,
        letters_same_speakers=cell.letters_same_speakers,
        mark="best" if cell.best and rivals else "tied" if cell.tied else "",
        difference=difference,
        whisker=whisker,
        sort=cell.mean,
        tip=_tip(row, cell, column, difference),
    )


def _tip(row: Row, cell: ResultCell, column: Column, difference: str) -> str:
    place = "tied with the best" if cell.tied else "the best mean" if cell.best else ""
    facts = [(column.metric_title, f"{cell.mean:.2f} {column.unit}")]
    if cell.interval is not None:
        facts.append(("95 % interval", f"{cell.interval.low:.1f} to {cell.interval.high:.1f}"))
    facts.append(("Rank", ", ".join(filter(None, [str(cell.rank), place]))))
    if cell.letters:
        facts.append(("Letters", cell.letters))
    if cell.letters_same_speakers:
        facts.append(("Letters, same speakers", cell.letters_same_speakers))
    spread = "" if cell.std is None else f" (± {cell.std:.2f})"
    facts.append(("Seeds", ", ".join(f"{seed}: {value:.1f}" for seed, value in cell.values.items()) + spread))
    facts.append(("Learning rate", ", ".join(f"{rate:g}" for rate in cell.learning_rates)))
    speakers = "" if cell.speakers is None else f" of {cell.speakers} speakers"
    facts.append(("Test", f"{cell.utterances:,} utterances{speakers}"))
    facts.append(("Wall time", duration(cell.wall_seconds)))
    if cell.published is not None:
        facts.append(("Published", f"{cell.published.value:.1f} {column.unit}, here {difference}"))
        facts.append(("Source", cell.published.source))
    return tip(f"{row.name}, {column.title.lower()}", facts)


def _published_cell(name: str, value: float, column: Column, source: str) -> CellView:
    facts = [("Published", f"{value:.2f} {column.unit}"), ("Source", source)]
    return CellView(f"{value:.1f}", "", "", "", "", "", (), value, tip(f"{name}, {column.title.lower()}", facts))
