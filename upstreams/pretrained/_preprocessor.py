"""The spectral front ends that s3prl's checkpoints name in their settings: Kaldi's, and an STFT's mel or linear scale.

Every waveform is computed alone. s3prl pads the batch before the STFT, so that the last frames of a shorter waveform,
and the mean and deviation that all its frames are normalised with, depend on the longest one: not so here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torchaudio.compliance import kaldi as torchaudio_kaldi
from torchaudio.functional import melscale_fbanks

from core.audio import SAMPLE_RATE
from core.errors import CheckpointError
from upstreams._bounds import MOST_MELS, number_within, size_within
from upstreams._encoders import kaldi

LOG_EPSILON = 1e-10
RMS_EPSILON = 1e-10
MOST_DELTAS, MOST_DELTA_FRAMES = 10, 1_000
KALDI_FEATURES: Mapping[str, Callable[..., torch.Tensor]] = {
    "fbank": torchaudio_kaldi.fbank,
    "mfcc": torchaudio_kaldi.mfcc,
    "spectrogram": torchaudio_kaldi.spectrogram,
}
# They would make features random, or frames depend on something else than the length.
KALDI_REFUSED = {"waveform", "sample_frequency", "snip_edges", "dither", "subtract_mean", "min_duration", "channel"}


class FrontEnd(nn.Module):
    """Features of one waveform: (samples,) -> (frames, size).

    Attributes:
        hop_length: samples from one frame to the next.
        first_frame: samples that the first frame needs; 0 where waveforms are extended at both ends.
        min_samples: the shortest legal input.
    """

    hop_length: int
    first_frame: int
    min_samples: int

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """Frames of waveforms of these lengths."""
        return (wav_lengths - self.first_frame).div(self.hop_length, rounding_mode="floor") + 1


class KaldiFrontEnd(FrontEnd):
    """Kaldi features, deltas, normalisation over the utterance.

    Args:
        feature: fbank, mfcc or spectrogram.
        options: keywords of torchaudio.compliance.kaldi's function.
        deltas: order and window of the derivatives.
        use_cmvn: whether each column gets zero mean and unit deviation.
    """

    def __init__(self, feature: str, options: Mapping[str, Any], deltas: tuple[int, int], use_cmvn: bool) -> None:
        super().__init__()
        self.feature = KALDI_FEATURES[feature]
        self.options = dict(options)
        self.deltas = deltas
        self.use_cmvn = use_cmvn
        self.hop_length = _samples(options.get("frame_shift", 10.0))
        self.first_frame = self.min_samples = _samples(options.get("frame_length", 25.0))

    def forward(self, wav: torch.Tensor) -> torch.Tensor:
        """(samples,) -> (frames, size)."""
        features = self.feature(wav[None], sample_frequency=SAMPLE_RATE, **self.options)
        features = kaldi.with_deltas(features, *self.deltas)
        return kaldi.cmvn(features) if self.use_cmvn else features


class StftFrontEnd(FrontEnd):
    """Power spectrum, by bin or by mel band, with centred windows.

    Args:
        feature: mel or linear.
        win_length: samples of the Hann window.
        hop_length: samples from one frame to the next.
        n_freq: bins of the spectrum.
        n_mels: mel bands.
        log: whether the logarithm is taken.
        deltas: order of the derivatives.
        use_cmvn: whether each column gets zero mean and unit deviation.
        target_level: loudness in dB (RMS) that a waveform is brought to first; None leaves it.
    """

    filters: torch.Tensor
    window: torch.Tensor

    def __init__(
        self,
        feature: str,
        *,
        win_length: int = 400,
        hop_length: int = 160,
        n_freq: int = 201,
        n_mels: int = 80,
        log: bool = True,
        deltas: int = 0,
        use_cmvn: bool = True,
        target_level: float | None = None,
    ) -> None:
        super().__init__()
        self.is_mel = feature == "mel"
        self.hop_length = hop_length
        self.first_frame = 0
        self.n_fft = 2 * (n_freq - 1)
        self.min_samples = self.n_fft // 2 + 1  # reflection needs one sample more than it mirrors
        self.log = log
        self.deltas = deltas
        self.use_cmvn = use_cmvn
        self.target_level = target_level
        self.register_buffer("window", torch.hann_window(win_length), persistent=False)
        if self.is_mel:
            filters = melscale_fbanks(n_freq, 0.0, SAMPLE_RATE / 2, n_mels, SAMPLE_RATE)  # (n_freq, n_mels)
            self.register_buffer("filters", filters, persistent=False)

    def forward(self, wav: torch.Tensor) -> torch.Tensor:
        """(samples,) -> (frames, size)."""
        if self.target_level is not None:
            wav = wav * (10 ** (self.target_level / 20) / (wav.square().mean().sqrt() + RMS_EPSILON))
        spectrum = torch.stft(
            wav,
            self.n_fft,
            self.hop_length,
            len(self.window),
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        features = spectrum.abs().square().T  # (frames, n_freq)
        if self.is_mel:
            features = features @ self.filters
        if self.log:
            features = (features + LOG_EPSILON).log()
        features = kaldi.with_deltas(features, self.deltas)
        return kaldi.cmvn(features) if self.use_cmvn else features


def front_end(source: str, audio: Mapping[str, Any]) -> FrontEnd:
    """The front end that a checkpoint's audio settings describe.

    Args:
        source: what messages call the checkpoint.
        audio: the settings.

    Raises: CheckpointError: a setting is missing or not supported.
    """
    if audio.get("sample_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise _unsupported(source, "sample_rate", audio["sample_rate"], (SAMPLE_RATE,))
    try:
        return _kaldi_front_end(source, audio) if "kaldi" in audio else _stft_front_end(source, audio)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source}: audio settings {dict(audio)} can't be read ({type(error).__name__}: {error}); needed is kaldi "
            f"with feat_type and its options, delta and cmvn, or input with feat_type, log, delta and cmvn"
        ) from None


def _kaldi_front_end(source: str, audio: Mapping[str, Any]) -> KaldiFrontEnd:
    feature = audio["kaldi"].get("feat_type", "fbank")
    if feature not in KALDI_FEATURES:
        raise _unsupported(source, "kaldi feat_type", feature, KALDI_FEATURES)
    options = audio["kaldi"][feature]
    known = set(inspect.signature(KALDI_FEATURES[feature]).parameters) - KALDI_REFUSED
    _only(source, f"kaldi.{feature}", options, known)
    delta, cmvn = audio.get("delta", {}), audio["cmvn"]
    _only(source, "delta", delta, {"order", "win_length"})
    _only(source, "cmvn", cmvn, {"use_cmvn"})
    for name, value in options.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            number_within(source, name, value, -SAMPLE_RATE, MOST_MELS if name.startswith("num_") else SAMPLE_RATE)
    for name in {"frame_length", "frame_shift"} & set(options):
        _bounded_samples(source, name, options[name])
    order = size_within(source, "delta's order", delta.get("order", 2), MOST_DELTAS, 0)
    frames = size_within(source, "delta's win_length", delta.get("win_length", 5), MOST_DELTA_FRAMES)
    return KaldiFrontEnd(feature, options, (order, frames), bool(cmvn["use_cmvn"]))


def _stft_front_end(source: str, audio: Mapping[str, Any]) -> StftFrontEnd:
    settings = audio["input"]
    if settings["feat_type"] not in ("mel", "linear"):
        raise _unsupported(source, "input feat_type", settings["feat_type"], ("mel", "linear"))
    level = audio.get("target_level")
    return StftFrontEnd(
        settings["feat_type"],
        win_length=_bounded_samples(source, "win_ms", audio.get("win_ms", 25)),
        hop_length=_bounded_samples(source, "hop_ms", audio.get("hop_ms", 10)),
        n_freq=size_within(source, "n_freq", audio.get("n_freq", 201), SAMPLE_RATE),
        n_mels=size_within(source, "n_mels", audio.get("n_mels", 40), MOST_MELS),
        log=bool(settings.get("log", False)),
        deltas=size_within(source, "delta", settings.get("delta", 0), MOST_DELTAS, 0),
        use_cmvn=bool(settings.get("cmvn", False)),
        target_level=None if level is None else number_within(source, "target_level", level, -200, 200),
    )


def _samples(milliseconds: float) -> int:
    return round(milliseconds * SAMPLE_RATE / 1000)


def _bounded_samples(source: str, name: str, milliseconds: object) -> int:
    return _samples(number_within(source, name, milliseconds, 1000 / SAMPLE_RATE, 1000))


def _only(source: str, section: str, options: Mapping[str, Any], known: set[str]) -> None:
    foreign = sorted(set(options) - known)
    if foreign:
        raise _unsupported(source, f"{section} setting", foreign[0], sorted(known))


def _unsupported(source: str, what: str, value: object, known: Any) -> CheckpointError:
    return CheckpointError(
        f"{source}: {what} {value!r} is not supported, known: {', '.join(map(str, known))}; "
        f"with s3prl installed try s3prl:mockingjay_local@FILE"
    )
