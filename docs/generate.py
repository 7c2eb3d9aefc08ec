"""Writes the documents that follow from the program: make docs. A test fails while one of them is not up to date."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

from core.digest import written_then_renamed
from core.metrics import METRICS, Metric
from downstreams._base import HEADS
from downstreams.labels._base import LABELS
from run_benchmark import app
from tasks._base import TASKS, Task
from tasks.corpora._base import CORPORA
from upstreams._base import UPSTREAMS, Upstream

DOCS = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py: make docs -->"
WIDTH = 100  # columns of the help texts
RESAMPLED = {"ratio": "ratio of sums", "mean": "mean", "corpus": "from all items"}


def documents() -> dict[str, str]:
    """Name of each generated file of this folder -> its text."""
    return {"commands.md": commands(), "entries.md": entries()}


def commands() -> str:
    """The help text of every command, as a terminal of WIDTH columns shows it without styles."""
    root = typer.main.get_command(app)
    parts = [NOTE, "# Commands", "`frostbench COMMAND --help` prints the same.", _block("frostbench", root)]
    for name, command in _leaves("frostbench", root):
        parts += [f"## {name}", _block(name, command)]
    return "\n\n".join(parts) + "\n"


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    for child, inner in getattr(command, "commands", {}).items():
        if hasattr(inner, "commands"):
            yield from _leaves(f"{name} {child}", inner)
        else:
            yield f"{name} {child}", inner


def _block(name: str, command: Any) -> str:
    command.rich_markup_mode = None  # plain text instead of boxes
    with command.make_context(
        name, [], resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH
    ) as context:
        text = command.get_help(context)
    return "\n".join(("```text", *(line.rstrip() for line in text.splitlines()), "```"))


def entries() -> str:
    """Tables of everything that is registered: upstreams by family, tasks, heads, labels, metrics, corpora."""
    return (
        "\n\n".join(
            (
                NOTE,
                "# Entries",
                "All that has a name on the command line; `frostbench list` prints it, with what installed packages add.",
                "## Upstreams",
                *_upstreams(),
                "## Tasks",
                _table(
                    ("name", "title", "label", "head", "metrics", "recipes", "apart in the splits", "paper"),
                    map(_task, TASKS),
                ),
                "## Heads",
                _table(("name", "what it is", "features", "labels", "options and defaults"), map(_head, HEADS.names())),
                "## Kinds of labels",
                _table(("name", "what they are", "closed set"), map(_labels, LABELS.names())),
                "## Metrics",
                "The last column is how a confidence interval is resampled.",
                _table(("name", "in tables", "unit", "better", "range", "resampled"), map(_metric, METRICS)),
                "## Corpora",
                "Any folder with a `metadata.jsonl`, and Hugging Face datasets as `hf:`, are corpora as well: [corpora](corpora.md).",
                _table(
                    ("name", "title", "needs"),
                    ((f"`{each.name}`", each.title, "`--root FOLDER`" if each.needs_root else "") for each in CORPORA),
                ),
            )
        )
        + "\n"
    )


def _upstreams() -> Iterator[str]:
    ordered = sorted(UPSTREAMS, key=_family)
    for family, members in groupby(ordered, _family):
        yield f"### {family}"
        head = ("name", "title", "pretrained here in sizes", "licence of the weights", "training data", "paper")
        yield _table(head, map(_upstream, members))


def _family(upstream: type[Upstream]) -> str:
    return upstream.card.family


def _upstream(upstream: type[Upstream]) -> Sequence[str]:
    card = upstream.card
    sizes = ", ".join(f"`{size}`" for size in getattr(upstream, "sizes", ()))
    return f"`{card.name}`", card.title, sizes, card.licence, card.training_data, card.paper


def _task(task: Task) -> Sequence[str]:
    metrics, recipes = (", ".join(f"`{name}`" for name in names) for names in (task.metrics, task.recipes))
    return (
        f"`{task.name}`", task.title, f"`{task.label}`", f"`{task.head}`", metrics, recipes,
        f"`{task.disjoint}`" if task.disjoint else "", task.paper,
    )  # fmt: skip


def _head(name: str) -> Sequence[str]:
    head = HEADS.get(name)
    options = ", ".join(f"`{field.name}={field.default!r}`" for field in fields(head.options_type))
    return f"`{name}`", _first_line(head), head.needs, f"`{head.label_kind.kind}`", options


def _labels(name: str) -> Sequence[str]:
    return f"`{name}`", _first_line(LABELS.get(name)), "yes" if LABELS.get(name).closed_set else ""


def _metric(metric: Metric) -> Sequence[str]:
    low, high = ("" if bound is None else f"{bound:g}" for bound in metric.bounds)
    return (
        f"`{metric.name}`",
        metric.title,
        metric.unit,
        metric.direction,
        f"{low} to {high or 'any'}",
        RESAMPLED[metric.kind],
    )


def _first_line(entry: type) -> str:
    return (entry.__doc__ or "").splitlines()[0]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; columns that are empty in every row are left out."""
    lines = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    kept = [index for index in range(len(head)) if any(row[index] for row in lines)]
    texts = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row[index] for index in kept)} |" for row in texts)


def main() -> None:
    """Writes every generated file."""
    for name, text in documents().items():
        with written_then_renamed(DOCS / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
