"""`run --log`: values and learning curves in a tracker, and an evaluation that is what it is without."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_tasks
from conftest import Said, call
from test_checkpoint_series import BLOCKS

import frostbench as fb
from core.errors import BenchmarkError, UnknownNameError
from core.records import RecordStore
from frostbench import trackers
from frostbench.tracked_values import name_of, tracked_runs
from frostbench.trackers import Tracker, asked_trackers


class Kept:
    """A tracker as accelerate's are, which keeps what it is given."""

    def __init__(self, name: str, runs: dict[str, list]) -> None:
        self.told = runs.setdefault(name, [])

    def start(self) -> None:
        self.told.append("start")

    def store_init_configuration(self, values: dict) -> None:
        self.told.append(values)

    def log(self, values: dict, step: int | None = None) -> None:
        self.told.append((step, values))

    def finish(self) -> None:
        self.told.append("finish")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("tracked")
    (made / "blocks.py").write_text(BLOCKS, encoding="utf-8")
    for step in (2, 10):
        (made / f"step-{step}.txt").write_text(str(step), encoding="utf-8")
    return made


def evaluated(place: Path, corpus_folder: Path, **asked) -> fb.Results:
    upstreams = ["fbank", f"{place}/blocks.py:Blocks@{place}/step-*.txt"]
    places = {"output": place / "results", "cache": place / "cache", "workers": 1}
    return fb.evaluate(
        upstreams, tiny_tasks.KS, corpus=corpus_folder, seeds=(0, 1), conditions="noise@10dB", **places, **asked
    )


@pytest.fixture(scope="module")
def results(place, corpus_folder) -> fb.Results:
    return evaluated(place, corpus_folder)


def test_an_upstream_is_a_run_with_its_facts_values_and_curves(results):
    fbank, *checkpoints = tracked_runs(results.store, results.records, results.board)[:3]
    assert [fbank.name, *(each.name for each in checkpoints)] == ["fbank", "blocks@step-2", "blocks@step-10"]
    cell = results.cells().set_index("upstream").loc["fbank"]
    assert fbank.values["ks/accuracy"] == pytest.approx(cell["mean"])
    assert (fbank.values["ks/accuracy_low"], fbank.values["ks/accuracy_high"]) == (cell["low"], cell["high"])
    noisy = results.conditions().query("upstream == 'fbank' and condition == 'noise@10dB'")["value"].mean()
    assert fbank.values["ks/noise_10dB/accuracy"] == pytest.approx(noisy)
    assert fbank.values["ks/noise_10dB/accuracy_low"] <= noisy <= fbank.values["ks/noise_10dB/accuracy_high"]
    runs = results.runs().query("upstream == 'fbank' and condition.isna()").set_index("seed")
    for seed in (0, 1):
        run = runs.loc[seed]
        assert fbank.values[f"ks/learning_rate/seed_{seed}"] == run["learning_rate"]
        tried = json.loads((results.store.run_folder(run["run"]) / "history.json").read_text(encoding="utf-8"))
        (chosen,) = [each for each in tried if each["learning_rate"] == run["learning_rate"]]
        curve = {step: values[f"ks/valid_accuracy/seed_{seed}"] for step, values in fbank.curves.items()
                 if f"ks/valid_accuracy/seed_{seed}" in values}  # fmt: skip
        assert curve == {look["step"]: look["valid"] for look in chosen["history"]}
        assert max(curve.values()) == run["valid"]
    config = fbank.config
    assert config["upstream/spec"] == "fbank" and config["upstream/hidden_size"] == 240
    assert config["ks/recipe/steps"] == 120 and config["ks/recipe/learning_rates"] == "[0.1,0.01]"
    assert config["ks/corpus/digest"] == results.runs()["corpus_digest"].iloc[0]
    assert all(type(value) in (str, int, float, bool) for value in config.values())
    names = {*config, *fbank.values, *(name for values in fbank.curves.values() for name in values)}
    assert "ks/noise_10dB/recipe/steps" in names and {name_of(name) for name in names} == names


