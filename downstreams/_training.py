"""Head training: featurizer and head on cached features, several runs side by side; selection on valid only.

What has an encoder is given waveforms, and its encoder is trained with it, at a learning rate of its own. A head that
is not trained is a run without updates: it keeps of train what it needs, if anything, and is evaluated on valid once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from core.errors import TrainingError
from core.selection import best_on_valid
from downstreams._closed_form import ClosedForm, Means, clipping_scale, update_together
from downstreams._data import NO_LIMIT, Batch, Examples, evaluation_batches, heard, stacked, training_batches
from downstreams._downstream import Downstream, Trained
from downstreams._recipe import Recipe
from downstreams._schedules import SCHEDULES

EVALUATION_BATCH = 256  # utterances at most
EVALUATION_SECONDS = 240.0  # of padded audio at most, where every frame is looked at


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
Keep = Callable[[Any, torch.Tensor], Any]  # prediction, encoded label -> what is kept of the prediction


def whole(prediction: Any, target: torch.Tensor) -> Any:
    """Keeps a prediction as it is."""
    return prediction


@dataclass(frozen=True)
class TrainingRun:
    """One training of a sweep: what differs between its runs.

    Attributes:
        learning_rate: of Adam.
        seed: of the first weights, the order and dropout.
        layer: the only one that the head is given; None is a learned sum of all.
        upstream_rate: of Adam, for the encoder that is trained with the head; None where there is none.
    """

    learning_rate: float
    seed: int
    layer: int | None = None
    upstream_rate: float | None = None


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
    keep: Keep = whole,
) -> list[Trained]:
    """Trains models in place, update by update side by side, and returns for each the state that was best on valid.

    Runs of one seed share their batches. A run's result is the same, bit for bit, whatever it is trained together with;
    a recipe's search ends it where another run of its seed is better.

    Args:
        models: one a run, freshly built under its seed.
        data: "train" and "valid".
        score: the metric on what is kept of valid's predictions, in the order of the split.
        sign: 1 where a higher score is better, else -1.
        recipe: everything but learning rate and seed.
        runs: what is to be tried.
        device: where to train.
        advance: called with the updates done since the last call, those of all runs.
        keep: what is kept of a prediction.

    Returns: an outcome a run; one that diverged says so, and ends without the others noticing.
    """
    kind = _kind_of(models[0])
    learners = [kind(downstream.to(device), recipe, run) for downstream, run in zip(models, runs, strict=True)]
    if not models[0].head.trains:
        for learner in learners:
            if models[0].head.keeps_train():
                fit(learner.downstream, data["train"], learner.run.seed, device)
            learner.look(data["valid"], score, sign, 0, keep)
        return [learner.outcome for learner in learners]
    most_frames = models[0].frames_in(recipe.batch_seconds) if recipe.batch_seconds else NO_LIMIT
    streams = {run.seed: _batches(data["train"], recipe, run.seed, most_frames) for run in runs}
    going, lost = list(learners), []
    for step in range(1, recipe.steps + 1):
        for seed in dict.fromkeys(learner.run.seed for learner in going):
            batch = next(streams[seed]).to(device)
            kind.update([learner for learner in going if learner.run.seed == seed], batch, step)
        if step % recipe.eval_every and step != recipe.steps:
            continue
        for learner in going:
            learner.look(data["valid"], score, sign, step, keep)
        advance(len(going) * (step % recipe.eval_every or recipe.eval_every))
        going = [learner for learner in going if not learner.is_over(step)]
        if step == recipe.search_steps:
            lost = [learner for learner in going if learner not in _best_of_each_seed(going, sign)]
            going = [learner for learner in going if learner not in lost]
        if not going:
            break
    advance(sum(recipe.steps - learner.steps for learner in learners if learner not in lost))
    return [learner.outcome for learner in learners]


@torch.no_grad()
def fit(downstream: Downstream, train: Examples, seed: int, device: torch.device) -> None:
    """Gives train, in its order, to a head on means that keeps something of it; of several crops one is drawn."""
    downstream.eval()
    generator = torch.Generator().manual_seed(seed)
    places = range(len(train.targets))
    batches = [train.batch(places[start : start + EVALUATION_BATCH], generator).to(device)
               for start in range(0, len(places), EVALUATION_BATCH)]  # fmt: skip
    features = torch.cat([downstream.featurizer(batch.layers)[:, 0] for batch in batches])
    downstream.head.fit(features, torch.cat([stacked(batch.targets) for batch in batches]).to(device), seed)


def _best_of_each_seed(learners: Sequence[_Learner], sign: int) -> list[_Learner]:
    found = []
    for seed in dict.fromkeys(learner.run.seed for learner in learners):
        rivals = [learner for learner in learners if learner.run.seed == seed]
        best = best_on_valid([rival.outcome for rival in rivals], _on_valid, sign)
        found += [rival for rival in rivals if rival.outcome is best]
    return found


def _kind_of(downstream: Downstream) -> type[_Learner]:
    if not downstream.head.trains:
        return _Untrained
    return _InClosedForm if downstream.closed_form else _ByAutograd


def _batches(examples: Examples, recipe: Recipe, seed: int, most_frames: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    for indices in training_batches(examples, recipe, generator, most_frames):
        yield examples.batch(indices, generator)


class _Learner(ABC):
    """A run under way."""

    def __init__(self, downstream: Downstream, recipe: Recipe, run: TrainingRun) -> None:
        self.downstream, self.recipe, self.run = downstream, recipe, run
        self._device = downstream.featurizer.weights.device
        self._schedule = SCHEDULES.get(recipe.schedule)
        self.steps = 0  # at the last look at valid
        self._losses: list[torch.Tensor] = []
        self._best: Trained | None = None
        self._history: list[dict[str, float]] = []
        self._diverged: int | None = None

    @property
    def outcome(self) -> Trained:
        """The best so far; its history goes on to the last look."""
        if self._diverged is not None:
            return self._trained(None, None, None, self._diverged)
        assert self._best is not None, "a run ends with a look at valid"
        return self._best

    def _trained(self, step: int | None, valid: float | None, loss: float | None, diverged: int | None) -> Trained:
        run = self.run
        return Trained(run.learning_rate, step, valid, loss, self._history, {}, diverged, run.layer, run.upstream_rate)

    @staticmethod
    @abstractmethod
    def update(learners: Sequence[Any], batch: Batch, step: int) -> None:
        """One update of the parameters of runs that share a batch; `step` counts from 1."""

    def _rate(self, step: int, highest: float) -> float:
        return highest * self._schedule(step, self.recipe.steps, self.recipe.warmup_steps)

    def look(self, valid: Examples, score: Score, sign: int, step: int, keep: Keep) -> None:
        """Evaluates on valid, and keeps the state if it is the best so far."""
        self.steps = step
        train_loss = torch.stack(self._losses).mean().item() if self._losses else 0.0
        self._losses.clear()
        if not math.isfinite(train_loss):
            self._diverged = step
            return
        predictions, valid_loss = predict(self.downstream, valid, self._device, keep)
        if not math.isfinite(valid_loss):
            self._diverged = step
            return
        value = score(predictions)
        self._history.append({"step": step, "train_loss": train_loss, "valid_loss": valid_loss, "valid": value})
        current = self._trained(step, value, valid_loss, None)
        if best_on_valid([current] if self._best is None else [self._best, current], _on_valid, sign) is current:
            state = {name: tensor.detach().cpu().clone() for name, tensor in self.downstream.learned().items()}
            self._best = replace(current, state=state)

    def is_over(self, step: int) -> bool:
        """Whether it diverged, or has not improved for as long as the recipe's patience lasts."""
        best = self.outcome.step
        return best is None or 0 < self.recipe.patience * self.recipe.eval_every <= step - best


