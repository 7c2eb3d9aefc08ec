"""Gradients of the linear head on means over time, written out: several times as fast as autograd at these sizes.

    mixed = softmax(w) . layers    hidden = mixed P' + p    logits = hidden C' + c    loss = sum of cross-entropies

An update of a head this small is mostly overhead: of autograd, of many small parameters, of their optimiser. Here all
parameters of a probe lie in one vector, all gradients in another, and every product writes where its result belongs.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import nn

from downstreams._base import Head
from downstreams._data import Batch, stacked
from downstreams._featurizer import Featurizer

ALIGNMENT = 16  # numbers: matrix products want their operands to begin on a cache line


class ClosedForm:
    """Loss and gradients of a featurizer and a linear head on means.

    Attributes:
        parameters: all that learns, one vector; the modules' parameters become views of it.

    Args:
        featurizer: does not normalise; means of normalised states come in where the recipe says so.
        head: declares `closed_form`.
    """

    def __init__(self, featurizer: Featurizer, head: Head) -> None:
        self.featurizer = featurizer
        projector, classifier = head.projector, head.classifier
        assert isinstance(projector, nn.Linear) and isinstance(classifier, nn.Linear), "that is what closed_form says"
        self._projector, self._classifier = projector, classifier
        self._sizes = head.labels.sizes
        modules = [*featurizer.parameters(), *head.parameters()]
        sizes = [-(-parameter.numel() // ALIGNMENT) * ALIGNMENT for parameter in modules]
        self.parameters = nn.Parameter(modules[0].new_zeros(sum(sizes)))
        self.parameters.grad = torch.zeros_like(self.parameters)
        for parameter, start in zip(modules, accumulate(sizes, initial=0), strict=False):
            place = slice(start, start + parameter.numel())
            values, gradient = self.parameters.detach()[place], self.parameters.grad[place]
            values.copy_(parameter.detach().flatten())
            parameter.data = values.view_as(parameter)
            parameter.grad = gradient.view_as(parameter)
        # Classes of all slots lie behind one another in the logits.
        offsets = list(accumulate(self._sizes[:-1], initial=0))
        self._offsets = torch.tensor(offsets, device=self.parameters.device)

    @torch.no_grad()
    def backward(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch; its gradients are left in the parameters."""
        assert isinstance(batch.layers, torch.Tensor) and batch.layers.shape[1] == 1, "these are means over time"
        layers = batch.layers[:, 0].transpose(0, 1)  # (num_layers, batch, hidden_size)
        layers = layers.reshape(len(layers), -1)  # (num_layers, batch * hidden_size)
        weights = self.featurizer.layer_weights()
        mixed = (weights @ layers).view(len(batch.lengths), -1)  # (batch, hidden_size)
        projector, classifier = self._projector, self._classifier
        hidden = torch.addmm(projector.bias, mixed, projector.weight.T)  # (batch, projector_size)
        logits = torch.addmm(classifier.bias, hidden, classifier.weight.T)  # (batch, classes)
        loss, slope = self._cross_entropy(logits, stacked(batch.targets).to(logits.device))
        torch.mm(slope.T, hidden, out=classifier.weight.grad)
        torch.sum(slope, 0, out=classifier.bias.grad)
        slope = slope @ classifier.weight
        torch.mm(slope.T, mixed, out=projector.weight.grad)
        torch.sum(slope, 0, out=projector.bias.grad)
        by_weight = layers @ (slope @ projector.weight).flatten()  # (num_layers,)
        torch.mul(weights, by_weight - weights @ by_weight, out=self.featurizer.weights.grad)
        return loss

    def _cross_entropy(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum over the slots of the mean loss, and its gradient by the logits."""
        slots = logits.split(self._sizes, dim=1)
        log_probs = torch.cat([slot.log_softmax(dim=1) for slot in slots], dim=1)
        places = targets + self._offsets  # (batch, slots)
        slope = log_probs.exp()
        slope.scatter_add_(1, places, slope.new_full((1, 1), -1.0).expand(places.shape))
        return log_probs.gather(1, places).sum() / -len(logits), slope.div_(len(logits))
