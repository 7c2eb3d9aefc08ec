"""Writes the table of what the methods of pretraining come to, and that of the checkpoints that come with the program.

python -m docs.methods checkpoints results
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from core.digest import path_digest, written_then_renamed
from frostbench.results import Results
from leaderboard.result_cells import SIGNIFICANT
from leaderboard.statistics import holm
from upstreams._base import UPSTREAMS, Upstream
from upstreams._pretraining.contract import TrainableUpstream, trainable
from upstreams._resolve import build_upstream
from upstreams._shipped import FOLDER, shipped, shipped_checkpoint

NOTE = "<!-- Written by docs/methods.py. To write it anew: make benchmark-all -->"
TASKS = ("ks", "sid", "ic", "asr")
UNTRAINED = " (untrained)"
ADDED = ("steps", "audio_seconds", "wall_seconds")  # over the iterations of a training
FAMILIES = ("generative", "predictive", "contrastive", "bootstrapping", "regularised")

METHODS_TEXT = """# What the methods come to, trained and judged alike

Every method of [pretraining](pretraining.md) was trained on `mini`'s training recordings by its `tiny` recipe, whose
updates are chosen so that all take about the same time of one core. Then each was frozen and judged as any other
upstream: accuracy of keywords (KS), speakers (SID) and intents (IC), three seeds, and word error rate of recognition
(ASR), one seed, with 95 % intervals over speakers. **Bold** is better than FBANK by the paired test on the same
recordings, at 5 %, corrected by Holm's method for the number of methods. Below each family are its networks before any
training. Minutes are those of one core that was shared with other work.

`tiny` networks that saw hours, not weeks, of synthetic speech: the order says what a method learns in minutes, not what
its published model is worth."""
GOOD_TEXT = """## What each is good and bad at, here

Better, worse: by the same test, against FBANK and against the same network before training. A task that stands on
neither side can't be told apart."""
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
        (self._board,) = (board for board in results.board.boards if board.title.endswith("recipe fast"))
        self._rows = {row.name: row for row in self._board.rows}
        self._p = {(pair.task, frozenset((pair.first, pair.second))): pair.p for pair in self._board.pairs}

    def has(self, upstream: str) -> bool:
        """Whether any task was evaluated."""
        return upstream in self._rows

    def mean(self, upstream: str, task: str) -> float | None:
        """Over seeds; None where it was not evaluated."""
        row = self._rows.get(upstream)
        return None if row is None or task not in row.cells else row.cells[task].mean

    def verdicts(self, pairs: Mapping[str, str]) -> Mapping[tuple[str, str], int]:
        """(upstream, task) -> 1 where it is better than the one it is paired with, -1 where worse, else 0."""
        found = {}
        for column in (each for each in self._board.columns if each.key in TASKS):
            told = [(one, self._p.get((column.task, frozenset((one, other))))) for one, other in pairs.items()]
            known = [(one, p) for one, p in told if p is not None]
            for (one, _), p in zip(known, holm([p for _, p in known]), strict=True):
                values = self.mean(one, column.key), self.mean(pairs[one], column.key)
                higher = (values[0] or 0.0) > (values[1] or 0.0)
                better = 1 if higher == (column.direction == "higher") else -1
                found[one, column.key] = better if p < SIGNIFICANT else 0
        return found

    def of(self, upstream: str, better: Mapping[tuple[str, str], int]) -> list[str]:
        """A text a task; empty where it was not evaluated."""
        return [self._text(upstream, task, better.get((upstream, task)) == 1) for task in TASKS]

    def _text(self, upstream: str, task: str, bold: bool) -> str:
        row = self._rows.get(upstream)
        if row is None or task not in row.cells:
            return ""
        cell = row.cells[task]
        interval = "" if cell.interval is None else f" [{cell.interval.low:.0f}, {cell.interval.high:.0f}]"
        return f"**{cell.mean:.1f}**{interval}" if bold else f"{cell.mean:.1f}{interval}"


def notes_of(kind: type[TrainableUpstream], folder: Path) -> Mapping[str, Any]:
    """How a method was trained; nothing where it was not."""
    name, suffix = kind.card.name, kind.file_suffix
    path = folder / f"{name}-tiny{suffix}"
    if not path.exists():
        return {}
    stages = [kind.read_notes(each) for each in (*folder.glob(f"{name}-tiny-iteration*{suffix}"), path)]
    return {
        **stages[-1],
        **{key: sum(stage[key] for stage in stages) for key in ("steps", "audio_seconds", "wall_seconds")},
    }


def methods(table: Scores, notes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The table, with a row a method and a row an untrained network, and what each is good and bad at."""
    untrained = networks_of(notes, table)
    spectral = [kind.card.name for kind in UPSTREAMS if kind.card.family == "spectral" and table.has(kind.card.name)]
    of_methods = table.verdicts({name: "fbank" for name in notes if table.has(name)})
    others = [*spectral, *(name for name in untrained.values() if name is not None)]
    better = {**table.verdicts({name: "fbank" for name in others if name != "fbank"}), **of_methods}
    rows = [[f"`{name}`", *table.of(name, better), "", "", "", ""] for name in spectral]
    for family in FAMILIES:
        rows.append([f"*{family}*", *[""] * 8])
        members = [name for name in notes if UPSTREAMS.get(name).card.family == family]
        rows += [[f"`{name}`", *table.of(name, better), *_training(notes[name])] for name in members]
        networks = dict.fromkeys(untrained[name] for name in members)
        rows += [[_as_typed(name), *table.of(name, better), "", "", "", ""] for name in networks if name is not None]
    yield _table(
        ("", "KS % ↑", "SID % ↑", "IC % ↑", "ASR, WER % ↓", "updates", "heard, h", "minutes", "warnings"), rows
    )
    yield GOOD_TEXT
    trained = {name: network for name, network in untrained.items() if network is not None and table.has(name)}
    of_networks = table.verdicts(trained)
    yield _table(
        ("", "better than FBANK", "worse than FBANK", "better than untrained", "worse than untrained"),
        [[f"`{name}`", *_sides(name, of_methods), *_sides(name, of_networks)] for name in notes if table.has(name)],
    )


def networks_of(names: Iterable[str], table: Scores) -> dict[str, str | None]:
    """Each method's network before training, by the name under which it was judged, or one that computes the same."""
    wavs, lengths = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0)), torch.tensor([16_000])
    computed: dict[str, bytes] = {}
    for name in names:
        with torch.inference_mode():
            layers = build_upstream(f"{name}@untrained").extract(0.1 * wavs, lengths).layers
            computed[name] = torch.stack(layers).numpy().tobytes()
    judged = {computed[name]: name + UNTRAINED for name in computed if table.has(name + UNTRAINED)}
    return {name: judged.get(states) for name, states in computed.items()}


def _as_typed(name: str) -> str:
    """An untrained network as it is asked for."""
    return f"`{name.removesuffix(UNTRAINED)}@untrained`"


def _sides(name: str, verdicts: Mapping[tuple[str, str], int]) -> list[str]:
    """The tasks at which it is better, and those at which it is worse."""
    return [", ".join(task.upper() for task in TASKS if verdicts.get((name, task)) == side) for side in (1, -1)]


def _training(notes: Mapping[str, Any]) -> list[str]:
    if not notes:
        return ["", "", "", ""]
    warnings = "; ".join(each.split(":")[0] for each in notes["warnings"])
    minutes = f"{notes['wall_seconds'] / 60:.1f}"
    return [f"{notes['steps']:,}", f"{notes['audio_seconds'] / 3600:.1f}", minutes, warnings]


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
