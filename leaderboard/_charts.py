"""The kinds of drawing with axes: scatter with a Pareto front, parallel coordinates, curves, slopes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from leaderboard._marks import COLOURS, Label, Series, labels, marker
from leaderboard._svg import CHARACTER_WIDTH, Scale, element, line, padded, path, shortened, signed, text, upwards

EDGE = 16.0  # pixels between the outermost points of curves and the frame


class Point(NamedTuple):
    """One upstream in a scatter plot: cost, score, and what is said on touch."""

    series: Series
    x: float
    y: float
    tip: str


class Axis(NamedTuple):
    """One vertical axis of the profile: a task's name and unit, and its values from worst to best."""

    title: str
    worst: float
    best: float


class Curve(NamedTuple):
    """A line through points (x, y); `chosen` are the x that were selected, `ends` those of the points' intervals."""

    series: Series
    points: Sequence[tuple[float, float]]
    chosen: Sequence[float]
    tips: Sequence[str]
    ends: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Panel:
    """One drawing: its size in pixels and its SVG elements.

    Attributes:
        label: stands above it.
        description: what is in it, for those who can't see it.
        key: the upstream it is about, if it is about one.
    """

    label: str
    description: str
    width: float
    height: float
    body: Markup
    key: str = ""

    def svg(self) -> Markup:
        """Inline, for the page; the tab key reaches it and the arrow keys go through its marks."""
        return element(
            "svg", self.body, viewBox=f"0 0 {self.width:.0f} {self.height:.0f}", role="img", tabindex=0,
            aria_label=f"{self.label}: {self.description}" if self.label else self.description,
            width=self.width, height=self.height, class_="chart",
        )  # fmt: skip


def scatter(label: str, points: Sequence[Point], x_title: str, y_title: str, higher: bool) -> Panel:
    """Worth against cost (logarithmic, with a place of its own for zero), the better the higher up.

    Args:
        label: stands above it.
        points: the best first; they get their names first, after those of the front.
        x_title: of the cost's axis.
        y_title: of the other.
        higher: whether higher values of y are better; the axis is turned over where they are not.
    """
    width, height, left, bottom = 420.0, 300.0, 54.0, 44.0
    costs = [point.x for point in points if point.x > 0]
    zeros = any(point.x == 0 for point in points)
    x_start = left + (56 if zeros and costs else 14)
    low, high = (min(costs) / 1.4, max(costs) * 1.4) if costs else (1.0, 1.0)
    x_scale = Scale(low, high, x_start, width - 14, logarithmic=True)
    ends = (height - bottom, 12.0) if higher else (12.0, height - bottom)
    y_scale = Scale(*padded([point.y for point in points], 0.1), *ends)
    best = pareto_front(points, 1 if higher else -1)

    def place(point: Point) -> tuple[float, float]:
        zero_at = left + 22 if costs else (left + width) / 2
        return (x_scale(point.x) if point.x > 0 else zero_at), y_scale(point.y)

    parts = [y_axis(y_scale, left, width, y_title), _x_axis(x_scale.ticks() if costs else [], x_scale, height)]
    parts.append(text(x_title, (left + width) / 2, height - 6, "axis-title", "middle"))
    if zeros:
        parts.append(text("0", place(Point(points[0].series, 0, 0, ""))[0], height - bottom + 18, "tick", "middle"))
        if costs:
            parts.append(line(left + 44, 12, left + 44, height - bottom, "break"))
    front = [place(point) for point in best]
    steps = [corner for (x1, y1), (x2, y2) in pairwise(front) for corner in ((x2, y1), (x2, y2))]
    parts.append(path([*front[:1], *steps, (width - 14, front[-1][1])], "front"))
    parts += [_mark(point.series, *place(point), point.tip) for point in reversed(points)]
    few = len(points) <= 4 * COLOURS
    named = [point for i, point in enumerate(points) if few or point in best or i < COLOURS]
    named.sort(key=lambda point: point not in best)
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in map(place, points)]
    parts += labels([Label(point.series, *place(point)) for point in named], taken, (left + 2, 0, width, height))
    description = f"{y_title} against {x_title}; on the Pareto front: {', '.join(point.series.name for point in best)}"
    return Panel(label, description, width, height, Markup("").join(parts))


def pareto_front(points: Sequence[Point], sign: int = 1) -> list[Point]:
    """The points that no other beats: none that costs the same or less is as good. Cheapest first.

    Args:
        points: of any order.
        sign: 1 where higher y are better, -1 where lower are.
    """
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -sign * point.y)):
        if not front or sign * point.y > sign * front[-1].y:
            front.append(point)
    return front


