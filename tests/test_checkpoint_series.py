"""Series over checkpoints: `--upstream 'hf:runs/step-*'` is each of them, and a curve over their steps."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_tasks
from conftest import call
from made_boards import board, leaderboard, with_checkpoints
from results import ACCURACY, add, classified, upstream
from test_layer_panels import parts, whiskers

import frostbench as fb
from core.checkpoint_series import belongs, steps_of, told_apart
from core.errors import CheckpointError
from core.records import RecordStore
from frostbench import patterns
from leaderboard.aggregate import leaderboard as leaderboard_of
from leaderboard.checkpoint_series import places_in_series
from leaderboard.figures import figures_of
from leaderboard.page import page
from leaderboard.tables import notes, to_markdown
from leaderboard.verification import verify

BLOCKS = """
from pathlib import Path

import torch
import frostbench as fb

@fb.register_upstream(fb.UpstreamCard(name="blocks", title="Blocks", paper="none"))
class Blocks(fb.Upstream):
    num_layers, hidden_size, downsample_rate, min_samples = 1, 2, 160, 160

    def __init__(self, scale):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    @classmethod
    def from_checkpoint(cls, checkpoint):
        return cls(float(Path(checkpoint).read_text()))

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        blocks = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160))
        energy = (blocks.square().mean(dim=2, keepdim=True) + 1e-8).log()
        level = blocks.abs().mean(dim=2, keepdim=True)
        return fb.HiddenStates((torch.cat([energy, self.scale * level], dim=2),), self.frame_lengths(wav_lengths))
