"""The label contract: what a row holds to what a head is trained on, and back. Only train teaches it anything."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import torch

from core.audio import SAMPLE_RATE
from core.registry import Registry


class LabelContext(NamedTuple):
    """What the encoding of a label may depend on besides the label.

    Attributes:
        frames: valid frames of the utterance's features; 1 where a head takes means over time.
        downsample_rate: samples per frame of the upstream.
    """

    frames: int
    downsample_rate: float

    def seconds(self, frame: float) -> float:
        """When a frame begins."""
        return frame * self.downsample_rate / SAMPLE_RATE


ANY_CONTEXT = LabelContext(1, SAMPLE_RATE)  # for kinds of labels that do not depend on it


@dataclass(frozen=True)
class Labels(ABC):
    """What is known of a task's labels, collected from the train split alone.

    Attributes:
        kind: its name in the registry.
        closed_set: whether a value that train lacks can't be predicted, so that valid and test must not hold one.
        timed: whether a label says when something happens; its recording can't be cut then.
        heard: whether a label is waveforms: what was heard, and what it is to be made of. They are read when a batch
            asks for them, and of a prediction the values of metrics are kept in its place.
        samples: eight labels, for the head contract.
        sample_frames: valid frames, of 10 ms, of the utterances that the samples belong to.
    """

    kind: ClassVar[str]
    closed_set: ClassVar[bool] = False
    timed: ClassVar[bool] = False
    heard: ClassVar[bool] = False
    samples: ClassVar[tuple[Any, ...]]
    # The longest text fits at half the rate.
    sample_frames: ClassVar[tuple[int, ...]] = (40, 33, 28, 40, 31, 25, 36, 27)

    @classmethod
    @abstractmethod
    def from_train(cls, labels: Sequence[Any], name: str) -> Self:
        """Collects what is to be known from the labels of train.

        Args:
            labels: of all train rows.
            name: the key they have in a row, for messages.
        """

    @property
    @abstractmethod
    def sizes(self) -> list[int]:
        """Outputs that a head needs, one number for each separate question."""

    @abstractmethod
    def encode(self, label: Any, context: LabelContext) -> torch.Tensor:
        """The target of a label.

        Raises: TrainingError: the label does not fit what train holds.
        """

    @abstractmethod
    def decode(self, encoded: Any, context: LabelContext) -> Any:
        """What a head found, in the form of `encode`, as a prediction that JSON can hold."""

    @abstractmethod
    def reference(self, label: Any) -> Any:
        """A label in the form that `decode` gives: what predictions are compared with."""

    def matches(self, prediction: Any, reference: Any) -> bool:
        """Whether a prediction is right, as far as one can be: an encoding may round."""
        return bool(prediction == reference)

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """For the stored head; `kind` names the class that reads it."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; also reads what older versions wrote."""


LABELS: Registry[type[Labels]] = Registry("label kind", "downstreams.labels", group="frostbench.labels")
LabelsClass = TypeVar("LabelsClass", bound=type[Labels])


def register_labels(*names: str) -> Callable[[LabelsClass], LabelsClass]:
    """Class decorator: enters a kind of labels in the registry.

    Args:
        names: its name, and those that heads on disk know it by.
    """

    def register(labels: LabelsClass) -> LabelsClass:
        labels.kind = names[0]
        for name in names:
            LABELS.add(name, labels)
        return labels

    return register


def labels_from_json(content: Mapping[str, Any]) -> Labels:
    """The inverse of `Labels.to_json`.

    Raises: UnknownNameError: a kind of labels that is not installed.
    """
    return LABELS.get(content["kind"]).from_json(content)
