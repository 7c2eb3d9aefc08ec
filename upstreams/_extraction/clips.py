"""What has to pass an upstream: clips, the batches they are laid out in, and the pieces of very long ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from core.audio import SAMPLE_RATE, amplified, at_rate, num_samples, read_audio, resample
from core.conditions import Condition
from core.feature_cache import Kind
from core.mixtures import Mixture, read_mixture

BATCH_SECONDS = 8.0  # Upstream.batch_seconds, where nothing else is known
GPU_BATCHES = 16  # as many batches pass a GPU as one
# Above it a recording passes in pieces: a base-size transformer takes 0.3 GB and 21 MB a second on top of its weights,
# and an extraction shall stay below 1.5 GB. The longest utterance of LibriSpeech has 35 s.
LONGEST_SECONDS = 40.0


@dataclass(frozen=True)
class Clip:
    """A recording or a mixture, or a piece of it, as it is passed through an upstream.

    Attributes:
        audio_digest: sha256 of the file, or of what the mixture is made of.
        path: the file; of a mixture that of its first source.
        samples: length in samples at 16 kHz, as far as the header tells: batches are laid out by it.
        kinds: what is kept of its hidden states.
        start: first sample of the piece.
        stop: sample behind its last; None is the end of the recording.
        gain_db: level change in decibels.
        mixture: what it is a piece of; None is the file.
        condition: what it is heard in, such as noise@20dB; None is as it was recorded.
    """

    audio_digest: str
    path: Path
    samples: int
    kinds: frozenset[Kind]
    start: int = 0
    stop: int | None = None
    gain_db: float = 0.0
    mixture: Mixture | None = None
    condition: str | None = None

    @property
    def key(self) -> str:
        """What its features are kept under."""
        return clip_key(self.audio_digest, self.start, self.stop, self.gain_db, self.condition)

    def read(self, sample_rate: int = SAMPLE_RATE) -> torch.Tensor:
        """The waveform (samples,) at a sample rate; start and stop are counted at 16 kHz whatever it is.

        Noise and rooms follow from what is heard in them alone: one recording has the same at every level.
        """
        if self.condition is None:
            return self._recorded(sample_rate)
        seed = clip_key(self.audio_digest, self.start, self.stop)
        heard = Condition.from_text(self.condition).applied(self._recorded(SAMPLE_RATE), seed)
        return resample(heard, SAMPLE_RATE, sample_rate)

    def _recorded(self, sample_rate: int) -> torch.Tensor:
        if self.mixture is None:
            return amplified(read_audio(self.path, self.start, self.stop, sample_rate), self.gain_db)
        start, stop = at_rate(self.start, sample_rate), None if self.stop is None else at_rate(self.stop, sample_rate)
        return amplified(read_mixture(self.mixture, sample_rate)[start:stop], self.gain_db)

    def recorded_samples(self) -> int:
        """Where the recording ends, as far as its header tells; of a piece, where the piece does."""
        if self.stop is not None:
            return self.stop
        return num_samples(self.path) if self.mixture is None else self.mixture.samples()


def clip_key(
    audio_digest: str, start: int = 0, stop: int | None = None, gain_db: float = 0.0, condition: str | None = None
) -> str:
    """The cache key of a clip; a whole recording at its own level, as it was recorded, has its audio's digest."""
    piece = "" if start == 0 and stop is None else f"[{start}:{'' if stop is None else stop}]"
    level = f"{gain_db:+g}dB" if gain_db else ""
    return f"{audio_digest}{piece}{level}{'' if condition is None else f'|{condition}'}"


def lay_out(clips: Sequence[Clip], window_samples: int, batch_seconds: float = BATCH_SECONDS) -> list[list[Clip]]:
    """Batches of clips of about the same length, the longest first, each within the budget or of one clip.

    Args:
        clips: in any order; the same set gives the same batches.
        window_samples: the upstream computes in multiples of it, in samples at 16 kHz.
        batch_seconds: budget of padded audio.
    """
    budget = int(batch_seconds * SAMPLE_RATE)
    batches: list[list[Clip]] = []
    room = 0
    for clip in sorted(clips, key=lambda clip: (-clip.samples, clip.key)):
        if room < 1:
            cost = max(1, math.ceil(clip.samples / window_samples)) * window_samples
            room = max(1, budget // cost)
            batches.append([])
        batches[-1].append(clip)
        room -= 1
    return batches


def longest_first(batches: Sequence[list[Clip]]) -> list[list[Clip]]:
    """Batches of several layouts in the order that each of them has."""
    return sorted(batches, key=lambda batch: -batch[0].samples)


def share_out(batches: Sequence[list[Clip]], workers: int) -> list[list[list[Clip]]]:
    """Shares of about the same length of audio, one for each worker, none of them empty."""
    shares: list[list[list[Clip]]] = [[] for _ in range(workers)]
    seconds = [0.0] * workers
    for batch in longest_first(batches):
        least = seconds.index(min(seconds))
        shares[least].append(batch)
        seconds[least] += max(clip.samples for clip in batch) * len(batch)
    return [share for share in shares if share]


def is_long(samples: int, sample_rate: int = SAMPLE_RATE) -> bool:
    """Whether a clip of this length passes an upstream in pieces."""
    return samples > LONGEST_SECONDS * sample_rate


def pieces(samples: int, unit: int, overlap: int, sample_rate: int = SAMPLE_RATE) -> list[slice]:
    """Where a long clip is cut: pieces of about the same length, below LONGEST_SECONDS and a unit.

    Args:
        samples: of the clip.
        unit: pieces begin at multiples of it: the samples of a frame, or those of a window.
        overlap: how far a piece reaches into the next: what a frame needs beyond its own samples.
        sample_rate: of the clip.
    """
    count = math.ceil(samples / (LONGEST_SECONDS * sample_rate))
    starts = [round(number * samples / count / unit) * unit for number in range(count)]
    starts = sorted(set(starts))
    return [slice(start, stop + overlap) for start, stop in zip(starts, [*starts[1:], samples], strict=True)]
