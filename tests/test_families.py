"""Families of self-supervision on the leaderboard: read from records, in one order, absent where records are old."""

from __future__ import annotations

import json
import re
from pathlib import Path

from results import upstream
from test_records import record

from core.records import RecordStore
from leaderboard import frames
from leaderboard.aggregate import leaderboard
from leaderboard.board import Board, Leaderboard
from leaderboard.exports import to_csv, to_json, to_latex
from leaderboard.families import FAMILIES, place_of
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
