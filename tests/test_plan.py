"""What a run says before it begins, and what it shows of its cells while it goes on."""

from __future__ import annotations

import json
import re
import shutil
from io import StringIO

import pytest
from conftest import call
from rich.console import Console

import frostbench as fb
from frostbench.cache_space import entries
from frostbench.grid.preparing import PlannedRun, duration
from frostbench.jobs.cell_table import CellNews, CellTable
from frostbench.jobs.progress import TerminalWatcher, Watcher


class Notes(Watcher):
    """Writes down what becomes of cells, and the stages."""

    def __init__(self) -> None:
        self.first: list[CellNews] = []
        self.news: list[tuple[str, str, str]] = []
        self.stages: list[str] = []
        self.amounts: list[tuple[str, float]] = []
        self.values: dict[tuple[str, str], float | None] = {}

    def stage(self, title, total, unit):
        self.stages.append(title)
        self.amounts.append((title, total))

    def cells(self, cells):
        self.first = list(cells)

    def cell(self, news):
        self.news.append((news.upstream, news.task, news.state))
        if news.state == "done":
            self.values[news.upstream, news.task] = news.value


@pytest.fixture
def asked(corpus_folder, tasks_file, tmp_path):
    """Arguments of an evaluation of two upstreams on KS and ASR."""
    tasks = [f"{tasks_file}:KS", f"{tasks_file}:ASR"]
    places = {"corpus": corpus_folder, "output": tmp_path / "results", "cache": tmp_path / "cache"}
    return {"upstreams": ["fbank", "mfcc"], "tasks": tasks, **places, "workers": 1}


def texts(table: CellTable, height: int = 50) -> str:
    """The table as a wide terminal shows it."""
    console = Console(width=200, file=StringIO(), force_terminal=False)
    console.print(table.drawn(height))
    return console.file.getvalue()


def test_a_plan_is_what_the_run_then_does(asked, tmp_path):
    planned = fb.plan(**asked)
    assert (planned.cells, planned.there, planned.workers, planned.waves) == (4, 0, 1, 1)
    assert not (tmp_path / "results").exists()
    assert not list((tmp_path / "cache").glob("rows/*")), "nothing is written for jobs"
    results = fb.evaluate(**asked, seeds=0)
    assert {each.upstream: each.clips for each in planned.upstreams} == results.passed
    assert planned.disk == sum(each.bytes for each in planned.upstreams)
    on_disk = sum(entry.size for entry in entries(tmp_path / "cache") if entry.holds_features)
    assert planned.disk == pytest.approx(on_disk, rel=0.15), "but for notes and indices"
    done = fb.plan(**asked)
    assert (done.cells, done.there, done.upstreams, done.seconds, done.disk, done.memory) == (4, 4, [], 0.0, 0, 0)
    assert done.line() == "plan: 4 cells, all there"


def test_what_is_kept_already_is_not_heard_again(asked):
    fb.evaluate(**{**asked, "tasks": asked["tasks"][:1]})
    planned = fb.plan(**asked)
    assert planned.there == 2
    whole = fb.plan(**{**asked, "cache": asked["cache"] / "other"})
    for now, from_nothing in zip(planned.upstreams, whole.upstreams, strict=True):
        assert 0 < now.clips <= from_nothing.clips
        assert 0 < now.bytes <= from_nothing.bytes


def test_the_command_says_it_and_ends(asked, tmp_path):
    command = ["run", "--upstream", "fbank", "--corpus", asked["corpus"], "--output", tmp_path / "results"]
    command += [
        "--cache",
        tmp_path / "cache",
        *(word for task in asked["tasks"] for word in ("--task", task)),
        "--plan",
    ]
    called = call(*command, "--workers", "1")
    assert called.code == 0
    first, *details = called.out.splitlines()
    assert first.startswith("plan: 2 cells; 1 upstream to hear ")
    assert any(line.startswith("  fbank: ") and "pass it, each once" in line for line in details)
    assert any(line.startswith("  training heads: about ") for line in details)
    as_json = json.loads(call(*command, "--json", "--workers", "1").out)
    assert set(as_json) == set(PlannedRun.__dataclass_fields__)
    assert as_json["cells"] == 2
    assert as_json["upstreams"][0]["upstream"] == "fbank"
    assert not (tmp_path / "results" / "records").exists()
    refused = call(*(word for word in command if word != "--plan"), "--json")
    assert refused.code == 2
    assert "--json goes with --plan" in refused.err


