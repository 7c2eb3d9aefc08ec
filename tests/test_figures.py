"""The figures: computed by hand where a number decides, read by a strict XML parser, drawn as PNG."""

from __future__ import annotations

import io
import re
import struct
import tomllib
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_boards import board, leaderboard, with_published
from PIL import Image

from leaderboard._charts import Point, compact, pareto_front
from leaderboard._heat_map import Matrix, heat_map
from leaderboard._marks import Series
from leaderboard._svg import Scale, element, shortened
from leaderboard.board import Board
from leaderboard.board_errors import Confusion
from leaderboard.figure_files import png_of, standalone, style, write_figures
from leaderboard.figures import MOST_LABELS, figures_of, frequent_confusions

ROOT = Path(__file__).parent.parent
HOSTILE = ("<script>alert(1)</script>", "]]></svg>", "a\x00b\ud800c", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}")


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(Series("", str(i), 0), x, y, "") for i, (x, y) in enumerate(pairs)]


def test_the_pareto_front_is_what_nothing_cheaper_beats():
    found = points((5, 10), (1, 3), (2, 3), (2, 8), (6, 10), (9, 10), (7, 12), (1, 2))
    assert [(point.x, point.y) for point in pareto_front(found)] == [(1, 3), (2, 8), (5, 10), (7, 12)]
    assert [(point.x, point.y) for point in pareto_front(found, sign=-1)] == [(1, 2)]


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(0, 10, 0, 1), [0, 2, 4, 6, 8, 10]),
        (Scale(71.4, 33.2, 0, 1), [40, 50, 60, 70]),
        (Scale(-0.3, 0.1, 0, 1), [-0.3, -0.2, -0.1, 0, 0.1]),
        (Scale(1e-4, 1e-1, 0, 1, logarithmic=True), [1e-4, 1e-3, 1e-2, 1e-1]),
        (Scale(0.7e6, 4e6, 0, 1, logarithmic=True), [1e6, 2e6]),
        (Scale(5, 5, 0, 1), [5]),
    ],
)
def test_ticks_are_round_and_inside(scale, ticks):
    assert scale.ticks() == pytest.approx(ticks)


def test_scales_place_values():
    assert [Scale(0, 10, 100, 200)(value) for value in (0, 5, 10)] == [100, 150, 200]
    assert [Scale(10, 0, 100, 200)(value) for value in (0, 5, 10)] == [200, 150, 100]
    assert [Scale(1, 100, 0, 2, logarithmic=True)(value) for value in (1, 10, 100)] == pytest.approx([0, 1, 2])
    assert Scale(3, 3, 0, 10)(3) == 5


def test_numbers_and_names_are_short():
    assert [compact(value) for value in (0, 950, 94_700_000, 1.5e9, 1e-4, 0.01)] == [
        "0", "950", "94.7 M", "1.5 G", "1e-4", "0.01",
    ]  # fmt: skip
    assert shortened("hf:microsoft/wavlm-base-plus", 15) == "hf:micr…se-plus"
    assert len(shortened("x" * 99, 15)) == 15


def test_elements_escape_what_they_are_given():
    assert element("text", "<b>&", class_='a"b', x=1.26, y=2.0, fill=None) == (
        '<text class="a&#34;b" x="1.3" y="2">&lt;b&gt;&amp;</text>'
    )


def names(made: Board) -> list[str]:
    return [figure.name for figure in figures_of(made)]


def test_every_figure_is_there_for_a_full_board_and_none_without_a_reason():
    full = ["trade-off", "profile", "layers", "layers-corrected", "learning-rates", "confusion-ic", "confusion-ks"]
    assert names(board()) == full
    assert names(with_published(board())) == [*full, "heads"]
    assert names(board(upstreams=1, tasks=1)) == ["learning-rates"]
    assert names(board(upstreams=2, tasks=1)) == ["trade-off", "layers", "layers-corrected", "learning-rates"]


def test_what_records_lack_leaves_no_empty_figure():
    made = board(upstreams=3, tasks=3)
    rows = []
    for row in made.rows:
        cells = {task: replace(cell, corrected_weights=(), confusion=(), seeds=tuple(
            replace(run, learning_rates=run.learning_rates[:1]) for run in cell.seeds
        )) for task, cell in row.cells.items()}  # fmt: skip
        rows.append(replace(row, gflops_per_second=None, score=None, cells=cells))
    figures = {figure.name: figure for figure in figures_of(replace(made, rows=tuple(rows)))}
    assert list(figures) == ["trade-off", "profile", "layers"]
    (panel,) = figures["trade-off"].panels
    assert panel.label == "Mean rank and parameters"


def test_better_is_higher_up_whatever_the_metric():
    (rates,) = [figure for figure in figures_of(board()) if figure.name == "learning-rates"]
    for panel in rates.panels:  # asr counts errors, the others hits; fbank is the best in all, mockingjay the worst
        height = {}
        for part in ET.fromstring(f"<g>{panel.body}</g>"):
            if part.get("data-u"):
                chosen = part.findall("circle")[-1]
                height[part.get("data-u")] = float(chosen.get("cy"))
        assert height["m0"] < height["m1"] < height["m2"] < height["m3"]


def test_heat_maps_shade_by_the_highest_weight():
    drawn, width, height = heat_map(Matrix(["a", "b"], ["0", "1"], [[0.0, 0.5], [0.049, None]], "", ""), 0.5, 10, 20)
    shades = {path.get("class"): path.get("d") for path in ET.fromstring(f"<g>{drawn}</g>")[0]}
    assert shades == {"q0": "M0 0h1v1h-1zM0 1h1v1h-1z", "q9": "M1 0h1v1h-1z"}
    assert width > 20 and height > 40


