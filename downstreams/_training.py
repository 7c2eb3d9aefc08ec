"""Head training: featurizer and head on cached features, one learning rate, one seed; selection on valid only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from core.digest import canonical_json, written_then_renamed
from core.errors import CheckpointError, TrainingError
from downstreams._base import HEADS, FeatureShape, Head
from downstreams._data import Batch, Examples, evaluation_batches, training_batches
from downstreams._featurizer import Featurizer
from downstreams._labels import Labels, labels_from_json
from downstreams._recipe import Recipe
from downstreams._spec_augment import augment

EVALUATION_BATCH = 64


class Probe(nn.Module):
    """Featurizer and head: all that learns.

    Args:
        head_name: name in the registry of heads.
        num_layers: of the upstream.
        shape: of the features.
        labels: of the train split.
        recipe: its head options and whether hidden states are normalised.
    """

    def __init__(self, head_name: str, num_layers: int, shape: FeatureShape, labels: Labels, recipe: Recipe) -> None:
        super().__init__()
        head = HEADS.get(head_name)
        # Pooled features are normalised frame by frame before they are pooled; nothing is left to do then.
        self.featurizer = Featurizer(num_layers, recipe.normalise and head.needs == "frames")
        self.head: Head = head(shape, labels, head.options_type(**recipe.head))
        self.spec_augment = recipe.spec_augment
        self.description = {
            "head": head_name,
            "num_layers": num_layers,
            "shape": asdict(shape),
            "labels": labels.to_json(),
            "recipe": asdict(recipe),
        }

    def forward(self, layers: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits from layers (batch, frames, num_layers, hidden_size)."""
        features = self.featurizer(layers)
        if self.training and self.spec_augment is not None:
            features = augment(features, lengths, self.spec_augment)
        return self.head(features, lengths)


@dataclass(frozen=True)
class Trained:
    """The outcome of a training: the state that was best on valid, and how it went.

    Attributes:
        learning_rate: what it was trained with.
        step: update of the best state.
        valid: metric on valid of the best state.
        valid_loss: breaks ties of the metric.
        history: one entry a look at valid: step, train_loss, valid_loss, valid.
        state: weights of featurizer and head.
    """

    learning_rate: float
    step: int
    valid: float
    valid_loss: float
    history: list[dict[str, float]]
    state: Mapping[str, torch.Tensor]

    def better_than(self, other: Trained | None, sign: int) -> bool:
        """Whether this one is to be chosen; `sign` is 1 where a higher metric is better, else -1."""
        return other is None or (sign * self.valid, -self.valid_loss) > (sign * other.valid, -other.valid_loss)


Score = Callable[[list[Any]], float]


def train(
    probe: Probe,
    data: Mapping[str, Examples],
    score: Score,
    sign: int,
    recipe: Recipe,
    learning_rate: float,
    seed: int,
    device: torch.device,
    advance: Callable[[int], None] = lambda steps: None,
) -> Trained:
    """Trains a probe in place and returns the state that was best on valid.

    Args:
        probe: freshly built under the same seed.
        data: "train" and "valid".
        score: the metric on valid's predictions, in the order of the split.
        sign: 1 where a higher score is better, else -1.
        recipe: everything but learning rate and seed.
        learning_rate: of Adam.
        seed: of order and dropout.
        device: where to train.
        advance: called with the updates done since the last call.

    Raises: TrainingError: the loss is no longer finite.
    """
    probe.to(device)
    optimizer = torch.optim.Adam(probe.parameters(), learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))
    order = training_batches(data["train"], recipe, torch.Generator().manual_seed(seed))
    best: Trained | None = None
    history: list[dict[str, float]] = []
    losses: list[torch.Tensor] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        probe.train()
        for step in range(1, recipe.steps + 1):
            losses.append(_update(probe, data["train"].batch(next(order)), optimizer, recipe.clip, device))
            schedule.step()
            if step % recipe.eval_every and step != recipe.steps:
                continue
            train_loss = _finite_mean(losses, step, learning_rate)
            predictions, valid_loss = predict(probe, data["valid"], device)
            probe.train()
            valid = score(predictions)
            history.append({"step": step, "train_loss": train_loss, "valid_loss": valid_loss, "valid": valid})
            current = Trained(learning_rate, step, valid, valid_loss, history, {})
            if current.better_than(best, sign):
                best = replace(current, state={name: value.cpu().clone() for name, value in probe.state_dict().items()})
            advance(len(losses))
            losses.clear()
            assert best is not None, "the first look is better than none"
            if recipe.patience and step - best.step >= recipe.patience * recipe.eval_every:
                advance(recipe.steps - step)
                break
    assert best is not None, "the last update is followed by a look"
    return best


def _update(
    probe: Probe, batch: Batch, optimizer: torch.optim.Optimizer, clip: float, device: torch.device
) -> torch.Tensor:
    layers, lengths = batch.layers.to(device), batch.lengths.to(device)
    loss = probe.head.loss(probe(layers, lengths), lengths, batch.targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(probe.parameters(), clip)
    optimizer.step()
    return loss.detach()


def _finite_mean(losses: list[torch.Tensor], step: int, learning_rate: float) -> float:
    mean = torch.stack(losses).mean().item()
    if mean != mean or mean in (float("inf"), float("-inf")):
        raise TrainingError(
            f"the loss is {mean} before step {step} with learning rate {learning_rate:g}: take that rate out of the "
            f"recipe's grid, or look for damaged features with: run_benchmark.py check"
        )
    return mean


def _rate(step: int, recipe: Recipe) -> float:
    return 1.0 if recipe.schedule == "constant" else max(0.0, 1 - step / recipe.steps)


@torch.no_grad()
def predict(probe: Probe, examples: Examples, device: torch.device) -> tuple[list[Any], float]:
    """Predictions in the order of the examples, and the mean loss; leaves the probe in evaluation mode."""
    probe.eval()
    predictions: list[Any] = [None] * len(examples.lengths)
    total = 0.0
    for indices in evaluation_batches(examples, EVALUATION_BATCH):
        layers, lengths, targets = examples.batch(indices)
        layers, lengths = layers.to(device), lengths.to(device)
        logits = probe(layers, lengths)
        total += probe.head.loss(logits, lengths, targets).item() * len(indices)
        for index, prediction in zip(indices, probe.head.predict(logits, lengths), strict=True):
            predictions[index] = prediction
    return predictions, total / len(predictions)


def save_trained(path: Path, trained: Trained, description: Mapping[str, Any]) -> None:
    """Writes a trained probe with its history, atomically."""
    notes = {key: value for key, value in asdict(trained).items() if key != "state"}
    # One entry: safetensors writes several in an order that changes from process to process.
    metadata = {"frostbench": canonical_json({"trained": notes, "description": description})}
    state = {name: value.contiguous() for name, value in trained.state.items()}
    with written_then_renamed(path) as temporary:
        save_file(state, temporary, metadata)


def load_trained(path: Path) -> tuple[Trained, dict[str, Any]]:
    """A trained probe and its description.

    Raises: CheckpointError: damaged, or not a trained probe.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads(file.metadata()["frostbench"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Trained(**metadata["trained"], state=state), metadata["description"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a trained head ({error}); delete it and run again") from None


def probe_of(description: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> Probe:
    """Builds a probe from what `save_trained` stored."""
    probe = Probe(
        description["head"],
        description["num_layers"],
        FeatureShape(**description["shape"]),
        labels_from_json(description["labels"]),
        Recipe.from_json(description["recipe"]),
    )
    probe.load_state_dict(dict(state))
    return probe