"""


@pytest.mark.parametrize(
    ("spec", "pattern", "fits"),
    [
        ("hf:runs/step-100", "hf:runs/step-*", True),
        ("hf:runs/step-100/best", "hf:runs/step-*", False),
        ("hf:runs/step-100", "apc@runs/step-*", False),
        ("apc@a/b/c/7.safetensors", "apc@a/**/*.safetensors", True),
        ("apc@a/7.safetensors", "apc@a/**/*.safetensors", True),
        ("apc@a/7.pt", "apc@a/**/*.safetensors", False),
        ("hf:runs/step-7", "hf:runs/step-[0-6]", False),
        ("hf:facebook/wav2vec2-base-960h", "hf:runs/step-*", False),
    ],
)
def test_which_specifications_a_pattern_names(spec, pattern, fits):
    assert belongs(spec, pattern) is fits


@pytest.mark.parametrize(
    ("pattern", "steps"),
    [
        ("hf:runs2/step-*", {"hf:runs2/step-2": 2, "hf:runs2/step-10": 10}),
        ("hf:runs/step-1*", {"hf:runs/step-1": 1, "hf:runs/step-10": 10, "hf:runs/step-100": 100}),
        ("hf:r/*", {"hf:r/100k": 100_000, "hf:r/1.5M": 1_500_000, "hf:r/2M": 2_000_000}),
        ("a@r/*", {"a@r/epoch=0-step=50.pt": 50, "a@r/epoch=0-step=90.pt": 90, "a@r/epoch=1-step=150.pt": 150}),
        ("a@r/step*", {"a@r/step-50-loss-2.25.pt": 50, "a@r/step-90-loss-2.17.pt": 90}),
    ],
)
def test_the_step_is_the_number_that_differs(pattern, steps):
    assert steps_of(pattern, steps) == steps


def test_what_has_no_number_has_no_step_and_one_number_twice_tells_nothing():
    assert steps_of("hf:r/*", ["hf:r/step-5", "hf:r/step-9", "hf:r/last"]) == {"hf:r/step-5": 5, "hf:r/step-9": 9}
    assert steps_of("hf:r/*", ["hf:r/step-5", "hf:r/step-5-best"]) == {}
    assert steps_of("hf:r/*", ["hf:r/first", "hf:r/last"]) == steps_of("hf:r/*", []) == {}
    assert steps_of("hf:r/*", [f"hf:r/{'9' * 5000}"])  # whatever a record of others holds


def test_names_take_as_much_of_the_path_as_tells_them_apart():
    assert told_apart({"1": ("apc", "apc@r/apc-2.safetensors"), "2": ("apc", "apc@r/apc-10.safetensors")}) == {
        "1": "apc@apc-2", "2": "apc@apc-10",
    }  # fmt: skip
    assert told_apart({"1": ("apc", "apc"), "2": ("apc", "apc@r/a-1.5"), "3": ("mfcc", "mfcc")}) == {
        "1": "apc", "2": "apc@a-1.5", "3": "mfcc",
    }  # fmt: skip
    two = {"1": ("step-5 (bfloat16)", "hf:a/step-5"), "2": ("step-5 (bfloat16)", "hf:b/step-5")}
    assert told_apart(two) == {"1": "a/step-5 (bfloat16)", "2": "b/step-5 (bfloat16)"}
    again = told_apart({"1": ("step-5", "hf:a/step-5"), "2": ("step-5", "hf:a/step-5")})
    assert set(again.values()) == {"a/step-5"} or set(again.values()) == {"step-5"}, "digests have to do it"
    objects = {"1": ("own", "instance:a.B (1)"), "2": ("own", "instance:a.B (2)")}
    assert set(told_apart(objects).values()) == {"own"}


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("step-10", "step-2", "step-100", "other", "last[1]"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    return tmp_path / "runs"


def test_a_pattern_is_what_is_there_in_the_order_of_the_numbers(runs):
    found = patterns.with_checkpoints(["fbank", "hf:runs/step-*", "hf:runs/step-2", 7])
    checkpoints = [f"hf:runs/step-{step}" for step in (2, 10, 100)]
    assert found.upstreams == ["fbank", *checkpoints, 7]
    assert found.series == dict.fromkeys(checkpoints, "hf:runs/step-*")
    assert patterns.with_checkpoints([f"hf:{runs}/step-*"]).upstreams[0] == f"hf:{runs}/step-2"
    assert patterns.with_checkpoints(["own.py:Own@runs/s*0"]).upstreams == [
        "own.py:Own@runs/step-10", "own.py:Own@runs/step-100",
    ]  # fmt: skip
    assert patterns.with_checkpoints(["torchaudio:BASE@runs/o*"]).upstreams == ["torchaudio:BASE@runs/other"]
    assert patterns.with_checkpoints(["hf:runs/step-2*@adapter.fra"]).upstreams == ["hf:runs/step-2@adapter.fra"]
    alone = patterns.with_checkpoints(["hf:runs/oth*"])
    assert (alone.upstreams, alone.series) == (["hf:runs/other"], {"hf:runs/other": "hf:runs/oth*"})


def test_a_home_is_found_and_a_name_is_no_pattern(runs, monkeypatch):
    monkeypatch.setenv("HOME", str(runs.parent))
    assert patterns.with_checkpoints(["hf:~/runs/step-2*"]).upstreams == [f"hf:{runs}/step-2"]
    assert patterns.with_checkpoints(["hf:runs/last[1]", "hf:ORG/NAME"]) == (["hf:runs/last[1]", "hf:ORG/NAME"], {})


def test_each_training_is_a_series_of_its_own(runs):
    shutil.copytree(runs, runs.parent / "more" / "runs")
    shutil.copytree(runs, runs.parent / "more" / "again")
    found = patterns.with_checkpoints(["hf:more/*/step-*"]).series
    assert set(found.values()) == {"hf:more/again/step-*", "hf:more/runs/step-*"}
    assert set(patterns.with_checkpoints(["hf:**/step-2"]).series.values()) == {"hf:**/step-2"}


@pytest.mark.parametrize("spec", ["hf:runs/nothing-*", "apc@runs/*.safetensors", "own.py:Own@none/*", "hf:facebook/*"])
def test_a_pattern_without_a_checkpoint_is_refused(runs, spec):
    with pytest.raises(CheckpointError, match=r"no file or folder here has a name like .*\*.*correct the pattern"):
        patterns.with_checkpoints([spec])
    for function in (fb.evaluate, fb.plan):
        with pytest.raises(CheckpointError, match="no file or folder"):
            function(spec, "ks", output=runs / "results")
    done = call("run", "--upstream", spec, "--task", "ks", "--output", runs / "results")
    assert done.code == 2 and "no file or folder here" in done.err


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> Path:
    """A file with an upstream, and its checkpoints."""
    place = tmp_path_factory.mktemp("training")
    (place / "blocks.py").write_text(BLOCKS, encoding="utf-8")
    (place / "runs").mkdir()
    for step in (2, 10, 100):
        (place / "runs" / f"step-{step}.txt").write_text(str(step), encoding="utf-8")
    return place


def evaluated(training: Path, corpus_folder: Path, upstreams: str, **asked) -> fb.Results:
    spec = f"{training}/blocks.py:Blocks@{training}/runs/{upstreams}"
    places = {"output": training / "results", "cache": training / "cache"}
    return fb.evaluate(spec, tiny_tasks.KS, corpus=corpus_folder, seeds=(0, 1), workers=1, **places, **asked)


@pytest.fixture(scope="module")
def ran(training, corpus_folder) -> tuple[fb.Results, fb.Results]:
    """One checkpoint by itself, then all of them."""
    return evaluated(training, corpus_folder, "step-10.txt"), evaluated(training, corpus_folder, "step-*.txt")


def test_the_series_takes_in_what_was_run_before_it(ran, training):
    alone, results = ran
    assert alone.series().empty and (results.computed, results.skipped) == (4, 2)
    assert set(results.passed) == {"blocks@step-2", "blocks@step-100"}
    found = results.series()
    assert found["step"].tolist() == [2, 10, 100] * 2
    assert found["seed"].tolist() == [0, 0, 0, 1, 1, 1]
    assert set(found["series"]) == {f"{training}/blocks.py:Blocks@{training}/runs/step-*.txt"}
    assert found["upstream"].tolist()[:3] == ["blocks@step-2", "blocks@step-10", "blocks@step-100"]
    values = results.runs().set_index("run")["value"]
    assert found["value"].tolist() == [values[run] for run in found["run"]]


def test_a_series_changes_no_result(ran, training):
    alone, results = ran
    assert verify(RecordStore(training / "results")) == []
    by_name = {record.upstream["digest"]: record for record in results.records}
    assert {record.upstream["name"] for record in by_name.values()} == {"blocks"}, "the record's name is its own"
    series = [record.circumstances.get("series") for record in results.records]
    assert series.count(None) == 2 and len(set(series)) == 2
    assert all("series" not in record.result() and "shown" not in record.upstream for record in results.records)
    assert set(alone.runs()["run"]) < set(results.runs()["run"])


def test_the_rows_stay_and_the_page_the_report_and_the_command_draw_the_curve(ran, training, corpus_folder):
    _, results = ran
    (made,) = results.board.boards
    assert {row.name: row.step for row in made.rows} == {
        "blocks@step-2": 2, "blocks@step-10": 10, "blocks@step-100": 100,
    }  # fmt: skip
    assert 'id="b0-checkpoints"' in page(results.board)
    assert "KS Acc % ↑ by step of training" in to_markdown(results.board)
    command = ("run", "--upstream", f"{training}/blocks.py:Blocks@{training}/runs/*", "--corpus", corpus_folder)
    places = ("--output", training / "results", "--cache", training / "cache", "--workers", 1)
    tasks = Path(tiny_tasks.__file__)
    done = call(*command, "--task", f"{tasks}:KS", "--seed", 0, *places)
    assert done.code == 0, done.err
    assert "3 were there" in done.out
    assert "ks: accuracy by step of training" in " ".join(done.out.split())
    planned = call(*command, "--task", f"{tasks}:KS", *places, "--plan", "--json")
    assert json.loads(planned.out)["cells"] == 3


def stored(folder: Path, *checkpoints: tuple[str, str], series: str = "hf:runs/step-*") -> RecordStore:
    """Records of (specification, digest); the name is that of the folder."""
    store = RecordStore(folder)
    for number, (spec, digest) in enumerate(checkpoints):
        known = {"upstream": upstream(spec.rpartition("/")[2], digest=digest)}
        told = {"upstream_spec": spec, **({"series": series} if series else {})}
        right = [1] * (10 + number) + [0] * 10
        add(store, classified(right[:20]), ACCURACY, run=f"{number:064x}", **known, circumstances=told)
    return store


def test_a_second_training_in_the_same_folder_is_no_curve_with_the_first(tmp_path):
    again = [("hf:runs/step-5", "a" * 64), ("hf:runs/step-9", "b" * 64), ("hf:runs/step-5", "c" * 64)]
    made = leaderboard_of(stored(tmp_path, *again), custom=True).boards[0]
    assert sorted(row.name for row in made.rows) == ["step-5#aaaaaa", "step-5#cccccc", "step-9"]
    assert [figure for figure in figures_of(made) if figure.name == "checkpoints"] == []
    (line,) = [note for note in notes(made) if note.startswith("Series")]
    assert re.match(r"Series hf:runs/step-\* has no curve: step-5#\w+, step-5#\w+ are of the same step", line)


def test_two_trainings_are_two_curves_whose_rows_have_their_folders(tmp_path):
    names = [("hf:one/step-5", "a" * 64), ("hf:one/step-9", "b" * 64), ("hf:two/step-5", "c" * 64)]
    store = stored(tmp_path, *names[:2], series="hf:one/step-*")
    told = {"upstream_spec": names[2][0], "series": "hf:two/step-*"}
    add(
        store, classified([1] * 20), ACCURACY, run="f" * 64, upstream=upstream("step-5", digest="c"), circumstances=told
    )
    places = places_in_series(store.all())
    assert {place.series for place in places.values()} == {"hf:one/step-*", "hf:two/step-*"}
    made = leaderboard_of(store, custom=True).boards[0]
    assert sorted(row.name for row in made.rows) == ["one/step-5", "step-9", "two/step-5"]


@pytest.mark.parametrize("series", [3, ["hf:*"], "", None, {"a": 1}])
def test_records_that_say_it_otherwise_are_of_no_series(tmp_path, series):
    store = stored(tmp_path, ("hf:runs/step-5", "a" * 64), series="")
    told = {"upstream_spec": "hf:runs/step-9", "series": series}
    add(store, classified([1] * 20), ACCURACY, run="f" * 64, upstream=upstream("step-9"), circumstances=told)
    assert places_in_series(store.all()) == {}


def test_numbers_that_tell_nothing_are_said(tmp_path):
    store = stored(tmp_path, ("hf:runs/step-5", "a" * 64), ("hf:runs/step-5-best", "b" * 64))
    made = leaderboard_of(store, custom=True).boards[0]
    assert any("no number in the names of its checkpoints" in note for note in notes(made))


def test_precisions_and_fine_tuned_rows_are_series_of_their_own(tmp_path):
    store = stored(tmp_path, ("hf:runs/step-5", "a" * 64), ("hf:runs/step-9", "b" * 64))
    for digest, step, run in (("c" * 64, 5, "e" * 64), ("d" * 64, 9, "f" * 64)):
        half = {**upstream(f"step-{step} (bfloat16)", digest=digest), "precision": "bfloat16"}
        told = {"upstream_spec": f"hf:runs/step-{step}"}
        add(store, classified([1] * 20), ACCURACY, run=run, upstream=half, circumstances=told)
    made = leaderboard_of(store, custom=True).boards[0]
    assert {row.series for row in made.rows} == {"hf:runs/step-*", "hf:runs/step-* (bfloat16)"}
    (figure,) = [figure for figure in figures_of(made) if figure.name == "checkpoints"]
    assert [series.name for series in figure.legend] == ["hf:runs/step-* (bfloat16)", "hf:runs/step-*"]


def test_the_figure_has_a_panel_a_task_and_a_line_a_series():
    made = with_checkpoints(board(upstreams=5, tasks=3), 2)
    (figure,) = [figure for figure in figures_of(made) if figure.name == "checkpoints"]
    assert [panel.label.split(":")[0] for panel in figure.panels] == ["ASR", "IC", "KS"]
    for panel in figure.panels:
        curves = [each for each in parts(panel, "path", "line") if "V" not in each.get("d", "")]
        assert len(curves) == 1 and len(whiskers(panel)) == 3
        places = [tuple(map(float, point.split(","))) for point in curves[0].get("d", "")[1:].split()]
        assert [x for x, _ in places] == sorted(x for x, _ in places)
        heights = [y for _, y in places]
        assert heights == sorted(heights, reverse=True), "better is higher up, whatever the metric"
        names = [each.text for each in parts(panel, "text", "tick") if each.get("text-anchor") == "middle"]
        assert names[::-1] == ["1 k", "2 k", "3 k"]
    tips = re.findall(r'data-tip="([^"]*)"', figure.panels[2].body)
    row = next(row for row in made.rows if row.step == 1000)
    mean = row.cells["ks"].mean
    assert tips[-1].split("\n") == [
        row.name, "Step\t1,000", f"Acc\t{mean:.1f} %", f"95 % interval\t{mean - 2.5:.1f} to {mean + 2:.1f}", "Rank\t5",
        "Seeds\t0, 1, 2",
    ]  # fmt: skip


def test_the_page_has_it_only_where_there_are_two_points():
    assert 'id="b0-checkpoints"' in page(leaderboard(with_checkpoints(board(upstreams=4), 2)))
    lone = with_checkpoints(board(upstreams=4), 3)
    assert lone.rows[-1].step and 'id="b0-checkpoints"' not in page(leaderboard(lone))
    assert 'id="b0-checkpoints"' not in page(leaderboard(board()))
    missing = with_checkpoints(board(upstreams=4, tasks=2), 1)
    fewer = replace(missing.rows[-1], cells={"asr": missing.rows[-1].cells["asr"]})
    (figure,) = [each for each in figures_of(replace(missing, rows=(*missing.rows[:-1], fewer)))
                 if each.name == "checkpoints"]  # fmt: skip
    assert [len(whiskers(panel)) for panel in figure.panels] == [3, 2], "a task that was not run has no point"
