"""The head contract as a list of checks: one function a promise, over the small instances of a registered head."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from core import checks
from core.checks import CheckResult, require
from core.hidden_states import HiddenStates
from core.lengths import pad, padding_mask
from core.metrics import get_metric
from downstreams._base import HEADS, FeatureShape, Head
from downstreams._closed_form import ClosedForm, Means, backward_together
from downstreams._data import Batch, heard
from downstreams._downstream import Downstream, downstream_of, load_trained, save_trained
from downstreams._recipe import Recipe
from downstreams._training import TrainingRun, fit, predict, train
from downstreams.labels._base import LabelContext, Labels

Check = Callable[[str], None]
NUM_LAYERS = 3
SHAPE = FeatureShape(hidden_size=12, downsample_rate=160)
EIGHT = 8  # utterances
PADDING = 13  # frames behind the longest utterance
GARBAGE = 1e3  # scale of the values there
TOLERANCE = 1e-4  # another length is another order of sums
EXACT = 1e-10  # two orders of the same sums in double precision


@dataclass(frozen=True)
class Memory:
    """Eight utterances with one label each, in memory.

    Attributes:
        utterances: layers of each (frames, num_layers, hidden_size).
        targets: encoded label of each.
        extra: frames of garbage behind the longest of a batch.
        pooled: whether a batch holds means over time.
    """

    utterances: Sequence[torch.Tensor]
    targets: list[torch.Tensor]
    extra: int = 0
    pooled: bool = False

    @property
    def lengths(self) -> Sequence[int]:
        """Valid frames of every utterance."""
        return [1 if self.pooled else len(utterance) for utterance in self.utterances]

    def batch(self, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """See Examples.batch."""
        layers, lengths = pad([self.utterances[index] for index in indices])
        targets = [self.targets[index] for index in indices]
        if self.pooled:
            means = HiddenStates(layers.unbind(dim=2), lengths).pooled()[:, None]
            return Batch(means, torch.ones_like(lengths), targets)
        layers = torch.cat([layers, layers.new_zeros(len(indices), self.extra, *layers.shape[2:])], dim=1)
        noise = GARBAGE * torch.randn(layers.shape, generator=_generator(1)).to(layers)
        mask = padding_mask(lengths, layers.shape[1])[:, :, None, None]
        return Batch(torch.where(mask, noise, layers), lengths, targets)


def check_declaration_complete(name: str) -> None:
    """What it needs, its labels and options are declared; all options have defaults; every small one can be built."""
    head = HEADS.get(name)
    require(head.needs in ("pooled", "frames"), f"needs is {head.needs!r}: say 'pooled' or 'frames'")
    require(is_dataclass(head.options_type), "options_type is no dataclass")
    head.options_type()
    require(len(head.small_options) > 0, "small_options is empty: give at least one set of options")
    require(bool(head.__doc__), "the class has no docstring: its first line is what `list` shows")
    require(not head.trains or head.loss is not Head.loss, "it has no loss: write one, or say trains = False")
    fits = not head.keeps_train() or (head.needs == "pooled" and not head.trains)
    require(
        fits, "fit is for heads on means that are not trained: say trains = False and needs = 'pooled', or leave it"
    )
    for metric in head.metrics:
        get_metric(metric)
    samples = head.label_kind.samples
    require(issubclass(head.label_kind, Labels), f"label kind {head.label_kind.__name__} is no subclass of Labels")
    require(len(samples) == EIGHT, f"{head.label_kind.__name__} needs {EIGHT} samples, not {len(samples)}")
    require(head.hears is head.label_kind.heard, "hears is not as its label kind has it: waveforms go together")


def check_padding_changes_nothing(name: str) -> None:
    """An utterance has the same logits and prediction alone and in a batch, whatever stands behind its end."""
    for downstream, data in _instances(name):
        downstream.eval()
        everything = list(range(EIGHT))
        many, predictions = _outcome(downstream, _with_garbage(data), everything)
        for index in everything:
            alone, (prediction,) = _outcome(downstream, data, [index])
            places = tuple(slice(size) for size in alone.shape[1:])
            what = f"logits of an utterance of {len(data.utterances[index])} frames"
            _require_close(alone[0], many[index][places], what, TOLERANCE)
            require(
                downstream.head.embeds or _alike(downstream.head, prediction, predictions[index]),
                "an utterance's prediction changes with the padding: predict must look at valid frames only",
            )


def check_padding_changes_no_gradient(name: str) -> None:
    """A batch has the same loss and the same gradients, however long its padding and whatever stands there."""
    for downstream, data in _trained_instances(name):
        downstream.eval()
        short, long = _gradients(downstream, data), _gradients(downstream, _with_garbage(data))
        for (what, one), other in zip(short.items(), long.values(), strict=True):
            _require_close(one, other, what, TOLERANCE)


def check_every_parameter_gets_a_gradient(name: str) -> None:
    """Every parameter learns, the featurizer's layer weights too; a head that learns nothing has none."""
    for downstream, _ in _instances(name):
        parameters = list(downstream.head.parameters())
        require(downstream.head.trains or not parameters, "it says that it learns nothing, but has parameters")
    for downstream, data in _trained_instances(name):
        downstream.train()
        for what, gradient in _gradients(downstream, data).items():
            require(bool(torch.isfinite(gradient).all()), f"{what} has values that are NaN or infinite")
            require(bool(gradient.any()), f"{what} is zero: it can't learn")


