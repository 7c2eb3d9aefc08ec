"""Head training: featurizer and head on cached features, several runs side by side; selection on valid only."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from core.audio import SAMPLE_RATE
from core.digest import canonical_json, written_then_renamed
from core.errors import CheckpointError, TrainingError
from core.selection import best_on_valid
from downstreams._base import HEADS, FeatureShape, Head
from downstreams._closed_form import ClosedForm, Means, clipping_scale, update_together
from downstreams._data import NO_LIMIT, Batch, Examples, Layers, evaluation_batches, training_batches
from downstreams._featurizer import Featurizer
from downstreams._recipe import Recipe
from downstreams._spec_augment import augment
from downstreams.labels._base import Labels, labels_from_json

EVALUATION_BATCH = 256  # utterances at most
EVALUATION_SECONDS = 240.0  # of padded audio at most, where every frame is looked at


class Downstream(nn.Module):
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
        self.shape = shape
        self.spec_augment = recipe.spec_augment
        self.description = {
            "head": head_name,
            "num_layers": num_layers,
            "shape": asdict(shape),
            "labels": labels.to_json(),
            "recipe": asdict(recipe),
        }

    @classmethod
    def fresh(
        cls, seed: int, head_name: str, num_layers: int, shape: FeatureShape, labels: Labels, recipe: Recipe
    ) -> Downstream:
        """One whose first weights follow from the seed alone, and that leaves the process's random state as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(head_name, num_layers, shape, labels, recipe)

    @property
    def closed_form(self) -> bool:
        """Whether its gradients are known without autograd."""
        declared = vars(type(self.head)).get("closed_form", False)  # a subclass may compute something else
        return bool(declared) and self.spec_augment is None

    def frames_in(self, seconds: float) -> int:
        """Frames of the upstream in so much audio."""
        return max(1, int(seconds * SAMPLE_RATE / self.shape.downsample_rate))

    def forward(self, layers: Layers, lengths: torch.Tensor) -> torch.Tensor:
        """Logits from the layers of a batch."""
        features = self.featurizer(layers)
        if self.training and self.spec_augment is not None:
            features = augment(features, lengths, self.spec_augment)
        return self.head(features, lengths)


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
        diverged: update at whose look at valid a loss was no longer finite; None where all were.
    """

    learning_rate: float
    step: int | None
    valid: float | None
    valid_loss: float | None
    history: list[dict[str, float]]
    state: Mapping[str, torch.Tensor]
    diverged: int | None = None


def choose(candidates: Sequence[Trained], sign: int) -> Trained:
    """The training that is best on valid; one that diverged loses against every other.

    Args:
        candidates: a training for each learning rate.
        sign: 1 where a higher metric is better, else -1.

    Raises: TrainingError: all of them diverged.
    """
    best = best_on_valid((each for each in candidates if each.diverged is None), _on_valid, sign)
    if best is None:
        tried = ", ".join(f"{each.learning_rate:g} before update {each.diverged}" for each in candidates)
        raise TrainingError(
            f"training diverged with every learning rate ({tried}): add smaller ones to the recipe's grid, or look "
            f"for damaged features with: frostbench check"
        )
    return best


def _on_valid(trained: Trained) -> tuple[float, float]:
    assert trained.valid is not None and trained.valid_loss is not None, "it did not diverge"
    return trained.valid, trained.valid_loss


Score = Callable[[list[Any]], float]


@dataclass(frozen=True)
class TrainingRun:
    """One training of a sweep: what differs between its runs.

    Attributes:
        learning_rate: of Adam.
        seed: of the first weights, the order and dropout.
    """

    learning_rate: float
    seed: int


def train(
    downstream: Downstream,
    data: Mapping[str, Examples],
    score: Score,
    sign: int,
    recipe: Recipe,
    run: TrainingRun,
    device: torch.device,
    advance: Callable[[int], None] = lambda updates: None,
) -> Trained:
    """Trains one downstream; see `train_together`."""
    return train_together([downstream], data, score, sign, recipe, [run], device, advance)[0]


def train_together(
    models: Sequence[Downstream],
    data: Mapping[str, Examples],
    score: Score,
    sign: int,
    recipe: Recipe,
    runs: Sequence[TrainingRun],
    device: torch.device,
    advance: Callable[[int], None] = lambda updates: None,
) -> list[Trained]:
    """Trains models in place, update by update side by side, and returns for each the state that was best on valid.

    Runs of one seed share their batches. A run's result is the same, bit for bit, whatever it is trained together with.

    Args:
        models: one a run, freshly built under its seed.
        data: "train" and "valid".
        score: the metric on valid's predictions, in the order of the split.
        sign: 1 where a higher score is better, else -1.
        recipe: everything but learning rate and seed.
        runs: what is to be tried.
        device: where to train.
        advance: called with the updates done since the last call, those of all runs.

    Returns: an outcome a run; one that diverged says so, and ends without the others noticing.
    """
    kind: type[_Learner] = _InClosedForm if models[0].closed_form else _ByAutograd
    learners: list[_Learner] = [
        kind(downstream.to(device), recipe, run) for downstream, run in zip(models, runs, strict=True)
    ]
    most_frames = models[0].frames_in(recipe.batch_seconds) if recipe.batch_seconds else NO_LIMIT
    streams = {run.seed: _batches(data["train"], recipe, run.seed, most_frames) for run in runs}
    going = list(learners)
    for step in range(1, recipe.steps + 1):
        for seed in dict.fromkeys(learner.run.seed for learner in going):
            batch = next(streams[seed]).to(device)
            kind.update([learner for learner in going if learner.run.seed == seed], batch, step)
        if step % recipe.eval_every and step != recipe.steps:
            continue
        for learner in going:
            learner.look(data["valid"], score, sign, step)
        advance(len(going) * (step % recipe.eval_every or recipe.eval_every))
        going = [learner for learner in going if not learner.is_over(step)]
        if not going:
            break
    advance(sum(recipe.steps - learner.steps for learner in learners))
    return [learner.outcome for learner in learners]


def _batches(examples: Examples, recipe: Recipe, seed: int, most_frames: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    for indices in training_batches(examples, recipe, generator, most_frames):
        yield examples.batch(indices, generator)


class _Learner(ABC):
    """A run under way."""

    def __init__(self, downstream: Downstream, recipe: Recipe, run: TrainingRun) -> None:
        self.downstream, self.recipe, self.run = downstream, recipe, run
        self._device = downstream.featurizer.weights.device
        self.steps = 0  # at the last look at valid
        self._losses: list[torch.Tensor] = []
        self._best: Trained | None = None
        self._history: list[dict[str, float]] = []
        self._diverged: int | None = None

    @property
    def outcome(self) -> Trained:
        """The best so far; its history goes on to the last look."""
        if self._diverged is not None:
            return Trained(self.run.learning_rate, None, None, None, self._history, {}, self._diverged)
        assert self._best is not None, "a run ends with a look at valid"
        return self._best

    @staticmethod
    @abstractmethod
    def update(learners: Sequence[Any], batch: Batch, step: int) -> None:
        """One update of the parameters of runs that share a batch; `step` counts from 1."""

    def _rate(self, step: int) -> float:
        left = 1 - (step - 1) / self.recipe.steps if self.recipe.schedule == "linear" else 1.0
        return self.run.learning_rate * left

    def look(self, valid: Examples, score: Score, sign: int, step: int) -> None:
        """Evaluates on valid, and keeps the state if it is the best so far."""
        self.steps = step
        train_loss = torch.stack(self._losses).mean().item()
        self._losses.clear()
        if not math.isfinite(train_loss):
            self._diverged = step
            return
        predictions, valid_loss = predict(self.downstream, valid, self._device)
        if not math.isfinite(valid_loss):
            self._diverged = step
            return
        value = score(predictions)
        self._history.append({"step": step, "train_loss": train_loss, "valid_loss": valid_loss, "valid": value})
        current = Trained(self.run.learning_rate, step, value, valid_loss, self._history, {})
        if best_on_valid([current] if self._best is None else [self._best, current], _on_valid, sign) is current:
            state = {name: tensor.cpu().clone() for name, tensor in self.downstream.state_dict().items()}
            self._best = replace(current, state=state)

    def is_over(self, step: int) -> bool:
        """Whether it diverged, or has not improved for as long as the recipe's patience lasts."""
        best = self.outcome.step
        return best is None or 0 < self.recipe.patience * self.recipe.eval_every <= step - best


