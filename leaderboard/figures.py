"""The figures of a board. Each is drawn once, as SVG: the page shows it inline, an export is the same drawing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from leaderboard._budget_panels import curves_over_budgets
from leaderboard._charts import Axis, Curve, Panel, Point, curves, profile, scatter, slopes
from leaderboard._checkpoint_panels import curves_over_steps, looks_of_series
from leaderboard._condition_panels import curves_over_conditions
from leaderboard._detection_chart import Trade, detection_chart
from leaderboard._family_panels import family_legend, family_panels, style_of
from leaderboard._heat_map import Matrix, heat_map
from leaderboard._layer_panels import curves_over_layers
from leaderboard._marks import COLOURS, Series, tip
from leaderboard._svg import shortened, signed
from leaderboard._turns_chart import turns_chart
from leaderboard.board import Board, Column, HeadComparison, ResultCell, Row
from leaderboard.board_curves import Interval
from leaderboard.board_errors import Confusion, DetectionCurve
from leaderboard.families import families_of

MOST_LABELS = 40  # of a confusion matrix; of more labels those are shown that are confused most often


@dataclass(frozen=True)
class Figure:
    """Panels that belong together.

    Attributes:
        name: of its file.
        title: stands above it.
        panels: its drawings.
        legend: the upstreams that have a colour in it.
        ramp: what the heat maps' lightest and darkest shade mean; empty where there is none.
        captioned: whether what its panels say in words is shown to everybody.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    legend: tuple[Series, ...] = ()
    ramp: tuple[str, ...] = ()
    captioned: bool = True


def series_of(board: Board) -> dict[str, Series]:
    """How every upstream looks. The keys of published rows begin with `published:`.

    Colours go to the best upstreams; where there are more of them than colours, and of several families, to the
    families, and the best stand out by stronger lines.
    """
    families = looks_by_family(board)
    shown = {
        row.name: Series(f"m{i}", row.name, style_of(row.family) if families else min(i, COLOURS),
                         quiet=families and i >= COLOURS)
        for i, row in enumerate(board.rows)
    }  # fmt: skip
    published = {f"published:{row.name}": Series(f"p{i}", row.name, COLOURS, published=True)
                 for i, row in enumerate(board.published)}  # fmt: skip
    return shown | published


def looks_by_family(board: Board) -> bool:
    """Whether its upstreams have the looks of their families."""
    return len(board.rows) > COLOURS and len(families_of(board.rows)) > 1


def figures_of(board: Board) -> list[Figure]:
    """All figures that a board's results are enough for."""
    series = series_of(board)
    found = [
        _trade_off(board, series),
        _profile(board, series),
        _families(board, series),
        _layers(board, series, corrected=False),
        _layers(board, series, corrected=True),
        *_single_layers(board, series),
        _detection(board, series),
        _checkpoints(board),
        _budgets(board, series),
        _conditions(board, series),
        _rates(board, series),
        *_confusions(board, series),
        *_turns(board, series),
        _heads(board, series),
    ]
    return [figure for figure in found if figure is not None and figure.panels]


def _trade_off(board: Board, series: Mapping[str, Series]) -> Figure | None:
    title, higher, worth = _worth(board)
    points: dict[str, list[Point]] = {"parameters": [], "compute": []}
    for row in board.rows:
        if row.name in worth:
            value = worth[row.name]
            facts = [(title, f"{value:.1f}"), ("Parameters", "unknown" if row.params is None else f"{row.params:,}")]
            if row.gflops_per_second is not None:
                facts.append(("Compute", f"{row.gflops_per_second:.3g} GFLOP for a second of audio"))
                point = Point(series[row.name], row.gflops_per_second, value, tip(row.name, facts))
                points["compute"].append(point)
            if row.params is not None:
                points["parameters"].append(Point(series[row.name], row.params, value, tip(row.name, facts)))
    for published in board.published:
        if published.params is not None and published.score is not None:
            look = series[f"published:{published.name}"]
            facts = [(title, f"{published.score:.1f}"), ("Parameters", f"{published.params:,}")]
            told = tip(f"{published.name} (published)", facts)
            points["parameters"].append(Point(look, published.params, published.score, told))
    panels = []
    for name, x_title in (("parameters", "parameters"), ("compute", "GFLOP for a second of audio")):
        if len({(point.x, point.y) for point in points[name]}) > 1:
            panels.append(scatter(f"{title[:1].upper()}{title[1:]} and {name}", points[name], x_title, title, higher))
    return Figure("trade-off", "What it costs to be good", tuple(panels), _legend(board, series), captioned=False)


