"""What a record says besides the result, so that layer weights and upstreams can be compared: norms and cost."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch.nn import functional

from downstreams._data import Examples
from frostbench.jobs.base import Advance
from upstreams._base import Upstream
from upstreams._resolve import build_upstream

MOST_UTTERANCES = 500  # norms differ little between utterances, and every frame of every layer is read
SECONDS = 10.0  # about an utterance of LibriSpeech; attention makes the cost of a second depend on it
aten = torch.ops.aten


def _recurrent_flops(wavs: Any, w_input: Any, w_hidden: Any, *rest: Any, **options: Any) -> int:
    frames = wavs[0] * wavs[1]
    return 2 * frames * (w_input[0] * w_input[1] + w_hidden[0] * w_hidden[1])


def _fourier_flops(signal: Any, dims: Any, *rest: Any, **options: Any) -> int:
    """The usual 2.5 N log2 N of a real transform of N points."""
    points = math.prod(signal[dim] for dim in dims)
    return round(math.prod(signal) * 2.5 * math.log2(points))


FORMULAS = {aten.mkldnn_rnn_layer: _recurrent_flops, aten._fft_r2c: _fourier_flops}  # which torch does not count


def layer_norms(examples: Examples, normalise: bool) -> list[float]:
    """Mean Euclidean norm of each layer's features, as the weighted sum takes them.

    A layer of large norm counts for more than its weight says, so weights are compared after multiplication by these.

    Args:
        examples: any split; up to so many utterances of it are looked at, and a long one counts as much as a short one.
        normalise: whether the weighted sum normalises the frames first.
    """
    count = len(examples.targets)
    norms = []
    for index in range(0, count, math.ceil(count / MOST_UTTERANCES)):
        (frames,) = examples.batch([index]).layers  # (frames, num_layers, hidden_size)
        frames = frames.float()
        if normalise:
            frames = functional.layer_norm(frames, frames.shape[-1:])
        norms.append(frames.norm(dim=-1).mean(dim=0))
    return torch.stack(norms).double().mean(dim=0).tolist()


def speed(upstream: Upstream) -> float:
    """Seconds of audio that an upstream extracts in a second, where it is: one clip of ten seconds, after another.

    Raises: Exception: whatever a plug-in raises.
    """
    samples = int(SECONDS * upstream.sample_rate)
    wav = torch.randn(1, samples, generator=torch.Generator().manual_seed(0)) / 10
    for _ in range(2):  # the first one prepares what stays
        started = time.perf_counter()
        upstream.extract(wav, torch.tensor([samples]))
    return SECONDS / (time.perf_counter() - started)


def gflops_per_second(spec: str, *, device: str, advance: Advance) -> float | None:
    """A job: what an upstream computes for a second of audio, in billions of floating-point operations.

    Counted by torch on ten seconds of noise, on the CPU wherever the job runs, so it is the same on every machine.
    Matrix products, convolutions, attention, recurrent layers and Fourier transforms count; element-wise operations
    don't, as usual. None where nothing could be counted: another library than torch computes then.
    """
    from torch.utils.flop_counter import FlopCounterMode  # it takes half a second, and most jobs count nothing

    upstream = build_upstream(spec)
    samples = int(SECONDS * upstream.sample_rate)
    wav = torch.randn(1, samples, generator=torch.Generator().manual_seed(0)) / 10
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # or a layer of torch's Transformer is one operation, not counted
    try:
        with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
            upstream.extract(wav, torch.tensor([samples]))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    advance(1)
    operations = counter.get_total_flops()
    return operations / SECONDS / 1e9 if operations else None
