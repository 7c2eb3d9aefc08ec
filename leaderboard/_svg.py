"""SVG by hand: elements that escape what they are given, and scales with round ticks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

CHARACTER_WIDTH = 6.8  # of 12 px type, on average; only used to keep labels apart
# What XML has no form for; a name that holds one would make the file unreadable.
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An element; children and attribute values are escaped unless they are Markup already.

    Args:
        tag: name of the element.
        children: texts and elements.
        attributes: `class_` is written class, `text_anchor` text-anchor; None is left out, a float is rounded.
    """
    written = [
        f' {name.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    ]
    return Markup(f"<{tag}{''.join(written)}>{''.join(map(_escaped, children))}</{tag}>")


def _escaped(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return escape(value)


def printable(written: str) -> str:
    """A file's text with U+FFFD in place of control characters and halves of surrogate pairs."""
    return NOT_XML.sub("\ufffd", written)


def text(content: object, x: float, y: float, class_: str = "", anchor: str | None = None) -> Markup:
    """A line of text; `anchor` is start, middle or end."""
    return element("text", content, x=x, y=y, class_=class_ or None, text_anchor=anchor)


def upwards(content: object, x: float, y: float, class_: str) -> Markup:
    """A line of text that reads from below to above, around a place."""
    turned = f"translate({x:.1f} {y:.1f}) rotate(-90)"
    return element("text", content, class_=class_, text_anchor="middle", transform=turned)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str, **attributes: object) -> Markup:
    """A line through points, in pixels."""
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("path", d=f"M{steps}", class_=class_, **attributes)


def group(*children: object, x: float = 0, y: float = 0, **attributes: object) -> Markup:
    """Elements moved together."""
    return element("g", *children, transform=f"translate({x:.1f} {y:.1f})" if x or y else None, **attributes)


def shortened(name: str, characters: int) -> str:
    """A long name with its middle left out: both ends of a path or a hub's id tell something."""
    if len(name) <= characters:
        return name
    tail = characters // 2
    return f"{name[: characters - tail - 1]}…{name[-tail:]}"


@dataclass(frozen=True)
class Scale:
    """Data -> pixels: `low` (it may be the larger) is drawn at `start`, `high` at `end`; linearly or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Where a value is drawn, in pixels."""
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high != low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round values inside the scale, about as many as wanted."""
        low, high = sorted((self.low, self.high))
        return _log_ticks(low, high, wanted) if self.logarithmic else _ticks(low, high, wanted)


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    if high <= low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.99)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, wanted: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [factor * 10.0**power for power in powers for factor in factors]
        inside = [value for value in found if low * 0.999 <= value <= high * 1.001]
        if len(inside) >= 3:
            return inside[:: math.ceil(len(inside) / (wanted + 2))]
    return inside


def signed(value: float, form: str) -> str:
    """A number with a minus sign instead of a hyphen, and without a sign where it is rounded to zero."""
    written = format(value, form)
    return written.lstrip("+-") if float(written) == 0 else written.replace("-", "\N{MINUS SIGN}")


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """The span of values with some air at both ends, so that no mark lies on the frame."""
    low, high = min(values), max(values)
    air = (high - low) * share or abs(high) * share or 1.0
    return low - air, high + air
