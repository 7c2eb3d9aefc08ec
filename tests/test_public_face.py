"""`import frostbench`: what it offers, what it costs, and that a folder of the user's can't hide ours unseen."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import frostbench

ROOT = Path(__file__).parent.parent
MOST_SECONDS = 0.3


def python(*arguments: str, folder: Path, before: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A fresh Python that finds what lies in `before` first."""
    environment = {"PYTHONPATH": f"{before}:{ROOT}", "PATH": ""}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_import_takes_no_time_and_loads_no_torch(tmp_path):
    timed = "import time; t = time.perf_counter(); import frostbench, sys; print(time.perf_counter() - t, *sys.modules)"
    seconds, *modules = python("-c", timed, folder=tmp_path).stdout.split()
    assert float(seconds) < MOST_SECONDS
    assert not {"torch", "numpy", "pandas", "core", "upstreams"} & set(modules)


def test_every_public_name_is_there_and_known_to_type_checkers():
    imported = set()
    for node in ast.walk(ast.parse(Path(frostbench.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            imported = {alias.name for line in node.body for alias in line.names}
    assert sorted(imported) == sorted(frostbench._MODULE_OF) == sorted(frostbench.__all__)
    for name in frostbench.__all__:
        assert getattr(frostbench, name).__doc__, name
    assert set(frostbench.__all__) <= set(dir(frostbench))
    with pytest.raises(AttributeError, match="'frostbench' has no attribute 'evalute'"):
        _ = frostbench.evalute


@pytest.mark.parametrize("name", ["core", "upstreams", "downstreams", "tasks", "leaderboard"])
@pytest.mark.parametrize("kind", ["package", "module"])
def test_a_namesake_that_hides_ours_is_named(name, kind, tmp_path):
    place = tmp_path / name / "__init__.py" if kind == "package" else tmp_path / f"{name}.py"
    place.parent.mkdir(exist_ok=True)
    place.touch()
    done = python("-c", "import frostbench", folder=tmp_path, before=tmp_path)
    assert done.returncode == 1
    *_, said = done.stderr.strip().splitlines()
    hiding = place.parent if kind == "package" else place
    assert said.startswith(f"ImportError: frostbench: {hiding} hides Frostbench's own package '{name}'")
    assert "rename it" in said


def test_a_folder_that_hides_nothing_is_no_matter(tmp_path):
    (tmp_path / "core").mkdir()  # without __init__.py Python goes on looking
    done = python("-c", "import frostbench as fb; print(fb.HiddenStates)", folder=tmp_path, before=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "core.hidden_states" in done.stdout


def test_namesakes_that_were_imported_before_are_named(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import tasks; sys.path.pop(0); import frostbench"
    done = python("-c", code, folder=tmp_path)
    assert f"frostbench: {tmp_path / 'tasks'} hides Frostbench's own package 'tasks'" in done.stderr
