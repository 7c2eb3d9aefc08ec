"""FBANK: 80 log mel energies with deltas and double deltas (Kaldi's definition), SUPERB's baseline row."""

from __future__ import annotations

import torch

from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders import kaldi
from upstreams.spectral._base import SpectralUpstream


@register_upstream(
    UpstreamCard(name="fbank", title="80 log mel energies + 2 deltas, 240-d", paper="SUPERB, arXiv:2105.01051")
)
class Fbank(SpectralUpstream):
    """Without mean normalisation: that would make every mean over time zero, and mean-pooled tasks blind."""

    hidden_size = 240

    def features(self, wav: torch.Tensor) -> torch.Tensor:
        """(samples,) -> (frames, 240)."""
        return kaldi.with_deltas(kaldi.fbank(wav))
