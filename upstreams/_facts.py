"""What is recorded of an upstream, and what planning has to know of it, once it was built."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from core.audio import SAMPLE_RATE
from core.digest import digest_of
from upstreams._base import Precision, Upstream

FRAME_PROBES = 8


@dataclass(frozen=True)
class UpstreamFacts:
    """What is recorded of an upstream; `spec` builds it again.

    Attributes:
        name: in tables; another precision than float32 is part of it.
        spec: as typed.
        digest: of all that decides the features, the precision included.
        params: how many parameters; None where unknown.
        num_layers: of the hidden states.
        hidden_size: their width.
        downsample_rate: samples a frame, at `sample_rate`; None for upstreams of one vector an utterance.
        window_samples: inputs are computed in multiples of it, in samples at 16 kHz.
        batch_seconds: see Upstream.
        precision: in which it computes.
        extra_frames: how many frames a clip has beyond samples / downsample_rate, in the mean.
        gflops_per_second: cost of a second of audio in billions of operations; None where unknown or not counted yet.
        sample_rate: of the waveforms it is given.
        min_samples: the shortest legal input, in samples at 16 kHz.
        family: see UpstreamCard.
        licence: of its weights, empty where unknown.
        training_data: what it was trained on, empty where unknown.
        remark: see Upstream.
        shown: what it is called while a grid runs, where its name is another upstream's as well; may be empty.
        series: pattern by which it was asked for as one of a series of checkpoints; empty where it was not.
    """

    name: str
    spec: str
    digest: str
    params: int | None
    num_layers: int
    hidden_size: int
    downsample_rate: int | None
    window_samples: int
    batch_seconds: float
    precision: Precision = "float32"
    extra_frames: float = 0.0
    gflops_per_second: float | None = None
    sample_rate: int = SAMPLE_RATE
    min_samples: int = 1
    family: str = ""
    licence: str = ""
    training_data: str = ""
    remark: str = ""
    shown: str = ""
    series: str = ""

    @classmethod
    def of(cls, spec: str, upstream: Upstream, precision: Precision = "float32") -> UpstreamFacts:
        """Reads them off a built upstream."""
        exact = precision == "float32"
        return cls(
            name=upstream.display_name if exact else f"{upstream.display_name} ({precision})",
            spec=spec,
            digest=upstream.digest() if exact else digest_of([upstream.digest(), precision]),
            params=upstream.num_params(),
            num_layers=upstream.num_layers,
            hidden_size=upstream.hidden_size,
            downsample_rate=None if upstream.utterance_level else upstream.downsample_rate,
            window_samples=max(1, upstream.window_samples * SAMPLE_RATE // upstream.sample_rate),
            batch_seconds=upstream.batch_seconds,
            precision=precision,
            extra_frames=0.0 if upstream.utterance_level else _extra_frames(upstream),
            sample_rate=upstream.sample_rate,
            min_samples=-(-upstream.min_samples * SAMPLE_RATE // upstream.sample_rate),
            family=upstream.family or upstream.card.family,
            licence=upstream.card.licence,
            training_data=upstream.training_data or upstream.card.training_data,
            remark=upstream.remark,
        )

    @property
    def title(self) -> str:
        """What it is called while a grid runs."""
        return self.shown or self.name

    @property
    def utterance_level(self) -> bool:
        """Whether it gives one vector an utterance."""
        return self.downsample_rate is None

    @property
    def frame_samples(self) -> float:
        """Samples at 16 kHz that a frame stands for; one vector an utterance stands for no fixed number, so 1."""
        if self.downsample_rate is None:
            return 1
        exact = self.downsample_rate * SAMPLE_RATE / self.sample_rate
        return round(exact) if exact == round(exact) else exact

    def recorded(self) -> dict[str, Any]:
        """What belongs to the result: not where the checkpoint lies on this machine, nor what was measured there."""
        return {key: value for key, value in asdict(self).items() if key not in PLANNING | {"spec"}}


# Not part of a result.
PLANNING = {
    "window_samples",
    "batch_seconds",
    "extra_frames",
    "gflops_per_second",
    "min_samples",
    "remark",
    "shown",
    "series",
}


def _extra_frames(upstream: Upstream) -> float:
    """Mean over a few lengths: an s3prl upstream has to compute the hidden states of each."""
    rate = upstream.downsample_rate
    lengths = max(upstream.sample_rate, upstream.min_samples) + torch.arange(FRAME_PROBES) * rate // FRAME_PROBES
    return float((upstream.frame_lengths(lengths) - lengths / rate).mean())
