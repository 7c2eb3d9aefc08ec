"""Imports point down only, and in no circle.

core <- upstreams | downstreams <- tasks <- frostbench <- run_benchmark.py; leaderboard sees core, frostbench sees it.
"""

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
    "frostbench": {"core", "upstreams", "downstreams", "tasks", "leaderboard", "frostbench"},
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
    modules = [path.stem for path in (ROOT / "core").glob("*.py") if not path.stem.startswith("_")]
    texts = {folder: [p.read_text(encoding="utf-8") for p in (ROOT / folder).rglob("*.py")] for folder in MAY_IMPORT}
    for module in modules:
        users = [f for f in MAY_IMPORT if any(f"core.{module} import" in text for text in texts[f])]
        assert len(users) >= 2, f"core/{module}.py is used by {users} only"


def test_no_import_goes_in_a_circle():
    """At import time: what a function imports when it is called may point anywhere below its folder."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for folder in MAY_IMPORT
        for path in (ROOT / folder).rglob("*.py")
        if "_mini" not in path.parts
    }
    graph = {name: _imported(path) & set(modules) for name, path in modules.items()}
    done: set[str] = set()

    def visit(name, above):
        assert name not in above, f"circle: {' -> '.join([*above[above.index(name) :], name])}"
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, [*above, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])


def _imported(path):
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_jobs_know_nothing_of_speech():
    for path in (ROOT / "frostbench" / "jobs").glob("*.py"):
        names = {name.split(".")[0] for name in _imported(path)} - {"frostbench"}
        assert not names & {"upstreams", "downstreams", "tasks", "leaderboard"}, path


def test_no_family_reaches_into_another():
    """Nor into `pretrained`, nor `pretrained` into one: what two of them need stands in a room that they share."""
    families = {path.name for path in (ROOT / "upstreams").iterdir() if path.is_dir() and path.name[0] not in "_."}
    assert "pretrained" in families
    for path in (ROOT / "upstreams").rglob("*.py"):
        own = path.relative_to(ROOT / "upstreams").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            reached = {
                parts[1] for parts in (name.split(".") for name in names) if parts[0] == "upstreams" and parts[1:]
            }
            assert not reached & families - {own}, f"{path}:{node.lineno}"
