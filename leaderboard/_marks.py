"""How an upstream looks wherever it is drawn: its marker, its name beside it, and what is said on touch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from leaderboard._svg import CHARACTER_WIDTH, element, shortened

COLOURS = 6  # series with a colour and a marker of their own (Okabe-Ito without black and yellow); the others are grey
MARKERS = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z",  # circle
    "M-3.6,-3.6h7.2v7.2h-7.2Z",  # square
    "M0,-5.2L5.2,0L0,5.2L-5.2,0Z",  # diamond
    "M0,-4.8L4.8,3.6L-4.8,3.6Z",  # triangle
    "M0,4.8L4.8,-3.6L-4.8,-3.6Z",  # triangle upside down
    "M-1.6,-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3Z",  # cross
    "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0Z",  # the others: a small circle
    "M-5,-1.9h10v3.8h-10Z",  # features without training: a bar
)
UNTRAINED = 7  # their style
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
BESIDE = (("start", 9.0, 4.0), ("end", -9.0, 4.0), ("middle", 0.0, -9.0), ("middle", 0.0, 17.0))


class Series(NamedTuple):
    """An upstream, looking the same in every figure but that by family, where it looks like its family.

    Attributes:
        key: names it within the page.
        name: as the leaderboard shows it.
        style: 0 to COLOURS - 1 for a colour of its own, COLOURS for grey, UNTRAINED for ink.
        published: somebody else's number, drawn hollow and dashed.
        quiet: drawn faintly where lines of many upstreams cross.
    """

    key: str
    name: str
    style: int
    published: bool = False
    quiet: bool = False

    def classes(self, kind: str) -> str:
        """The CSS classes of a mark or line."""
        return f"{kind} s{self.style}" + (" published" if self.published else "")


def tip(heading: str, facts: Sequence[tuple[str, str]]) -> str:
    """What is said on hover, focus or tap: a heading, then lines `name TAB value`; the page's script sets them out."""
    return "\n".join(" ".join(line.split("\n")) for line in (heading, *(f"{name}\t{value}" for name, value in facts)))


def marker(series: Series, x: float, y: float) -> Markup:
    """The symbol of an upstream, in pixels."""
    return element("path", d=MARKERS[series.style], transform=f"translate({x:.1f} {y:.1f})",
                   class_=series.classes("mark"))  # fmt: skip


class Label(NamedTuple):
    """The name of a mark at (x, y), and where it may stand: anchor and distance of each spot, the best first."""

    series: Series
    x: float
    y: float
    spots: Sequence[tuple[str, float, float]] = BESIDE


def labels(wanted: Sequence[Label], taken: Sequence[Box], frame: Box) -> list[Markup]:
    """Names beside marks, best first; a name that finds no free place is left out, touching the mark tells it.

    Args:
        wanted: the best first.
        taken: what no name may cover.
        frame: what no name may leave.
    """
    covered, drawn = list(taken), []
    for series, x, y, spots in wanted:
        name = shortened(series.name, 26)
        size = len(name) * CHARACTER_WIDTH
        for anchor, dx, dy in spots:
            start = x + dx - {"start": 0, "middle": size / 2, "end": size}[anchor]
            box = (start, y + dy - 10, start + size, y + dy + 3)
            if _inside(box, frame) and not any(_overlap(box, other) for other in covered):
                covered.append(box)
                drawn.append(element("text", name, x=x + dx, y=y + dy, text_anchor=anchor, class_="label",
                                     data_u=series.key))  # fmt: skip
                break
    return drawn


def _inside(box: Box, frame: Box) -> bool:
    return box[0] > frame[0] and box[1] >= frame[1] and box[2] < frame[2] and box[3] <= frame[3]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
