"""A featurizer and a head as one model, what a training makes of it, and the file that it is kept in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from core.audio import SAMPLE_RATE
from core.digest import canonical_json, parsed_json, written_then_renamed
from core.errors import CheckpointError
from downstreams._base import HEADS, FeatureShape, Head
from downstreams._data import Layers
from downstreams._featurizer import Featurizer
from downstreams._recipe import Recipe
from downstreams._spec_augment import augment
from downstreams.labels._base import Labels, labels_from_json

ENCODER = "encoder."  # begins the names of its weights among those that a training makes


class Encoder(nn.Module, ABC):
    """What computes layers from waveforms while it is trained together with featurizer and head."""

    @abstractmethod
    def forward(self, wavs: Layers) -> torch.Tensor:
        """Padded layers, (batch, frames, num_layers, hidden_size), of the waveforms of a batch, each (samples,)."""

    @abstractmethod
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by their names."""


class ParameterGroup(NamedTuple):
    """Parameters that share a learning rate."""

    parameters: list[nn.Parameter]
    learning_rate: float


class Downstream(nn.Module):
    """Featurizer and head, and where an upstream is trained with them, its encoder: all that learns.

    Args:
        head_name: name in the registry of heads.
        num_layers: of the upstream.
        shape: of the features.
        labels: of the train split.
        recipe: its head options and whether hidden states are normalised.
        layer: the only one that the head is given; None learns a sum of all.
    """

    def __init__(
        self,
        head_name: str,
        num_layers: int,
        shape: FeatureShape,
        labels: Labels,
        recipe: Recipe,
        layer: int | None = None,
    ) -> None:
        super().__init__()
        head = HEADS.get(head_name)
        # Pooled features are normalised frame by frame before they are pooled; nothing is left to do then.
        self.featurizer = Featurizer(num_layers, recipe.normalise and head.needs == "frames", layer)
        self.head: Head = head(shape, labels, head.options_type(**recipe.head))
        self.shape = shape
        self.spec_augment = recipe.spec_augment
        self._weight_decay = recipe.weight_decay
        self.description = {
            "head": head_name,
            "num_layers": num_layers,
            "shape": asdict(shape),
            "labels": labels.to_json(),
            "recipe": {name: value for name, value in asdict(recipe).items() if name not in ("layer", "finetune")},
            "layer": layer,
        }
        self.encoder: Encoder | None = None

    @classmethod
    def fresh(
        cls,
        seed: int,
        head_name: str,
        num_layers: int,
        shape: FeatureShape,
        labels: Labels,
        recipe: Recipe,
        layer: int | None = None,
    ) -> Downstream:
        """One whose first weights follow from the seed alone, and that leaves the process's random state as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(head_name, num_layers, shape, labels, recipe, layer)

    def learned(self) -> dict[str, torch.Tensor]:
        """What training makes: weights of featurizer and head, and of an encoder those that are trained."""
        encoder = {} if self.encoder is None else self.encoder.trained()
        own = {name: value for name, value in self.state_dict().items() if not name.startswith(ENCODER)}
        return {**own, **{f"{ENCODER}{name}": value for name, value in encoder.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """See torch; buffers of the head take the shape they were kept in: it follows from train (`Head.fit`)."""
        for name, buffer in self.head.named_buffers(prefix="head"):
            if name in state_dict:
                buffer.resize_(state_dict[name].shape)
        return super().load_state_dict(state_dict, strict, assign)

    def parameter_groups(self, learning_rate: float, encoder_rate: float | None) -> list[ParameterGroup]:
        """What an optimiser trains: featurizer and head at one rate, an encoder, where there is one, at its own."""
        if self.encoder is None or encoder_rate is None:
            return [ParameterGroup(list(self.parameters()), learning_rate)]
        own = [*self.featurizer.parameters(), *self.head.parameters()]
        return [
            ParameterGroup(own, learning_rate),
            ParameterGroup(list(self.encoder.trained().values()), encoder_rate),
        ]

    @property
    def closed_form(self) -> bool:
        """Whether its gradients are known without autograd."""
        declared = vars(type(self.head)).get("closed_form", False)  # a subclass may compute something else
        plain = self.spec_augment is None and self._weight_decay == 0
        return bool(declared) and plain and self.encoder is None

    def frames_in(self, seconds: float) -> int:
        """Frames of the upstream in so much audio."""
        return max(1, int(seconds * SAMPLE_RATE / self.shape.downsample_rate))

    def forward(self, layers: Layers, lengths: torch.Tensor, *heard: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits from the layers of a batch, and from its waveforms where the head hears them.

        With an encoder the layers are waveforms, of which it computes them.
        """
        features = self.featurizer(layers if self.encoder is None else self.encoder(layers))
        if self.training and self.spec_augment is not None:
            features = augment(features, lengths, self.spec_augment)
        return self.head(features, lengths, *heard)


@dataclass(frozen=True)
class Trained:
    """The outcome of a training: the state that was best on valid, and how it went.

    Attributes:
        learning_rate: what it was trained with.
        step: update of the best state; None of a training that diverged.
        valid: metric on valid of the best state; None of a training that diverged.
        valid_loss: breaks ties of the metric; None of a training that diverged.
        history: one entry a look at valid: step, train_loss, valid_loss, valid.
        state: weights of featurizer and head; empty of a training that diverged.
        layer: the only one that the head was given; None is a learned sum of all.
        diverged: update at whose look at valid a loss was no longer finite; None where all were.
        upstream_rate: what the upstream was trained with; None where it is frozen.
    """

    learning_rate: float
    step: int | None
    valid: float | None
    valid_loss: float | None
    history: list[dict[str, float]]
    state: Mapping[str, torch.Tensor]
    diverged: int | None = None
    layer: int | None = None
    upstream_rate: float | None = None


def save_trained(path: Path, trained: Trained, description: Mapping[str, Any]) -> None:
    """Writes a trained downstream with its history, atomically."""
    notes = {key: value for key, value in asdict(replace(trained, state={})).items() if key != "state"}
    if trained.upstream_rate is None:  # the files of frozen upstreams are what they were before there were others
        del notes["upstream_rate"]
    # One entry: safetensors writes several in an order that changes from process to process.
    metadata = {"frostbench": canonical_json({"trained": notes, "description": description})}
    state = {name: value.contiguous() for name, value in trained.state.items()}
    with written_then_renamed(path) as temporary:
        save_file(state, temporary, metadata)


def load_trained(path: Path) -> tuple[Trained, dict[str, Any]]:
    """A trained downstream and its description.

    Raises: CheckpointError: damaged, or not a trained downstream.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = parsed_json(file.metadata()["frostbench"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Trained(**metadata["trained"], state=state), metadata["description"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a trained head ({error}); delete it and run again") from None


def downstream_of(description: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> Downstream:
    """Builds a downstream from what `save_trained` stored."""
    downstream = Downstream(
        description["head"],
        description["num_layers"],
        FeatureShape(**description["shape"]),
        labels_from_json(description["labels"]),
        Recipe.from_json(description["recipe"]),
        description.get("layer"),
    )
    downstream.load_state_dict(dict(state))
    return downstream