def _worth(board: Board) -> tuple[str, bool, dict[str, float]]:
    """What upstreams are compared by against their cost: title, whether higher is better, and values."""
    scores = {row.name: row.score for row in board.rows if row.score is not None}
    if scores or any(row.score is not None for row in board.published):
        return shortened(f"{board.score.name} {board.score.unit}".strip(), 40), True, scores
    if len(board.columns) == 1:
        (column,) = board.columns
        values = {row.name: row.cells[column.key].mean for row in board.rows if column.key in row.cells}
        return f"{column.metric_title} {column.unit}", column.direction == "higher", values
    return "mean rank", False, {row.name: row.mean_rank for row in board.rows}


def _profile(board: Board, series: Mapping[str, Series]) -> Figure | None:
    columns = [column for column in board.columns if _span(board, column)]
    if len(columns) < 3:
        return None
    axes = [Axis(f"{shortened(column.label, 12)} {column.metric_title}", *_span(board, column)) for column in columns]
    lines = []
    for row in board.rows:
        values = [row.cells[column.key].mean if column.key in row.cells else None for column in columns]
        lines.append((series[row.name], values, _values_tip(row.name, columns, values)))
    for published in board.published:
        values = [published.values.get(column.key) for column in columns]
        told = _values_tip(f"{published.name} (published)", columns, values)
        lines.append((series[f"published:{published.name}"], values, told))
    return Figure(
        "profile", "Strengths and weaknesses", (profile(axes, lines),), _legend(board, series), captioned=False
    )


def _families(board: Board, series: Mapping[str, Series]) -> Figure:
    panels = tuple(family_panels(board, series))
    return Figure("by-family", "What each family is good at", panels, family_legend(board.rows))


def _span(board: Board, column: Column) -> tuple[float, ...]:
    """Worst and best value of a column; empty where all are equal, or nobody has one."""
    values = [row.cells[column.key].mean for row in board.rows if column.key in row.cells]
    values += [row.values[column.key] for row in board.published if column.key in row.values]
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low == high:
        return ()
    return (low, high) if column.direction == "higher" else (high, low)


def _values_tip(name: str, columns: Sequence[Column], values: Sequence[float | None]) -> str:
    told = [(column.label, f"{value:.1f} {column.unit}")
            for column, value in zip(columns, values, strict=True) if value is not None]  # fmt: skip
    return tip(name, told)


def _layers(board: Board, series: Mapping[str, Series], *, corrected: bool) -> Figure | None:
    def weights(cell: ResultCell) -> tuple[float, ...]:
        return cell.corrected_weights if corrected else cell.layer_weights

    own = [column for column in board.columns if column.primary]  # the other metrics of a task have the same weights
    rows = [(row, [column for column in own if column.key in row.cells and weights(row.cells[column.key])])
            for row in board.rows if row.num_layers > 1]  # fmt: skip
    rows = [(row, columns) for row, columns in rows if columns]
    if not rows:
        return None
    highest = max(max(weights(row.cells[column.key])) for row, columns in rows for column in columns)
    panels = []
    for row, columns in rows:
        values = [weights(row.cells[column.key]) for column in columns]
        layers = [str(i) for i in range(len(values[0]))]
        matrix = Matrix([shortened(column.label, 12) for column in columns], layers, values, "task", "layer")
        drawn = heat_map(matrix, highest, min(34, 250 / len(layers)), 22)
        peaks = [f"{column.label} layer {max(range(len(each)), key=each.__getitem__)} ({max(each):.2f})"
                 for column, each in zip(columns, values, strict=True)]  # fmt: skip
        panels.append(Panel(row.name, f"Largest weights: {', '.join(peaks)}", *drawn[1:], drawn[0],
                            series[row.name].key))  # fmt: skip
    name, title = ("layers-corrected", "corrected for the layers' norms") if corrected else ("layers", "as learned")
    return Figure(name, f"Layer weights, {title}", tuple(panels), ramp=("0", f"{highest:.2f}"))


def _single_layers(board: Board, series: Mapping[str, Series]) -> Iterator[Figure]:
    for column, panels in curves_over_layers(board, series):
        yield Figure(f"single-layers-{column.task}", f"{column.label}: {column.title}, one layer alone", panels)


def _detection(board: Board, series: Mapping[str, Series]) -> Figure:
    panels = []
    for column in board.columns:
        cells = [(row, row.cells[column.key]) for row in board.rows if column.key in row.cells]
        trades = [_trade(series[row.name], cell, cell.detection, column) for row, cell in cells if cell.detection]
        if any(trade.has_a_place for trade in trades):
            trades.sort(key=lambda trade: trade.equal)
            panels.append(detection_chart(f"{column.label}: {column.title}", trades))
    return Figure("detection", "Misses against false alarms", tuple(panels), _legend(board, series, published=False))


