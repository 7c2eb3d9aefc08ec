"""Updates of the linear head on means over time, written out: several times as fast as autograd at these sizes.

    mixed = softmax(w) . layers    hidden = mixed P' + p    logits = hidden C' + c    loss = sum of cross-entropies

An update of a head this small is mostly overhead: of autograd, of many small parameters, of an optimiser in Python.
Here all parameters of a probe lie in one vector and all gradients in another, every product writes where its result
belongs, and clipping and Adam are one pass over them.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import nn

from downstreams._base import Head
from downstreams._data import Batch, stacked
from downstreams._featurizer import Featurizer

ALIGNMENT = 16  # numbers: matrix products want their operands to begin on a cache line


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
        self._weights = featurizer.weights
        self._projector, self._classifier = projector, classifier
        self._sizes = head.labels.sizes
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

    @torch.no_grad()
    def update(self, batch: Means, learning_rate: float) -> torch.Tensor:
        """One update; returns the loss before it."""
        loss = self.backward(batch)
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
            grad_scale=norm.add_(1e-6).div_(self._clip).clamp_(min=1.0),
        )
        return loss

    @torch.no_grad()
    def backward(self, batch: Means) -> torch.Tensor:
        """The loss; its gradients are left in the parameters."""
        layers, targets = batch
        weights = self._weights.softmax(dim=0)
        mixed = (weights @ layers).view(len(targets), -1)  # (batch, hidden_size)
        # The products are the same ones, taken in the order that is cheaper: with few classes, both layers as one.
        step = self._as_one_layer if targets.shape[1] < len(targets) else self._layer_by_layer
        loss, slope = step(mixed, targets)
        by_weight = layers @ slope.flatten()  # (num_layers,)
        torch.mul(weights, by_weight - weights @ by_weight, out=self._weights.grad)
        return loss

    def _layer_by_layer(self, mixed: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss, and its slope by `mixed`; the head's gradients are written."""
        projector, classifier = self._projector, self._classifier
        hidden = torch.addmm(projector.bias, mixed, projector.weight.T)  # (batch, projector_size)
        loss, slope = self._loss(torch.addmm(classifier.bias, hidden, classifier.weight.T), targets)
        torch.mm(slope.T, hidden, out=classifier.weight.grad)
        torch.sum(slope, 0, out=classifier.bias.grad)
        slope = slope @ classifier.weight
        torch.mm(slope.T, mixed, out=projector.weight.grad)
        torch.sum(slope, 0, out=projector.bias.grad)
        return loss, slope @ projector.weight

    def _as_one_layer(self, mixed: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same. No activation stands between the two layers: `hidden` (batch, projector_size) is never made."""
        projector, classifier = self._projector, self._classifier
        joint = classifier.weight @ projector.weight  # (classes, hidden_size)
        bias = torch.addmv(classifier.bias, classifier.weight, projector.bias)
        loss, slope = self._loss(torch.addmm(bias, mixed, joint.T), targets)
        by_joint = slope.T @ mixed  # (classes, hidden_size)
        by_bias = torch.sum(slope, 0, out=classifier.bias.grad)
        torch.addr(by_joint @ projector.weight.T, by_bias, projector.bias, out=classifier.weight.grad)
        torch.mm(classifier.weight.T, by_joint, out=projector.weight.grad)
        torch.mv(classifier.weight.T, by_bias, out=projector.bias.grad)
        return loss, slope @ joint

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy, and its slope by the logits (batch, classes)."""
        log_probs = self._log_probs(logits)
        slope = log_probs.exp().sub_(targets).div_(len(targets))
        return log_probs.mul_(targets).sum().div_(-len(targets)), slope

    def _log_probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Of every slot's classes."""
        if len(self._sizes) == 1:
            return logits.log_softmax(dim=1)
        return torch.cat([slot.log_softmax(dim=1) for slot in logits.split(self._sizes, dim=1)], dim=1)