def profile(axes: Sequence[Axis], lines: Sequence[tuple[Series, Sequence[float | None], str]]) -> Panel:
    """Parallel coordinates: one axis a task, best at the top, one line an upstream; of many the first are named."""
    named = lines if len(lines) <= 2 * COLOURS else lines[:COLOURS]
    right = max(len(shortened(series.name, 24)) for series, _, _ in named) * CHARACTER_WIDTH + 16
    gap = max(96.0, 720 / (len(axes) - 1))
    left, top, bottom = 46.0, 46.0, 300.0
    width = left + gap * (len(axes) - 1) + max(right, left)
    scales = [Scale(axis.worst, axis.best, bottom, top) for axis in axes]
    parts = []
    for i, (axis, scale) in enumerate(zip(axes, scales, strict=True)):
        x = left + gap * i
        parts.append(line(x, top, x, bottom, "axis"))
        parts.append(text(axis.title, x, 16, "axis-title", "middle"))
        for value, y in ((axis.best, top - 10), (axis.worst, bottom + 18)):
            parts.append(text(f"{value:.1f}", x, y, "tick", "middle"))
        parts += [line(x - 3, scale(tick), x + 3, scale(tick), "axis") for tick in scale.ticks(4)]
    ends = []
    for series, values, told in reversed(lines):
        places = [None if value is None else (left + gap * i, scale(value))
                  for i, (scale, value) in enumerate(zip(scales, values, strict=True))]  # fmt: skip
        there = [place for place in places if place is not None]
        strokes = [path(list(run), series.classes("line")) for run in _runs(places) if len(run) > 1]
        marks = [marker(series, *place) for place in there]
        parts.append(_line_group(series, *strokes, *marks, data_tip=told))
        if places[-1] is not None and any(series is each for each, _, _ in named):
            ends.append((places[-1][1], series))
    parts += _end_labels(ends, left + gap * (len(axes) - 1) + 10)
    description = f"{len(lines)} upstreams over {', '.join(axis.title for axis in axes)}; best at the top"
    return Panel("", description, width, bottom + 30, Markup("").join(parts))


