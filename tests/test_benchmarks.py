"""The benchmark scripts start, and their README knows them all. What they measure is no test."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from benchmarks._measure import Ratio, by_turns, medians

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
