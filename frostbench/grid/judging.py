"""What a task judges: utterances by themselves, or pairs of them by how alike they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from core.metrics import Metric
from downstreams._training import Keep, whole
from downstreams.labels._base import Labels
from frostbench.grid.cell import Cell
from tasks._rows import Example
from tasks._scorers import scores, standardised
from tasks._trials import references_of

Speakers = str | Sequence[str] | None


@dataclass(frozen=True)
class Items:
    """The items of a split.

    Attributes:
        ids: of utterances, or of pairs: both with a bar between them.
        speakers: whose voice an item is of, of pairs the voices, or else both recordings; None where unknown.
        references: what predictions are compared with.
        pairs: places of two utterances; None where items are utterances.
        scorer: of pairs.
        searches: number of the search that each pair belongs to; None where pairs stand alone.
    """

    ids: Sequence[str]
    speakers: Sequence[Speakers]
    references: Sequence[Any]
    pairs: Sequence[tuple[int, int]] | None = None
    scorer: str | None = None
    searches: Sequence[int] | None = None

    def predictions(self, found: Sequence[Any]) -> Sequence[Any]:
        """What a head found of each utterance, or how alike it finds each pair."""
        if self.pairs is None or self.scorer is None:
            return found
        found = scores(self.scorer, found, self.pairs)
        return found if self.searches is None else standardised(found, self.searches)


def kept_of(metrics: Sequence[Metric], labels: Labels) -> Keep:
    """What is kept of a prediction: itself, or of waveforms, which would take gigabytes, the value of each metric."""
    if not labels.heard:
        return whole

    def scored(prediction: Any, target: torch.Tensor) -> dict[str, float]:
        signals = target.numpy()
        return {metric.name: metric.statistics(prediction, signals)[0] for metric in metrics}

    return scored


def items_of(cell: Cell, split: str, labels: Labels) -> Items:
    """What is judged of a split."""
    examples = cell.examples[split]
    if cell.task.scorer is None:
        references = [labels.reference(example.label) for example in examples]
        return Items([example.id for example in examples], [example.speaker for example in examples], references)
    trials = cell.rows.trials[split]
    both = [(examples[trial.first], examples[trial.second]) for trial in trials]
    searches = None if cell.task.against is None else [trial.first for trial in trials]
    return Items(
        [f"{one.id}|{other.id}" for one, other in both],
        [_units(one, other) for one, other in both],
        references_of(trials, searches is not None),
        [(trial.first, trial.second) for trial in trials],
        cell.task.scorer,
        searches,
    )


def named(speakers: str | Sequence[str]) -> Sequence[str]:
    """One, or several."""
    return (speakers,) if isinstance(speakers, str) else speakers


def _units(one: Example, other: Example) -> Speakers:
    """The voices of a pair; where one is unknown both recordings, for other pairs hold them, too."""
    if one.speaker is None or other.speaker is None:
        return sorted({one.id, other.id})
    return sorted({*named(one.speaker), *named(other.speaker)})