def test_an_upstream_that_cannot_hear_the_corpus_is_named(asked, tmp_path):
    plug_in = tmp_path / "long.py"
    plug_in.write_text(
        "import torch\nimport frostbench as fb\n\n"
        "@fb.register_upstream(fb.UpstreamCard(name='long', title='Long', paper='none'))\n"
        "class Long(fb.Upstream):\n"
        "    num_layers, hidden_size, downsample_rate, min_samples = 1, 1, 160, 10**6\n"
        "    def frame_lengths(self, wav_lengths):\n        return wav_lengths // 160\n"
        "    def encode(self, wavs, wav_lengths):\n"
        "        blocks = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160))\n"
        "        return fb.HiddenStates((blocks.mean(2, keepdim=True),), self.frame_lengths(wav_lengths))\n",
        encoding="utf-8",
    )
    planned = fb.plan(**{**asked, "upstreams": [f"{plug_in}:Long", "fbank"]})
    assert list(planned.refused) == ["long"]
    assert [each.upstream for each in planned.upstreams] == ["fbank"]
    assert (planned.cells, planned.there) == (4, 0)


def test_quick_tasks_are_done_before_those_that_read_frames(asked):
    notes = Notes()
    results = fb.evaluate(**{**asked, "tasks": asked["tasks"][::-1]}, progress=notes)
    assert [news.state for news in notes.first] == ["waiting"] * 4
    done = [(upstream, task) for upstream, task, state in notes.news if state == "done"]
    assert [task for _, task in done] == ["ks", "ks", "asr", "asr"]
    for cell in done:
        states = [state for *named, state in notes.news if tuple(named) == cell]
        assert states == ["running"] * (len(states) - 1) + ["done"]
    extracting, heads = "extracting features", ["training heads", "evaluating on test"]
    stages = [title for title in notes.stages if title in (extracting, *heads)]
    assert stages == [extracting, *heads, extracting, *heads], "recordings of which no means are kept pass last"
    recorded = {(row.upstream, row.task): row.value for row in results.runs().itertuples()}
    assert notes.values == pytest.approx(recorded)
    again = Notes()
    fb.evaluate(**asked, seeds=(0, 1), progress=again)
    assert sorted(news.state for news in again.first) == ["done"] * 4 + ["waiting"] * 4
    assert {(news.upstream, news.task): news.value for news in again.first if news.state == "done"} == recorded