class _Untrained(_Learner):
    """A head that learns nothing."""

    @staticmethod
    def update(learners: Sequence[Any], batch: Batch, step: int) -> None:
        """See _Learner.update."""
        raise AssertionError("there is nothing to update")


class _ByAutograd(_Learner):
    """Any head."""

    def __init__(self, downstream: Downstream, recipe: Recipe, run: TrainingRun) -> None:
        super().__init__(downstream, recipe, run)
        groups = downstream.parameter_groups(run.learning_rate, run.upstream_rate)
        self._rates = [group.learning_rate for group in groups]
        learned = [{"params": group.parameters} for group in groups]
        self._optimizer = (
            torch.optim.AdamW(learned, run.learning_rate, weight_decay=recipe.weight_decay, fused=True)
            if recipe.weight_decay
            else torch.optim.Adam(learned, run.learning_rate, fused=True)
        )

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
            wavs = heard(self.downstream.head.labels, batch.targets)
            logits = self.downstream(batch.layers, batch.lengths, *wavs)
            loss = self.downstream.head.loss(logits, batch.lengths, batch.targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(self.downstream, self.recipe.clip)
        for group, highest in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = self._rate(step, highest)
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
        rates = [learner._rate(step, learner.run.learning_rate) for learner in learners]
        losses = update_together([learner._closed_form for learner in learners], means, rates)
        for learner, loss in zip(learners, losses, strict=True):
            learner._losses.append(loss)


@torch.no_grad()
def predict(
    downstream: Downstream, examples: Examples, device: torch.device, keep: Keep = whole
) -> tuple[list[Any], float]:
    """What is kept of predictions, in the order of the examples, and the mean loss.

    Leaves the downstream in evaluation mode.

    A head that learns nothing has no loss: it is 0.
    """
    downstream.eval()
    predictions: list[Any] = [None] * len(examples.lengths)
    total = 0.0
    for indices in evaluation_batches(examples, EVALUATION_BATCH, downstream.frames_in(EVALUATION_SECONDS)):
        layers, lengths, targets = examples.batch(indices).to(device)
        wavs = heard(downstream.head.labels, targets)
        logits = downstream(layers, lengths, *wavs)
        if downstream.head.trains:
            total += downstream.head.loss(logits, lengths, targets).item() * len(indices)
        found = downstream.head.predict(logits, lengths, *wavs)
        for index, prediction, target in zip(indices, found, targets, strict=True):
            predictions[index] = keep(prediction, target)
    return predictions, total / len(predictions)
