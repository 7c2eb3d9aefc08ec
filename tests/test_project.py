"""What a project needs that people join: files of the repository agree with the program and with each other."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from core.registry import Registry
from downstreams._base import HEADS
from downstreams.labels._base import LABELS
from tasks._base import TASKS
from tasks.corpora._base import CORPORA
from upstreams._base import UPSTREAMS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
REGISTRIES = (UPSTREAMS, HEADS, LABELS, TASKS, CORPORA)


def test_every_package_is_typed():
    """A package without the marker has its annotations ignored by the type checkers of those who import it."""
    patterns = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = [path.parent for pattern in patterns for path in ROOT.glob(f"{pattern}/__init__.py")]
    assert len(packages) == len(patterns)
    assert [package.name for package in packages if not (package / "py.typed").is_file()] == []
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["*"]


def test_environment_variables_of_tests_are_documented():
    texts = [
        path.read_text(encoding="utf-8")
        for folder in ("tests", "benchmarks", "examples")
        for path in ROOT.glob(f"{folder}/*.py")
    ]
    used = {name for text in texts for name in re.findall(r"\bFROSTBENCH_[A-Z_]+\b", text)}
    assert used == set(re.findall(r"^\| `(FROSTBENCH_[A-Z_]+)`", CONTRIBUTING, re.MULTILINE))


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_every_registry_is_in_the_table_of_entries(registry: Registry):
    assert re.search(rf"^\| {registry.kind.replace('label kind', 'kind of labels')} \|", CONTRIBUTING, re.MULTILINE)
    assert f"`{registry._group}`" in CONTRIBUTING


def test_files_that_contributing_names_exist():
    named = re.findall(r"`((?:tests|frostbench|core|benchmarks|docs)/[\w/]+(?:\.\w+)?)`", CONTRIBUTING)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_versions_that_contributing_names_are_where_it_says():
    rows = re.findall(r"^\| `([A-Z]+(?:_VERSION)?)` \| `([\w/.]+)` \|", CONTRIBUTING, re.MULTILINE)
    assert [name for name, _ in rows] == ["PROTOCOL_VERSION", "PREPROCESSING", "SCHEMA_VERSION"]
    for name, file in rows:
        assert re.search(rf"^{name} = ", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), f"{file}: {name}"


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "type"} <= set(citation)
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]


def test_the_hook_runs_make_check():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    (hook,) = repository["hooks"]
    target, *arguments = hook["entry"].split()
    assert (repository["repo"], target) == ("local", "make")
    assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_hosted_ci_runs_what_every_change_has_to_pass():
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == [".ci/run"] and (ROOT / commands[0]).is_file()
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert job["strategy"]["matrix"]["python"][0] == oldest
