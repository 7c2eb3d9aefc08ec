"""What each layer knows alone, above what the learned sum of all takes of it: one drawing an upstream and task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from leaderboard._charts import Panel, y_axis
from leaderboard._marks import Series, marker
from leaderboard._svg import Scale, element, line, path, text, upwards

WIDTH, LEFT, TOP = 320.0, 54.0, 10.0
FLOOR = 198.0  # of the scores
WEIGHTS = (214.0, 250.0)  # from where to where the bars of the weights reach
HEIGHT = 290.0
LABEL_WIDTH = 22.0  # of a layer's number


class LayerMark(NamedTuple):
    """A layer: its number, its score with the ends of the interval (the score itself without one), what is said."""

    layer: int
    value: float
    low: float
    high: float
    tip: str


class Reference(NamedTuple):
    """The learned sum: its score, and the ends of the interval (the score itself without one)."""

    value: float
    low: float
    high: float


def layer_chart(
    series: Series, marks: Sequence[LayerMark], whole: Reference, weights: Sequence[float], *, title: str,
    span: tuple[float, float],
) -> Panel:  # fmt: skip
    """A curve over the layers, the better the higher up, the sum as a dashed line in its interval, weights as bars.

    Args:
        series: how the upstream looks.
        marks: the layers that were tried, ascending.
        whole: the sum of all.
        weights: of the sum, one a layer.
        title: of the scores' axis.
        span: what the axis has at its bottom and at its top; the larger may be below.
    """
    count = len(weights)
    step = (WIDTH - LEFT - 8) / count
    scale = Scale(*span, FLOOR, TOP)
    heights = Scale(0, max(weights), WEIGHTS[1], WEIGHTS[0])

    def middle(layer: int) -> float:
        return LEFT + 4 + step * (layer + 0.5)

    top, bottom = sorted((scale(whole.low), scale(whole.high)))
    parts = [
        y_axis(scale, LEFT, WIDTH, title),
        element("rect", x=LEFT, y=top, width=WIDTH - LEFT, height=max(1.0, bottom - top), class_="band"),
        line(LEFT, scale(whole.value), WIDTH, scale(whole.value), "front"),
        line(LEFT, WEIGHTS[1], WIDTH, WEIGHTS[1], "axis"),
        upwards("weight", 12, sum(WEIGHTS) / 2, "axis-title"),
        text(f"{max(weights):.2f}", LEFT - 8, WEIGHTS[0] + 5, "tick", "end"),
        text("layer", (LEFT + WIDTH) / 2, HEIGHT - 5, "axis-title", "middle"),
    ]
    every = math.ceil(LABEL_WIDTH / step)
    parts += [text(layer, middle(layer), WEIGHTS[1] + 15, "tick", "middle") for layer in range(0, count, every)]
    half = step * 0.35
    bars = "".join(f"M{middle(layer) - half:.1f},{WEIGHTS[1]:g}V{heights(weight):.1f}h{2 * half:.1f}V{WEIGHTS[1]:g}Z"
                   for layer, weight in enumerate(weights))  # fmt: skip
    whiskers = "".join(f"M{middle(mark.layer):.1f},{scale(mark.low):.1f}V{scale(mark.high):.1f}"
                       for mark in marks if mark.low != mark.high)  # fmt: skip
    stops = [element("g", element("rect", x=middle(mark.layer) - step / 2, y=TOP, width=step, height=WEIGHTS[1] - TOP,
                                  class_="hit"),
                     marker(series, middle(mark.layer), scale(mark.value)), data_tip=mark.tip)
             for mark in reversed(marks)]  # the arrow keys go from the last to the first  # fmt: skip
    drawn = [
        element("path", d=bars, class_=series.classes("mark")),
        *([element("path", d=whiskers, class_=series.classes("line"))] if whiskers else []),
        path([(middle(mark.layer), scale(mark.value)) for mark in marks], series.classes("line")),
    ]
    parts.append(element("g", *drawn, *stops, data_u=series.key))
    best = min(marks, key=lambda mark: scale(mark.value))  # the highest up
    description = f"Best alone: layer {best.layer}, {_written(best)}; learned sum: {_written(whole)}"
    return Panel(series.name, description, WIDTH, HEIGHT, Markup("").join(parts), series.key)


def _written(value: LayerMark | Reference) -> str:
    interval = "" if value.low == value.high else f" [{value.low:.1f}, {value.high:.1f}]"
    return f"{value.value:.1f}{interval}"
