"""Everything a user can name is in README.md or docs/*.md, and everything public says what it is."""

import ast
import re
from pathlib import Path

import pytest
import typer

import frostbench
from downstreams._base import HEADS
from run_benchmark import app
from tasks._base import TASKS
from tasks.corpora._base import CORPORA
from upstreams._base import UPSTREAMS

ROOT = Path(__file__).parent.parent
PACKAGES = ("core", "upstreams", "downstreams", "tasks", "leaderboard", "frostbench")
TEXT = {".py", ".html", ".js"}
COMMANDS = typer.main.get_command(app).commands


def code_in_documents() -> str:
    """What stands between backticks or is indented: a word of prose such as "list" names no command."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))]
    return "\n".join(
        code for text in texts for code in re.findall(r"```.*?```|`[^`\n]+`|^    .*?$", text, re.DOTALL | re.MULTILINE)
    )


def named() -> list[str]:
    """All a user can type."""
    names = [*UPSTREAMS.names(), *TASKS.names(), *HEADS.names(), *CORPORA.names(), *COMMANDS]
    for command in COMMANDS.values():
        for parameter in command.params:
            names += [option for option in parameter.opts if option.startswith("--")]
    return sorted(set(names))


@pytest.mark.parametrize("name", named())
def test_documents_name(name):
    # A word of its own: `apc` is not named by `vq_apc`, nor --seed by --seeds.
    alone = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", code_in_documents())
    assert alone is not None, f"'{name}' is in no code of README.md or docs/*.md"


def test_commands_are_named_as_they_are_installed():
    """`frostbench run`: the file of a checkout is not there after `pip install`. Launchers want a file, though."""
    places = [ROOT / "README.md", ROOT / "run_benchmark.py", *ROOT.glob("docs/*.md")]
    places += [path for package in PACKAGES for path in ROOT.joinpath(package).rglob("*.*") if path.suffix in TEXT]
    asked = re.compile(rf"run_benchmark\.py ({'|'.join(COMMANDS)})\b")
    lines = [line for path in places for line in path.read_text(encoding="utf-8").splitlines() if asked.search(line)]
    assert [line for line in lines if not re.search("accelerate launch|torchrun", line)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_public_has_a_docstring(package):
    lacking = []
    for path in sorted(ROOT.joinpath(package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if ast.get_docstring(tree) is None:
            lacking.append(str(path.relative_to(ROOT)))
        lacking += [f"{path.relative_to(ROOT)}:{name}" for name in _undocumented(tree)]
    assert lacking == []


def python_blocks() -> list[ast.Module]:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))]
    return [ast.parse(block) for text in texts for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]


def test_python_blocks_import_nothing_of_ours_but_frostbench():
    blocks = python_blocks()
    imported = set()
    for node in (node for block in blocks for node in ast.walk(block)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert len(blocks) >= 6
    assert "frostbench" in imported
    assert imported <= {"frostbench", "frostbench.testing", "torch", "numpy", "pandas"}


def test_public_names_are_those_that_are_documented():
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    code = " ".join(re.findall(r"```python.*?```|`[^`\n]+`", page, re.DOTALL))
    assert [name for name in frostbench.__all__ if not re.search(rf"(?<!\w){name}(?!\w)", code)] == []
    used = {
        node.attr
        for block in python_blocks()
        for node in ast.walk(block)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "fb"
    }
    assert len(used) >= 10
    assert used <= set(frostbench.__all__)


def _undocumented(node: ast.AST) -> list[str]:
    names = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            names += [child.name] if ast.get_docstring(child) is None else []
            names += _undocumented(child) if isinstance(child, ast.ClassDef) else []
    return names
