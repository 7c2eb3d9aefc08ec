"""What a task judges: utterances by themselves, or pairs of them by how alike they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from downstreams.labels._base import Labels
from frostbench.grid.cell import Cell
from tasks._scorers import scores

Speakers = str | list[str] | None


@dataclass(frozen=True)
class Items:
    """The items of a split.

    Attributes:
        ids: of utterances, or of pairs: both with a bar between them.
        speakers: whose voice an item is of, of pairs the voices; None where unknown.
        references: what predictions are compared with.
        pairs: places of two utterances; None where items are utterances.
        scorer: of pairs.
    """

    ids: Sequence[str]
    speakers: Sequence[Speakers]
    references: Sequence[Any]
    pairs: Sequence[tuple[int, int]] | None = None
    scorer: str | None = None

    def predictions(self, found: Sequence[Any]) -> Sequence[Any]:
        """What a head found of each utterance, or how alike it finds each pair."""
        if self.pairs is None or self.scorer is None:
            return found
        return scores(self.scorer, found, self.pairs)


def items_of(cell: Cell, split: str, labels: Labels) -> Items:
    """What is judged of a split."""
    examples = cell.examples[split]
    if cell.task.scorer is None:
        references = [labels.reference(example.label) for example in examples]
        return Items([example.id for example in examples], [example.speaker for example in examples], references)
    trials = cell.rows.trials[split]
    both = [(examples[trial.first], examples[trial.second]) for trial in trials]
    return Items(
        [f"{one.id}|{other.id}" for one, other in both],
        [_voices(one.speaker, other.speaker) for one, other in both],
        [trial.target for trial in trials],
        [(trial.first, trial.second) for trial in trials],
        cell.task.scorer,
    )


def _voices(one: str | None, other: str | None) -> Speakers:
    return sorted({one, other}) if one is not None and other is not None else None
