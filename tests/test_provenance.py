"""The commit in a record is Frostbench's own, or none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ASK = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("provenance", sys.argv[1])
provenance = importlib.util.module_from_spec(spec)
spec.loader.exec_module(provenance)
print(json.dumps([provenance.git_state(), provenance.versions()]))
"""

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def copied(folder: Path) -> Path:
    """The modules as pip puts them side by side into a folder."""
    shutil.copytree(ROOT / "frostbench", folder / "frostbench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run_benchmark.py", folder)
    return folder


def state_of(folder: Path) -> tuple[dict, dict]:
    command = [sys.executable, "-c", ASK, str(folder / "frostbench" / "provenance.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
    state, versions = json.loads(done.stdout)
    return state, versions


@pytest.fixture
def repository(tmp_path) -> Path:
    """Somebody else's, with a commit and a file that is not in it."""
    git(tmp_path, "init", "-q")
    (tmp_path / "own.py").touch()
    git(tmp_path, "add", "own.py")
    git(tmp_path, "commit", "-qm", "Begin")
    return tmp_path


@pytest.mark.parametrize("ignored", [True, False])
def test_an_installed_copy_names_no_commit_of_somebody_elses_repository(repository, ignored):
    if ignored:
        (repository / ".gitignore").write_text(".venv\n")
    packages = copied(repository / ".venv" / "lib" / "python3" / "site-packages")
    state, versions = state_of(packages)
    assert state == {"commit": None, "dirty": None}
    assert versions["frostbench"]


def test_a_checkout_names_its_commit_and_whether_files_differ(repository):
    copied(repository)
    git(repository, "add", "frostbench", "run_benchmark.py")
    git(repository, "commit", "-qm", "Add")
    expected = git(repository, "rev-parse", "HEAD")
    (repository / ".gitignore").write_text("__pycache__\n.gitignore\n")
    assert state_of(repository)[0] == {"commit": expected, "dirty": False}
    (repository / "run_benchmark.py").write_text("changed")
    assert state_of(repository)[0] == {"commit": expected, "dirty": True}
