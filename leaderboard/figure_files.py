"""Every figure as files: an SVG that stands on its own, and the same as PNG."""

from __future__ import annotations

import math
import re
from importlib.resources import files
from pathlib import Path

import resvg_py

from core.digest import written_then_renamed
from leaderboard._heat_map import SHADES
from leaderboard._marks import marker
from leaderboard._svg import CHARACTER_WIDTH, element, group, printable, shortened, text
from leaderboard.board import Leaderboard
from leaderboard.figures import Figure, figures_of

PIXELS_PER_UNIT = 2  # of the PNG: sharp in print
FONTS = Path(__file__).parent / "_fonts"
FONT_FAMILY = "DejaVu Sans"  # only its condensed faces are in FONTS; they are as wide as CHARACTER_WIDTH reckons with


def standalone(figure: Figure) -> str:
    """An SVG file: title, panels in a grid, legend, and the light palette."""
    margin = 24.0
    columns = 2 if figure.panels[0].width > 400 else min(4, math.ceil(math.sqrt(len(figure.panels))))
    parts, y, width = [text(figure.title, margin, 40, "figure-title")], 60.0, 480.0
    for start in range(0, len(figure.panels), columns):
        row, x = figure.panels[start : start + columns], margin
        head = 24 if any(panel.label for panel in row) else 0
        for panel in row:
            label = shortened(panel.label, int(panel.width / CHARACTER_WIDTH))
            parts += [text(label, x, y + 14, "panel-title"), group(panel.body, x=x, y=y + head)]
            x += panel.width + margin
        width = max(width, x)
        y += head + max(panel.height for panel in row) + margin
    x, y = margin, y + 8
    for series in figure.legend:
        name = shortened(series.name, 40)
        size = len(name) * CHARACTER_WIDTH + 34
        if x > margin and x + size > width:
            x, y = margin, y + 20
        parts += [marker(series, x + 6, y - 4), text(name, x + 16, y, "label")]
        x += size
    if figure.ramp:
        swatches = [element("rect", x=14.0 * i, y=-10, width=14, height=12, class_=f"q{i}") for i in range(SHADES)]
        low, high = figure.ramp
        parts += [text(low, margin, y, "tick"), group(*swatches, x=margin + 30, y=y),
                  text(high, margin + 38 + 14 * SHADES, y, "tick")]  # fmt: skip
    height = y + margin
    whole = element(
        "svg", element("title", figure.title), element("style", style()),
        element("rect", width=width, height=height, class_="paper"), *parts,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width:.0f} {height:.0f}", width=width, height=height,
    )  # fmt: skip
    return re.sub(r' data-[a-z]+="[^"]*"', "", printable(str(whole))) + "\n"  # what only the page's script reads


def style() -> str:
    """The figures' style sheet with the light palette's values in place of its variables."""
    folder = files("leaderboard") / "_page"
    palette = (folder / "palette.css").read_text(encoding="utf-8")
    colours: dict[str, str] = dict(re.findall(r"(--[\w-]+):\s*light-dark\((#\w+),", palette))
    sheet = (folder / "figures.css").read_text(encoding="utf-8")
    return re.sub(r"var\((--[\w-]+)\)", lambda found: colours[found[1]], sheet)


def png_of(drawing: str) -> bytes:
    """An SVG drawing as PNG, with the fonts of this package alone, so that no machine's fonts change or lack its text.

    Args:
        drawing: as `standalone` makes it; a character that is not in the fonts becomes a box.
    """
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=drawing,
            zoom=PIXELS_PER_UNIT,
            skip_system_fonts=True,
            font_dirs=[str(FONTS)],
            font_family=FONT_FAMILY,
            sans_serif_family=FONT_FAMILY,
        )
    )


def write_figures(leaderboard: Leaderboard, folder: Path) -> list[Path]:
    """Writes every figure of every board as SVG and PNG, named after the board and the figure.

    Returns: the files, SVG before PNG.
    Raises: OSError: the folder can't be written.
    """
    written = []
    boards = (*leaderboard.boards, *leaderboard.variants)
    for i, board in enumerate(boards, start=1):
        for figure in figures_of(board):
            stem = _file_name(f"{i if len(boards) > 1 else ''} {board.title} {figure.name}")
            drawing = standalone(figure)
            with written_then_renamed(folder / f"{stem}.svg") as temporary:
                temporary.write_text(drawing, encoding="utf-8")
            with written_then_renamed(folder / f"{stem}.png") as temporary:
                temporary.write_bytes(png_of(drawing))
            written += [folder / f"{stem}.svg", folder / f"{stem}.png"]
    return written


def _file_name(title: str) -> str:
    """Letters, digits and dashes only, so that no name leads out of the folder."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:100]