def test_recordings_of_which_no_means_are_kept_pass_when_the_quick_heads_are_done(asked, corpus_folder, tmp_path):
    changed = shutil.copytree(corpus_folder, tmp_path / "corpus") / "metadata.jsonl"
    rows = [json.loads(line) for line in changed.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if row.get("voice") in ("v3", "v5", "v7"):  # one of each split
            row.pop("keyword", None)
    changed.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    notes = Notes()
    asked = {**asked, "corpus": tmp_path / "corpus"}
    planned = fb.plan(**asked)
    results = fb.evaluate(**asked, seeds=0, progress=notes)
    first, then = (amount for title, amount in notes.amounts if title == "extracting features")
    assert 0.4 < then / first < 0.8, "18 recordings of 48"
    assert first + then == pytest.approx(sum(each.seconds for each in planned.upstreams))
    assert {each.upstream: each.clips for each in planned.upstreams} == results.passed, "each passes once"


def test_a_cell_whose_training_fails_is_shown_as_failed(asked, corpus_folder, tmp_path):
    changed = shutil.copytree(corpus_folder, tmp_path / "corpus") / "metadata.jsonl"
    rows = [json.loads(line) for line in changed.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if "text" in row and row["split"] == "train":
            row["text"] = "far too many letters for the frames of such a short recording " * 40
    changed.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    notes = Notes()
    results = fb.evaluate(**{**asked, "corpus": tmp_path / "corpus"}, progress=notes, raise_error=False)
    assert results.failures
    last = {(upstream, task): state for upstream, task, state in notes.news}
    assert last == {
        (name, task): "done" if task == "ks" else "failed" for name in ("fbank", "mfcc") for task in ("ks", "asr")
    }


def news(upstream: str, state: str, seed: int = 0, value: float | None = None, task: str = "ks") -> CellNews:
    return CellNews(upstream, task, seed, state, value, "%")


def test_the_table_shows_waiting_running_and_the_mean_so_far():
    table = CellTable([news("fbank", "waiting", seed) for seed in (0, 1)] + [news("apc", "waiting", task="asr")])
    rows = [line.split() for line in texts(table).splitlines()]
    assert rows == [["upstream", "ks", "asr"], ["fbank", "·"], ["apc", "·"]]
    table.take(news("fbank", "running", 1))
    assert texts(table).splitlines()[1].split() == ["fbank", "…"]
    table.take(news("fbank", "done", 1, 40.0))
    assert texts(table).splitlines()[1].split() == ["fbank", "40.0", "1/2"]
    table.take(news("fbank", "done", 0, 50.0))
    assert texts(table).splitlines()[1].split() == ["fbank", "45.0"]
    table.take(news("apc", "failed", task="asr"))
    assert texts(table).splitlines()[2].split() == ["apc", "failed"]


def test_the_table_never_is_higher_than_the_terminal():
    cells = [news(f"u{number}", "done", value=1.0) for number in range(20)]
    table = CellTable([*cells, news("u15", "running"), news("u3", "waiting")])
    shown = texts(table, height=10).splitlines()
    assert len(shown) <= 10
    assert {"u15", "u3", "u19"} <= {line.split()[0] for line in shown}
    assert shown[-1].strip() == "and 12 more"
    crowded = CellTable([news(f"u{number}", "waiting") for number in range(20)])
    assert len(texts(crowded, height=10).splitlines()) <= 10


def test_a_log_has_a_line_for_each_cell_that_is_done():
    console = Console(width=200, file=StringIO(), force_terminal=False)
    with TerminalWatcher(console) as watcher:
        watcher.cells([news("fbank", "waiting")])
        watcher.cell(news("fbank", "running"))
        watcher.cell(news("fbank", "done", value=12.34))
    assert console.file.getvalue() == "fbank, ks, seed 0: 12.3 %\n"


def test_a_terminal_shows_the_table_while_it_runs_and_not_after():
    console = Console(width=100, height=30, file=StringIO(), force_terminal=True)
    with TerminalWatcher(console) as watcher:
        watcher.cells([news("fbank", "waiting"), news("apc", "done", value=77.7)])
        watcher._bars.refresh()
        assert "77.7" in console.file.getvalue()
        console.file.truncate(0)
    assert "77.7" not in console.file.getvalue()


def test_the_bar_of_the_whole_ends_full(asked):
    console = Console(width=100, height=30, file=StringIO(), force_terminal=True)
    with TerminalWatcher(console) as watcher:
        fb.evaluate(**{**asked, "tasks": asked["tasks"][:1]}, progress=watcher)
    *_, whole, last = [line for line in plain(console.file.getvalue()).splitlines() if line.strip()]
    assert "whole run" in whole
    assert "100 %" in whole
    assert "2/2 cells" in last


def plain(drawn: str) -> str:
    """What a terminal was told, without colours and movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.replace("\r", "\n"))


def test_durations_are_in_the_unit_a_person_takes():
    assert [duration(seconds) for seconds in (0.4, 89, 120, 5399, 7200)] == ["0 s", "89 s", "2 min", "90 min", "2.0 h"]
