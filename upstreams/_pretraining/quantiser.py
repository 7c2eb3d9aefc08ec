"""Codes for frames: a product quantiser with Gumbel noise, and how many codes are in even use."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional


class Quantised(NamedTuple):
    """The codes that were chosen for frames, and how many are in use.

    Attributes:
        codes: float (frames, code_size), the chosen code vectors of all groups side by side.
        perplexity: codes in even use, summed over the groups; a scalar with gradient in training.
    """

    codes: torch.Tensor
    perplexity: torch.Tensor


class GumbelQuantiser(nn.Module):
    """Chooses a code in each group; in training with Gumbel noise, and with a gradient past the choice.

    Args:
        input_size: of a frame.
        groups: of codes, called codebooks.
        codes: of a group.
        code_size: of all groups together.

    Raises: ValueError: the size can't be shared out among the groups.
    Reference: wav2vec 2.0 (arXiv:2006.11477), section 2; first weights and codes are drawn as in fairseq.
    """

    def __init__(self, input_size: int, groups: int, codes: int, code_size: int) -> None:
        super().__init__()
        if code_size % groups:
            raise ValueError(f"a code_size of {code_size} can't be shared out among {groups} codebooks")
        self.groups, self.count = groups, codes
        self.code_vectors = nn.Parameter(torch.rand(groups, codes, code_size // groups))
        self.logits = nn.Linear(input_size, groups * codes)
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def forward(self, frames: torch.Tensor, temperature: float) -> Quantised:
        """The codes of frames (frames, input_size)."""
        logits = self.logits(frames).float().view(len(frames), self.groups, self.count)
        if self.training:
            choice = functional.gumbel_softmax(logits, tau=temperature, hard=True)
            shares = logits.softmax(dim=2).mean(dim=0)
        else:
            choice = functional.one_hot(logits.argmax(dim=2), self.count).to(logits)
            shares = choice.mean(dim=0)
        codes = torch.einsum("fgc,gcs->fgs", choice, self.code_vectors.float()).flatten(1)
        return Quantised(codes.to(frames), perplexity(shares).sum())


def perplexity(shares: torch.Tensor) -> torch.Tensor:
    """Exponent of the entropy of shares (..., count) that sum to one: so many are in even use."""
    return torch.xlogy(shares, shares).sum(dim=-1).neg().exp()
