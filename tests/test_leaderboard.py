"""The leaderboard from records alone: figures computed by hand, names made unique, markup kept as text."""

from __future__ import annotations

import csv as csv_files
import io
from dataclasses import replace

import pytest
from rich.console import Console
from test_records import record

from core.errors import RecordError
from core.records import ResultRecord
from leaderboard.aggregate import COLUMNS, tidy
from leaderboard.tables import boards, csv, markdown, rich_tables

HEADER = "upstream,task,corpus,metric,direction,mean,std,seeds,test_utterances,learning_rate,params"
WER = {"name": "wer", "title": "WER", "unit": "%", "direction": "lower"}
ASR = {"name": "asr", "title": "Speech recognition", "head": "ctc", "label": "text"}


def upstream(name: str, params: int = 0, digest: str = "") -> dict:
    return {"name": name, "digest": digest or name, "params": params, "num_layers": 1}


def results() -> list[ResultRecord]:
    """Two upstreams, two tasks, three seeds of one cell."""
    apc = upstream("apc", 2_400_000)
    return [
        record("1", 60.0, upstream=apc, learning_rate=0.1),
        record("2", 62.0, upstream=apc, seed=1, learning_rate=0.01),
        record("3", 67.0, upstream=apc, seed=2, learning_rate=0.1),
        record("4", 50.0, upstream=upstream("fbank")),
        record("5", 30.0, upstream=apc, task=ASR, metric=WER, learning_rate=0.003),
        record("6", 45.25, upstream=upstream("fbank"), task=ASR, metric=WER, counts={"test": 9}),
    ]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv_files.DictReader(io.StringIO(text)))


def test_csv_is_tidy_with_mean_and_sample_deviation():
    text = csv(tidy(results()))
    assert text.splitlines()[0] == HEADER == ",".join(COLUMNS)
    assert len(rows(text)) == 4
    by_cell = {(row["upstream"], row["task"]): row for row in rows(text)}
    # mean of 60, 62, 67 is 63; squared distances 9 + 1 + 16 over 2 is 13, whose root is 3.6056
    assert by_cell["apc", "ks"] == {
        "upstream": "apc", "task": "ks", "corpus": "tiny", "metric": "accuracy", "direction": "higher",
        "mean": "63.0000", "std": "3.6056", "seeds": "3", "test_utterances": "7", "learning_rate": "0.01 0.1",
        "params": "2400000",
    }  # fmt: skip
    assert by_cell["fbank", "asr"] == {
        "upstream": "fbank", "task": "asr", "corpus": "tiny", "metric": "wer", "direction": "lower",
        "mean": "45.2500", "std": "", "seeds": "1", "test_utterances": "9", "learning_rate": "0.1", "params": "0",
    }  # fmt: skip


def test_markdown_has_arrows_and_the_best_in_bold():
    assert markdown(tidy(results())).splitlines() == [
        "**tiny, recipe fast**",
        "",
        "| upstream | params | ASR WER % ↓ | KS Acc % ↑ |",
        "|---|---:|---:|---:|",
        "| apc | 2.4 M | **30.0** | **63.0 ± 3.6** |",
        "| fbank | 0 | 45.2 | 50.0 |",
    ]


def test_rows_are_in_the_order_of_their_mean_rank():
    shuffled = [record(f"{name}{task}", value, upstream=upstream(name), task={**ASR, "name": task}, metric=WER)
                for name, values in {"worst": (9, 9, 2), "mixed": (2, 3, 9), "best": (1, 1, 1)}.items()
                for task, value in zip("abc", values, strict=True)]  # fmt: skip
    (board,) = boards(tidy(shuffled))
    assert [name for name, _, _ in board.rows] == ["best", "mixed", "worst"]
    bold = {name: [best for _, best in cells.values()] for name, _, cells in board.rows}
    assert bold == {"best": [True] * 3, "mixed": [False] * 3, "worst": [False] * 3}


def test_a_cell_that_was_not_run_is_a_dash():
    lines = markdown(tidy(results()[:-1])).splitlines()
    assert lines[-1] == "| fbank | 0 | - | 50.0 |"


def test_custom_runs_stay_off_unless_asked_for():
    limited = record("7", 99.0, upstream=upstream("apc", 2_400_000), custom=True)
    assert csv(tidy([*results(), limited])) == csv(tidy(results()))
    shown = tidy([*results(), limited], custom=True)
    assert sorted(shown["recipe"].unique()) == ["fast", "fast (custom)"]
    with pytest.raises(RecordError, match="all of them are custom: add --custom"):
        tidy([limited])
    with pytest.raises(RecordError, match="run something first"):
        tidy([])


def test_one_name_for_several_contents_is_told_apart():
    two = [
        record("1", upstream=upstream("apc", digest="aaaaaaaa")),
        record("2", upstream=upstream("apc", digest="bbbbbbbb")),
        record("3", upstream=upstream("mfcc")),
        record("4", upstream=upstream("mfcc"), corpus={"name": "tiny", "digest": "dddddddd"}),
        record("5", upstream=upstream("mfcc"), recipe={"name": "fast", "digest": "eeeeeeee"}),
    ]
    table = tidy(two)
    assert len(table) == 5
    assert {"apc#aaaaaa", "apc#bbbbbb", "mfcc"} == set(table["upstream"])
    assert "tiny#dddddd" in set(table["corpus"])
    assert {"fast#p", "fast#eeeeee"} == set(table["recipe"])


def test_two_recipes_do_not_split_a_corpus():
    """A recipe that crops makes other clips, hence another digest, of the same corpus."""
    cropped = record("2", corpus={"name": "tiny", "digest": "d"}, recipe={"name": "superb", "digest": "s"})
    table = tidy([record("1"), cropped])
    assert list(table["corpus"]) == ["tiny", "tiny"]
    assert [board.title for board in boards(table)] == ["tiny, recipe fast", "tiny, recipe superb"]


def drawn(records: list[ResultRecord]) -> str:
    console = Console(width=200, file=io.StringIO(), force_terminal=False)
    for table in rich_tables(tidy(records)):
        console.print(table)
    return console.file.getvalue()


def test_the_terminal_table_shows_what_markdown_shows():
    text = drawn(results())
    for words in ("tiny, recipe fast", "KS Acc % ↑", "ASR WER % ↓", "63.0 ± 3.6", "45.2", "2.4 M"):
        assert words in text


def test_markup_in_names_is_text():
    odd = [replace(each, upstream={**each.upstream, "name": f"[red]{each.upstream['name']}|x[/]"},
                   corpus={"name": "[bold]c[/]", "digest": "c"}) for each in results()]  # fmt: skip
    text = drawn(odd)
    assert "[red]apc|x[/]" in text
    assert "[bold]c[/], recipe fast" in text
    assert r"| [red]apc\|x[/] | 2.4 M |" in markdown(tidy(odd))
    assert {row["upstream"] for row in rows(csv(tidy(odd)))} == {"[red]apc|x[/]", "[red]fbank|x[/]"}
    named = [record("1", upstream=upstream('a,"b"'))]
    assert rows(csv(tidy(named)))[0]["upstream"] == 'a,"b"'
