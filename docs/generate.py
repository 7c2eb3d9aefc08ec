"""Writes the documents that follow from the program: make docs. A test fails while one of them is not up to date."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

from core.digest import written_then_renamed
from core.metrics import METRICS, Metric
from core.records import ResultRecord
from downstreams._base import HEADS
from downstreams.labels._base import LABELS
from run_benchmark import app
from tasks._base import TASKS, Task
from tasks.corpora._base import CORPORA, Corpus
from upstreams._base import UPSTREAMS, Upstream

DOCS = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py. To write it anew: make docs -->"
WIDTH = 100  # columns of the help texts
RESAMPLED = {"ratio": "ratio of sums", "mean": "function of means", "corpus": "function of all items"}


def documents() -> dict[str, str]:
    """Name of each generated file of this folder -> its text."""
    return {"commands.md": commands(), "entries.md": entries(), "provenance.md": provenance()}


def commands() -> str:
    """The help text of every command, as a terminal of WIDTH columns shows it without styles."""
    root = typer.main.get_command(app)
    parts = [NOTE, "# Commands", "`frostbench COMMAND --help` prints the same.", _help("frostbench", root)]
    for name, command in _leaves("frostbench", root):
        parts += [f"## {name}", _help(name, command)]
    return "\n\n".join(parts) + "\n"


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for child, inner in command.commands.items():
        yield from _leaves(f"{name} {child}", inner)


def _help(name: str, command: Any) -> str:
    command.rich_markup_mode = None  # plain text instead of boxes
    sizes = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    with command.make_context(name, [], resilient_parsing=True, **sizes) as context:
        lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    return "\n".join(("```text", *lines, "```"))


def entries() -> str:
    """Tables of everything that is registered: upstreams by family, tasks, heads, labels, metrics, corpora."""
    parts = [
        NOTE,
        "# Entries",
        "What is registered. `frostbench list` prints upstreams, tasks, heads and corpora, also of installed packages.",
        "## Upstreams",
        "How each is written on the command line, and where its weights come from: [checkpoints](checkpoints.md).",
        *_families(),
        "## Tasks",
        _table(
            ("name", "title", "label", "head", "metrics", "recipes", "in one split only", "paper"), map(_task, TASKS)
        ),
        "## Heads",
        _table(("name", "layers", "features", "labels", "options and defaults"), map(_head, HEADS.names())),
        "## Kinds of labels",
        _table(("name", "what they are", "closed set"), map(_labels, LABELS.names())),
        "## Metrics",
        "The last column is what a confidence interval resamples the value as.",
        _table(("name", "in tables", "unit", "better", "range", "resampled as"), map(_metric, METRICS)),
        "## Corpora",
        "Folders with a `metadata.jsonl` and Hugging Face datasets are corpora as well: [corpora](corpora.md).",
        _table(("name", "title", "needs"), map(_corpus, CORPORA)),
    ]
    return "\n\n".join(parts) + "\n"


def _families() -> Iterator[str]:
    columns = ("name", "title", "sizes of `pretrain`", "licence of the weights", "trained on", "paper")
    for family, members in groupby(sorted(UPSTREAMS, key=_family), _family):
        yield f"### {family}"
        yield _table(columns, map(_upstream, members))


def _family(upstream: type[Upstream]) -> str:
    return upstream.card.family


def _upstream(upstream: type[Upstream]) -> Sequence[str]:
    card = upstream.card
    return (
        _code(card.name),
        card.title,
        _codes(getattr(upstream, "sizes", ())),
        card.licence,
        card.training_data,
        card.paper,
    )


def _task(task: Task) -> Sequence[str]:
    named = (
        _code(task.label),
        _code(task.head),
        _codes(task.metrics),
        _codes(task.recipes),
        _code(task.disjoint or ""),
    )
    return _code(task.name), task.title, *named, task.paper


def _head(name: str) -> Sequence[str]:
    head = HEADS.get(name)
    options = _codes(f"{field.name}={field.default!r}" for field in fields(head.options_type))
    return _code(name), _first_line(head), head.needs, _code(head.label_kind.kind), options


def _labels(name: str) -> Sequence[str]:
    labels = LABELS.get(name)
    return _code(name), _first_line(labels), "yes" if labels.closed_set else ""


def _metric(metric: Metric) -> Sequence[str]:
    low, high = ("any" if bound is None else f"{bound:g}" for bound in metric.bounds)
    return _code(metric.name), metric.title, metric.unit, metric.direction, f"{low} to {high}", RESAMPLED[metric.kind]


def _corpus(corpus: Corpus) -> Sequence[str]:
    return _code(corpus.name), corpus.title, _code("--root FOLDER") if corpus.needs_root else ""


def provenance() -> str:
    """How a number came about, with the table of a record's fields as the program describes them."""
    text = (DOCS / "provenance.md").read_text(encoding="utf-8")
    table = _table(("field", "holds"), ((_code(name), meaning) for name, meaning in _attributes(ResultRecord)))
    before, begin, rest = text.partition("<!-- fields of ResultRecord: begin -->\n")
    _, end, after = rest.partition("<!-- end -->\n")
    return f"{before}{begin}\n{table}\n\n{end}{after}"


def _attributes(described: type) -> Iterator[tuple[str, str]]:
    """Name and meaning of each attribute, from a docstring in Google style."""
    _, _, text = inspect.cleandoc(described.__doc__ or "").partition("Attributes:\n")
    meanings = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", text, re.MULTILINE))
    for field in fields(described):
        yield field.name, " ".join(meanings.get(field.name, "").split())


def _first_line(entry: type) -> str:
    return (entry.__doc__ or "").splitlines()[0]


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _codes(texts: Iterable[str]) -> str:
    return ", ".join(map(_code, texts))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a column that is empty in every row is left out."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    kept = [index for index in range(len(columns)) if any(line[index] for line in lines)]
    texts = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(text[index] for index in kept)} |" for text in texts)


def main() -> None:
    """Writes every generated file."""
    for name, text in documents().items():
        with written_then_renamed(DOCS / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
