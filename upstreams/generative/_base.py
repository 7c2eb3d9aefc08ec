"""What the generative upstreams share: log mel frames in, and checkpoints that `pretrain` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from upstreams import _checkpoint, _kaldi
from upstreams._base import Upstream


class GenerativeUpstream(Upstream):
    """An upstream on Kaldi's frames that is built from a configuration. A subclass sets `sizes` and `config_type`.

    Args:
        config: sizes of the network and of its training task.
    """

    config_type: ClassVar[type[Any]]
    downsample_rate = _kaldi.HOP_LENGTH
    min_samples = _kaldi.WIN_LENGTH

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> Self:
        """Loads a checkpoint that `pretrain` wrote; without one the weights are untrained, and the name says so."""
        if checkpoint is None:
            upstream = cls(cls.sizes["tiny"])
            upstream.label = f"{cls.card.name} (untrained)"
            return upstream
        path = Path(checkpoint)
        upstream = cls(_checkpoint.configuration_for(path, cls.card.name, cls.config_type))
        _checkpoint.load_weights(path, upstream)
        return upstream

    def configuration(self) -> Mapping[str, Any]:
        """See Upstream.configuration."""
        return asdict(self.config)

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        return _kaldi.frame_lengths(wav_lengths)