def check_evaluation_is_repeatable(name: str) -> None:
    """Twice the same input gives the same bits when evaluated."""
    for downstream, data in _instances(name):
        downstream.eval()
        require(
            torch.equal(_logits(downstream, data), _logits(downstream, data)),
            "evaluation is random: heed self.training",
        )


def check_what_is_kept_follows_from_train(name: str) -> None:
    """A head that keeps something of train makes every prediction right on what it keeps, and keeps it twice alike."""
    if not HEADS.get(name).keeps_train():
        return
    for one, data in _instances(name):
        references = [one.head.labels.reference(sample) for sample in one.head.label_kind.samples]
        predictions, _ = predict(one, data, torch.device("cpu"))
        if one.head.metrics:
            metric = get_metric(one.head.metrics[0])
            value = metric.compute(predictions, references)
            require(value == metric.optimum, f"{metric.name} of the very utterances that it keeps is {value:g}")
        else:
            wrong = _wrong(one.head.labels, references, predictions)
            require(wrong == 0, f"{wrong:.0f} of the very utterances that it keeps are wrong")
    for (one, _), (other, _) in zip(_instances(name), _instances(name), strict=True):
        for key, value in one.state_dict().items():
            require(torch.equal(value, other.state_dict()[key]), f"{key} is another one the second time: heed the seed")


def check_overfits_eight_utterances(name: str) -> None:
    """Training makes every one of eight predictions right; of vectors the loss falls to a tenth."""
    for downstream, data in _trained_instances(name):
        references = [downstream.head.labels.reference(sample) for sample in downstream.head.label_kind.samples]
        wrong = partial(_wrong, downstream.head.labels, references)
        data = replace(data, pooled=HEADS.get(name).needs == "pooled")
        first = predict(downstream, data, torch.device("cpu"))[1]
        trained = train(
            downstream, {"train": data, "valid": data}, wrong, -1, _recipe(), TrainingRun(1e-2, 0), torch.device("cpu")
        )
        if downstream.head.embeds:  # what is right is for a scorer to say
            last = trained.history[-1]["train_loss"]
            require(last < first / 10, f"the loss falls from {first:.3g} to {last:.3g} only in {trained.step} updates")
            continue
        require(
            trained.valid == 0,
            f"{trained.valid:.0f} of eight utterances are still wrong after {trained.step} updates: the loss does not "
            f"lead to right predictions",
        )


