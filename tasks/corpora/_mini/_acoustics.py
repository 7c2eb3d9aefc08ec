"""Stage 2, the sound: rooms, channels and noise for the clean synthetic speech.

All difficulty is set here, in `HARDNESS`, `ROOMS` and `CHANNELS`. Everything random comes from a generator
keyed by the seed and a name (utterance, room, channel), so no result depends on the order of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from _texts import Line, keyed_generator
from numpy.typing import NDArray
from scipy.signal import fftconvolve, resample_poly

SAMPLE_RATE = 16_000
SEED = 7

Wav = NDArray[np.float32]
Range = tuple[float, float]


@dataclass(frozen=True)
class Hardness:
    """How hard one group of recordings is made; every pair is the range of a uniform draw.

    Attributes:
        snr_db: speech to noise, over the active speech. Down: harder for everybody.
        direct_db: direct sound to reverberation. Down: blurs phones (KS, IC, ASR) and the spectrum.
        rt60_seconds: reverberation time.
        eq_db: size of the random smooth spectral curve of a channel. Up: mean spectra tell less (SID, FBANK).
        tilt_db: spectral tilt per octave around 1 kHz. Up: as `eq_db`.
        low_cut_hz, high_cut_hz: the channel's band.
        rate: factor of pitch and tempo together, by resampling. Wider: voices overlap more (SID).
        babble: share of recordings with babble in place of coloured noise.
        level_db: RMS of the recording, dB full scale.
        places: factor on the numbers of rooms and channels there are.
        sessions: different (room, channel) pairs of a voice in a split; 0 is a new pair for each
            recording. Few in train: a pooled head learns the channel for the voice (SID).
        context_seconds: noise alone before, and again after, the speech. Wider: means over time tell less.
        eq_waves: cosines over log frequency in a channel's curve; 5 bend at about 0.7 octave, 24 at 0.15. More: no few
            directions of the spectrum hold the channel, so a linear head can't learn to ignore them (SID, FBANK).
    """

    snr_db: Range = (15, 30)
    direct_db: Range = (6, 16)
    rt60_seconds: Range = (0.12, 0.35)
    eq_db: Range = (0.5, 2)
    tilt_db: Range = (-1.5, 1.5)
    low_cut_hz: Range = (50, 150)
    high_cut_hz: Range = (5500, 8000)
    rate: Range = (0.97, 1.03)
    babble: float = 0.25
    level_db: Range = (-28, -20)
    places: int = 1
    sessions: int = 0
    context_seconds: Range = (0.02, 0.1)
    eq_waves: int = 5


HARDNESS = {
    "ks": Hardness(),
    "ic": Hardness(),
    "asr": Hardness(),
    # Channels as fine as real rooms and microphones have them, and pauses, hide a voice's mean spectrum, but not its
    # way of speaking: tuned on train and valid, see README.md.
    "sid": Hardness(
        snr_db=(14, 30),
        direct_db=(10, 20),
        rt60_seconds=(0.15, 0.4),
        eq_db=(2.5, 3.5),
        tilt_db=(-1, 1),
        low_cut_hz=(50, 200),
        high_cut_hz=(5000, 8000),
        rate=(0.99, 1.01),
        level_db=(-34, -18),
        context_seconds=(0.0, 1.0),
        eq_waves=24,
        places=8,
    ),
}
# How many there are in each split, times `places` of a group. They are drawn separately, so no room or
# channel occurs in two splits.
ROOMS = {"train": 48, "valid": 16, "test": 32}
CHANNELS = {"train": 32, "valid": 12, "test": 24}

EARLY_SECONDS = 0.04  # early reflections, sparse; the diffuse tail starts with them
EARLY_COUNT = 10
BABBLE_VOICES = 5


def harden(line: Line, clean: Wav | None, babblers: Sequence[Wav]) -> Wav:
    """The recording of `line`: room, noise, channel, level.

    Args:
        line: decides every random draw by its id.
        clean: dry speech at 16 kHz, (samples,); None for silence.
        babblers: speech for the babble, of the same split.

    Returns: float32 (samples,), within [-1, 1].
    """
    hardness = HARDNESS[line.group]
    generator = keyed_generator(SEED, line.id)
    session = keyed_generator(SEED, "session", _session_name(line, hardness))
    room, channel = (session.integers(count[line.split] * hardness.places) for count in (ROOMS, CHANNELS))
    if clean is None:
        speech = np.zeros(round(SAMPLE_RATE * generator.uniform(0.8, 1.2)), np.float32)
    else:
        speech = _in_room(_at_rate(clean, generator.uniform(*hardness.rate)), line, int(room))
        before, after = (round(SAMPLE_RATE * generator.uniform(*hardness.context_seconds)) for _ in range(2))
        speech = np.pad(speech, (before, after))
    noise = _noise(len(speech), generator, babblers, hardness.babble)
    gain = 10 ** (-generator.uniform(*hardness.snr_db) / 20)
    if clean is not None:
        gain *= _active_rms(speech)
    wav = _through_channel(speech + gain * noise, line, int(channel))
    level = generator.uniform(*hardness.level_db) - (12 if clean is None else 0)
    wav *= 10 ** (level / 20) / np.sqrt(np.mean(wav**2))
    return (wav / max(1.0, float(np.abs(wav).max()) / 0.98)).astype(np.float32)


def _session_name(line: Line, hardness: Hardness) -> str:
    if not hardness.sessions:
        return line.id
    number = int(line.id.rsplit("-", 1)[1]) % hardness.sessions
    return f"{line.group}/{line.voice}/{line.split}/{number}"


def _at_rate(wav: Wav, factor: float) -> Wav:
    # In steps of 1 %, which keeps the polyphase filter short.
    return np.asarray(resample_poly(wav, 100, round(100 * factor)), np.float32)


def _in_room(wav: Wav, line: Line, number: int) -> Wav:
    hardness = HARDNESS[line.group]
    generator = keyed_generator(SEED, "room", line.split, line.group, number)
    rt60, direct_db = generator.uniform(*hardness.rt60_seconds), generator.uniform(*hardness.direct_db)
    size = round(rt60 * SAMPLE_RATE)
    time = np.arange(size) / SAMPLE_RATE
    # Amplitude falls by 60 dB in RT60; the highs, absorbed by air and cloth, fall about twice as fast.
    decay = 10 ** (-3 * time / rt60)
    tail = generator.standard_normal(size) * decay
    dull = np.convolve(generator.standard_normal(size), np.hanning(9) / 2, "same") * np.sqrt(decay)
    reflections = (tail + dull) / 2 * np.minimum(1, time / EARLY_SECONDS)
    early = generator.integers(32, round(EARLY_SECONDS * SAMPLE_RATE), EARLY_COUNT)
    reflections[early] += generator.normal(0, 3, EARLY_COUNT) * decay[early]
    response = reflections * np.sqrt(10 ** (-direct_db / 10) / np.sum(reflections**2))
    response[0] = 1.0
    return np.asarray(fftconvolve(wav, response)[: len(wav) + size // 6], np.float32)


def _noise(samples: int, generator: np.random.Generator, babblers: Sequence[Wav], babble: float) -> Wav:
    """Noise of RMS 1: coloured between white and brown with a slow swell, or time-reversed talkers."""
    if generator.random() < babble:
        noise = np.zeros(samples, np.float64)
        for talker in babblers:
            gain, shift = generator.uniform(0.4, 1.0), int(generator.integers(len(talker)))
            noise += gain * np.resize(np.roll(talker[::-1], shift), samples)
    else:
        spectrum = np.fft.rfft(generator.standard_normal(samples))
        frequency = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 40)
        noise = np.fft.irfft(spectrum * frequency ** (-generator.uniform(0, 2) / 2), samples)
        swell = generator.uniform(0, 0.5) * np.sin(
            2 * np.pi * (generator.uniform(0.3, 3) * np.arange(samples) / SAMPLE_RATE + generator.random())
        )
        noise *= 1 + swell
    return np.asarray(noise / np.sqrt(np.mean(noise**2) + 1e-12), dtype=np.float32)


def _active_rms(wav: Wav) -> float:
    frames = wav[: len(wav) // 160 * 160].reshape(-1, 160)
    power = np.mean(frames**2, axis=1)
    return float(np.sqrt(np.mean(power[power > power.max() * 1e-3])))  # frames within 30 dB of the loudest


def _through_channel(wav: Wav, line: Line, number: int) -> Wav:
    """Microphone and line: a smooth random curve over log frequency, a tilt and a band."""
    hardness = HARDNESS[line.group]
    generator = keyed_generator(SEED, "channel", line.split, line.group, number)
    padded = len(wav) + 1024
    frequency = np.maximum(np.fft.rfftfreq(padded, 1 / SAMPLE_RATE), 20)
    octaves = np.log2(frequency / 1000)
    place = (octaves + 4) / 7  # 62 Hz to 8 kHz is 0 to 1
    count = hardness.eq_waves
    weights, phases = generator.standard_normal(count), generator.uniform(0, 2 * np.pi, count)
    waves = np.cos(np.pi * np.arange(1, count + 1)[:, None] * place + phases[:, None])
    curve_db = generator.uniform(*hardness.eq_db) * (weights @ waves) / np.sqrt(count / 2)
    curve_db += generator.uniform(*hardness.tilt_db) * octaves
    low, high = generator.uniform(*hardness.low_cut_hz), generator.uniform(*hardness.high_cut_hz)
    # Power responses of second-order (low) and eighth-order (high) Butterworth filters.
    curve_db -= 10 * np.log10(1 + (low / frequency) ** 4) + 10 * np.log10(1 + (frequency / high) ** 16)
    shaped = np.fft.irfft(np.fft.rfft(wav, padded) * 10 ** (curve_db / 20), padded)
    return np.asarray(shaped[: len(wav)], dtype=np.float32)