def _trade(series: Series, cell: ResultCell, curve: DetectionCurve, column: Column) -> Trade:
    facts = [("Equal error rate", f"{curve.equal:.1f} %"), ("Seed", str(curve.seed))]
    facts.append((f"{column.metric_title}, all seeds", f"{cell.mean:.1f} {column.unit}{_bracketed(cell.interval)}"))
    facts.append(("Pairs", f"{curve.targets:,} targets, {curve.others:,} others"))
    return Trade(series, curve.errors, curve.equal, tip(series.name, facts))


def _checkpoints(board: Board) -> Figure:
    looks = looks_of_series(board)
    panels = tuple(curves_over_steps(board, looks))
    return Figure("checkpoints", "What training adds, step by step", panels, tuple(looks.values()), captioned=False)


def _budgets(board: Board, series: Mapping[str, Series]) -> Figure:
    panels, legend = tuple(curves_over_budgets(board, series)), _legend(board, series, published=False)
    return Figure("budgets", "What few labels are enough for", panels, legend, captioned=False)


def _conditions(board: Board, series: Mapping[str, Series]) -> Figure:
    panels, legend = tuple(curves_over_conditions(board, series)), _legend(board, series, published=False)
    return Figure("conditions", "What noise, rooms and telephones take", panels, legend, captioned=False)


def _rates(board: Board, series: Mapping[str, Series]) -> Figure | None:
    panels = []
    for column in (column for column in board.columns if column.selecting):
        lines = [_rate_curve(row, column, series) for row in board.rows if column.key in row.cells]
        lines = [curve for curve in lines if curve.points]
        if len({x for curve in lines for x, _ in curve.points}) > 1:
            y_title = f"valid {column.metric_title} {column.unit}"
            panels.append(
                curves(
                    f"{column.label}: {column.title}",
                    lines,
                    "learning rate",
                    y_title,
                    column.direction == "higher",
                )
            )
    legend = _legend(board, series, published=False)
    return Figure("learning-rates", "Sensitivity to the learning rate", tuple(panels), legend, captioned=False)


def _rate_curve(row: Row, column: Column, series: Mapping[str, Series]) -> Curve:
    cell = row.cells[column.key]
    tried: dict[float, list[float]] = {}
    for run in cell.seeds:
        for rate in run.learning_rates:
            if rate.valid is not None and math.isfinite(rate.valid):
                tried.setdefault(rate.learning_rate, []).append(rate.valid)
    points = [(rate, fmean(values)) for rate, values in sorted(tried.items())]
    tips = []
    for learning_rate, value in points:
        chosen = sum(run.learning_rate == learning_rate for run in cell.seeds)
        facts = [
            ("Learning rate", f"{learning_rate:g}"),
            (f"Valid {column.metric_title}", f"{value:.1f} {column.unit}"),
        ]
        tips.append(
            tip(
                row.name,
                [
                    *facts,
                    (
                        "Chosen by",
                        f"{chosen} of {len(cell.seeds)} {'seeds' if len(cell.seeds) == len(cell.values) else 'runs'}",
                    ),
                ]
                if chosen
                else facts,
            )
        )
    return Curve(series[row.name], points, cell.learning_rates, tips)


def _confusions(board: Board, series: Mapping[str, Series]) -> Iterator[Figure]:
    for column in board.columns:
        cells = [(row, row.cells[column.key]) for row in board.rows if column.key in row.cells]
        slots = dict.fromkeys(confusion.slot for _, cell in cells for confusion in cell.confusion)
        for slot in slots:
            panels = [_confusion_panel(row, confusion, column, series[row.name].key)
                      for row, cell in cells for confusion in cell.confusion if confusion.slot == slot]  # fmt: skip
            name = "-".join(["confusion", column.key.replace(" ", "-"), *([slot] if slot else [])])
            title = f"Confusions of {column.title[:1].lower() + column.title[1:]}{f', {slot}' if slot else ''}"
            yield Figure(name, title, tuple(panels), ramp=("0 %", "100 %"))


