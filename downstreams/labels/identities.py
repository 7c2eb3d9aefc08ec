"""Whose a recording is, for heads that compare recordings: those of test may be of nobody in train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from downstreams.labels._base import ANY_CONTEXT, LabelContext, Labels, register_labels

UNKNOWN = -1


@register_labels("identities")
@dataclass(frozen=True)
class IdentityLabels(Labels):
    """One class a voice of train; a prediction is a vector, not a class.

    Attributes:
        classes: in alphabetical order.
    """

    samples: ClassVar[tuple[Any, ...]] = ("anna", "ben", "cleo", "dora") * 2
    classes: tuple[str, ...]

    @classmethod
    def from_train(cls, labels: Sequence[Any], name: str) -> IdentityLabels:
        """See Labels.from_train."""
        return cls(tuple(sorted(set(map(str, labels)))))

    @property
    def sizes(self) -> list[int]:
        """Voices of train."""
        return [len(self.classes)]

    def encode(self, label: Any, context: LabelContext = ANY_CONTEXT) -> torch.Tensor:
        """The class, int64 (1,); UNKNOWN for a voice that train lacks."""
        return torch.tensor([self.classes.index(str(label)) if str(label) in self.classes else UNKNOWN])

    def decode(self, encoded: Sequence[float], context: LabelContext = ANY_CONTEXT) -> list[float]:
        """The vector itself."""
        return list(encoded)

    def reference(self, label: Any) -> str:
        """The voice's name."""
        return str(label)

    def to_json(self) -> dict[str, Any]:
        """See Labels.to_json."""
        return {"kind": "identities", "classes": list(self.classes)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> IdentityLabels:
        """See Labels.from_json."""
        return cls(tuple(content["classes"]))
