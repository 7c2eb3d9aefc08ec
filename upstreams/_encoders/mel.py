"""What the generative upstreams share: log mel frames in."""

from __future__ import annotations

import torch

from upstreams._encoders import kaldi
from upstreams._pretraining.contract import TrainableUpstream


class GenerativeUpstream(TrainableUpstream):
    """A trainable upstream on Kaldi's frames."""

    downsample_rate = kaldi.HOP_LENGTH
    min_samples = kaldi.WIN_LENGTH

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        return kaldi.frame_lengths(wav_lengths)
