"""Values by family: every family a lane, every upstream a mark with its interval as a whisker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from markupsafe import Markup

from leaderboard._charts import Panel, y_axis
from leaderboard._marks import Box, Label, Series, labels, marker
from leaderboard._svg import CHARACTER_WIDTH, Scale, element, line, padded, shortened, text

WIDTH, HEIGHT = 560.0, 340.0
LEFT, TOP = 54.0, 14.0
BEGIN = LEFT + 8  # of the first lane, so that a name above its first mark stays off the axis
NAME_LINE = 15.0  # of the lanes' names, which stand on two lines in turn where one has no room for all


class Mark(NamedTuple):
    """An upstream on a task: its value, the ends of its interval (the value itself where it has none), what is said."""

    series: Series
    value: float
    low: float
    high: float
    tip: str


class Lane(NamedTuple):
    """A family: its name and its upstreams, the best first."""

    name: str
    marks: Sequence[Mark]


def lane_chart(label: str, found: Sequence[Lane], y_title: str, higher: bool) -> Panel:
    """Lanes on one axis, the better the higher up; in a lane the best is on the left.

    Args:
        label: stands above it.
        found: in the order of the lanes; none is empty.
        y_title: of the axis.
        higher: whether higher values are better; the axis is turned over where they are not.
    """
    edges = _edges([len(lane.marks) for lane in found])
    names = [shortened(lane.name, 16) for lane in found]
    room = min((end - start) / (len(name) * CHARACTER_WIDTH) for name, (start, end) in zip(names, pairwise(edges),
                                                                                           strict=True))  # fmt: skip
    bottom = HEIGHT - 12 - NAME_LINE * (1 if room > 1 else 2)
    ends = [end for lane in found for mark in lane.marks for end in (mark.low, mark.value, mark.high)]
    scale = Scale(*padded(ends, 0.1), *((bottom, TOP) if higher else (TOP, bottom)))
    parts = [y_axis(scale, LEFT, WIDTH, y_title)]
    parts += [line(edge, TOP, edge, bottom, "break") for edge in edges[1:-1]]
    for i, (name, (start, end)) in enumerate(zip(names, pairwise(edges), strict=True)):
        below = NAME_LINE * (1 if room > 1 else 1 + i % 2)
        parts.append(text(name, (start + end) / 2, bottom + 3 + below, "tick", "middle"))
    placed = [each for lane, (start, end) in zip(found, pairwise(edges), strict=True)
              for each in _spread(lane.marks, start, end)]  # fmt: skip
    parts += [_drawn(mark, x, scale) for mark, x in reversed(placed)]
    taken = [box for mark, x in placed for box in _covered(mark, x, scale)]
    best_first = sorted(placed, key=lambda each: each[0].value, reverse=higher)
    leaders = {lane.marks[0].series.key for lane in found}
    best_first.sort(key=lambda each: each[0].series.key not in leaders)
    wanted = [_label(mark, x, scale) for mark, x in best_first]
    parts += labels(wanted, taken, (LEFT - 6, 2.0, WIDTH, bottom))
    leading = ", ".join(f"{lane.name} {lane.marks[0].series.name} {lane.marks[0].value:.1f}" for lane in found)
    return Panel(label, f"Best of each family: {leading}", WIDTH, HEIGHT, Markup("").join(parts))


def _edges(counts: Sequence[int]) -> list[float]:
    """Where lanes begin and end: half of the room is shared equally, half by how many upstreams they hold."""
    total, mean = sum(counts), sum(counts) / len(counts)
    shares = [(count + mean) / (2 * total) for count in counts]
    return [BEGIN + share * (WIDTH - BEGIN) for share in accumulate(shares, initial=0.0)]


def _spread(marks: Sequence[Mark], start: float, end: float) -> Iterator[tuple[Mark, float]]:
    step = (end - start) / len(marks)
    return ((mark, start + step * (i + 0.5)) for i, mark in enumerate(marks))


def _drawn(mark: Mark, x: float, scale: Scale) -> Markup:
    whisker = [] if mark.low == mark.high else [
        line(x, scale(mark.low), x, scale(mark.high), mark.series.classes("line"))
    ]  # fmt: skip
    return element("g", *whisker, marker(mark.series, x, scale(mark.value)), data_u=mark.series.key, data_tip=mark.tip)


def _covered(mark: Mark, x: float, scale: Scale) -> Iterator[Box]:
    """The whisker, and so much around the marker that another one's name does not seem to be its own."""
    top, end = sorted((scale(mark.low), scale(mark.high)))
    at = scale(mark.value)
    yield x - 4, top, x + 4, end
    yield x - 14, at - 6, x + 14, at + 6


def _label(mark: Mark, x: float, scale: Scale) -> Label:
    """A name goes above the whisker or below it, turned inwards where the figure ends."""
    at = scale(mark.value)
    top, end = sorted((scale(mark.low), scale(mark.high)))
    above, below = min(top - at, -6) - 5, max(end - at, 6) + 13
    spots = [(anchor, dx, dy) for anchor, dx in (("middle", 0.0), ("end", 10.0), ("start", -10.0))
             for dy in (above, below)]  # fmt: skip
    return Label(mark.series, x, at, spots)
