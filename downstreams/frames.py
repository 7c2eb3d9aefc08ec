"""No head at all: the features, for tasks that compare recordings frame by frame (SUPERB, arXiv:2105.01051)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from core.lengths import unpad
from downstreams._base import FeatureShape, Head, register_head
from downstreams._merging import merged, merged_lengths
from downstreams.labels._base import Labels
from downstreams.labels.identities import IdentityLabels


@dataclass(frozen=True)
class FramesOptions:
    """How finely recordings are compared.

    Attributes:
        frame_samples: neighbouring frames are averaged until one spans about so many samples; 0 leaves them all.
    """

    frame_samples: int = 0


@register_head("frames")
class Frames(Head):
    """The features as they are, which a task's scorer compares frame by frame; learns nothing."""

    needs = "frames"
    trains = False
    embeds = True
    label_kind = IdentityLabels
    options_type = FramesOptions
    small_options: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"frame_samples": 320})

    def __init__(self, shape: FeatureShape, labels: Labels, options: Any) -> None:
        super().__init__(shape, labels, options)
        self.stride = max(1, round(options.frame_samples / shape.downsample_rate))

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Frames (batch, frames / stride, hidden_size)."""
        return merged(features, lengths, self.stride)

    def predict(self, logits: torch.Tensor, lengths: torch.Tensor) -> list[Any]:
        """The valid frames of each recording, float32 (frames, hidden_size)."""
        return [frames.detach().float().cpu().numpy() for frames in unpad(logits, merged_lengths(lengths, self.stride))]
