"""The benchmark scripts start, and their README knows them all. What they measure is no test."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from results import add, classified, upstream

from benchmarks import planning
from benchmarks._measure import Ratio, by_turns, medians
from core.metrics import get_metric
from core.records import RecordStore

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_what_is_measured(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"benchmarks.{script}").main()
    assert end.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_readme_lists_every_script():
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^    \S+ -m benchmarks\.(\w+)", text, re.MULTILINE)) == set(SCRIPTS)


@pytest.mark.parametrize(
    ("value", "bound", "met"), [(1.0, "at most", True), (1.1, "at most", False), (0.9, "at least", False)]
)
def test_a_target_is_kept_or_not(value, bound, met):
    assert Ratio("x", value, 1.0, bound).met is met
    assert Ratio("x", value).met is None


def test_sides_are_measured_by_turns():
    order = []
    sides = {name: lambda name=name: order.append(name) for name in ("ours", "theirs")}
    seconds = by_turns(sides, 3, {"theirs": 1}, before=lambda: order.append("-"))
    assert "".join(order) == "-ours-theirs-ours-ours"
    assert {name: len(values) for name, values in seconds.items()} == {"ours": 3, "theirs": 1}
    assert medians({"ours": [3.0, 1.0, 2.0]}) == {"ours": 2.0}


@pytest.mark.parametrize(("value", "within", "code"), [(50.0, "0", 0), (50.5, "0", 1), (50.5, "1", 0), (None, "0", 1)])
def test_values_of_two_folders_are_compared_whatever_their_digests(value, within, code, tmp_path, monkeypatch, capsys):
    from benchmarks import same_values

    for name, run, found in (("before", "a", 50.0), ("after", "b", value)):
        (tmp_path / name / "records").mkdir(parents=True)
        names = {part: {"name": part} for part in ("upstream", "task", "corpus", "recipe")}
        record = json.dumps({**names, "seed": 0, "value": found, "schema_version": 1})
        if found is not None:
            (tmp_path / name / "records" / f"{run}.json").write_text(record)
    arguments = ["same_values", str(tmp_path / "before"), str(tmp_path / "after"), "--within", within]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        same_values.main()
    assert end.value.code == code
    assert f"{1 - code} of 1 values are the same" in capsys.readouterr().out


def test_every_metric_has_a_population_that_intervals_are_counted_on():
    """A new metric: add a row to `benchmarks/_populations.py`, count, and enter it in the README."""
    from benchmarks._populations import POPULATIONS

    entries = (ROOT / "docs" / "entries.md").read_text(encoding="utf-8")
    names = re.findall(r"^\| `(\w+)` \|", entries.split("## Metrics")[1].split("\n## ")[0], re.MULTILINE)
    counted = {each.metric for each in POPULATIONS}
    assert counted == set(names) and len(names) > 10
    assert len({each.name for each in POPULATIONS}) == len(POPULATIONS)


@pytest.mark.parametrize("name", ["wer, mini", "accuracy, IEMOCAP in five folds", "si_sdri, mini SS"])
def test_the_truth_of_a_population_is_the_value_of_its_test_sets_together(name):
    from benchmarks._populations import POPULATIONS

    (population,) = [each for each in POPULATIONS if each.name == name]
    truth = population.truth(np.random.default_rng(0))
    values = np.array([population.draw(np.random.default_rng(seed)).values() for seed in range(1, 200)])
    error = np.std(values.mean(axis=1)) / 199**0.5
    assert abs(values.mean() - truth) < 4 * error + 0.005 * truth, "ratios of small sets lie a little beside it"
    assert np.corrcoef(values.T)[0, 1] > 0.2, "what is hard for one upstream is so for the other"


def test_intervals_and_tests_are_counted():
    from benchmarks.interval_coverage import counted, error_of
    from leaderboard.statistics import Trials

    def draw(rng: np.random.Generator) -> Trials:
        rows = [np.stack([rng.random(40) < 0.5, np.ones(40)], axis=1)[None].astype(float) for _ in range(2)]
        return Trials(get_metric("accuracy"), rows, [None] * 40)

    right = counted(draw, 50.0, 60, seed=0)
    assert min(right) > 80 and counted(draw, 99.0, 20, seed=0).interval == 0
    assert error_of(95, 400) == pytest.approx(1.0897, abs=1e-4)


def test_populations_are_made_of_records(tmp_path, capsys):
    from benchmarks.interval_coverage import recorded

    store = RecordStore(tmp_path)
    add(store, classified([1, 0, 1, 1, 0, 1] * 40, 8), upstream=upstream("apc"))
    recorded([tmp_path], 40, 3_000)
    cell, _, total = capsys.readouterr().out.splitlines()[1:]
    assert cell.startswith("tiny ks apc ") and float(cell.split()[3]) == pytest.approx(200 / 3, abs=1)
    assert total.startswith("1 cells with 10 errors or more, 40 test sets each: intervals hold the truth in ")
    assert float(total.split("truth in ")[1].split(" %")[0]) > 85
    few = RecordStore(tmp_path / "few")
    add(few, classified([1] * 59 + [0], 8))
    with pytest.raises(SystemExit, match="no cell with 10 errors or more"):
        recorded([tmp_path / "few"], 2, 300)


def test_planning_comes_to_the_first_job_and_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "UPSTREAMS", 2)
    planning.many_files(tmp_path / "corpus", rows := 120)
    first, nothing = planning.planning(tmp_path, repeats=1, rows=rows)
    assert first.detail.endswith("2 upstreams x 3 seeds, 120 rows") and 0 < nothing.value < 1
    assert len(RecordStore(tmp_path / "results").paths()) == 2 * 3
