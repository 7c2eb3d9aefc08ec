"""Updates of the linear head on means over time, written out: several times as fast as autograd at these sizes.

    mixed = softmax(w) . layers    hidden = mixed P' + p    logits = hidden C' + c    loss = sum of cross-entropies

An update of a head this small is mostly overhead: of autograd, of many small parameters, of an optimiser in Python.
Here all parameters of a model lie in one vector and all gradients in another, every product writes where its result
belongs, and clipping and Adam are one pass over them. The layers of a batch are more numbers than a model has, so they
are read once for several models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import nn

from downstreams._base import Head
from downstreams._data import Batch, stacked
from downstreams._featurizer import Featurizer

ALIGNMENT = 16  # numbers: matrix products want their operands to begin on a cache line
# Probes that share the products with a batch's layers. There are always so many rows, some of zeros, because how a
# product is rounded depends on its shape, and what becomes of a downstream shall not depend on its company.
TOGETHER = 4


class Means(NamedTuple):
    """A batch as an update wants it: layers (num_layers, batch * hidden_size), one-hot targets (batch, classes)."""

    layers: torch.Tensor
    targets: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, sizes: list[int]) -> Means:
        """From a batch of means; the classes of all slots, of these sizes, stand behind one another."""
        assert isinstance(batch.layers, torch.Tensor) and batch.layers.shape[1] == 1, "these are means over time"
        layers = batch.layers[:, 0].transpose(0, 1)  # (num_layers, batch, hidden_size)
        places = stacked(batch.targets) + torch.tensor([0, *accumulate(sizes[:-1])])  # (batch, slots)
        targets = torch.zeros(len(places), sum(sizes), dtype=layers.dtype).scatter_(1, places, 1.0)
        return cls(layers.reshape(len(layers), -1), targets.to(layers.device))


class ClosedForm:
    """A featurizer and a linear head on means, and what Adam (0.9, 0.999) knows of them.

    Args:
        featurizer: does not normalise; means of normalised states come in where the recipe says so.
        head: declares `closed_form`.
        clip: largest norm of all gradients together.
    """

    def __init__(self, featurizer: Featurizer, head: Head, clip: float) -> None:
        projector, classifier = head.projector, head.classifier
        assert isinstance(projector, nn.Linear) and isinstance(classifier, nn.Linear), "that is what closed_form says"
        self.weights, self.layer = featurizer.weights, featurizer.layer
        self.projector, self.classifier = projector, classifier
        self.sizes = head.labels.sizes
        self._clip = clip
        parts = [*featurizer.parameters(), *head.parameters()]
        sizes = [-(-part.numel() // ALIGNMENT) * ALIGNMENT for part in parts]
        zeros = parts[0].detach().new_zeros(sum(sizes))
        self._values, self._gradients = zeros, zeros.clone()
        self._mean, self._mean_square = zeros.clone(), zeros.clone()
        self._step = zeros.new_zeros((), dtype=torch.float32)
        for part, start in zip(parts, accumulate(sizes, initial=0), strict=False):
            place = slice(start, start + part.numel())
            part.data = self._values[place].view_as(part).copy_(part.detach())
            part.grad = self._gradients[place].view_as(part)

    def step(self, learning_rate: float) -> None:
        """Clips the gradients and takes a step of Adam."""
        norm = torch.linalg.vector_norm(self._gradients)
        # What torch.optim.Adam calls; with the scale it divides the gradients, which saves a pass for clipping.
        torch._fused_adam_(
            [self._values],
            [self._gradients],
            [self._mean],
            [self._mean_square],
            [],
            [self._step.add_(1)],
            lr=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
            grad_scale=clipping_scale(norm, self._clip),
        )


def clipping_scale(norm: torch.Tensor, clip: float) -> torch.Tensor:
    """What gradients are divided by so that their norm is `clip` at most, as `clip_grad_norm_` has it; takes `norm`."""
    return norm.add_(1e-6).div_(clip).clamp_(min=1.0)


@torch.no_grad()
def update_together(models: Sequence[ClosedForm], batch: Means, learning_rates: Sequence[float]) -> list[torch.Tensor]:
    """One update of each downstream, each with its own rate; returns their losses before it.

    Args:
        models: of the same shape.
        batch: the same for all.
        learning_rates: one a downstream.
    """
    losses = []
    for start in range(0, len(models), TOGETHER):
        group = models[start : start + TOGETHER]
        # A step follows while its gradients are still in the processor's cache.
        for downstream, rate, loss in zip(group, learning_rates[start:], backward_together(group, batch), strict=False):
            downstream.step(rate)
            losses.append(loss)
    return losses


def backward_together(models: Sequence[ClosedForm], batch: Means) -> Iterator[torch.Tensor]:
    """The loss of each model, in their order, as soon as its gradients lie in its parameters; wants torch.no_grad().

    Args:
        models: TOGETHER of them at most.
        batch: the same for all.
    """
    layers, targets = batch
    count, classes = targets.shape
    alone = [downstream.layer for downstream in models if downstream.layer is not None]
    weights = _padded([downstream.weights for downstream in models]).softmax(dim=1)
    # Of single layers there is nothing to sum, nor a weight to learn: the rows are what the product would give.
    mixed = layers[alone] if len(alone) == len(models) else weights @ layers
    mixed = mixed.view(len(mixed), count, -1)  # (models, batch, hidden_size)
    # The products are the same ones, taken in the order that is cheaper: with few classes, both layers as one.
    head_type = _OneLayer if classes < count else _TwoLayers
    heads: list[_Head] = [
        head_type(downstream, inputs) for downstream, inputs in zip(models, mixed.unbind(), strict=False)
    ]
    log_probs = _log_probs(_padded([head.logits for head in heads]), models[0].sizes)
    slopes = log_probs.exp().sub_(targets).div_(count)  # of the loss by the logits
    losses = log_probs.mul_(targets).sum(dim=(1, 2)).div_(-count)
    by_mixed = _padded([head.backward(slope) for head, slope in zip(heads, slopes.unbind(), strict=False)])
    if len(alone) < len(models):
        by_weight = by_mixed.flatten(1) @ layers.T  # (models, num_layers)
        by_weight = weights * (by_weight - (weights * by_weight).sum(dim=1, keepdim=True))
    for place, (downstream, head, loss) in enumerate(zip(models, heads, losses.unbind(), strict=False)):
        if downstream.layer is None:
            assert downstream.weights.grad is not None, "it is a view of the downstream's gradients"
            downstream.weights.grad.copy_(by_weight[place])
        head.write_gradients()
        yield loss


def _padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """One behind the other, and zeros up to TOGETHER."""
    return torch.stack([*rows, *[torch.zeros_like(rows[0])] * (TOGETHER - len(rows))])


class _Head(Protocol):
    """Projector and classifier at work on a batch (batch, hidden_size)."""

    logits: torch.Tensor

    def backward(self, slope: torch.Tensor) -> torch.Tensor:
        """The slope of the loss by the batch, from that by the logits (batch, classes)."""

    def write_gradients(self) -> None:
        """Writes the gradients of the parameters; comes after `backward`."""


class _TwoLayers:
    """One layer behind the other."""

    def __init__(self, downstream: ClosedForm, mixed: torch.Tensor) -> None:
        self._projector, self._classifier, self._mixed = downstream.projector, downstream.classifier, mixed
        self._hidden = torch.addmm(self._projector.bias, mixed, self._projector.weight.T)  # (batch, projector_size)
        self.logits = torch.addmm(self._classifier.bias, self._hidden, self._classifier.weight.T)

    def backward(self, slope: torch.Tensor) -> torch.Tensor:
        """See _Head.backward."""
        self._slope, self._by_hidden = slope, slope @ self._classifier.weight
        return self._by_hidden @ self._projector.weight

    def write_gradients(self) -> None:
        """See _Head.write_gradients."""
        torch.mm(self._slope.T, self._hidden, out=self._classifier.weight.grad)
        torch.sum(self._slope, 0, out=self._classifier.bias.grad)
        torch.mm(self._by_hidden.T, self._mixed, out=self._projector.weight.grad)
        torch.sum(self._by_hidden, 0, out=self._projector.bias.grad)


class _OneLayer:
    """The same. No activation stands between the two layers: `hidden` (batch, projector_size) is never made."""

    def __init__(self, downstream: ClosedForm, mixed: torch.Tensor) -> None:
        self._projector, self._classifier, self._mixed = downstream.projector, downstream.classifier, mixed
        self._joint = self._classifier.weight @ self._projector.weight  # (classes, hidden_size)
        bias = torch.addmv(self._classifier.bias, self._classifier.weight, self._projector.bias)
        self.logits = torch.addmm(bias, mixed, self._joint.T)

    def backward(self, slope: torch.Tensor) -> torch.Tensor:
        """See _Head.backward."""
        self._slope = slope
        return slope @ self._joint

    def write_gradients(self) -> None:
        """See _Head.write_gradients."""
        projector, classifier = self._projector, self._classifier
        by_joint = self._slope.T @ self._mixed  # (classes, hidden_size)
        by_bias = torch.sum(self._slope, 0, out=classifier.bias.grad)
        torch.addr(by_joint @ projector.weight.T, by_bias, projector.bias, out=classifier.weight.grad)
        torch.mm(classifier.weight.T, by_joint, out=projector.weight.grad)
        torch.mv(classifier.weight.T, by_bias, out=projector.bias.grad)


def _log_probs(logits: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Of every slot's classes, which stand behind one another on the last axis."""
    if len(sizes) == 1:
        return logits.log_softmax(dim=-1)
    return torch.cat([slot.log_softmax(dim=-1) for slot in logits.split(sizes, dim=-1)], dim=-1)