def test_values_of_another_head_stand_apart(place, corpus_folder):
    places = {"output": place / "probed", "cache": place / "cache", "workers": 1}
    probed = fb.evaluate("fbank", tiny_tasks.KS, corpus=corpus_folder, probes="nearest_neighbours", **places)
    (run,) = tracked_runs(probed.store, probed.records, probed.board)
    cells = probed.cells().set_index("head")
    for path, head in (("ks", "utterance_linear"), ("ks/head_nearest_neighbours", "nearest_neighbours")):
        assert run.values[f"{path}/accuracy"] == pytest.approx(cells.loc[head]["mean"])
        assert run.values[f"{path}/accuracy_low"] == cells.loc[head]["low"]
    assert cells["mean"].nunique() == 2, "else it does not show"


def test_a_series_is_a_run_over_the_steps_of_training(results):
    *_, series = tracked_runs(results.store, results.records, results.board)
    assert series.name.endswith("step-*.txt") and list(series.curves) == [2, 10] and not series.values
    means = results.series().groupby("step")["value"].mean()
    assert {step: values["ks/accuracy"] for step, values in series.curves.items()} == pytest.approx(means.to_dict())
    assert all(values["ks/accuracy_low"] <= values["ks/accuracy"] for values in series.curves.values())


def test_a_history_that_is_not_the_records_own_has_no_curve(results, tmp_path):
    store = RecordStore(tmp_path)
    record = next(record for record in results.records if record.has_row)
    (store.run_folder(record.run)).mkdir(parents=True)
    (store.run_folder(record.run) / "history.json").write_text("[]", encoding="utf-8")
    (run,) = tracked_runs(store, [record], fb.Results(tmp_path, only=()).board)
    assert not run.curves and run.values["ks/accuracy"] == record.value
    assert "ks/accuracy_low" not in run.values


def test_steps_ascend_and_the_values_of_test_come_last(results, monkeypatch):
    found: dict[str, list] = {}
    monkeypatch.setitem(trackers.OPENED, Tracker.wandb, lambda name, folder: Kept(name, found))
    trackers.log_results(results, [Tracker.wandb], pytest.fail)
    assert list(found)[:3] == ["fbank", "blocks@step-2", "blocks@step-10"] and len(found) == 4
    for told in found.values():
        assert (told[0], told[-1]) == ("start", "finish") and isinstance(told[1], dict)
        steps = [step for step, _ in told[2:-1]]
        assert steps == sorted(steps) and len(steps) > 1
    assert "ks/accuracy" in found["fbank"][-2][1]


def test_tensorboard_has_them_and_a_second_time_does_not_double_them(results, place, corpus_folder):
    pytest.importorskip("tensorboard", reason="the extra trackers is not installed")
    pytest.importorskip("accelerate", reason="the extra trackers is not installed")
    from accelerate import PartialState
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    before = {record.run: record.sealed() for record in results.records}
    state = dict(PartialState._shared_state)
    for _ in range(2):
        again = evaluated(place, corpus_folder, log="tensorboard")
        assert (again.computed, again.skipped) == (0, len(before))
    assert {record.run: record.sealed() for record in again.records} == before
    assert dict(PartialState._shared_state) == state, "a pretraining in this process finds its devices out by itself"
    folder = place / "results" / "trackers" / "tensorboard"
    assert len(list(folder.iterdir())) == 4
    events = EventAccumulator(str(folder / "fbank")).Reload()
    wanted = next(run for run in tracked_runs(results.store, results.records, results.board) if run.name == "fbank")
    tags = {name for values in wanted.curves.values() for name in values} | set(wanted.values)
    assert set(events.Tags()["scalars"]) == tags
    for name in tags:
        seen = [(event.step, event.value) for event in events.Scalars(name)]
        last = max(wanted.curves)
        curve = [(step, values[name]) for step, values in sorted(wanted.curves.items()) if name in values]
        assert seen == [(step, pytest.approx(value)) for step, value in curve or [(last, wanted.values[name])]]
    (series,) = [each for each in folder.iterdir() if "txt" in each.name]
    curve = EventAccumulator(str(series)).Reload().Scalars("ks/accuracy")
    assert [event.step for event in curve] == [2, 10]