def _runs(places: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    """What stands between gaps: a line over a task that was not run would show a value that nobody measured."""
    runs: list[list[tuple[float, float]]] = [[]]
    for place in places:
        if place is None:
            runs.append([])
        else:
            runs[-1].append(place)
    return runs


def _end_labels(ends: Sequence[tuple[float, Series]], x: float) -> list[Markup]:
    """Names at the ends of lines, pushed apart where they would touch."""
    drawn, lowest = [], -math.inf
    for y, series in sorted(ends, key=lambda end: end[0]):
        lowest = max(y + 4, lowest + 14)
        drawn.append(element("text", shortened(series.name, 24), x=x, y=lowest, class_="label", data_u=series.key))
    return drawn


def curves(
    label: str,
    lines: Sequence[Curve],
    x_title: str,
    y_title: str,
    higher: bool,
    *,
    named: Mapping[float, str] | None = None,
    logarithmic: bool = True,
) -> Panel:
    """Lines over an axis, the better the higher up; what was chosen has a ring, an interval is a whisker.

    Args:
        label: stands above it.
        lines: the first is drawn above the others.
        x_title: of the axis below.
        y_title: of the other.
        higher: whether higher values of y are better; the axis is turned over where they are not.
        named: what stands at places of the axis below, as far as there is room, the last first; None are numbers.
        logarithmic: whether equal steps of that axis are equal factors, not equal differences.
    """
    width, height, left, bottom = 320.0, 230.0, 50.0, 42.0
    points = [point for curve in lines for point in curve.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    ys += [end for curve in lines for ends in curve.ends for end in ends]
    x_scale = Scale(min(xs), max(xs), left + EDGE, width - EDGE, logarithmic)
    y_scale = Scale(*padded(ys), *((height - bottom, 10.0) if higher else (10.0, height - bottom)))
    tried = sorted(set(xs))
    ticks = tried if len(tried) < 6 else x_scale.ticks(4)
    below = _x_axis(ticks, x_scale, height) if named is None else _named_ticks(named, x_scale, height)
    parts = [y_axis(y_scale, left, width, y_title), below]
    parts.append(text(x_title, (left + width) / 2, height - 6, "axis-title", "middle"))
    apart = min(4.0, 20 / len(lines)) if any(curve.ends for curve in lines) else 0.0  # whiskers shall not cover others
    for number, curve in reversed(list(enumerate(lines))):
        shift = apart * (number - (len(lines) - 1) / 2)
        places = [(x_scale(x) + shift, y_scale(y)) for x, y in curve.points]
        marks = [_mark(curve.series, *place, tip) for place, tip in zip(places, curve.tips, strict=True)]
        rings = [element("circle", cx=at[0], cy=at[1], r=7, class_=curve.series.classes("ring"))
                 for at, (x, _) in zip(places, curve.points, strict=True) if x in curve.chosen]  # fmt: skip
        whiskers = "".join(f"M{x:.1f},{y_scale(low):.1f}V{y_scale(high):.1f}"
                           for (x, _), (low, high) in zip(places, curve.ends, strict=False))  # fmt: skip
        strokes = [path(places, curve.series.classes("line"))]
        strokes += [element("path", d=whiskers, class_=curve.series.classes("line"))] if whiskers else []
        # The arrow keys go from the last to the first.
        parts.append(_line_group(curve.series, *strokes, *rings, *reversed(marks)))
    return Panel(label, f"{y_title} against {x_title} of {len(lines)} upstreams", width, height, Markup("").join(parts))


def slopes(label: str, columns: Sequence[str], lines: Sequence[tuple[Series, Sequence[float], str]]) -> Panel:
    """Ranks of the same upstreams by several heads, first at the top: lines that cross are ranks that flip."""
    names = [shortened(series.name, 20) for series, _, _ in lines]
    margin = max(map(len, names)) * CHARACTER_WIDTH + 16
    gap, top = 150.0, 40.0
    width = 2 * margin + gap * (len(columns) - 1)
    lowest = max(max(ranks) for _, ranks, _ in lines)
    scale = Scale(1, lowest, top, top + 24 * (lowest - 1))
    parts = [text(column, margin + gap * i, 16, "axis-title", "middle") for i, column in enumerate(columns)]
    for series, ranks, tip in reversed(lines):
        places = [(margin + gap * i, scale(rank)) for i, rank in enumerate(ranks)]
        marks = [marker(series, *place) for place in places]
        parts.append(_line_group(series, path(places, series.classes("line")), *marks, data_tip=tip))
    for side, x in ((0, margin - 10), (-1, margin + gap * (len(columns) - 1) + 10)):
        drawn = _end_labels([(scale(ranks[side]), series) for series, ranks, _ in lines], x)
        parts.append(element("g", *drawn, text_anchor="end" if side == 0 else "start"))
    description = f"Ranks of {len(lines)} upstreams by {', '.join(columns)}"
    return Panel(label, description, width, top + 24 * max(lowest, 1), Markup("").join(parts))


def y_axis(scale: Scale, left: float, width: float, title: str) -> Markup:
    """Grid lines from `left` to `width` at round values, and the title upwards beside them."""
    parts = []
    for tick in scale.ticks():
        parts.append(line(left, scale(tick), width, scale(tick), "grid"))
        parts.append(text(signed(tick, "g"), left - 8, scale(tick) + 4, "tick", "end"))
    return Markup("").join([*parts, upwards(title, 12, (scale.start + scale.end) / 2, "axis-title")])


def _x_axis(ticks: Sequence[float], scale: Scale, height: float) -> Markup:
    return Markup("").join(text(compact(tick), scale(tick), height - 26, "tick", "middle") for tick in ticks)


def _named_ticks(names: Mapping[float, str], scale: Scale, height: float) -> Markup:
    """Names below places, within the drawing; one that would touch the name on its right is left out."""
    parts, free = [], math.inf
    for value, name in sorted(names.items(), reverse=True):
        half = (len(name) + 1) * CHARACTER_WIDTH / 2
        x = min(scale(value), scale.end + EDGE - half)
        if x + half <= free:
            parts.append(text(name, x, height - 26, "tick", "middle"))
            free = x - half
    return Markup("").join(parts)


def compact(value: float) -> str:
    """A number in few characters: 95 M, 1.2 G, 0.001."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:g}" if value >= 1e-3 or value == 0 else f"{value:.0e}".replace("e-0", "e-")


def _line_group(series: Series, *parts: Markup, data_tip: str | None = None) -> Markup:
    """A line with its marks."""
    return element("g", *parts, data_u=series.key, data_tip=data_tip, class_="quiet" if series.quiet else None)


def _mark(series: Series, x: float, y: float, tip: str) -> Markup:
    return element("g", marker(series, x, y), data_u=series.key, data_tip=tip)
