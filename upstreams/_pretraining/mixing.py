"""Recordings with a part of another one over them: what WavLM learns to leave out (Chen et al., arXiv:2110.13900)."""

from __future__ import annotations

import torch

MOST = 0.5  # of a recording that is covered at most: the rest says who is meant
LEVELS = (-5.0, 5.0)  # dB of the recording over the other one


def mixed(wavs: torch.Tensor, wav_lengths: torch.Tensor, proportion: float, generator: torch.Generator) -> torch.Tensor:
    """Lays a piece of another recording of the batch over some of them.

    Piece and places are drawn for each; powers are those of whole recordings.

    Args:
        wavs: float (batch, samples), zero on padding; not written to.
        wav_lengths: valid samples, int64 (batch,).
        proportion: of the recordings that get a piece.
        generator: source of randomness.
    """
    count, lengths = len(wavs), wav_lengths.tolist()
    chosen = (torch.rand(count, generator=generator) < proportion).tolist()
    if count == 1 or not any(chosen):
        return wavs
    result = wavs.clone()
    powers = wavs.square().sum(dim=1) / wav_lengths
    for row in [row for row in range(count) if chosen[row]]:
        partner = (row + int(torch.randint(1, count, (1,), generator=generator))) % count
        shares = torch.rand(4, generator=generator).tolist()
        piece = int(shares[0] * MOST * min(lengths[row], lengths[partner]))
        here = int(shares[1] * (lengths[row] - piece))
        there = int(shares[2] * (lengths[partner] - piece))
        decibels = LEVELS[0] + (LEVELS[1] - LEVELS[0]) * shares[3]
        if powers[partner] > 0:
            factor = (powers[row] / powers[partner] / 10 ** (decibels / 10)).sqrt()
            result[row, here : here + piece] += factor * wavs[partner, there : there + piece]
    return result
