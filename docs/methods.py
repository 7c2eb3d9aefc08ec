"""Writes the table of what the methods of pretraining come to, and that of the checkpoints that come with the program.

python -m docs.methods checkpoints results
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from core.digest import path_digest, written_then_renamed
from frostbench.results import Results
from upstreams._base import UPSTREAMS, Upstream
from upstreams._pretraining.contract import TrainableUpstream, trainable
from upstreams._shipped import FOLDER, shipped, shipped_checkpoint

NOTE = "<!-- Written by docs/methods.py. To write it anew: make benchmark-all -->"
TASKS = ("ks", "sid", "ic", "asr")
UNTRAINED = " (untrained)"
FAMILIES = ("generative", "predictive", "contrastive", "bootstrapping", "regularised")

METHODS_TEXT = """# What the methods come to, trained and judged alike

Every method of [pretraining](pretraining.md) was trained on `mini`'s training recordings by its `tiny` recipe, whose
updates are chosen so that all take about the same time of one core. Then each was frozen and judged as any other
upstream: accuracy of keywords (KS), speakers (SID) and intents (IC), three seeds, and word error rate of recognition
(ASR), one seed, with 95 % intervals over speakers. **Bold** is better than FBANK by the paired test on the same
recordings, at 5 %, corrected by Holm's method within the column. Below each family are networks of it before any
training.

`tiny` networks that saw hours, not weeks, of synthetic speech: the order says what a method learns in minutes, not what
its published model is worth."""
SHIPPED_TEXT = """# Checkpoints that come with the program

`--upstream NAME` means them. They were trained on `mini` by `make pretrain` (size `tiny`, seed 0), and are kept in half
precision; Apache-2.0, as `mini` is. `build.py` beside this file copies them from a folder of checkpoints.
[What they score](../../docs/methods.md)."""


def main() -> None:
    """Reads checkpoints and results, and writes."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("checkpoints", type=Path, help="folder that make pretrain wrote to")
    asked.add_argument("results", type=Path, help="folder of results of make benchmark-all")
    options = asked.parse_args()
    table = Scores(Results(options.results))
    notes = {kind.card.name: notes_of(kind, options.checkpoints) for kind in UPSTREAMS if trainable(kind)}
    _write(Path(__file__).parent / "methods.md", "\n\n".join((NOTE, METHODS_TEXT, *methods(table, notes))))
    _write(FOLDER / "README.md", "\n\n".join((NOTE, SHIPPED_TEXT, checkpoints(notes))))


class Scores:
    """Values of upstreams by task, as a reader is to see them."""

    def __init__(self, results: Results) -> None:
        cells = results.cells()
        self._cells: dict[tuple[str, str], Any] = {
            (row.upstream, row.task): row for row in cells.itertuples() if row.recipe == "fast"
        }

    def of(self, upstream: str) -> list[str]:
        """A text a task; empty where it was not evaluated."""
        return [self._text(upstream, task) for task in TASKS]

    def has(self, upstream: str) -> bool:
        """Whether any task was evaluated."""
        return any((upstream, task) in self._cells for task in TASKS)

    def _text(self, upstream: str, task: str) -> str:
        cell, fbank = self._cells.get((upstream, task)), self._cells.get(("fbank", task))
        if cell is None:
            return ""
        interval = "" if pd.isna(cell.low) else f" [{cell.low:.0f}, {cell.high:.0f}]"
        better = fbank is not None and (cell.mean > fbank.mean) == (cell.direction == "higher")
        told = better and cell.letters and not set(cell.letters) & set(fbank.letters)
        return f"**{cell.mean:.1f}**{interval}" if told else f"{cell.mean:.1f}{interval}"


def notes_of(kind: type[TrainableUpstream], folder: Path) -> Mapping[str, Any]:
    """How a method was trained; nothing where it was not."""
    name, suffix = kind.card.name, kind.file_suffix
    path = folder / f"{name}-tiny{suffix}"
    if not path.exists():
        return {}
    stages = [kind.read_notes(each) for each in (*folder.glob(f"{name}-tiny-iteration*{suffix}"), path)]
    return {**stages[-1], **{key: sum(stage[key] for stage in stages) for key in ("steps", "audio_seconds")}}


def methods(table: Scores, notes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The table, with a row a method and a row an untrained network."""
    spectral = [kind for kind in UPSTREAMS if kind.card.family == "spectral" and table.has(kind.card.name)]
    rows = [[f"`{kind.card.name}`", *table.of(kind.card.name), "", "", ""] for kind in spectral]
    for family in FAMILIES:
        rows.append([f"*{family}*", *[""] * 7])
        members = [name for name in notes if UPSTREAMS.get(name).card.family == family]
        rows += [[f"`{name}`", *table.of(name), *_training(notes[name])] for name in members]
        rows += [[f"`{name}@untrained`", *table.of(name + UNTRAINED), "", "", ""] for name in members
                 if table.has(name + UNTRAINED)]  # fmt: skip
    yield _table(("", "KS % ↑", "SID % ↑", "IC % ↑", "ASR, WER % ↓", "updates", "heard, h", "warnings"), rows)


def _training(notes: Mapping[str, Any]) -> list[str]:
    if not notes:
        return ["", "", ""]
    warnings = "; ".join(each.split(":")[0] for each in notes["warnings"])
    return [f"{notes['steps']:,}", f"{notes['audio_seconds'] / 3600:.1f}", warnings]


def checkpoints(notes: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of what ships: bytes, digest of the files, and how they were trained."""
    rows = []
    for name in shipped():
        kind = UPSTREAMS.get(name)
        path = shipped_checkpoint(kind)
        told = kind.read_notes(path)
        rows.append([f"`{name}`", _family(kind), f"{_bytes(path) / 1e6:.1f}", f"`{path_digest(path)[:16]}`",
                     f"{told['steps']:,}", f"{told['audio_seconds'] / 3600:.1f}",
                     f"{told['loss_curve'][0]:.3f} to {told['loss_curve'][-1]:.3f}"])  # fmt: skip
    return _table(("name", "family", "MB", "sha256, first 16", "updates", "heard, h", "loss"), rows)


def _family(kind: type[Upstream]) -> str:
    return kind.card.family


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(each.stat().st_size for each in path.iterdir())


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _write(path: Path, text: str) -> None:
    with written_then_renamed(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