def test_a_tracker_that_cannot_be_reached_is_a_warning_once(results, place, corpus_folder, monkeypatch):
    def unreachable(name, folder):
        raise ConnectionError("no route\nto host")

    found: dict[str, list] = {}
    monkeypatch.setitem(trackers.OPENED, Tracker.wandb, unreachable)
    monkeypatch.setitem(trackers.OPENED, Tracker.mlflow, lambda name, folder: Kept(name, found))
    monkeypatch.setattr(trackers, "require_package", lambda package, purpose: None)
    pytest.importorskip("accelerate", reason="the extra trackers is not installed")
    said = Said()
    again = evaluated(place, corpus_folder, log=["wandb", "mlflow"], progress=said)
    assert (again.failed, again.failures, again.skipped) == (0, (), len(results.records))
    warnings = [line for line in said.lines if line.startswith("warning")]
    assert len(warnings) == 1 and warnings[0].startswith("warning: wandb: can't be logged to (no route to host)")
    assert len(found) == 4, "the other one is logged to"


def test_mlflow_keeps_its_files_beside_the_results_unless_the_user_names_a_server(monkeypatch, tmp_path):
    pytest.importorskip("accelerate", reason="the extra trackers is not installed")
    asked: list[str] = []

    def set_tracking_uri(uri: str) -> None:  # as MLflow's own does
        asked.append(uri)
        os.environ["MLFLOW_TRACKING_URI"] = uri

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(set_tracking_uri=set_tracking_uri))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for folder in (tmp_path / "one", tmp_path / "two"):
        tracker = trackers.OPENED[Tracker.mlflow]("fbank", folder)
        assert (tracker.run_name, tracker.logging_dir) == ("fbank", str(folder / "mlflow"))
    assert asked == [f"sqlite:///{tmp_path / name / 'mlflow.db'}" for name in ("one", "two")]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert trackers.OPENED[Tracker.mlflow]("fbank", tmp_path / "three").logging_dir is None
    assert len(asked) == 2 and not (tmp_path / "three").exists()


def test_a_tracker_is_closed_whatever_happens():
    class Failing(Kept):
        def log(self, values, step=None):
            raise ValueError("full")

    told: dict[str, list] = {}
    run = trackers.TrackedRun("one", {"a": 1}, {}, {"ks/accuracy": 1.0})
    with pytest.raises(ValueError, match="full"):
        trackers._log(Failing("one", told), run)
    assert told["one"][-1] == "finish"


@pytest.mark.parametrize("absent", ["wandb", "mlflow", "trackio"])
def test_an_absent_package_is_refused_before_any_work(absent, monkeypatch, tmp_path, corpus_folder):
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.setattr(trackers, "require_extra", lambda extra, purpose: None)
    done = call("run", "--upstream", "fbank", "--task", "ks", "--log", absent, "--output", tmp_path / "results",
                "--cache", tmp_path / "cache")  # fmt: skip
    assert done.code == 2 and not (tmp_path / "cache").exists()
    assert f"logging to {absent}: {absent} is not installed here; run: pip install {absent}" in done.err


def test_an_absent_extra_and_an_unknown_tracker_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(BenchmarkError, match=r"pip install 'frostbench\[trackers\]'"):
        asked_trackers("tensorboard")
    with pytest.raises(UnknownNameError, match="tensorboard"):
        asked_trackers(["tensorbord"])
    assert asked_trackers(()) == ()


def test_names_are_what_every_tracker_takes():
    assert name_of("ks/noise@10dB/accuracy") == "ks/noise_10dB/accuracy"
    assert name_of("ks/budget_10%/accuracy") == "ks/budget_10_/accuracy"