def check_save_and_load_give_equal_output(name: str) -> None:
    """A trained head that was written and read gives the same bits, under the same description."""
    for downstream, data in _instances(name):
        recipe = _recipe(steps=4, eval_every=2)
        data = replace(data, pooled=HEADS.get(name).needs == "pooled")
        trained = train(
            downstream, {"train": data, "valid": data}, len, 1, recipe, TrainingRun(1e-2, 0), torch.device("cpu")
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "head.safetensors"
            save_trained(path, trained, downstream.description)
            loaded, description = load_trained(path)
        again = downstream_of(description, loaded.state)
        downstream.load_state_dict(dict(trained.state))
        require(loaded.history == trained.history, "the history is another one after loading")
        require(again.description == downstream.description, "the description is another one after loading")
        require(
            torch.equal(_logits(downstream.eval(), data), _logits(again.eval(), data)),
            "a loaded head gives other logits: keep all it learns in parameters or buffers",
        )


def check_pooled_path_equals_frame_path(name: str) -> None:
    """A head that needs means alone has the same logits, loss and gradients on means as on frames."""
    if HEADS.get(name).needs != "pooled":
        return
    for downstream, data in _instances(name):
        downstream.double().eval()
        frames = Memory([utterance.double() for utterance in data.utterances], data.targets)
        pooled = Memory(frames.utterances, data.targets, pooled=True)
        one, other = (_logits(downstream, examples) for examples in (frames, pooled))
        _require_close(one, other, "logits on means instead of frames", EXACT)
        if not downstream.head.trains:
            continue
        on_frames, on_means = _gradients(downstream, frames), _gradients(downstream, pooled)
        for (what, expected), found in zip(on_frames.items(), on_means.values(), strict=True):
            _require_close(expected, found, f"{what} on means instead of frames", EXACT)


def check_closed_form_equals_autograd(name: str) -> None:
    """A head that declares a closed form has autograd's loss and gradients by it."""
    for downstream, data in _instances(name):
        if not downstream.closed_form:
            return
        downstream.double().eval()
        pooled = Memory([utterance.double() for utterance in data.utterances], data.targets, pooled=True)
        expected = _gradients(downstream, pooled)
        means = Means.of(pooled.batch(range(EIGHT)), downstream.head.labels.sizes)
        with torch.no_grad():
            (loss,) = backward_together([ClosedForm(downstream.featurizer, downstream.head, clip=1.0)], means)
        found = [loss, *(parameter.grad for parameter in downstream.parameters())]
        for (what, gradient), closed in zip(expected.items(), found, strict=True):
            assert closed is not None, "a closed form fills every gradient"
            _require_close(gradient, closed, f"{what} in closed form", EXACT)


def check_predictions_have_the_form_of_references(name: str) -> None:
    """One prediction an utterance, in the form that the labels give references, or that its own metrics take."""
    for downstream, data in _instances(name):
        predictions, loss = predict(downstream, data, torch.device("cpu"))
        require(len(predictions) == EIGHT, f"{len(predictions)} predictions for {EIGHT} utterances")
        require(loss == loss and loss >= 0, f"the loss on untrained weights is {loss}")
        for prediction, sample in zip(predictions, downstream.head.label_kind.samples, strict=True):
            reference = predictions[0] if downstream.head.embeds else downstream.head.labels.reference(sample)
            if downstream.head.metrics:
                _require_judged(downstream.head.metrics, prediction, reference)
                continue
            require(
                _form(prediction) == _form(reference), f"prediction {prediction!r} has not the form of {reference!r}"
            )
            require(
                not downstream.head.embeds or _are_vectors(prediction, reference),
                "it is no vector of numbers, nor frames",
            )


CHECKS: tuple[Check, ...] = (
    check_declaration_complete,
    check_padding_changes_nothing,
    check_padding_changes_no_gradient,
    check_every_parameter_gets_a_gradient,
    check_evaluation_is_repeatable,
    check_overfits_eight_utterances,
    check_what_is_kept_follows_from_train,
    check_save_and_load_give_equal_output,
    check_pooled_path_equals_frame_path,
    check_closed_form_equals_autograd,
    check_predictions_have_the_form_of_references,
)


def run_check(check: Check, name: str) -> CheckResult:
    """Runs one check on a registered head."""
    return checks.run_check(check, name)


def _instances(name: str) -> Iterator[tuple[Downstream, Memory]]:
    """For each set of small options a fresh downstream, and eight utterances with one label each."""
    head = HEADS.get(name)
    samples = head.label_kind.samples
    utterances = [torch.randn(frames, NUM_LAYERS, SHAPE.hidden_size, generator=_generator(frames + 100 * number))
                  for number, frames in enumerate(head.label_kind.sample_frames)]  # fmt: skip
    for options in head.small_options:
        recipe = Recipe("check", 1, 8, (1e-2,), 1, head=options)
        labels = head.labels_from_train(samples, "label", recipe)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            downstream = Downstream(name, NUM_LAYERS, SHAPE, labels, recipe)
        nn.init.normal_(downstream.featurizer.weights, generator=_generator(0))  # equal weights would hide a mix-up
        contexts = [LabelContext(frames, SHAPE.downsample_rate) for frames in head.label_kind.sample_frames]
        data = Memory(utterances, list(map(labels.encode, samples, contexts)))
        if head.keeps_train():
            fit(downstream, replace(data, pooled=True), 0, torch.device("cpu"))
        yield downstream, data


def _trained_instances(name: str) -> Iterator[tuple[Downstream, Memory]]:
    """Those of a head that learns."""
    return _instances(name) if HEADS.get(name).trains else iter(())


def _recipe(steps: int = 400, eval_every: int = 50) -> Recipe:
    return Recipe("check", steps, 8, (1e-2,), eval_every, schedule="linear")


def _with_garbage(data: Memory) -> Memory:
    return Memory(data.utterances, data.targets, PADDING)


def _logits(downstream: Downstream, data: Memory) -> torch.Tensor:
    """Those of all utterances."""
    return _outcome(downstream, data, range(EIGHT))[0]


def _outcome(downstream: Downstream, data: Memory, indices: Sequence[int]) -> tuple[torch.Tensor, list[Any]]:
    """Logits and predictions of a batch."""
    layers, lengths, targets = data.batch(indices)
    wavs = heard(downstream.head.labels, targets)
    logits = downstream(layers, lengths, *wavs)
    return logits, downstream.head.predict(logits, lengths, *wavs)


def _alike(head: Head, one: Any, other: Any) -> bool:
    """Whether two predictions are the same, waveforms but for rounding."""
    return head.labels.matches(one, other) if head.hears else bool(one == other)


def _gradients(downstream: Downstream, data: Memory) -> dict[str, torch.Tensor]:
    """The loss of all utterances, and its gradient for every parameter."""
    _, lengths, targets = data.batch(range(EIGHT))
    loss = downstream.head.loss(_logits(downstream, data), lengths, targets)
    names = [f"the gradient of {name}" for name, _ in downstream.named_parameters()]
    found = torch.autograd.grad(loss, list(downstream.parameters()), allow_unused=True)
    gradients = [torch.zeros(1) if gradient is None else gradient for gradient in found]
    return {"the loss": loss.detach(), **dict(zip(names, gradients, strict=True))}


def _require_close(one: torch.Tensor, other: torch.Tensor, what: str, tolerance: float) -> None:
    require(one.shape == other.shape, f"{what}: shape {tuple(one.shape)} became {tuple(other.shape)}")
    difference = (one - other).abs().max().item()
    require(difference <= tolerance, f"{what} changes by {difference:.2g} (allowed {tolerance:g})")


def _wrong(labels: Labels, references: Sequence[object], predictions: Sequence[object]) -> float:
    return float(sum(not labels.matches(*pair) for pair in zip(predictions, references, strict=True)))


def _require_judged(metrics: Sequence[str], prediction: Any, reference: Any) -> None:
    """Refuses what a metric makes nothing of, or JSON can't keep."""
    kept = json.loads(json.dumps(prediction))
    for metric in map(get_metric, metrics):
        said = metric.statistics(prediction, reference)
        require(
            all(map(math.isfinite, said)) and metric.statistics(kept, reference) == said,
            f"{metric.name} of the prediction {prediction!r} is {said}, or another one after a passage through JSON",
        )


def _form(value: object) -> object:
    return sorted(value) if isinstance(value, dict) else type(value)


def _are_vectors(value: object, other: object) -> bool:
    """Whether it is a vector, or one for every frame, as long as those of another recording."""
    if isinstance(value, list) and not all(isinstance(each, float) for each in value):
        return False
    one, two = np.asarray(value), np.asarray(other)
    return one.dtype.kind == "f" and one.ndim == two.ndim <= 2 and one.shape[-1:] == two.shape[-1:]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
