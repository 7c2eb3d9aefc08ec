"""SUPERB's x-vectors for speaker verification (Snyder et al. 2018), trained with margins (arXiv:1801.05599)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from core.lengths import padding_mask
from downstreams._base import FeatureShape, Head, register_head
from downstreams._data import Targets, stacked
from downstreams.labels._base import Labels
from downstreams.labels.identities import UNKNOWN, IdentityLabels

CONTEXTS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))  # (frames, distance between them) that each layer joins
LOST = sum((frames - 1) * distance for frames, distance in CONTEXTS)  # 14 frames of an utterance
SHORTEST = LOST + 2  # of which a deviation can be computed; shorter ones repeat their last frame


@dataclass(frozen=True)
class XVectorOptions:
    """Sizes of the head, and what its loss asks for.

    Attributes:
        projector_size: of the linear layer on the features.
        size: of the layers over time and over utterances.
        pooled_size: of the last layer over time.
        frame_samples: neighbouring frames of shorter ones are averaged to this many samples at 16 kHz; 0 leaves them.
        scale, margin: of the cosines in the loss.
    """

    projector_size: int = 512
    size: int = 512
    pooled_size: int = 1500
    frame_samples: int = 0
    scale: float = 30.0
    margin: float = 0.4


@register_head("xvector")
class XVector(Head):
    """Linear -> five layers over time -> mean and deviation -> Linear: a vector; one more Linear for the loss alone.

    The vector that recordings are compared by is that of the first layer behind the pooling.
    """

    needs = "frames"
    embeds = True
    label_kind = IdentityLabels
    options_type = XVectorOptions
    small_options: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"projector_size": 12, "size": 12, "pooled_size": 16},
        {"projector_size": 12, "size": 12, "pooled_size": 16, "frame_samples": 320, "margin": 0.0},
    )

    def __init__(self, shape: FeatureShape, labels: Labels, options: Any) -> None:
        super().__init__(shape, labels, options)
        self.joined = max(1, round(options.frame_samples / shape.downsample_rate))
        self.projector = nn.Linear(shape.hidden_size, options.projector_size)
        inputs = [options.projector_size, *[options.size] * 4]
        outputs = [*[options.size] * 4, options.pooled_size]
        self.layers = nn.ModuleList(
            nn.Conv1d(width, after, frames, dilation=distance)
            for width, after, (frames, distance) in zip(inputs, outputs, CONTEXTS, strict=True)
        )
        self.segment = nn.Linear(2 * options.pooled_size, options.size)
        self.hidden = nn.Linear(options.size, options.size)
        self.voices = nn.Parameter(nn.init.xavier_normal_(torch.empty(options.size, sum(labels.sizes))))

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Vectors (batch, size)."""
        features, lengths = self._slower(features, lengths)
        hidden = self.projector(features)
        # Behind its end an utterance repeats its last frame, so no padding is looked at.
        times = torch.arange(max(SHORTEST, hidden.shape[1]), device=hidden.device)
        places = torch.minimum(times[None], lengths.to(hidden.device)[:, None] - 1)
        hidden = hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[2])).transpose(1, 2)
        for layer in self.layers:
            hidden = layer(hidden).relu()
        return self.segment(_mean_and_deviation(hidden.transpose(1, 2), lengths.clamp(min=SHORTEST) - LOST)).relu()

    def _slower(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means of neighbouring frames; a last group that is not whole is left out, unless it is the only one."""
        if self.joined == 1:
            return features, lengths
        missing = max(0, self.joined - features.shape[1])
        features = functional.pad(features, (0, 0, 0, missing))
        frames = features.shape[1] // self.joined
        groups = features[:, : frames * self.joined].unflatten(1, (frames, self.joined))
        valid = torch.arange(self.joined, device=features.device)[None] < lengths.to(features.device)[:, None]
        first = (groups[:, 0] * valid[:, :, None]).sum(dim=1) / valid.sum(dim=1, keepdim=True)
        return torch.cat([first[:, None], groups[:, 1:].mean(dim=2)], dim=1), (lengths // self.joined).clamp(min=1)

    def loss(self, logits: torch.Tensor, lengths: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Mean cross-entropy over the voices of train by scaled cosines, the true one's less the margin.

        Voices that train lacks, as on valid, add nothing.
        """
        voices = stacked(targets).to(logits.device)[:, 0]
        known = voices != UNKNOWN
        if not bool(known.any()):
            return logits.sum() * 0
        hidden = self.hidden(logits).relu()
        cosines = functional.normalize(hidden, dim=1) @ functional.normalize(self.voices, dim=0)
        margins = self.options.margin * functional.one_hot(voices.clamp(min=0), cosines.shape[1])
        return functional.cross_entropy(self.options.scale * (cosines - margins)[known], voices[known])

    def predict(self, logits: torch.Tensor, lengths: torch.Tensor) -> list[Any]:
        """The vectors, which a task's scorer compares."""
        vectors: list[Any] = logits.tolist()
        return vectors


def _mean_and_deviation(frames: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Mean and unbiased deviation over valid frames, at least two: (batch, frames, size) -> (batch, 2 * size)."""
    valid = ~padding_mask(lengths.to(frames.device), frames.shape[1])[:, :, None]
    count = lengths.to(frames.device)[:, None]
    mean = (frames * valid).sum(dim=1) / count
    variance = ((frames - mean[:, None]).square() * valid).sum(dim=1) / (count - 1)
    return torch.cat([mean, (variance + 1e-12).sqrt()], dim=1)
