"""What is asked for reaches what does the work: each option of each command, each argument of `evaluate` and `plan`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import typer
from conftest import call

import frostbench as fb
import run_benchmark
from core.conditions import Condition
from core.finetuning import FineTuning
from core.records import RecordStore
from frostbench import api
from frostbench.feature_files import Wanted
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from tasks._base import TASKS
from tasks._budgets import Budget

CORPUS = {"--corpus": "given", "--root": "home", "--columns": "text=a"}
WORKERS = {"--device": "cpu", "--workers": "3"}
RAY = {"--executor": "ray", "--ray-address": "here:1"}
RUN = {
    "--upstream": "mfcc", "--task": "sid", **CORPUS, "--seed": "5", "--quick-seed": "6", "--recipe": "superb",
    "--head": "ctc", "--probe": "clusters", "--limit": "7", "--exact": None, "--precision": "bfloat16",
    "--frames": "int8",
    "--cache-limit": "3GB", "--layers": "3,1", "--finetune": "top:2", "--budget": "1min,all",
    "--condition": "telephone", "--output": "out", "--cache": "kept",
    **WORKERS,
}  # fmt: skip
ASKED = {
    "upstreams": ["mfcc"], "tasks": ["sid"], "corpus": "given", "root": Path("home"), "columns": "text=a", "seeds": [5],
    "quick_seeds": [6], "recipe": "superb", "head": "ctc", "probes": ["clusters"], "limit": 7, "exact": True,
    "precision": "bfloat16",
    "frames": "int8", "cache_limit": "3GB", "layers": [3, 1], "finetune": "top:2", "budgets": "1min,all",
    "conditions": "telephone", "output": Path("out"), "cache": Path("kept"),
    "device": "cpu", "workers": 3,
}  # fmt: skip
Options = Mapping[str, str | None]
Given = Mapping[str, Any]
# Command, its options, and the functions behind it in their order, with what each is given.
CASES: list[tuple[str, Options, Mapping[str, Given]]] = [
    ("run", {**RUN, **RAY, "--log": "tensorboard"},
     {"evaluate": {**ASKED, "executor": "ray", "ray_address": "here:1", "log": ["tensorboard"], "raise_error": False}}),
    ("run", {**RUN, "--plan": None, "--json": None}, {"plan": ASKED}),
    ("features", {
        "": "mfcc", **CORPUS, "--format": "parquet", "--frames": None, "--layers": "3,1", "--run": "abc",
        "--results": "res", "--precision": "bfloat16", "--cache-limit": "3GB", "--output": "out", "--cache": "kept",
        **WORKERS,
    }, {"features": {
        "upstream": "mfcc", "corpus": "given", "root": Path("home"), "columns": "text=a", "file_format": "parquet",
        "kind": "frames", "layers": [3, 1], "run": "abc", "results": Path("res"), "precision": "bfloat16",
        "cache_limit": "3GB", "output": Path("out"), "cache": Path("kept"), "device": "cpu", "workers": 3,
    }}),
    ("predict", {
        "": "a.wav", "--run": "abc", "--upstream": "mfcc", "--head": "ctc", "--json": None, "--output": "out",
        "--device": "cpu", "--waveforms": "heard",
    }, {"checked_head": {"head": "ctc"}, "devices_here": {"name": "cpu"},
        "load_predictor": {"store": Path("out"), "run": "abc", "upstream": "mfcc"},
        "with_waveforms_written": {"folder": Path("heard")}}),
    ("report", {
        "--custom": None, "--with-published": None, "--output": "out", "--picture": "a.svg", "--html": "b.html",
        "--figures": "drawn", "--format": "model-index", "--upstream": "mfcc",
    }, {"leaderboard": {"store": Path("out"), "custom": True, "published": True}, "svg": {}, "page": {},
        "write_figures": {"folder": Path("drawn")}, "exports.model_index": {"upstream": "mfcc"}}),
    ("report", {"--format": "eval-results", "--upstream": "mfcc"},
     {"leaderboard": {"store": Path("results")}, "exports.eval_results": {"upstream": "mfcc"}}),
    ("prepare", {"": "given", "--root": "home", "--columns": "text=a", "--cache": "kept"},
     {"open_corpus": {"spec": "given", "root": Path("home"), "columns": "text=a", "cache": Path("kept")}}),
    ("check", {"": "ks", "--corpus": "given", "--root": "home"},
     {"open_corpus": {"spec": "given", "root": Path("home")}}),
    ("pretrain", {
        "": "apc", **CORPUS, "--size": "base", "--steps": "9", "--minutes": "4", "--set": "num_layers=2", "--seed": "6",
        "--mixed-precision": "bf16", "--looks": "2", "--save-minutes": "3", "--output": "trained", **WORKERS, **RAY,
    }, {
        "require_processes_that_fit": {"workers": 3, "is_ray": True},
        "open_recordings": {"spec": "given", "root": Path("home"), "columns": "text=a"},
        "plans_of": {
            "upstreams": ["apc"], "size": "base", "seed": 6, "steps": 9, "minutes": 4.0, "options": ["num_layers=2"],
            "mixed_precision": "bf16",
        },
        "unfinished": {"plans": ["plan"], "folder": Path("trained")},
        "PretrainingSettings": {"save_seconds": 180.0, "evaluations": 2},
        "open_executor": {
            "kind": "ray", "address": "here:1", "device": "cpu", "workers": 3, "shared": [Path("trained")], "most": 1,
        },
        "pretrain_all": {"plans": ["plan"], "folder": Path("trained")},
    }),
    ("verify", {"--output": "out"}, {"verification.verify": {"store": Path("out")}}),
    ("submit", {"": "a.zip", "--output": "out"},
     {"bundles.submit": {"store": Path("out"), "bundle": Path("a.zip")}}),
    ("merge", {"": "a.zip", "--output": "out", "--strict": None},
     {"bundles.merge": {"sources": [Path("a.zip")], "store": Path("out"), "strict": True}}),
    ("cache list", {"--cache": "kept"}, {"entries": {"cache": Path("kept")}}),
    ("cache clear", {"": "mfcc", "--unused-days": "2", "--cache": "kept"},
     {"clear": {"cache": Path("kept"), "names": ["mfcc"], "unused_days": 2.0}}),
]  # fmt: skip
RETURNED = {"require_processes_that_fit": False, "plans_of": ["plan"], "unfinished": ["plan"], "svg": "", "page": "",
            "devices_here": ["cpu"]}  # fmt: skip


class ArrivedError(Exception):
    """Ends a command where its work would begin."""


def listen(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *, last: bool) -> dict[str, Any]:
    """What a function of a module is called with, by the names of its parameters; it does nothing."""
    *inside, own = name.split(".")
    for each in inside:
        module = getattr(module, each)
    signature = inspect.signature(getattr(module, own))
    found: dict[str, Any] = {}

    def stand_in(*values: Any, **named: Any) -> Any:
        bound = signature.bind(*values, **named)
        bound.apply_defaults()
        found.update(bound.arguments)
        if isinstance(found.get("store"), RecordStore):
            found["store"] = found["store"].folder
        if last:
            raise ArrivedError
        return RETURNED.get(name, MagicMock())

    monkeypatch.setattr(module, own, stand_in)
    return found


@pytest.mark.parametrize(("command", "options", "behind"), CASES, ids=[f"{each[0]}-{[*each[2]][-1]}" for each in CASES])
def test_each_option_reaches_what_does_the_work(command, options, behind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "records").mkdir(parents=True)
    (tmp_path / "out" / "records" / "one.json").touch()
    heard = {name: listen(monkeypatch, run_benchmark, name, last=name == [*behind][-1]) for name in behind}
    words = [word for option, value in options.items() for word in (option, value) if word]
    with pytest.raises(ArrivedError):
        call(*command.split(), *words)
    for name, given in behind.items():
        assert {key: heard[name].get(key) for key in given} == given, name


def test_every_option_of_every_command_is_among_these():
    group: Any = typer.main.get_command(run_benchmark.app)
    commands = dict(group.commands)
    commands |= {f"cache {name}": each for name, each in commands.pop("cache").commands.items()}
    del commands["list"]  # has none
    for name, command in commands.items():
        given = {option for case, options, _ in CASES if case == name for option in options}
        wanted = {max(each.opts, key=len) if each.param_type_name == "option" else "" for each in command.params}
        assert given == wanted - {"--help"}, name


@pytest.mark.parametrize("function", ["evaluate", "plan"])
def test_each_argument_of_the_python_functions_reaches_the_grid(function, tmp_path, monkeypatch):
    behind = {"evaluate": "run_grid", "plan": "plan_grid"}[function]
    corpus, runner, grid = (
        listen(monkeypatch, api, name, last=name == behind) for name in ("open_corpus", "open_executor", behind)
    )
    own = {"tasks": "ks", "head": "utterance_attention", "recipe": "fast"}
    with pytest.raises(ArrivedError):
        getattr(fb, function)(**ASKED | own | {"output": tmp_path / "out", "cache": tmp_path / "kept"})
    task, probe = (TASKS.get("ks").with_head(name) for name in ("utterance_attention", "clusters"))
    whole = Grid(("mfcc",), (task, probe), (5,), "fast", 7, True, "bfloat16", "int8", 3 * 10**9, (3, 1))
    assert grid["grid"] == replace(
        whole,
        finetune=FineTuning("top", blocks=2),
        budgets=(Budget(60.0), None),
        conditions=(Condition("telephone"),),
        quick_seeds=(6,),
    )
    assert grid["folders"] == Folders(tmp_path / "kept", tmp_path / "out")
    opened = {"spec": "given", "root": Path("home"), "columns": "text=a", "cache": tmp_path / "kept"}
    assert corpus == opened
    assert (runner["device"], runner["workers"]) == ("cpu", 3)


def test_each_argument_of_features_reaches_what_writes_them(tmp_path, monkeypatch):
    corpus, runner, written = (
        listen(monkeypatch, api, name, last=name == "write_features")
        for name in ("open_corpus", "open_executor", "write_features")
    )
    with pytest.raises(ArrivedError):
        fb.features(
            "mfcc", tmp_path / "out", corpus="given", root="home", columns="text=a", file_format="parquet",
            kind="frames", layers=0, precision="bfloat16", cache=tmp_path / "kept", cache_limit="3GB", device="cpu",
            workers=3,
        )  # fmt: skip
    assert (written["upstream"].name, written["upstream"].precision) == ("mfcc (bfloat16)", "bfloat16")
    assert written["wanted"] == Wanted("frames", [0])
    places = {name: written[name] for name in ("file_format", "output", "cache", "limit")}
    assert places == {
        "file_format": "parquet", "output": tmp_path / "out", "cache": tmp_path / "kept", "limit": 3 * 10**9
    }  # fmt: skip
    assert corpus == {"spec": "given", "root": Path("home"), "columns": "text=a", "cache": tmp_path / "kept"}
    assert (runner["device"], runner["workers"]) == ("cpu", 3)
