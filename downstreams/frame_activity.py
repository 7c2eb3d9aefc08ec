"""SUPERB's head for diarisation: an LSTM, and who speaks in each frame (Fujita et al., arXiv:1909.05952)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.lengths import pad, padding_mask, unpad
from downstreams._base import FeatureShape, Head, register_head
from downstreams._data import Targets
from downstreams._merging import merged, merged_lengths
from downstreams.labels._base import LabelContext, Labels
from downstreams.labels.activities import ActivityLabels


@dataclass(frozen=True)
class FrameActivityOptions:
    """Sizes of the head, and how frames become turns.

    Attributes:
        lstm_size: of the LSTM, which reads in one direction.
        frame_samples: neighbouring frames are averaged until one spans about so many samples; 0 leaves them all.
        threshold: probability above which somebody speaks.
        median_frames: an odd number of frames, whose majority each frame takes; 1 leaves them as they are.
    """

    lstm_size: int = 512
    frame_samples: int = 0
    threshold: float = 0.5
    median_frames: int = 11


@register_head("frame_activity")
class FrameActivity(Head):
    """LSTM -> Linear: who of so many speaks in a frame, whatever their order; frames become turns behind a median."""

    labels: ActivityLabels
    needs = "frames"
    label_kind = ActivityLabels
    options_type = FrameActivityOptions
    small_options = (
        {"lstm_size": 32, "median_frames": 3},
        {"lstm_size": 32, "median_frames": 1, "frame_samples": 320},
    )

    def __init__(self, shape: FeatureShape, labels: Labels, options: Any) -> None:
        super().__init__(shape, labels, options)
        self.stride = max(1, round(options.frame_samples / shape.downsample_rate))
        self.lstm = nn.LSTM(shape.hidden_size, options.lstm_size, batch_first=True)
        self.classifier = nn.Linear(options.lstm_size, labels.sizes[0])

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits (batch, frames / stride, speakers)."""
        hidden: torch.Tensor = self.lstm(merged(features, lengths, self.stride))[0]
        logits: torch.Tensor = self.classifier(hidden)
        return logits

    def loss(self, logits: torch.Tensor, lengths: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Binary cross-entropy in the order of speakers that suits an utterance best, over all valid frames."""
        lengths = lengths.to(logits.device)
        whole = pad(list(targets))[0].to(logits.device)
        active = (merged(whole, lengths, self.stride) >= 0.5).to(logits.dtype)
        logits = logits[:, : active.shape[1]]
        frames = merged_lengths(lengths, self.stride)
        valid = ~padding_mask(frames, logits.shape[1])
        costs = torch.stack(
            [
                _entropies(logits, active[:, :, list(order)]).masked_fill(~valid, 0).sum(dim=1)
                for order in permutations(range(logits.shape[2]))
            ]
        )  # (orders, batch)
        return costs.amin(dim=0).sum() / frames.sum()

    def predict(self, logits: torch.Tensor, lengths: torch.Tensor) -> list[Any]:
        """The turns of each recording, in seconds; speakers are called by their column."""
        rate = self.shape.downsample_rate * self.stride
        found = []
        for frames in unpad(logits.detach().sigmoid() > self.options.threshold, merged_lengths(lengths, self.stride)):
            active = _majority(frames, self.options.median_frames)
            found.append(self.labels.decode(active.cpu(), LabelContext(len(active), rate)))
        return found


def _entropies(logits: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """Mean over speakers (batch, frames)."""
    return functional.binary_cross_entropy_with_logits(logits, active, reduction="none").mean(dim=2)


def _majority(active: torch.Tensor, width: int) -> torch.Tensor:
    """Median of so many frames around each, silence behind both ends: bool (frames, speakers)."""
    if width == 1:
        return active
    windows = functional.pad(active.float().T, (width // 2, width // 2)).unfold(1, width, 1)
    return (windows.sum(dim=2) > width / 2).T
