"""What is kept of the test recordings that went most wrong, where a task's predictions are waveforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core._waveforms import best_order
from core.worst_waveforms import Waveforms, worst_places, write_waveforms
from downstreams._data import Batch, Examples
from downstreams._downstream import Downstream
from downstreams._training import predict
from frostbench.grid.judging import Items


@dataclass(frozen=True)
class Chosen:
    """Some utterances of a split.

    Attributes:
        examples: the split.
        places: of the utterances in it.
    """

    examples: Examples
    places: Sequence[int]

    @property
    def targets(self) -> Sequence[torch.Tensor]:
        """See Examples.targets."""
        return [self.examples.targets[place] for place in self.places]

    @property
    def lengths(self) -> Sequence[int]:
        """See Examples.lengths."""
        return [self.examples.lengths[place] for place in self.places]

    def batch(self, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """See Examples.batch."""
        return self.examples.batch([self.places[index] for index in indices], generator)


def keep_worst(
    path: Path, downstream: Downstream, test: Examples, items: Items, values: Sequence[float], *, higher: bool
) -> None:
    """Writes the waveforms of the test recordings with the worst values; they are predicted once more for it.

    Args:
        path: of the file.
        downstream: as it was evaluated.
        test: the split.
        items: what is judged of it.
        values: the metric of each recording.
        higher: whether higher values are better.
    """
    places = worst_places(values, items.ids, higher=higher)
    found, _ = predict(downstream, Chosen(test, places), next(downstream.parameters()).device, _signals)
    write_waveforms(path, {items.ids[place]: each for place, each in zip(places, found, strict=True)})


def _signals(prediction: Any, target: torch.Tensor) -> Waveforms:
    """What was heard, the targets, and the estimates in their order: (1 + 2 * sources, samples)."""
    signals = target.numpy()
    return np.concatenate([signals, prediction[list(best_order(prediction, signals[1:]))]])