def _confusion_panel(row: Row, confusion: Confusion, column: Column, key: str) -> Panel:
    shown = _most_confused(confusion)
    place = {label: i for i, label in enumerate(shown)}
    totals: Counter[int] = Counter()
    for reference, _, count in confusion.counts:
        totals[reference] += count
    values: list[list[float | None]] = [[None] * len(shown) for _ in shown]
    for reference, prediction, count in confusion.counts:
        if reference in place and prediction in place:
            values[place[reference]][place[prediction]] = 100 * count / totals[reference]
    names = [shortened(confusion.labels[i], 16) for i in shown]
    size = max(9.0, min(24.0, 330 / len(shown)))
    drawn = heat_map(Matrix(names, names, values, "reference", "heard as", "%", 1), 100, size, size)
    left_out = len(confusion.labels) - len(shown)
    told = f"; the {len(shown)} labels that are confused most of {len(confusion.labels)}" if left_out else ""
    heading = f"{column.label}{f' {confusion.slot}' if confusion.slot else ''}: {row.name}"
    worst = ", ".join(f"{a} as {b} {n} times" for a, b, n in frequent_confusions(confusion, 3)) or "none"
    return Panel(heading, f"Share of every reference label; most frequent confusions: {worst}{told}",
                 *drawn[1:], drawn[0], key)  # fmt: skip


def _most_confused(confusion: Confusion) -> list[int]:
    wrong: Counter[int] = Counter()
    for reference, prediction, count in confusion.counts:
        if reference != prediction:
            wrong.update({reference: count, prediction: count})
    order = sorted(range(len(confusion.labels)), key=lambda label: -wrong[label])
    return sorted(order[:MOST_LABELS])


def frequent_confusions(confusion: Confusion, most: int) -> list[tuple[str, str, int]]:
    """The pairs (reference, prediction, how often) that are wrong most often."""
    wrong = sorted((each for each in confusion.counts if each[0] != each[1]), key=lambda each: -each[2])
    return [(confusion.labels[a], confusion.labels[b], count) for a, b, count in wrong[:most]]


def _turns(board: Board, series: Mapping[str, Series]) -> Iterator[Figure]:
    for column in board.columns:
        cells = [(row, row.cells[column.key]) for row in board.rows if column.key in row.cells]
        panels = [turns_chart(series[row.name], f"{column.label} {shortened(wrong.id, 24)}: {row.name}", wrong)
                  for row, cell in cells for wrong in cell.worst_turns]  # fmt: skip
        if panels:
            name = f"turns-{column.key.replace(' ', '-')}"
            yield Figure(name, f"Worst recordings of {column.title[:1].lower() + column.title[1:]}", tuple(panels))


def _heads(board: Board, series: Mapping[str, Series]) -> Figure | None:
    columns = {column.task: column for column in board.columns if column.primary}
    panels = [_head_panel(each, columns[each.task], series) for each in board.heads
              if each.task in columns and len(each.upstreams) > 1]  # fmt: skip
    return Figure("heads", "The order by another head", tuple(panels), _legend(board, series, published=False))


def _head_panel(comparison: HeadComparison, column: Column, series: Mapping[str, Series]) -> Panel:
    sign = -1 if column.direction == "higher" else 1
    ranks = [[1 + sum(sign * other < sign * mean for other in means) for mean in means]
             for means in (comparison.default_means, comparison.means)]  # fmt: skip
    heads = (shortened(comparison.default_head, 22), shortened(comparison.head, 22))
    lines = []
    for i, name in enumerate(comparison.upstreams):
        means = (comparison.default_means[i], comparison.means[i])
        intervals = (comparison.default_intervals[i], comparison.intervals[i])
        told = [(head, f"{mean:.1f} {column.unit}{_bracketed(interval)}, rank {rank[i]}")
                for head, mean, interval, rank in zip(heads, means, intervals, ranks, strict=True)]  # fmt: skip
        lines.append((series[name], [rank[i] for rank in ranks], tip(name, told)))
    tau = "" if comparison.tau is None else f": Kendall's tau {signed(comparison.tau, '.2f')}"
    flipped = ", ".join(f"{first} and {second}" for first, second in comparison.flipped)
    panel = slopes(f"{column.label}{tau}", heads, lines)
    return replace(panel, description=f"{panel.description}; in another order: {flipped or 'none'}")


def _bracketed(interval: Interval | None) -> str:
    return "" if interval is None else f" [{interval.low:.1f}, {interval.high:.1f}]"


def _legend(board: Board, series: Mapping[str, Series], published: bool = True) -> tuple[Series, ...]:
    shown = family_legend(board.rows) if looks_by_family(board) else _legend_of_the_best(series)
    hollow = published and any(each.published for each in series.values())
    return (*shown, Series("", "published", COLOURS, published=True)) if hollow else shown


def _legend_of_the_best(series: Mapping[str, Series]) -> tuple[Series, ...]:
    measured = [each for each in series.values() if not each.published]
    coloured = tuple(each for each in measured if each.style < COLOURS)
    return (*coloured, Series("", "others", COLOURS)) if len(measured) > len(coloured) else coloured
