"""The head contract: features in, logits out, a loss and a prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import nn

from core.errors import ContractError
from core.registry import Registry
from downstreams._data import Targets
from downstreams._recipe import Recipe
from downstreams.labels._base import Labels

Needs = Literal["pooled", "frames"]


@dataclass(frozen=True)
class FeatureShape:
    """What a head has to know of its input.

    Attributes:
        hidden_size: width of the features.
        downsample_rate: samples at 16 kHz per frame of the upstream, 160 or 320 mostly.
    """

    hidden_size: int
    downsample_rate: float


class Head(nn.Module, ABC):
    """A light network on top of mixed features.

    Attributes:
        needs: "pooled" if the head uses the mean over time alone: features are (batch, 1, hidden_size) then, of length
            1, and all layers above are linear in it; "frames" if it needs every frame.
        trains: whether it is trained; one that isn't has no parameters and no loss, and its recipe no updates. It may
            still keep something of train: see `fit`.
        embeds: whether its predictions are vectors, which are compared with each other by a task's scorer.
        hears: whether it is given the waveforms, too: `forward` and `predict` have those of the batch as a last
            argument, `wavs`, each (samples,) at 16 kHz. Its targets begin with them, and it predicts waveforms.
        label_kind: the kind of labels it is trained on (`downstreams/labels`).
        metrics: names of the metrics that its predictions are made for, in place of the task's, the first one chooses
            on valid; empty where it predicts what the task asks.
        options_type: dataclass of its options, with SUPERB's sizes as defaults.
        closed_form: whether it is `projector` -> mean -> `classifier`, all linear, with cross-entropies: its gradients
            are written out then (`_closed_form.py`), and no autograd is needed. Not inherited.
        small_options: options of the small instances that the contract is checked on, one for each way it computes.
    """

    needs: ClassVar[Needs]
    trains: ClassVar[bool] = True
    embeds: ClassVar[bool] = False
    hears: ClassVar[bool] = False
    label_kind: ClassVar[type[Labels]]
    metrics: ClassVar[tuple[str, ...]] = ()
    options_type: ClassVar[type[Any]]
    closed_form: ClassVar[bool] = False
    small_options: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    def __init__(self, shape: FeatureShape, labels: Labels, options: Any) -> None:
        super().__init__()
        self.shape = shape
        self.labels = labels
        self.options = options

    @classmethod
    def labels_from_train(cls, values: Sequence[Any], name: str, recipe: Recipe) -> Labels:
        """What is to be known of the labels: collected from the train split's values alone."""
        return cls.label_kind.from_train(values, name)

    @classmethod
    def keeps_train(cls) -> bool:
        """Whether it is given train by `fit`."""
        return cls.fit is not Head.fit

    def fit(self, features: torch.Tensor, targets: torch.Tensor, seed: int) -> None:
        """Keeps what a head on means that is not trained takes from train; what it keeps is in buffers.

        A buffer may have another shape than the one it was registered with: it is read in the shape it was kept in.

        Args:
            features: means over time of all utterances of train, float (utterances, hidden_size).
            targets: their encoded labels (utterances, ...).
            seed: decides what is random.

        Raises: ContractError: the head does not say what it keeps.
        """
        raise ContractError(f"{type(self).__name__} has no fit: it takes nothing from train")

    @abstractmethod
    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits from features (batch, frames, hidden_size) and valid frames (batch,).

        Or, where logits depend on what was predicted before, what `loss` and `predict` make them of.
        """

    def loss(self, logits: torch.Tensor, lengths: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Mean loss of a batch, a scalar. `targets` are the encoded labels, `lengths` those of the features.

        Raises: ContractError: the head learns, but has no loss of its own.
        """
        raise ContractError(f"{type(self).__name__} has no loss: write one, or say trains = False")

    def untrainable(self, lengths: torch.Tensor, targets: Targets) -> int:
        """How many of these utterances can add nothing to the loss, such as texts that are longer than their frames.

        Args:
            lengths: valid frames, int64 (utterances,).
            targets: the encoded labels.
        """
        return 0

    @abstractmethod
    def predict(self, logits: torch.Tensor, lengths: torch.Tensor) -> list[Any]:
        """One decoded prediction an utterance."""


HEADS: Registry[type[Head]] = Registry("head", "downstreams", group="frostbench.heads")
HeadClass = TypeVar("HeadClass", bound=type[Head])


def register_head(name: str) -> Callable[[HeadClass], HeadClass]:
    """Class decorator: enters a head in the registry."""

    def register(head: HeadClass) -> HeadClass:
        HEADS.add(name, head)
        return head

    return register
