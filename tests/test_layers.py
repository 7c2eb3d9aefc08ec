"""Imports point down only: core <- upstreams, downstreams <- tasks <- run_benchmark.py; leaderboard sees only core."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "core": {"core"},
    "upstreams": {"core", "upstreams"},
    "downstreams": {"core", "downstreams"},
    "leaderboard": {"core", "leaderboard"},
    "tasks": {"core", "upstreams", "downstreams", "tasks"},
}
PROJECT = {*MAY_IMPORT, "run_benchmark", "tests", "benchmarks"}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_down(folder):
    for path in ROOT.joinpath(folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            relative = isinstance(node, ast.ImportFrom) and node.level
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else getattr(node, "names", [])
            modules = {str(getattr(name, "name", name)).split(".")[0] for name in names}
            assert not relative and not (modules & PROJECT) - MAY_IMPORT[folder], f"{path}:{node.lineno}"


def test_core_is_no_drawer():
    modules = [path.stem for path in (ROOT / "core").glob("*.py") if path.stem != "__init__"]
    texts = {folder: [p.read_text(encoding="utf-8") for p in (ROOT / folder).rglob("*.py")] for folder in MAY_IMPORT}
    for module in modules:
        users = [f for f in MAY_IMPORT if f != "core" and any(f"core.{module} import" in text for text in texts[f])]
        assert len(users) >= 2, f"core/{module}.py is used by {users} only"
    assert len(modules) <= 10
