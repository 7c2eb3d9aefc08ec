"""Families of self-supervision on the leaderboard: read from records, in one order, absent where records are old."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from made_boards import board, in_families
from made_boards import leaderboard as as_leaderboard
from results import upstream
from test_records import record

from core.records import RecordStore
from leaderboard import frames
from leaderboard._charts import Panel
from leaderboard._lanes import WIDTH, Lane, Mark, lane_chart
from leaderboard._marks import COLOURS, MARKERS, Series
from leaderboard.aggregate import leaderboard
from leaderboard.board import Board, Leaderboard
from leaderboard.board_curves import Interval
from leaderboard.exports import to_csv, to_json, to_latex
from leaderboard.families import FAMILIES, place_of
from leaderboard.figure_files import write_figures
from leaderboard.figures import Figure, figures_of, looks_by_family, series_of
from leaderboard.tables import rich_tables, to_markdown

UPSTREAMS = Path(__file__).parent.parent / "upstreams"


def of_families(folder: Path, **families: str | None) -> Leaderboard:
    """One run an upstream; None leaves the family out, as old records do."""
    store = RecordStore(folder)
    for place, (name, family) in enumerate(families.items()):
        facts = upstream(name) | ({} if family is None else {"family": family})
        store.add(record(f"{place}", 60.0 - place, upstream=facts))
    return leaderboard(store)


def only_board(made: Leaderboard) -> Board:
    (board,) = made.boards
    return board


def test_the_order_has_every_folder_of_upstreams():
    folders = {path.name for path in UPSTREAMS.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert folders == set(FAMILIES) - {"other"}


def test_families_have_one_order():
    mixed = ["", "other", "supervised", "pretrained", "contrastive", "spectral", "adapted"]
    assert sorted(mixed, key=place_of) == [
        "spectral", "contrastive", "pretrained", "adapted", "supervised", "other", "",
    ]  # fmt: skip


def test_rows_know_the_family_of_their_records(tmp_path):
    made = of_families(tmp_path, apc="generative", old=None, fbank="spectral")
    assert {row.name: row.family for row in only_board(made).rows} == {
        "apc": "generative", "old": "", "fbank": "spectral",
    }  # fmt: skip
    assert [row["family"] for row in json.loads(to_json(made))["boards"][0]["rows"]] == ["generative", "", "spectral"]
    cells = frames.cells(made).set_index("upstream")["family"]
    assert cells.to_dict() == {"apc": "generative", "old": "", "fbank": "spectral"}
    runs = frames.runs(RecordStore(tmp_path).all()).set_index("upstream")["family"]
    assert runs.to_dict() == cells.to_dict()
    assert to_csv(made).splitlines()[1].endswith(",generative")


def test_one_record_that_names_the_family_is_enough(tmp_path):
    store = RecordStore(tmp_path)
    store.add(record("1", upstream=upstream("apc") | {"family": "generative"}))
    store.add(record("2", upstream=upstream("apc"), seed=1))
    assert only_board(leaderboard(store)).rows[0].family == "generative"


def test_a_family_that_is_no_text_leaves_the_record_out(tmp_path):
    store = RecordStore(tmp_path)
    store.add(record("1"))
    store.add(record("2", upstream=upstream("apc") | {"family": ["generative"]}))
    (left_out,) = leaderboard(store).left_out
    assert "upstream has not what is needed" in left_out


def test_tables_for_documents_have_a_column_where_families_differ(tmp_path):
    several = of_families(tmp_path / "several", apc="generative", fbank="spectral", old=None)
    heading, rule, *rows = [re.sub(" +", " ", line) for line in to_markdown(several).splitlines()[2:7]]
    assert heading.startswith("| upstream | family | params |")
    assert re.match(r"\|:-+\|:-+\|-+:\|", rule)
    assert [row.split("|")[2].strip() for row in rows] == ["generative", "spectral", ""]
    latex = to_latex(several)
    assert r"\begin{tabular}{llrrr}" in latex
    assert "apc & generative &" in latex
    for made in (
        of_families(tmp_path / "one", apc="generative", tera="generative", old=None),
        of_families(tmp_path / "none", apc=None, fbank=None),
    ):
        assert "family" not in to_markdown(made)
        assert re.search(r"\\begin{tabular}{lr+}", to_latex(made))


def test_the_terminals_table_stays_narrow(tmp_path):
    made = of_families(tmp_path, apc="generative", fbank="spectral")
    (drawn,) = rich_tables(made)
    assert "family" not in [column.header for column in drawn.renderables[1].columns]
    assert not any("generative" in str(cell) for column in drawn.renderables[1].columns for cell in column.cells)


def test_markup_in_a_family_is_text(tmp_path):
    made = of_families(tmp_path, apc="<b>|new", fbank="100 % $pectral")
    assert "&lt;b>\\|new" in to_markdown(made)
    assert r"100 \% \$pectral" in to_latex(made)


def figure_of(made: Board) -> Figure | None:
    return next((figure for figure in figures_of(made) if figure.name == "by-family"), None)


def drawn(panel: Panel) -> ET.Element:
    return ET.fromstring(f"<g>{panel.body}</g>")


def names_of_lanes(panel: Panel) -> list[str]:
    """From left to right."""
    titles = [each for each in drawn(panel) if each.tag == "text" and each.get("class") == "tick"
              and each.get("text-anchor") == "middle"]  # fmt: skip
    return [each.text or "" for each in sorted(titles, key=lambda each: float(each.get("x", "")))]


def marks_of(panel: Panel) -> Mapping[str, ET.Element]:
    """Key of the upstream -> its whisker and marker."""
    return {each.get("data-u", ""): each for each in drawn(panel) if each.tag == "g"}


def at(mark: ET.Element) -> tuple[float, float]:
    """Where a marker is."""
    x, y = re.findall(r"[\d.]+", mark.findall("path")[-1].get("transform", ""))
    return float(x), float(y)


def test_panels_are_there_where_families_differ():
    several = in_families(board(tasks=3), "spectral", "", "generative", "generative")
    figure = figure_of(several)
    assert [panel.label for panel in figure.panels] == ["ASR: Task asr", "IC: Task ic", "KS: Task ks"]
    assert [(each.name, each.style) for each in figure.legend] == [("spectral", 7), ("generative", 0), ("unknown", 6)]
    assert len({style for style in range(COLOURS)} | {COLOURS, 7}) == len(MARKERS)
    assert figure_of(board()) is None, "old records"
    assert figure_of(in_families(board(), *["generative"] * 4)) is None
    assert figure_of(in_families(board(), "", "generative", "", "generative")) is None


def test_a_task_that_one_family_ran_and_further_metrics_have_no_panel():
    made = in_families(board(tasks=3), "spectral", "spectral", "generative", "generative")
    rows = [replace(row, cells={name: cell for name, cell in row.cells.items() if name != "ks"})
            if row.family == "spectral" else row for row in made.rows]  # fmt: skip
    columns = (replace(made.columns[0], primary=False), *made.columns[1:])
    cells = [{**row.cells, columns[0].key: row.cells["asr"]} for row in rows]
    rows = [replace(row, cells=found) for row, found in zip(rows, cells, strict=True)]
    figure = figure_of(replace(made, columns=columns, rows=tuple(rows)))
    assert [panel.label for panel in figure.panels] == ["IC: Task ic"]


def test_lanes_are_in_the_order_of_families_and_hold_the_best_on_the_left():
    families = ("other", "contrastive", "", "supervised", "spectral", "pretrained", "contrastive", "bootstrapping",
                "generative", "regularised", "predictive")  # fmt: skip
    figure = figure_of(in_families(board(upstreams=len(families), tasks=1), *families))
    (panel,) = figure.panels
    assert names_of_lanes(panel) == [
        "spectral", "generative", "predictive", "contrastive", "bootstrapping", "regularised", "pretrained",
        "supervised", "other", "unknown",
    ]  # fmt: skip
    ordered = sorted(marks_of(panel).items(), key=lambda each: at(each[1])[0])
    assert [key for key, _ in ordered] == ["m4", "m8", "m10", "m1", "m6", "m7", "m9", "m5", "m3", "m0", "m2"]
    assert [panel.body.count(f'data-u="{key}" data-tip') for key, _ in ordered] == [1] * 11
    assert panel.description.startswith("Best of each family: spectral wav2vec2 32.0, generative upstream-8 44.0, ")
    assert max(at(mark)[0] for mark in marks_of(panel).values()) < WIDTH
    order = [group.get("data-u") for group in drawn(panel) if group.tag == "g"]
    assert order == [key for key, _ in reversed(ordered)], "the arrow keys go from the last drawn to the first"


@pytest.mark.parametrize("higher", [True, False])
def test_whiskers_end_where_intervals_do_and_better_is_higher_up(higher):
    looks = [Series(f"m{i}", f"upstream {i}", i) for i in range(3)]
    values = [(60.0, 50.0, 80.0), (40.0, 30.0, 45.0), (20.0, 20.0, 20.0)]
    marks = [Mark(look, *each, "") for look, each in zip(looks, values, strict=True)]
    panel = lane_chart("", [Lane("a", marks[:1]), Lane("b", marks[1:])], "%", higher)
    found = marks_of(panel)
    heights = {float(each.text or ""): float(each.get("y", "")) - 4 for each in drawn(panel)
               if each.tag == "text" and each.get("text-anchor") == "end" and each.get("class") == "tick"}  # fmt: skip
    zero, unit = heights[20.0], (heights[80.0] - heights[20.0]) / 60
    assert (unit < 0) == higher
    for look, (value, low, high) in zip(looks, values, strict=True):
        mark = found[look.key]
        x, y = at(mark)
        assert y == pytest.approx(zero + unit * (value - 20), abs=0.2)
        whiskers = mark.findall("line")
        if low == high:
            assert whiskers == []
            continue
        (whisker,) = whiskers
        assert whisker.get("class") == f"line s{look.style}"
        ends = [float(whisker.get(name, "")) for name in ("y1", "y2")]
        assert ends == pytest.approx([zero + unit * (end - 20) for end in (low, high)], abs=0.2)
        assert float(whisker.get("x1", "")) == float(whisker.get("x2", "")) == x


def test_the_tip_says_value_interval_family_and_rank():
    made = in_families(board(upstreams=2, tasks=1), "spectral", "")
    second = made.rows[1]
    bare = replace(second, cells={"asr": replace(second.cells["asr"], interval=None)})
    three = replace(second, name="apc", family="generative",
                    cells={"asr": replace(second.cells["asr"], interval=Interval(21.0, 24.5))})  # fmt: skip
    (panel,) = figure_of(replace(made, rows=(made.rows[0], bare, three))).panels
    tips = {key: mark.get("data-tip") for key, mark in marks_of(panel).items()}  # XML reads line ends as spaces
    assert tips == {
        "m0": "fbank WER 20.0 % 95 % interval 17.5 to 22.0 Family spectral Rank 1",
        "m1": "mfcc WER 23.0 % Family unknown Rank 1",
        "m2": "apc WER 23.0 % 95 % interval 21.0 to 24.5 Family generative Rank 1",
    }


def test_names_stay_inside_and_off_marks():
    made = in_families(board(upstreams=24, tasks=2), *[FAMILIES[i % len(FAMILIES)] for i in range(24)])
    for panel in figure_of(made).panels:
        places = [at(mark) for mark in marks_of(panel).values()]
        texts = [each for each in drawn(panel) if each.get("class") == "label"]
        assert len(texts) >= len(FAMILIES), "the best of each family has its name"
        for each in texts:
            x, y, size = float(each.get("x", "")), float(each.get("y", "")), 6.8 * len(each.text or "")
            start = x - {"start": 0, "middle": size / 2, "end": size}[each.get("text-anchor", "")]
            assert start >= 0
            assert start + size <= WIDTH
            assert not any(start < px < start + size and y - 10 < py < y + 3 for px, py in places)


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "]]></svg>", "a\x00b\ud800c", "x" * 300])
def test_figures_of_hostile_names_are_well_formed(hostile, tmp_path):
    made = in_families(board(upstreams=3, tasks=1, names=(hostile,)), hostile, "generative", "spectral")
    files = [path for path in write_figures(as_leaderboard(made), tmp_path) if "by-family" in path.name]
    assert sorted(path.suffix for path in files) == [".png", ".svg"]
    tags = {each.tag.rpartition("}")[2] for each in ET.parse(files[0]).getroot().iter()}
    assert tags <= {"svg", "title", "style", "rect", "text", "g", "path", "line"}


def test_of_many_upstreams_the_families_have_the_colours():
    few = in_families(board(upstreams=COLOURS), *["spectral", "generative"] * (COLOURS // 2))
    assert not looks_by_family(few)
    assert [each.style for each in series_of(few).values()] == list(range(COLOURS))
    many = in_families(board(upstreams=8), *["spectral", "generative", "contrastive", ""] * 2)
    looks = series_of(many)
    assert [each.style for each in looks.values()] == [7, 0, 2, COLOURS] * 2
    assert [each.quiet for each in looks.values()] == [False] * COLOURS + [True] * 2
    legends = {figure.name: [each.name for each in figure.legend] for figure in figures_of(many) if figure.legend}
    assert list(legends) == ["trade-off", "profile", "by-family", "learning-rates"]
    assert all(shown == ["spectral", "generative", "contrastive", "unknown"] for shown in legends.values())
    (profile,) = [figure for figure in figures_of(many) if figure.name == "profile"]
    quiet = [each.get("data-u") for each in drawn(profile.panels[0]) if each.get("class") == "quiet"]
    assert sorted(quiet) == ["m6", "m7"]
    alone = in_families(board(upstreams=8), *["generative"] * 8)
    assert [each.style for each in series_of(alone).values()] == [*range(COLOURS), COLOURS, COLOURS]


def test_of_many_lines_the_best_are_named():
    made = board(upstreams=20)
    (profile,) = [figure for figure in figures_of(made) if figure.name == "profile"]
    named = [each.get("data-u") for each in drawn(profile.panels[0]) if each.get("class") == "label"]
    assert sorted(named) == [f"m{i}" for i in range(COLOURS)]
