"""Retrieval: each recording searches train for those with its label (mAP@R, Musgrave et al., arXiv:2003.08505)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from core.partitions import label_key
from downstreams._base import register_head
from downstreams._probe import Probe


def average_precisions(ranked: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Average precision at R of every class, if it were the one that is searched for.

    Of the R recordings of a class those count that are among the first R, each with the share of the class up to its
    rank; the sum is divided by R.

    Args:
        ranked: class of each recording that is found, the best first, int64 (queries, ranks); as many ranks at least
            as the largest class has recordings.
        sizes: recordings of each class, int64 (classes,).

    Returns: in [0, 1], float64 (queries, classes).
    """
    order = ranked.argsort(dim=1, stable=True)  # class by class, the best first
    grouped = ranked.gather(1, order)
    counts = ranked.new_zeros(len(ranked), len(sizes)).scatter_add(1, ranked, torch.ones_like(ranked))
    first = counts.cumsum(dim=1) - counts  # where a class begins in `grouped`
    place = torch.arange(ranked.shape[1], device=ranked.device) - first.gather(1, grouped)
    precision = (place + 1).double() / (order + 1)
    precision[order >= sizes[grouped]] = 0
    return precision.new_zeros(counts.shape).scatter_add(1, grouped, precision) / sizes


@register_head("retrieval")
class Retrieval(Probe):
    """The average precision at R of each label among the recordings of train, ranked by cosine; not trained.

    At R, since only labels with a recording among the first R can have any: predictions are short with a thousand
    voices, and still say what another label would have had.
    """

    metrics: ClassVar[tuple[str, ...]] = ("map_r",)

    def predict(self, logits: torch.Tensor, lengths: torch.Tensor) -> list[Any]:
        """Label -> average precision, rounded to 6 digits, the highest first; without those that have none."""
        sizes = self.members.bincount(minlength=len(self.classes))
        ranked = self.members[logits.topk(int(sizes.max()), dim=1).indices]
        names = [label_key(self.labels.decode(row)) for row in self.classes.tolist()]
        return [self._found(names, row) for row in average_precisions(ranked, sizes).tolist()]

    @staticmethod
    def _found(names: list[str], precisions: list[float]) -> dict[str, float]:
        found = ((name, round(precision, 6)) for name, precision in zip(names, precisions, strict=True))
        return dict(sorted((each for each in found if each[1] > 0), key=lambda each: -each[1]))