class _ByAutograd(_Learner):
    """Any head."""

    def __init__(self, downstream: Downstream, recipe: Recipe, run: TrainingRun) -> None:
        super().__init__(downstream, recipe, run)
        self._optimizer = torch.optim.Adam(downstream.parameters(), run.learning_rate, fused=True)

    @staticmethod
    def update(learners: Sequence[_ByAutograd], batch: Batch, step: int) -> None:
        """See _Learner.update."""
        for learner in learners:
            learner._update(batch, step)

    def _update(self, batch: Batch, step: int) -> None:
        """Dropout and masks follow from seed and step alone, whoever draws in between."""
        self.downstream.train()
        with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(_mixed(self.run.seed, step))
            loss = self.downstream.head.loss(self.downstream(batch.layers, batch.lengths), batch.lengths, batch.targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(self.downstream, self.recipe.clip)
        self._optimizer.param_groups[0]["lr"] = self._rate(step)
        self._optimizer.step()
        self._losses.append(loss.detach())


def clip_gradients(downstream: nn.Module, clip: float) -> None:
    """Divides gradients so that the norm of all together is `clip` at most.

    `clip_grad_norm_` multiplies by the inverse instead, which is rounded otherwise: a WER on `mini` moved by 0.7.
    """
    gradients = [value.grad for value in downstream.parameters() if value.grad is not None]
    scale = clipping_scale(nn.utils.get_total_norm(gradients), clip)
    for gradient in gradients:
        gradient.div_(scale)


def _mixed(seed: int, step: int) -> int:
    """A seed for an update, in 32 bits: of more, torch's generator on the CPU takes the lowest 32 only."""
    return (seed * 0x9E3779B1 + step) % (1 << 32)


class _InClosedForm(_Learner):
    """A linear head on means; nothing in it is random."""

    def __init__(self, downstream: Downstream, recipe: Recipe, run: TrainingRun) -> None:
        super().__init__(downstream, recipe, run)
        self._closed_form = ClosedForm(downstream.featurizer, downstream.head, recipe.clip)

    @staticmethod
    def update(learners: Sequence[_InClosedForm], batch: Batch, step: int) -> None:
        """See _Learner.update."""
        means = Means.of(batch, learners[0].downstream.head.labels.sizes)
        rates = [learner._rate(step) for learner in learners]
        losses = update_together([learner._closed_form for learner in learners], means, rates)
        for learner, loss in zip(learners, losses, strict=True):
            learner._losses.append(loss)


@torch.no_grad()
def predict(downstream: Downstream, examples: Examples, device: torch.device) -> tuple[list[Any], float]:
    """Predictions in the order of the examples, and the mean loss; leaves the downstream in evaluation mode."""
    downstream.eval()
    predictions: list[Any] = [None] * len(examples.lengths)
    total = 0.0
    for indices in evaluation_batches(examples, EVALUATION_BATCH, downstream.frames_in(EVALUATION_SECONDS)):
        layers, lengths, targets = examples.batch(indices).to(device)
        logits = downstream(layers, lengths)
        total += downstream.head.loss(logits, lengths, targets).item() * len(indices)
        for index, prediction in zip(indices, downstream.head.predict(logits, lengths), strict=True):
            predictions[index] = prediction
    return predictions, total / len(predictions)


def save_trained(path: Path, trained: Trained, description: Mapping[str, Any]) -> None:
    """Writes a trained downstream with its history, atomically."""
    notes = {key: value for key, value in asdict(trained).items() if key != "state"}
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
            metadata = json.loads(file.metadata()["frostbench"])
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
    )
    downstream.load_state_dict(dict(state))
    return downstream
