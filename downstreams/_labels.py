"""Labels to target ids and back. What is known of a task's labels comes from the train split alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from core.errors import TrainingError
from core.manifest import slots_of

BLANK = 0  # CTC's


@dataclass(frozen=True)
class SlotLabels:
    """Categorical labels: one slot (a keyword, a speaker) or several (an intent's action, object, location).

    Attributes:
        slots: (slot, its classes in alphabetical order).
        samples: eight labels, for the head contract.
    """

    samples: ClassVar[tuple[Any, ...]] = tuple(
        {"action": action, "object": item} for action in ("on", "off", "up", "down") for item in ("lamp", "music")
    )
    slots: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def from_train(cls, labels: Sequence[Any], name: str) -> SlotLabels:
        """Collects the classes that occur."""
        classes: dict[str, set[str]] = {}
        for label in labels:
            for slot, value in slots_of(label, name):
                classes.setdefault(slot, set()).add(value)
        return cls(tuple((slot, tuple(sorted(values))) for slot, values in sorted(classes.items())))

    @property
    def sizes(self) -> list[int]:
        """Classes of each slot."""
        return [len(classes) for _, classes in self.slots]

    def encode(self, label: Any) -> torch.Tensor:
        """One class id a slot, int64 (slots,).

        Raises: TrainingError: a value was not seen in train, or a slot is missing.
        """
        values = dict(slots_of(label, self.slots[0][0]))
        try:
            return torch.tensor([classes.index(values[slot]) for slot, classes in self.slots])
        except (ValueError, KeyError) as error:
            raise TrainingError(f"label {label!r} does not fit the classes of the train split ({error})") from None

    def decode(self, ids: Sequence[int]) -> str | dict[str, str]:
        """A class name, or an object slot -> class name."""
        values = {slot: classes[index] for (slot, classes), index in zip(self.slots, ids, strict=True)}
        return values if len(self.slots) > 1 else next(iter(values.values()))

    def reference(self, label: Any) -> str | dict[str, str]:
        """A label in the form that `decode` gives."""
        return self.decode(self.encode(label).tolist())

    def to_json(self) -> dict[str, Any]:
        """For the record and the stored head."""
        return {"kind": "slots", "slots": [[slot, list(classes)] for slot, classes in self.slots]}


@dataclass(frozen=True)
class CharacterLabels:
    """Text as characters: id 0 is CTC's blank, the others stand in the order of `symbols`.

    Letter case and repeated spaces carry no meaning in the corpora's transcripts and are folded away.

    Attributes:
        symbols: the characters.
        end_marks: targets end with a space and a symbol for the end, which the head has to learn and `decode` drops;
            two more outputs stay unused. So does s3prl, whose fairseq dictionary adds four special symbols.
        samples: eight labels, for the head contract.
    """

    samples: ClassVar[tuple[Any, ...]] = ("ab", "ba", "a b", "b a", "aab", "abb", "c", "ca b")
    symbols: str
    end_marks: bool = False

    @classmethod
    def from_train(cls, labels: Sequence[Any], name: str, end_marks: bool = False) -> CharacterLabels:
        """Collects the characters that occur."""
        return cls("".join(sorted(set().union(*(folded(label) for label in labels)))), end_marks)

    @property
    def sizes(self) -> list[int]:
        """One slot: the blank, the characters, and the end symbol with the two unused ones."""
        return [1 + len(self.symbols) + (3 if self.end_marks else 0)]

    def encode(self, label: Any) -> torch.Tensor:
        """Character ids, int64 (characters,). Characters that train lacks have no id and are left out."""
        text = folded(label) + (" " if self.end_marks else "")
        ids = [self.symbols.index(symbol) + 1 for symbol in text if symbol in self.symbols]
        return torch.tensor([*ids, len(self.symbols) + 1] if self.end_marks else ids, dtype=torch.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids without blanks -> text; what is no character is dropped."""
        return folded("".join(self.symbols[index - 1] for index in ids if 0 < index <= len(self.symbols)))

    def reference(self, label: Any) -> str:
        """A label in the form that `decode` gives."""
        return folded(label)

    def to_json(self) -> dict[str, Any]:
        """For the record and the stored head."""
        return {"kind": "characters", "symbols": self.symbols, "end_marks": self.end_marks}


Labels = SlotLabels | CharacterLabels


def labels_from_json(content: Mapping[str, Any]) -> Labels:
    """The inverse of `to_json`."""
    if content["kind"] == "characters":
        return CharacterLabels(content["symbols"], content["end_marks"])
    return SlotLabels(tuple((slot, tuple(classes)) for slot, classes in content["slots"]))


def folded(text: Any) -> str:
    """Lower case, single spaces, none at the ends."""
    return " ".join(str(text).lower().split())
