"""Categorical labels: one slot (a keyword, a speaker) or several (an intent's action, object, location)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from core.errors import TrainingError
from core.manifest import slots_of
from downstreams.labels._base import ANY_CONTEXT, LabelContext, Labels, register_labels


@register_labels("slots")
@dataclass(frozen=True)
class SlotLabels(Labels):
    """One class a slot; the classes are those that occur in train.

    Attributes:
        slots: (slot, its classes in alphabetical order).
    """

    closed_set: ClassVar[bool] = True
    samples: ClassVar[tuple[Any, ...]] = tuple(
        {"action": action, "object": item} for action in ("on", "off", "up", "down") for item in ("lamp", "music")
    )
    slots: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def from_train(cls, labels: Sequence[Any], name: str) -> SlotLabels:
        """See Labels.from_train."""
        classes: dict[str, set[str]] = {}
        for label in labels:
            for slot, value in slots_of(label, name):
                classes.setdefault(slot, set()).add(value)
        return cls(tuple((slot, tuple(sorted(values))) for slot, values in sorted(classes.items())))

    @property
    def sizes(self) -> list[int]:
        """Classes of each slot."""
        return [len(classes) for _, classes in self.slots]

    def encode(self, label: Any, context: LabelContext = ANY_CONTEXT) -> torch.Tensor:
        """One class id a slot, int64 (slots,).

        Raises: TrainingError: a value was not seen in train, or a slot is missing.
        """
        values = dict(slots_of(label, self.slots[0][0]))
        try:
            return torch.tensor([classes.index(values[slot]) for slot, classes in self.slots])
        except (ValueError, KeyError) as error:
            raise TrainingError(f"label {label!r} does not fit the classes of the train split ({error})") from None

    def decode(self, encoded: Sequence[int], context: LabelContext = ANY_CONTEXT) -> str | dict[str, str]:
        """Class ids -> a class name, or an object slot -> class name."""
        values = {slot: classes[index] for (slot, classes), index in zip(self.slots, encoded, strict=True)}
        return values if len(self.slots) > 1 else next(iter(values.values()))

    def reference(self, label: Any) -> str | dict[str, str]:
        """See Labels.reference."""
        return self.decode(self.encode(label).tolist())

    def to_json(self) -> dict[str, Any]:
        """See Labels.to_json."""
        return {"kind": "slots", "slots": [[slot, list(classes)] for slot, classes in self.slots]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SlotLabels:
        """See Labels.from_json."""
        return cls(tuple((slot, tuple(classes)) for slot, classes in content["slots"]))
