"""Splits without a cache: clips that pass the upstream whenever they are drawn, and waveforms for fine-tuning.

The first serve `--exact` and `--frames recompute`, as in s3prl.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from core.audio import at_rate
from core.feature_cache import Kind
from core.lengths import pad
from downstreams._data import READ_BYTES, Batch
from upstreams._extraction.clips import Clip
from upstreams._extraction.encoding import FrozenUpstream


@dataclass(frozen=True)
class WaveExamples:
    """A split as waveforms, for an upstream that is trained: their layers are what it makes of them just then.

    Attributes:
        encoder: says at which rate they are read, and how many frames it makes of them.
        clips: whole recordings.
        targets: encoded label of each.
        kind: what the head needs.
        crop_samples: of a longer recording a new random piece of this length is taken each time; 0 leaves it whole.
    """

    encoder: FrozenUpstream
    clips: Sequence[Clip]
    targets: Sequence[torch.Tensor]
    kind: Kind
    crop_samples: int = 0

    @cached_property
    def lengths(self) -> Sequence[int]:
        """See Examples.lengths: frames, so that batches are those of the cache."""
        if self.kind != "frames":
            return [1] * len(self.clips)
        rate = self.encoder.sample_rate
        samples = [at_rate(min(clip.samples, self.crop_samples or clip.samples), rate) for clip in self.clips]
        frames: list[int] = self.encoder.upstream.frame_lengths(torch.tensor(samples)).tolist()
        return frames

    def batch(self, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """See Examples.batch."""
        wavs = [self._wav(self._piece(self.clips[index], generator)) for index in indices]
        lengths = torch.ones(len(wavs), dtype=torch.int64)
        if self.kind == "frames":
            lengths = self.encoder.upstream.frame_lengths(torch.tensor([len(wav) for wav in wavs]))
        return Batch(wavs, lengths, [self.targets[index] for index in indices])

    def _wav(self, clip: Clip) -> torch.Tensor:
        """Read, and as far as there is room kept in memory: every epoch asks for it again."""
        if clip.key in self._read:
            return self._read[clip.key]
        wav = clip.read(self.encoder.sample_rate)
        if not self.crop_samples and sum(each.nbytes for each in self._read.values()) + wav.nbytes <= READ_BYTES:
            self._read[clip.key] = wav
        return wav

    @cached_property
    def _read(self) -> dict[str, torch.Tensor]:
        return {}

    def _piece(self, clip: Clip, generator: torch.Generator | None) -> Clip:
        room = clip.samples - self.crop_samples
        if not self.crop_samples or room <= 0:
            return clip
        start = clip.start + int(torch.randint(room + 1, (1,), generator=generator))
        return replace(clip, start=start, stop=start + self.crop_samples, samples=self.crop_samples)


@dataclass(frozen=True)
class LiveExamples(WaveExamples):
    """A split without a cache: clips pass the upstream whenever they are drawn."""

    def batch(self, indices: Sequence[int], generator: torch.Generator | None = None) -> Batch:
        """See Examples.batch."""
        clips = [self._piece(self.clips[index], generator) for index in indices]
        rows: dict[str, torch.Tensor] = {}
        distinct = list({clip.key: clip for clip in clips}.values())
        for batch, kept in self.encoder.stream(self.encoder.batches(distinct), {self.kind}):
            rows.update(zip((clip.key for clip in batch), kept[self.kind], strict=True))
        layers, lengths = pad([rows[clip.key] for clip in clips])
        return Batch(layers, lengths, [self.targets[index] for index in indices])
