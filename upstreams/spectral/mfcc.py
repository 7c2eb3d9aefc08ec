"""MFCC: 13 mel cepstra with deltas and double deltas (Davis & Mermelstein, 1980; Kaldi's definition)."""

from __future__ import annotations

import torch

from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders import kaldi
from upstreams.spectral._base import SpectralUpstream


@register_upstream(
    UpstreamCard(name="mfcc", title="13 mel cepstra + 2 deltas, 39-d", paper="doi:10.1109/TASSP.1980.1163420")
)
class MFCC(SpectralUpstream):
    """Without mean normalisation, for the reason given in `fbank`."""

    hidden_size = 39

    def features(self, wav: torch.Tensor) -> torch.Tensor:
        """(samples,) -> (frames, 39)."""
        return kaldi.with_deltas(kaldi.mfcc(wav))
