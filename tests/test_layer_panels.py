"""Curves over single layers: what is drawn where, of which boards, and the sentence below the tables."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from made_boards import board, leaderboard, with_single_layers

from leaderboard._charts import Panel
from leaderboard.board import Board
from leaderboard.figures import Figure, figures_of
from leaderboard.tables import best_layers, to_markdown


def curves(made: Board) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures_of(made) if figure.name.startswith("single-layers")}


def parts(panel: Panel, tag: str, css: str) -> list[ET.Element]:
    return [
        each for each in ET.fromstring(f"<g>{panel.body}</g>").iter(tag) if css in (each.get("class") or "").split()
    ]


def whiskers(panel: Panel) -> list[tuple[float, float, float]]:
    """Place and ends of each, in pixels."""
    drawn = "".join(each.get("d", "") for each in parts(panel, "path", "line") if "V" in each.get("d", ""))
    found = re.findall(r"M([\d.]+),([\d.]+)V([\d.]+)", drawn)
    return [(float(x), float(low), float(high)) for x, low, high in found]


def heights(panel: Panel) -> list[float]:
    """Of the curve at each layer, in pixels from the top."""
    (curve,) = [each for each in parts(panel, "path", "line") if "V" not in each.get("d", "")]
    return [float(point.split(",")[1]) for point in curve.get("d", "")[1:].split()]


def test_only_what_was_run_is_drawn():
    made = board(upstreams=4, tasks=3)
    assert curves(made) == {}
    assert curves(with_single_layers(made, "fbank")) == {}, "of one layer there is no curve"
    found = curves(with_single_layers(made, "apc", "mfcc"))
    assert list(found) == ["single-layers-asr", "single-layers-ic", "single-layers-ks"]
    assert all([panel.label for panel in figure.panels] == ["mfcc", "apc"] for figure in found.values())


@pytest.mark.parametrize("task", ["asr", "ks"])
def test_better_is_higher_up_on_an_axis_that_all_share(task):
    first, second = curves(with_single_layers(board(tasks=3), "apc", "mfcc"))[f"single-layers-{task}"].panels
    better, worse = heights(first), heights(second)
    assert better == sorted(better), "each layer is worse than the one before"
    assert all(above < below for above, below in zip(better, worse, strict=True)), "mfcc is better than apc"
    title = "WER %, lower is better" if task == "asr" else "Acc %, higher is better"
    assert title in first.body


def test_the_sum_is_a_line_in_its_interval_and_the_weights_are_bars():
    made = with_single_layers(board(tasks=3), "apc")
    (panel,) = curves(made)["single-layers-ks"].panels
    (row,) = [row for row in made.rows if row.name == "apc"]
    cell = row.cells["ks"]
    first, second = heights(panel)[:2]
    percent = (second - first) / 5  # pixels: each layer is worse by 5, and layer 0 is as good as the sum
    (whole,), (band,) = parts(panel, "line", "front"), parts(panel, "rect", "band")
    assert float(whole.get("y1", "")) == pytest.approx(first, abs=0.11)
    assert float(band.get("y", "")) == pytest.approx(first - 2 * percent, abs=0.11)
    assert float(band.get("height", "")) == pytest.approx(4.5 * percent, abs=0.11)
    whiskers = [each.get("d", "") for each in parts(panel, "path", "line") if "V" in each.get("d", "")]
    ends = [(float(low), float(high)) for low, high in re.findall(r",([\d.]+)V([\d.]+)", "".join(whiskers))]
    assert len(ends) == row.num_layers - 1, "the last has no interval"
    assert ends[0] == pytest.approx((first + 3 * percent, first - 2 * percent), abs=0.11)
    bars = next(each.get("d", "") for each in parts(panel, "path", "mark") if each.get("d", "").count("Z") > 1)
    tops = [float(found) for found in re.findall(r"V([\d.]+)h", bars)]
    lowest, highest = 250, min(tops)
    shares = [(lowest - top) / (lowest - highest) for top in tops]
    assert shares == pytest.approx([weight / max(cell.layer_weights) for weight in cell.layer_weights], abs=0.01)


def test_what_is_said():
    made = with_single_layers(board(tasks=3), "apc")
    (panel,) = curves(made)["single-layers-asr"].panels
    assert panel.description == "Best alone: layer 0, 26.0 [23.0, 28.0]; learned sum: 26.0 [23.5, 28.0]"
    cell = next(row for row in made.rows if row.name == "apc").cells["asr"]
    told = [tip.split("\n") for tip in re.findall(r'data-tip="([^"]*)"', panel.body)]
    last, *_, first = told  # the arrow keys go through them backwards
    assert first == [
        "apc, layer 0", "WER\t26.0 %", "95 % interval\t23.0 to 28.0",
        f"Weight in the sum\t{cell.layer_weights[0]:.3f}", "Seeds\t0, 1",
    ]  # fmt: skip
    assert last[:2] == ["apc, layer 3", "WER\t41.0 %"] and not any("interval" in line for line in last)


def test_layers_that_the_sum_does_not_know_are_not_drawn():
    made = with_single_layers(board(tasks=1), "apc")
    rows = tuple(replace(row, cells={"asr": replace(row.cells["asr"], layer_weights=(0.5, 0.5))}) for row in made.rows)
    assert curves(replace(made, rows=rows)) == {}


def test_a_sentence_names_the_best_layer():
    made = with_single_layers(board(tasks=3), "fbank", "apc", "mfcc")  # fbank has one layer, which is no choice
    asr, ic, ks = best_layers(made)
    assert asr == (
        "ASR WER % ↓ of the best single layer, as seen on test: mfcc layer 0 with 23.0 [20, 25], the sum 23.0; "
        "apc layer 0 with 26.0 [23, 28], the sum 26.0."
    )
    assert "apc layer 0 with 74.0" in ks and ic.startswith("IC Acc % ↑")
    assert asr in to_markdown(leaderboard(made))
    assert "single layer" not in to_markdown(leaderboard(board()))


def test_panels_fit_many_layers():
    made = with_single_layers(board(upstreams=2, tasks=1, layers=49), "mfcc")
    (panel,) = curves(made)["single-layers-asr"].panels
    ticks = [each.text for each in parts(panel, "text", "tick") if each.get("text-anchor") == "middle"]
    assert ticks[0] == "0" and 5 < len(ticks) < 15
    columns = parts(panel, "rect", "hit")
    assert len(columns) == 49
    assert all(0 <= float(each.get("x", "")) < panel.width for each in columns)


def test_a_single_value_is_drawn():
    made = with_single_layers(board(upstreams=2, tasks=1), "mfcc")
    (first, row) = made.rows
    cell = row.cells["asr"]
    one = replace(cell, interval=None, single_layers=(cell.single_layers[2]._replace(mean=cell.mean, interval=None),))
    (panel,) = curves(replace(made, rows=(first, replace(row, cells={"asr": one}))))["single-layers-asr"].panels
    assert panel.description == "Best alone: layer 2, 23.0; learned sum: 23.0"
    assert len(heights(panel)) == 1
