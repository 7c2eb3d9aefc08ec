"""Training clips that pass the upstream at every update, as s3prl does: for `--exact`, where a cache would depart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from core.feature_cache import Kind
from core.lengths import pad
from downstreams._data import Batch
from upstreams._base import Upstream
from upstreams._extraction import Clip, rows_of, states_of


@dataclass(frozen=True)
class LiveExamples:
    """A train split without a cache: a new random piece of every long recording each time it is drawn.

    Attributes:
        upstream: frozen, on the device where it computes.
        clips: whole recordings.
        targets: encoded label of each.
        crop_samples: length of the pieces.
        kind: what the head needs.
    """

    upstream: Upstream
    clips: Sequence[Clip]
    targets: list[torch.Tensor]
    crop_samples: int
    kind: Kind

    @property
    def lengths(self) -> Sequence[int]:
        """Valid frames of every piece."""
        if self.kind != "frames":
            return [1] * len(self.clips)
        samples = torch.tensor([min(clip.samples, self.crop_samples) for clip in self.clips])
        return self.upstream.frame_lengths(samples).tolist()

    def batch(self, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """See Examples.batch."""
        clips = [self._piece(self.clips[index], generator) for index in indices]
        device = next((parameter.device for parameter in self.upstream.parameters()), torch.device("cpu"))
        states = states_of(self.upstream, clips, [clip.read() for clip in clips], device)
        layers, lengths = pad(list(rows_of(states, self.kind)))
        return Batch(layers, lengths, torch.stack([self.targets[index] for index in indices]))

    def _piece(self, clip: Clip, generator: torch.Generator | None) -> Clip:
        room = clip.samples - self.crop_samples
        if room <= 0:
            return clip
        start = clip.start + int(torch.randint(room + 1, (1,), generator=generator))
        return replace(clip, start=start, stop=start + self.crop_samples)
