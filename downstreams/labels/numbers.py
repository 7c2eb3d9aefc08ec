"""Numbers: one (an age, a degree of agreement) or several with names (valence, arousal, dominance)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any, ClassVar

import torch

from core.errors import TrainingError
from downstreams.labels._base import ANY_CONTEXT, LabelContext, Labels, register_labels

RIGHT_WITHIN = 0.2  # standard deviations of train, for `matches`


@register_labels("numbers")
@dataclass(frozen=True)
class NumberLabels(Labels):
    """Numbers, which heads predict in standard deviations from the mean of train.

    Attributes:
        names: of the numbers, in alphabetical order.
        means: of each over train.
        deviations: of each over train; 1 where all are equal.
    """

    samples: ClassVar[tuple[Any, ...]] = tuple(
        {"arousal": number % 4 / 2, "valence": 1.0 - number / 4} for number in range(8)
    )
    names: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @classmethod
    def from_train(cls, labels: Sequence[Any], name: str) -> NumberLabels:
        """Takes mean and deviation of each number; see Labels.from_train.

        Raises: TrainingError: a label is no finite number, or lacks one that another has.
        """
        rows = [_numbers_of(label, name) for label in labels]
        names = tuple(sorted(set().union(*rows)))
        for row, label in zip(rows, labels, strict=True):
            if set(row) != set(names):
                raise TrainingError(f"label {label!r} lacks {', '.join(sorted(set(names) - set(row)))}")
        columns = [[row[each] for row in rows] for each in names]
        return cls(names, tuple(map(fmean, columns)), tuple(pstdev(column) or 1.0 for column in columns))

    @property
    def sizes(self) -> list[int]:
        """One output a number."""
        return [1] * len(self.names)

    def encode(self, label: Any, context: LabelContext = ANY_CONTEXT) -> torch.Tensor:
        """Standard deviations from the mean, float32 (numbers,).

        Raises: TrainingError: it is no finite number, or one is missing.
        """
        row = _numbers_of(label, self.names[0])
        if not set(self.names) <= set(row):
            raise TrainingError(f"label {label!r} lacks one of {', '.join(self.names)}")
        scaled = zip(self.names, self.means, self.deviations, strict=True)
        return torch.tensor([(row[name] - mean) / deviation for name, mean, deviation in scaled])

    def decode(self, encoded: Sequence[float], context: LabelContext = ANY_CONTEXT) -> float | dict[str, float]:
        """Standard deviations from the mean -> a number, or an object name -> number."""
        scaled = zip(encoded, self.means, self.deviations, strict=True)
        values = dict(zip(self.names, (float(value) * deviation + mean for value, mean, deviation in scaled),
                          strict=True))  # fmt: skip
        return values if len(self.names) > 1 else values[self.names[0]]

    def reference(self, label: Any) -> float | dict[str, float]:
        """See Labels.reference."""
        row = _numbers_of(label, self.names[0])
        return {name: row[name] for name in self.names} if len(self.names) > 1 else row[self.names[0]]

    def matches(self, prediction: Any, reference: Any) -> bool:
        """Whether every number is close, by the deviation of train."""
        pairs = (_numbers_of(value, self.names[0]) for value in (prediction, reference))
        one, other = ([row[name] for name in self.names] for row in pairs)
        return all(abs(x - y) <= RIGHT_WITHIN * deviation
                   for x, y, deviation in zip(one, other, self.deviations, strict=True))  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """See Labels.to_json."""
        return {"kind": "numbers", "names": list(self.names), "means": list(self.means),
                "deviations": list(self.deviations)}  # fmt: skip

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> NumberLabels:
        """See Labels.from_json."""
        return cls(*(tuple(content[key]) for key in ("names", "means", "deviations")))


def _numbers_of(label: Any, name: str) -> dict[str, float]:
    items = label.items() if isinstance(label, Mapping) else [(name, label)]
    try:
        row = {str(key): float(value) for key, value in items}
    except (TypeError, ValueError):
        raise TrainingError(f"label {label!r} is no number; correct the row") from None
    if not all(map(math.isfinite, row.values())):
        raise TrainingError(f"label {label!r} is not finite; correct the row")
    return row
