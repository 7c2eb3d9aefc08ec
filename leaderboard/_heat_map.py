"""Heat maps: what each layer weighs, what is taken for what."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from markupsafe import Markup

from leaderboard._svg import CHARACTER_WIDTH, element, text, upwards

SHADES = 10  # steps of the ramp


class Matrix(NamedTuple):
    """A heat map's numbers.

    Attributes:
        rows, columns: names.
        values: one list a row; None is left empty.
        row_title, column_title: what rows and columns are.
        unit: of the values.
        decimals: of the values on touch.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    row_title: str
    column_title: str
    unit: str = ""
    decimals: int = 3

    def told(self) -> str:
        """As JSON, for the page's script: it says the value of the cell that is touched."""
        values = [[None if value is None else round(value, self.decimals) for value in row] for row in self.values]
        content = {"rows": self.rows, "columns": self.columns, "values": values, "unit": self.unit,
                   "row": self.row_title, "column": self.column_title}  # fmt: skip
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def heat_map(matrix: Matrix, highest: float, cell_width: float, cell_height: float) -> tuple[Markup, float, float]:
    """Values from 0 to `highest` in SHADES steps; what has one shade is one path, so that large ones take little room.

    Returns: the drawing, its width and its height.
    """
    size = min(11.0, cell_height - 1)
    small = f"font-size:{size:.1f}px"
    per_character = CHARACTER_WIDTH * size / 12
    left = max(map(len, matrix.rows)) * per_character + 32
    longest = max(map(len, matrix.columns)) * per_character
    counted = all(name.isdigit() for name in matrix.columns)  # of numbers in a row every other can be left out
    sideways = longest > cell_width and not counted
    every = math.ceil((longest + 4) / cell_width) if counted else 1
    width, below = cell_width * len(matrix.columns), 2 + cell_height * len(matrix.rows)
    shades: dict[int, list[str]] = {}
    for i, row in enumerate(matrix.values):
        for shade, run in groupby(enumerate(row), key=lambda cell: _shade(cell[1], highest)):
            if shade is not None:
                cells = list(run)
                shades.setdefault(shade, []).append(f"M{cells[0][0]} {i}h{len(cells)}v1h-{len(cells)}z")
    paths = [element("path", d="".join(parts), class_=f"q{shade}") for shade, parts in sorted(shades.items())]
    parts = [element("g", *paths, transform=f"translate({left:.1f} 2) scale({cell_width:.3f} {cell_height:.3f})",
                     class_="cells", data_matrix=matrix.told())]  # fmt: skip
    for i, name in enumerate(matrix.rows):
        y = 2 + cell_height * (i + 0.5) + size / 3
        parts.append(element("text", name, x=left - 6, y=y, class_="tick", text_anchor="end", style=small))
    for j, name in list(enumerate(matrix.columns))[::every]:
        x = left + cell_width * (j + 0.5)
        place = (f"translate({x + size / 3:.1f} {below + 6:.1f}) rotate(-90)" if sideways
                 else f"translate({x:.1f} {below + 14:.1f})")  # fmt: skip
        parts.append(element("text", name, class_="tick", style=small, transform=place,
                             text_anchor="end" if sideways else "middle"))  # fmt: skip
    height = below + (longest + 12 if sideways else 18) + 18
    parts.append(text(matrix.column_title, left + width / 2, height - 4, "axis-title", "middle"))
    parts.append(upwards(matrix.row_title, 11, below / 2, "axis-title"))
    return Markup("").join(parts), left + width + 6, height


def _shade(value: float | None, highest: float) -> int | None:
    if value is None:
        return None
    return min(SHADES - 1, int(SHADES * value / highest)) if highest else 0