def test_a_board_with_gaps_is_drawn():
    made = board(upstreams=4, tasks=4)
    first, second, *others = made.rows
    partly = replace(second, score=None, cells={task: second.cells[task] for task in ("ks", "asr")})
    (profile,) = [f for f in figures_of(replace(made, rows=(first, partly, *others))) if f.name == "profile"]
    drawn = [each.get("class", "") for each in ET.fromstring(standalone(profile)).iter()]
    legend = 4
    assert sum(name.startswith("mark") for name in drawn) == 4 + 2 + 4 + 4 + legend
    # asr, ic, ks, sid: between asr and ks nothing was measured, and nothing is drawn.
    assert [name for name in drawn if name.startswith("line")] == ["line s3", "line s2", "line s0"]


def test_confusions_keep_the_labels_that_are_confused_most():
    labels = tuple(f"label-{i:03d}" for i in range(90))
    counts = tuple((i, i, 5) for i in range(90)) + tuple((80 + i, 81 + i, 2) for i in range(9)) + ((3, 4, 7),)
    confusion = Confusion("", labels, counts)
    assert frequent_confusions(confusion, 1) == [("label-003", "label-004", 7)]
    made = board(upstreams=1, tasks=3)
    (row,) = made.rows
    cells = {**row.cells, "ks": replace(row.cells["ks"], confusion=(confusion,))}
    (figure,) = [f for f in figures_of(replace(made, rows=(replace(row, cells=cells),))) if f.name == "confusion-ks"]
    (panel,) = figure.panels
    assert f"the {MOST_LABELS} labels that are confused most of 90" in panel.description
    assert "label-003 as label-004 7 times" in panel.description
    shown = standalone(figure)
    assert all(f">label-{i:03d}<" in shown for i in (3, 4, *range(80, 90)))
    assert ">label-060<" not in shown


@pytest.mark.parametrize("hostile", HOSTILE)
def test_files_are_well_formed_whatever_things_are_called(hostile, tmp_path):
    made = with_published(board(names=(hostile, f"{hostile}2")))
    files = write_figures(leaderboard(replace(made, title=f"../../{hostile}")), tmp_path / "figures")
    assert {path.parent for path in files} == {tmp_path / "figures"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures"]
    assert len(files) == 2 * 8 == len(set(files))
    for path in files:
        if path.suffix == ".svg":
            drawn = ET.parse(path).getroot()
            assert {each.tag.rpartition("}")[2] for each in drawn.iter()} <= {
                "svg", "title", "style", "rect", "text", "g", "path", "line", "circle",
            }  # fmt: skip


def test_files_carry_colours_of_their_own_and_nothing_of_the_page():
    for figure in figures_of(with_published(board())):
        drawn = standalone(figure)
        assert "var(" not in drawn
        assert "data-" not in drawn
        assert "http" not in drawn.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "fill: #0072b2" in style()


def test_png_has_the_drawing_in_it(tmp_path):
    files = write_figures(leaderboard(board(upstreams=2, tasks=1)), tmp_path)
    for vector, picture in zip(files[::2], files[1::2], strict=True):
        content = picture.read_bytes()
        width, height = struct.unpack(">II", content[16:24])
        box = ET.parse(vector).getroot().get("viewBox", "").split()
        assert content.startswith(b"\x89PNG")
        assert (width, height) == pytest.approx((2 * float(box[2]), 2 * float(box[3])), abs=2)


def pixels(png: bytes) -> np.ndarray:
    """Grey levels, (height, width)."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=np.int16)


TEXT = re.compile(r"(<text[^>]*>)([^<]*)</text>")


def test_every_text_has_pixels_in_the_png():
    trade_off, *others = figures_of(board(upstreams=2, tasks=1))
    drawing = standalone(trade_off)
    whole, words = pixels(png_of(drawing)), list(TEXT.finditer(drawing))
    assert {trade_off.title, "fbank", "parameters"} <= {word[2] for word in words}
    for word in words:
        changed = whole != pixels(png_of(drawing[: word.start(2)] + drawing[word.end(2) :]))
        assert changed.sum() > 10, f"'{word[2]}' is not drawn"
    title = whole[2 * 24 : 2 * 44, 2 * 24 : 2 * 24 + 10 * len(trade_off.title)]
    assert (title < 100).mean() > 0.05, "ink where the title belongs"
    for figure in others:
        drawing = standalone(figure)
        textless = TEXT.sub(r"\1</text>", drawing)
        assert (pixels(png_of(drawing)) != pixels(png_of(textless))).sum() > 1_000, figure.name


def test_a_png_does_not_depend_on_the_fonts_of_the_machine(monkeypatch, tmp_path):
    figure = figures_of(board(upstreams=2, tasks=1))[0]
    textless = TEXT.sub(r"\1</text>", standalone(figure))
    monkeypatch.setattr("leaderboard.figure_files.FONTS", tmp_path)
    assert png_of(standalone(figure)) == png_of(textless), "without the package's fonts no other font steps in"


def test_an_installation_has_what_the_leaderboard_reads():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    data = settings["tool"]["setuptools"]["package-data"]
    patterns = [*data["leaderboard"], *data["*"]]
    folder = ROOT / "leaderboard"
    installed = {path for pattern in patterns for path in folder.glob(pattern)}
    there = {path for path in folder.rglob("*.*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert there == installed
    assert {path.name for path in installed} >= {
        "DejaVuSansCondensed.ttf", "DejaVuSansCondensed-Bold.ttf", "LICENSE.txt",
    }  # fmt: skip


def test_two_boards_do_not_overwrite_each_other(tmp_path):
    same = board(upstreams=2, tasks=1)
    assert len(set(write_figures(leaderboard(same, same), tmp_path))) == 2 * 2 * 4
