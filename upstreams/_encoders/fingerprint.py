"""What a network computes, in a few numbers: for networks whose code is a library's, which no version of ours covers.

The digest of an upstream must change where another version of the library computes otherwise, and must not change
between machines, numbers of threads or kinds of processors. Rounding alone can't have both: whatever is rounded lies
near an edge at times. So the fixed input passes in float64: what machines disagree on shrinks to 1e-13 of the values,
and four significant digits, in which a difference of 0.1 % shows, lie nearer to an edge than that once in some 10**8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from core.audio import SAMPLE_RATE

DIGITS = 4  # significant ones
AMPLITUDE = 0.1
PROBE_FRAMES = 50  # of noise in place of a spectrum: one second of most networks
MEL_BANDS = 4
MEL_DECIMALS = 2


def fixed_noise(size: int, seed: int = 1) -> torch.Tensor:
    """White noise in [-0.1, 0.1], float64 (size,): the same bits everywhere, which torch's own generators do not give.

    A linear congruential generator of Park and Miller, in whole numbers.
    """
    values, state = [], seed
    for _ in range(size):
        state = state * 48_271 % 2_147_483_647
        values.append(state % 65_537 - 32_768)
    return torch.tensor(values, dtype=torch.float64) * (AMPLITUDE / 32_768)


def second_of_noise() -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of one second: float64 (1, samples), and its length, int64 (1,)."""
    return fixed_noise(SAMPLE_RATE)[None], torch.tensor([SAMPLE_RATE])


@contextmanager
def in_float64(network: nn.Module) -> Iterator[None]:
    """Inside it the network is on the CPU, in float64 and in evaluation mode; afterwards it is bit for bit as before.

    Weights are converted in place, for a copy of a large network would need three times its memory.
    """
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    before = {name: (tensor.dtype, tensor.device) for name, tensor in tensors.items()}
    training = [(module, module.training) for module in network.modules()]
    try:
        network.to("cpu").eval().double()
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        for name, tensor in {**dict(network.named_parameters()), **dict(network.named_buffers())}.items():
            dtype, device = before[name]
            tensor.data = tensor.data.to(device=device, dtype=dtype)
        for module, was in training:
            module.training = was


def rounded(layers: Sequence[torch.Tensor]) -> list[str]:
    """Two numbers of each layer: its root mean square, and its projection on a fixed vector."""
    signs = fixed_noise(layers[0].numel(), seed=2).sign()
    numbers = []
    for layer in layers:
        values = layer.flatten()
        numbers += [values.square().mean().sqrt(), (values * signs).mean()]
    return [f"{number.item():.{DIGITS - 1}e}" for number in numbers]


def mel_bands(mel: torch.Tensor) -> list[str]:
    """Means of a spectrum (bins, frames) in a few bands.

    Feature extractors compute in float32. Values of spectra go from -1 to 1 or so, and means of hundreds of them agree
    to 1e-7 between machines, which is little beside the hundredths that are kept.
    """
    return [f"{band.double().mean():.{MEL_DECIMALS}f}" for band in mel.chunk(MEL_BANDS)]
