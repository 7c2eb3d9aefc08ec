"""Detection-error trade-off: misses against false alarms on axes of normal deviates, where good systems are lines."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

from markupsafe import Markup

from leaderboard._charts import Panel
from leaderboard._marks import Label, Series, labels, marker
from leaderboard._svg import Scale, element, line, path, text, upwards

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 400.0, 400.0, 54.0, 12.0, 44.0
SIDE = WIDTH - LEFT - TOP  # of the square between the axes
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90, 95, 98, 99, 99.5)  # percent
BESIDE_THE_DIAGONAL = (("start", 9.0, -4.0), ("end", -9.0, 14.0), ("start", 9.0, 12.0))  # names of the marks on it
deviate = NormalDist().inv_cdf


class Trade(NamedTuple):
    """An upstream: (false alarms, misses) in percent, both between 0 and 100, their equal error rate, what is said."""

    series: Series
    errors: Sequence[tuple[float, float]]
    equal: float
    tip: str

    @property
    def has_a_place(self) -> bool:
        """Whether it is on axes of normal deviates, which have neither 0 nor 100 %."""
        return 0 < self.equal < 100


def detection_chart(label: str, trades: Sequence[Trade]) -> Panel:
    """Curves whose equal error rates are marked on the diagonal; the better the nearer to the lower left.

    Args:
        label: stands above it.
        trades: the best first; one that makes no errors has no place on these axes, and is only named.
    """
    shown = [trade for trade in trades if trade.has_a_place]
    low, high = _range([trade.equal for trade in shown])
    across = Scale(deviate(low / 100), deviate(high / 100), LEFT, LEFT + SIDE)
    up = Scale(across.low, across.high, TOP + SIDE, TOP)

    def place(alarms: float, misses: float) -> tuple[float, float]:
        return across(deviate(alarms / 100)), up(deviate(misses / 100))

    parts = []
    for tick in (tick for tick in TICKS if low <= tick <= high):
        x, y = place(tick, tick)
        parts += [line(x, TOP, x, TOP + SIDE, "grid"), line(LEFT, y, LEFT + SIDE, y, "grid")]
        parts += [
            text(f"{tick:g}", x, TOP + SIDE + 17, "tick", "middle"),
            text(f"{tick:g}", LEFT - 8, y + 4, "tick", "end"),
        ]
    parts.append(line(LEFT, TOP + SIDE, LEFT + SIDE, TOP, "break"))
    parts.append(text("false alarms, % of the other pairs", LEFT + SIDE / 2, HEIGHT - 6, "axis-title", "middle"))
    parts.append(upwards("misses, % of the target pairs", 12, TOP + SIDE / 2, "axis-title"))
    for trade in reversed(shown):
        places = [place(*errors) for errors in trade.errors] or [place(trade.equal, trade.equal)]
        # A drawing in the drawing cuts off what leaves the axes.
        inside = element("svg", path(places, trade.series.classes("line")), x=LEFT, y=TOP, width=SIDE, height=SIDE,
                         viewBox=f"{LEFT:g} {TOP:g} {SIDE:g} {SIDE:g}")  # fmt: skip
        mark = marker(trade.series, *place(trade.equal, trade.equal))
        parts.append(element("g", inside, mark, data_u=trade.series.key, data_tip=trade.tip,
                             class_="quiet" if trade.series.quiet else None))  # fmt: skip
    marks = [place(trade.equal, trade.equal) for trade in shown]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in marks]
    wanted = [Label(trade.series, x, y, BESIDE_THE_DIAGONAL)
              for trade, (x, y) in zip(shown, marks, strict=True)]  # fmt: skip
    parts += labels(wanted, taken, (LEFT, TOP, LEFT + SIDE, TOP + SIDE))
    rates = ", ".join(f"{trade.series.name} {trade.equal:.1f} %" for trade in trades)
    return Panel(label, f"Equal error rates: {rates}", WIDTH, HEIGHT, Markup("").join(parts))


def _range(rates: Sequence[float]) -> tuple[float, float]:
    """Ticks around the equal error rates, with room for the curves on both sides."""
    lowest, highest = min(rates, default=1.0), max(rates, default=10.0)
    low = max((tick for tick in TICKS if tick <= lowest / 8), default=lowest / 8)
    high = min((tick for tick in TICKS if tick >= 2 * highest), default=TICKS[-1])
    return low, high
