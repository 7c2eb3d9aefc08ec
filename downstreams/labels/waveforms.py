"""Waveforms: what was heard, and what is wanted of it, such as clean speech, or each of two voices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional

from core._waveforms import Waveforms, best_order, si_sdr_improvement
from core.errors import TrainingError
from core.mixtures import mixture_from_json, read_mixture
from downstreams.labels._base import LabelContext, Labels, register_labels

HOP_LENGTH = 160  # 10 ms at 16 kHz: samples of a frame
RIGHT_DB = 3.0  # half of what is wrong is gone: an estimate that counts as right


def _tones(number: int, frames: int) -> Waveforms:
    """A rising tone that swells three times a second under noise of its level: what is heard, and the tone alone."""
    seconds = np.arange(HOP_LENGTH * frames) / 16_000
    pitch = 200 + 40 * number + 600 * seconds
    tone = 0.2 * np.sin(2 * np.pi * pitch * seconds) * (1 + np.sin(2 * np.pi * 3 * seconds))
    noise = 0.15 * np.random.default_rng(number).standard_normal(len(seconds))
    return np.stack([tone + noise, tone]).astype(np.float32)


SAMPLE_FRAMES = (70, 62, 56, 70, 60, 54, 66, 58)  # long enough for measures of speech


@register_labels("waveforms")
@dataclass(frozen=True)
class WaveformLabels(Labels):
    """What was heard and its targets, as waveforms of one length.

    A label is an object: `names` of the targets, and `signals`, what was heard and each target as a sum of recordings
    (`core/mixtures.py`); or those signals themselves, an array (1 + sources, samples).

    Attributes:
        sources: targets of a recording.
    """

    timed: ClassVar[bool] = True
    heard: ClassVar[bool] = True
    samples: ClassVar[tuple[Any, ...]] = tuple(map(_tones, range(8), SAMPLE_FRAMES))
    sample_frames: ClassVar[tuple[int, ...]] = SAMPLE_FRAMES
    sources: int

    @classmethod
    def from_train(cls, labels: Sequence[Any], name: str) -> WaveformLabels:
        """Counts the targets of a recording; see Labels.from_train.

        Raises: TrainingError: not all have equally many.
        """
        counts = sorted({len(_signals(label)) - 1 for label in labels})
        if len(counts) > 1:
            raise TrainingError(
                f"'{name}' names {' and '.join(map(str, counts))} targets in rows of train: give each equally many"
            )
        return cls(counts[0] if counts else 1)

    @property
    def sizes(self) -> list[int]:
        """One question: what each of so many sources is."""
        return [self.sources]

    def encode(self, label: Any, context: LabelContext) -> torch.Tensor:
        """What was heard, and its targets cut or padded to the same length: float32 (1 + sources, samples) at 16 kHz.

        Raises: TrainingError: it has another number of targets than those of train. AudioError: one can't be read.
        """
        signals = _signals(label)
        if len(signals) != 1 + self.sources:
            raise TrainingError(f"{len(signals) - 1} targets, but rows of train have {self.sources}")
        if isinstance(signals, np.ndarray):
            return torch.from_numpy(signals)
        wavs = [read_mixture(mixture_from_json(signal)) for signal in signals]
        return torch.stack([functional.pad(wav[: len(wavs[0])], (0, max(0, len(wavs[0]) - len(wav)))) for wav in wavs])

    def decode(self, encoded: Any, context: LabelContext) -> Waveforms:
        """Estimates (sources, samples), in no order."""
        return np.asarray(encoded, dtype=np.float32)

    def reference(self, label: Any) -> Any:
        """The names of the targets; of signals themselves these."""
        return label if isinstance(label, np.ndarray) else list(label["names"])

    def matches(self, prediction: Any, reference: Any) -> bool:
        """Whether estimates are nearer to their targets than what was heard, or as good as equal to others."""
        if prediction.shape[1] != reference.shape[1]:
            return False
        if len(prediction) == len(reference):
            order = best_order(prediction, reference)
            return bool(np.allclose(prediction[list(order)], reference, atol=1e-3))
        return si_sdr_improvement(prediction, reference) >= RIGHT_DB

    def to_json(self) -> dict[str, Any]:
        """See Labels.to_json."""
        return {"kind": "waveforms", "sources": self.sources}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> WaveformLabels:
        """See Labels.from_json."""
        return cls(content["sources"])


def _signals(label: Any) -> Any:
    return label if isinstance(label, np.ndarray) else label["signals"]
