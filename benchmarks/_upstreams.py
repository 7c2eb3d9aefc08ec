"""Upstreams for the benchmarks, named on the command line as `benchmarks/_upstreams.py:NAME`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch

from core.hidden_states import HiddenStates
from upstreams._base import Upstream, UpstreamCard, register_upstream

DIARY = "FROSTBENCH_PASSES"  # environment variable: folder where `Counting` writes what it heard


@register_upstream(UpstreamCard(name="wide", title="13 random projections of 20 ms blocks, 768-d", paper="none"))
class Wide(Upstream):
    """Hidden states of HuBERT base's size for next to nothing, where a benchmark is about what follows."""

    num_layers, hidden_size, downsample_rate, min_samples = 13, 768, 320, 320

    def __init__(self) -> None:
        super().__init__()
        scale = 3 / self.downsample_rate**0.5
        self.projection = torch.nn.Parameter(scale * torch.randn(self.downsample_rate, 13 * 768))

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """Whole blocks."""
        return wav_lengths // self.downsample_rate

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        blocks = wavs[:, : wavs.shape[1] // 320 * 320].unflatten(1, (-1, 320))
        states = (blocks @ self.projection).mul(10).tanh()  # (batch, frames, 13 * 768)
        return HiddenStates(states.split(768, dim=2), self.frame_lengths(wav_lengths))


@register_upstream(UpstreamCard(name="counting", title="Log energy of 10 ms blocks, with a diary", paper="none"))
class Counting(Upstream):
    """Writes a digest of every waveform it hears: a counter that the rest of the program can't get wrong."""

    num_layers, hidden_size, downsample_rate, min_samples = 1, 1, 160, 160

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """Whole blocks."""
        return wav_lengths // self.downsample_rate

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        with (Path(os.environ[DIARY]) / f"{os.getpid()}.txt").open("a", encoding="utf-8") as file:
            for wav, length in zip(wavs, wav_lengths.tolist(), strict=True):
                file.write(hashlib.sha256(wav[:length].numpy().tobytes()).hexdigest() + "\n")
        blocks = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160))
        energy = (blocks.square().mean(dim=2, keepdim=True) + 1e-8).log()  # (batch, frames, 1)
        return HiddenStates((energy,), self.frame_lengths(wav_lengths))


@register_upstream(UpstreamCard(name="numbered", title="As many upstreams as one likes: numbered@7", paper="none"))
class Numbered(Upstream):
    """Blocks of 20 ms times a number, for grids of many upstreams that cost nothing to build."""

    num_layers, hidden_size, downsample_rate, min_samples = 1, 320, 320, 320

    def __init__(self, number: int = 0) -> None:
        super().__init__()
        self.number = number
        self.label = f"numbered-{number}"

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> Numbered:
        """The checkpoint is the number."""
        return cls(int(checkpoint or 0))

    def configuration(self) -> dict[str, int]:
        """See Upstream.configuration."""
        return {"number": self.number}

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """Whole blocks."""
        return wav_lengths // self.downsample_rate

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        blocks = wavs[:, : wavs.shape[1] // 320 * 320].unflatten(1, (-1, 320))
        return HiddenStates((blocks * self.number,), self.frame_lengths(wav_lengths))
