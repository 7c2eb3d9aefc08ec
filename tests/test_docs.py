"""Documents: generated ones are up to date, links lead somewhere, and everything public says what it is."""

import ast
import re
import sys
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import call

import frostbench
from core.records import ResultRecord
from docs import generate
from downstreams._base import HEADS
from downstreams.labels._base import LABELS
from run_benchmark import app
from tasks._base import TASKS
from tasks.corpora._base import CORPORA
from upstreams._base import UPSTREAMS

ROOT = Path(__file__).parent.parent
PACKAGES = ("core", "upstreams", "downstreams", "tasks", "leaderboard", "frostbench")
TEXT = {".py", ".html", ".js"}
PAGES = [
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "tasks/corpora/*/*.md")
    for path in sorted(ROOT.glob(pattern))
]
SETTINGS = [
    ROOT / name for name in ("Makefile", "pyproject.toml", "constraints.txt", "CITATION.cff", ".pre-commit-config.yaml")
]
SETTINGS += [*sorted(ROOT.glob(".github/**/*.*")), ROOT / ".ci/run"]
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


@pytest.mark.parametrize("name", ["commands.md", "entries.md", "provenance.md"])
def test_generated_documents_are_up_to_date(name):
    laid_out_by = re.search(r"^typer==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)[1]
    if name == "commands.md" and version("typer") != laid_out_by:
        pytest.skip(f"help texts are laid out by typer {laid_out_by}")
    path = ROOT / "docs" / name
    assert path.read_text(encoding="utf-8") == generate.documents()[name], f"docs/{name} is stale: run make docs"


@pytest.mark.parametrize(
    "name", [*UPSTREAMS.names(), *TASKS.names(), *HEADS.names(), *LABELS.names(), *CORPORA.names()]
)
def test_every_entry_has_a_row(name):
    page = (ROOT / "docs" / "entries.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{re.escape(name)}` \|", page, re.MULTILINE)


def test_every_command_has_its_options_in_plain_text():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for name, command in COMMANDS.items():
        for child, inner in getattr(command, "commands", {name: command}).items():
            path = name if inner is command else f"{name} {child}"
            (section,) = re.findall(rf"^## frostbench {path}$.*?^```text$(.*?)^```$", page, re.DOTALL | re.MULTILINE)
            options = [option for parameter in inner.params for option in parameter.opts if option.startswith("-")]
            assert [option for option in options if not re.search(rf"{option}(?![\w-])", section)] == [], path
    assert not re.search("[\x1b\u2500-\u257f]", page), "escape codes or the lines of a box"
    assert max(map(len, page.splitlines())) <= generate.WIDTH


def anchors(text: str) -> set[str]:
    """The anchors of headings, as hosts of Markdown make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"", text)
    broken = []
    for target in (markdown or image for markdown, image in targets):
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        place = path.parent / file if file else path
        if not place.exists() or (anchor and anchor not in anchors(place.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", [*PAGES, *SETTINGS], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_path_of_a_machine_and_no_package_index(path):
    """What was right on the machine that it was written on is wrong everywhere else."""
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.])/(?:home|root|work|Users|opt|mnt|tmp/pytest)/\S*", text) == []
    assert re.findall(r"(?i)\S*(?:index-url|extra-index|trusted-host|find-links|/simple/)\S*", text) == []


def test_commands_are_named_as_they_are_installed():
    """`frostbench run`: the file of a checkout is not there after `pip install`. Launchers want a file, though."""
    places = [ROOT / "README.md", ROOT / "run_benchmark.py", *ROOT.glob("docs/*.md")]
    places += [path for package in PACKAGES for path in ROOT.joinpath(package).rglob("*.*") if path.suffix in TEXT]
    asked = re.compile(rf"run_benchmark\.py ({'|'.join(COMMANDS)})\b")
    lines = [line for path in places for line in path.read_text(encoding="utf-8").splitlines() if asked.search(line)]
    assert [line for line in lines if not re.search("accelerate launch|torchrun", line)] == []


def test_readme_begins_with_what_one_types_and_stays_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.match(r"# Frostbench\n\n {4}pip install .*\n {4}frostbench run .*\n", text)
    assert len(text.split()) < 1_529  # of the README before there was a package frostbench


def test_readme_repeats_what_was_measured():
    """Its figures against s3prl are those of the table of measurements, with their conditions."""
    (line,) = re.findall(
        r"^\| vs_s3prl \| (HuBERT 768x12: .*)$", (ROOT / "benchmarks/README.md").read_text(), re.MULTILINE
    )
    ours = re.findall(r"\((\d+ s) against ([\d.]+ h)\)", line)
    assert len(ours) == 2
    (claim,) = re.findall(
        r"^- (KS and SID of HuBERT Base.*?)^- ", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert [figure for pair in ours for figure in pair if figure not in claim] == []


def test_how_a_number_came_about_is_as_the_page_says(corpus_folder, tmp_path, monkeypatch):
    """The page's blocks run one after the other on results as it makes them; names in its text are in their record."""
    monkeypatch.chdir(tmp_path)
    done = call("run", "--upstream", "fbank", "--task", "ks", "--seed", 0, "--seed", 1, "--seed", 2,
                "--corpus", corpus_folder, "--workers", 1)  # fmt: skip
    assert done.code == 0, done.err
    page = (ROOT / "docs" / "provenance.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) >= 5 and set(names["record"]) == {field.name for field in fields(ResultRecord)} | {"digest"}
    assert re.findall(r"^\| `\w+` \| +\|$", page, re.MULTILINE) == [], "a field whose docstring says nothing"
    again = ("run", "--upstream", "fbank", "--task", "ks", "--corpus", corpus_folder, "--workers", 1)
    assert call(*again, "--cache", "other_cache", "--output", "other_results").code == 0
    merged = call("merge", "other_results", "--output", "results", "--strict")
    assert merged.out.startswith("0 records added, 1 were there"), merged.err
    for dotted in re.findall(r"`(\w+(?:\.\w+)+)`", page):
        if not (tmp_path / "results/runs" / names["name"] / dotted).is_file():
            value = names["record"]
            for part in dotted.split("."):
                value = value[part]


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
    assert imported <= {"frostbench", "frostbench.testing", "torch", "numpy", "pandas", *sys.stdlib_module_names}


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
