"""Conditions that test sets are recorded in afterwards: noise, reverberation, a telephone's band.

All is computed at 16 kHz from the waveform, a seed and the condition's text: the same everywhere, without a download.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from core.audio import SAMPLE_RATE
from core.errors import BenchmarkError

FORM = re.compile(r"([a-z]+)(?:@(-?\d+(?:\.\d+)?)([A-Za-z]*))?")
# Long-term average speech spectrum, men and women together: dB in third octaves (Byrne et al., JASA 96(4), 1994).
THIRD_OCTAVES = (
    63, 80, 100, 125, 160, 200, 250, 315, 400, 500, 630, 800, 1000, 1250, 1600, 2000, 2500, 3150, 4000, 5000, 6300,
    8000,
)  # fmt: skip
SPEECH_LEVELS = (
    38.6, 43.5, 54.4, 57.7, 56.8, 60.2, 60.3, 59.0, 62.1, 62.1, 60.5, 56.8, 53.7, 53.0, 52.0, 48.7, 48.1, 46.8, 45.6,
    44.5, 44.3, 43.7,
)  # fmt: skip
DECAY = math.log(10**3)  # amplitudes fall by 60 dB in the reverberation time
BAND = (300.0, 3400.0)  # of a telephone, in hertz
STOP = (200.0, 4000.0)  # nothing is left beyond: it has 8,000 samples a second
ECHO_SECONDS = 0.1  # of a filter's response that is not to come round to the other end


def asked_conditions(conditions: str | Sequence[str]) -> tuple[Condition, ...]:
    """One or several conditions, each once; `clean`, which is always heard, may be among them.

    Raises: BenchmarkError: one of them is no condition.
    """
    texts = conditions.split(",") if isinstance(conditions, str) else list(conditions)
    return tuple(dict.fromkeys(Condition.from_text(text) for text in texts if text.strip() not in ("", "clean")))


@dataclass(frozen=True)
class Condition:
    """What recordings are heard in.

    Attributes:
        kind: noise, reverb or telephone.
        amount: signal-to-noise ratio in dB; seconds of reverberation (RT60); 0 of a telephone.
    """

    kind: str
    amount: float = 0.0

    @classmethod
    def from_text(cls, text: str) -> Condition:
        """What `noise@20dB`, `reverb`, `reverb@0.6s` or `telephone` means.

        Raises: BenchmarkError: it is none of these.
        """
        found = FORM.fullmatch(text.strip())
        kind = None if found is None else KINDS.get(found[1])
        if found is not None and kind is not None and found[3] in (None, "", kind.unit):
            amount = kind.default if found[2] is None else float(found[2])
            fits = found[2] is None or kind.unit != ""
            if amount is not None and fits and kind.least <= amount <= kind.most:
                return cls(found[1], amount)
        raise BenchmarkError(
            f"condition '{text}': must be such as noise@20dB (-60 to 100), reverb@0.6s (0.05 to 10) or telephone"
        )

    def __str__(self) -> str:
        unit = KINDS[self.kind].unit
        return f"{self.kind}@{self.amount:g}{unit}" if unit else self.kind

    @property
    def label(self) -> str:
        """Its amount, where several of its kind stand side by side."""
        unit = KINDS[self.kind].unit
        return f"{self.amount:g} {unit}" if unit else f"{BAND[0]:g} to {BAND[1]:g} Hz"

    @property
    def severity(self) -> float:
        """The larger, the harder of those of its kind."""
        return self.amount * KINDS[self.kind].harder

    def applied(self, wav: torch.Tensor, seed: str) -> torch.Tensor:
        """What is heard of a waveform.

        Args:
            wav: (samples,) at 16 kHz.
            seed: of the noise or the room; with the kind it decides them, whatever the amount.

        Returns: float32 (samples,); it may exceed [-1, 1].
        """
        digest = hashlib.sha256(f"{self.kind}|{seed}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:16], "big"))
        heard = KINDS[self.kind].heard(wav.numpy().astype(np.float64), self.amount, generator)
        return torch.from_numpy(heard.astype(np.float32))


Wav = np.ndarray[tuple[int], np.dtype[np.float64]]


def _in_noise(wav: Wav, snr_db: float, generator: np.random.Generator) -> Wav:
    """With stationary noise of speech's spectrum, so many dB below the recording's mean power."""
    noise = speech_shaped(len(wav), generator)
    power = _power(noise)  # none where there is a single sample
    return wav + noise * math.sqrt(_power(wav) / power / 10 ** (snr_db / 10)) if power else wav


def speech_shaped(samples: int, generator: np.random.Generator) -> Wav:
    """Gaussian noise with the long-term average spectrum of speech, float64 (samples,), at any level."""
    white = np.fft.rfft(generator.standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    edges = np.sqrt(
        np.multiply(THIRD_OCTAVES[1:], THIRD_OCTAVES[:-1])
    )  # of what is nearer to one centre than to others
    widths = np.diff(edges, prepend=THIRD_OCTAVES[0] ** 2 / edges[0], append=THIRD_OCTAVES[-1] ** 2 / edges[-1])
    densities = np.array(SPEECH_LEVELS) - 10 * np.log10(widths)
    shape = densities[np.searchsorted(edges, frequencies)]
    shaped = white * 10 ** (shape / 20) * (frequencies > 0)
    return np.fft.irfft(shaped, samples)


def _in_room(wav: Wav, seconds: float, generator: np.random.Generator) -> Wav:
    """In a room of this reverberation time, at the level that it had; what rings on after its end is cut off."""
    response = room_response(seconds, generator)
    size = len(wav) + len(response)
    filtered = np.fft.irfft(np.fft.rfft(wav, size) * np.fft.rfft(response, size), size)[: len(wav)]
    power = _power(filtered)
    return filtered * math.sqrt(_power(wav) / power) if power else filtered


def room_response(seconds: float, generator: np.random.Generator) -> Wav:
    """A room's impulse response: the direct sound, and as much energy in an exponentially decaying noise.

    Reference: Polack's model (J. D. Polack, La transmission de l'énergie sonore dans les salles, 1988).

    Args:
        seconds: in which the energy falls by 60 dB (RT60), and which it lasts.
        generator: of the noise.
    """
    times = np.arange(1, math.ceil(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = generator.standard_normal(len(times)) * np.exp(-DECAY * times / seconds)
    return np.concatenate([[1.0], tail / math.sqrt(float(np.square(tail).sum()))])


def _on_telephone(wav: Wav, amount: float, generator: np.random.Generator) -> Wav:
    """Within a telephone's band, without a shift in time; edges are half a cosine wide."""
    size = len(wav) + int(2 * ECHO_SECONDS * SAMPLE_RATE)
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    rising = np.clip((frequencies - STOP[0]) / (BAND[0] - STOP[0]), 0, 1)
    falling = np.clip((STOP[1] - frequencies) / (STOP[1] - BAND[1]), 0, 1)
    passed = (1 - np.cos(np.pi * np.minimum(rising, falling))) / 2
    return np.fft.irfft(np.fft.rfft(wav, size) * passed, size)[: len(wav)]


def _power(wav: Wav) -> float:
    return float(np.square(wav).mean())


class _Kind(NamedTuple):
    """A kind of condition.

    Attributes:
        heard: waveform, amount and generator -> what is heard.
        unit: of the amount; empty where it has none.
        default: amount where none is said; None where one has to be.
        least, most: of the amount.
        harder: 1 where a larger amount is harder, -1 where a smaller one is.
    """

    heard: Callable[[Wav, float, np.random.Generator], Wav]
    unit: str
    default: float | None
    least: float
    most: float
    harder: int


KINDS = {
    "noise": _Kind(_in_noise, "dB", None, -60, 100, -1),
    "reverb": _Kind(_in_room, "s", 0.6, 0.05, 10, 1),
    "telephone": _Kind(_on_telephone, "", 0.0, 0, 0, 1),
}
