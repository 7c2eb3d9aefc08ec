"""What the generative upstreams share: log mel frames in."""

from __future__ import annotations

import torch

from upstreams import _kaldi
from upstreams._trainable import TrainableUpstream


class GenerativeUpstream(TrainableUpstream):
    """A trainable upstream on Kaldi's frames."""

    downsample_rate = _kaldi.HOP_LENGTH
    min_samples = _kaldi.WIN_LENGTH

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        return _kaldi.frame_lengths(wav_lengths)
