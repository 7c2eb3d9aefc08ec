"""FBANK with utterance CMVN: what s3prl calls `fbank`. Frame-level tasks only; mean pooling leaves nothing of it."""

from __future__ import annotations

import torch

from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders import kaldi
from upstreams.spectral._base import SpectralUpstream


@register_upstream(
    UpstreamCard(
        name="fbank_cmvn",
        title="fbank, normalised over each utterance",
        paper="SUPERB, arXiv:2105.01051",
        version=2,
    )
)
class FbankCMVN(SpectralUpstream):
    """Zero mean, unit deviation per utterance and channel, after the deltas."""

    hidden_size = 240

    def features(self, wav: torch.Tensor) -> torch.Tensor:
        """(samples,) -> (frames, 240)."""
        return kaldi.cmvn(kaldi.with_deltas(kaldi.fbank(wav)))
