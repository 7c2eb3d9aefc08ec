"""Codes for frames: a product quantiser with Gumbel noise, and how many codes are in even use."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

ONE_ANSWER = 2.0  # codes in even use among predictions: below it, nearly all frames have one prediction
DEAD_CODEBOOK = 0.05  # of the codes: where fewer are in even use, most frames have the same codes


class Quantised(NamedTuple):
    """The codes that were chosen for frames, and how many are in use.

    Attributes:
        codes: float (frames, code_size), the chosen code vectors of all groups side by side.
        perplexity: codes in even use, summed over the groups; a scalar with gradient in training.
    """

    codes: torch.Tensor
    perplexity: torch.Tensor


class GumbelQuantiser(nn.Module):
    """Chooses a code in each group, with a gradient past the choice; in training with Gumbel noise.

    Args:
        input_size: of a frame.
        groups: of codes, called codebooks.
        codes: of a group.
        code_size: of all groups together.
        sliced: whether each group chooses by its own part of a frame only.

    Raises: ValueError: the size can't be shared out among the groups.
    Reference: wav2vec 2.0 (arXiv:2006.11477), section 2; first weights and codes are drawn as in fairseq.
    """

    def __init__(self, input_size: int, groups: int, codes: int, code_size: int, sliced: bool = False) -> None:
        super().__init__()
        if code_size % groups:
            raise ValueError(f"a code_size of {code_size} can't be shared out among {groups} codebooks")
        self.groups, self.count = groups, codes
        self.code_vectors = nn.Parameter(torch.rand(groups, codes, code_size // groups))
        self.logits: Any = (
            SlicedLinear(input_size, groups * codes, groups) if sliced else nn.Linear(input_size, groups * codes)
        )
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def plain_start(self) -> GumbelQuantiser:
        """First weights as torch draws those of linear layers: with fairseq's, choices are made before any learning."""
        self.logits.reset_parameters()
        nn.init.uniform_(self.code_vectors, -(self.count**-0.5), self.count**-0.5)
        return self

    def forward(self, frames: torch.Tensor, temperature: float) -> Quantised:
        """The codes of frames (frames, input_size)."""
        logits = self.logits(frames).float().view(len(frames), self.groups, self.count)
        if self.training:
            choice = functional.gumbel_softmax(logits, tau=temperature, hard=True)
            shares = logits.softmax(dim=2).mean(dim=0)
        else:
            choice = functional.one_hot(logits.argmax(dim=2), self.count).to(logits)
            shares = choice.mean(dim=0)
            if logits.requires_grad:
                soft = (logits / temperature).softmax(dim=2)
                choice = choice + soft - soft.detach()
        codes = torch.einsum("fgc,gcs->fgs", choice, self.code_vectors.float()).flatten(1)
        return Quantised(codes.to(frames), perplexity(shares).sum())


class RandomQuantiser(nn.Module):
    """Codes that nothing is learned for: the nearest of random vectors, in a random projection, by angle.

    Args:
        input_size: of a frame.
        size: of the projection.
        codes: how many there are.

    Reference: BEST-RQ (arXiv:2202.01855), section 3.
    """

    def __init__(self, input_size: int, size: int, codes: int) -> None:
        super().__init__()
        self.register_buffer("projection", nn.init.xavier_uniform_(torch.empty(input_size, size)))
        self.register_buffer("codes", functional.normalize(torch.randn(codes, size), dim=1))
        self.projection: torch.Tensor
        self.codes: torch.Tensor

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """The code of each frame (..., input_size), int64 (...)."""
        return (functional.normalize(frames.float() @ self.projection, dim=-1) @ self.codes.T).argmax(dim=-1)


class SlicedLinear(nn.Linear):
    """A linear layer for each slice of a frame.

    Args:
        input_size: of a frame.
        output_size: of all outputs together.
        slices: how many there are.
    """

    def __init__(self, input_size: int, output_size: int, slices: int) -> None:
        super().__init__(input_size // slices, output_size)
        self.slices = slices

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames (..., input_size) -> (..., output_size), slice by slice."""
        weight = self.weight.view(self.slices, -1, self.in_features)
        parts = frames.unflatten(-1, (self.slices, self.in_features))
        return torch.einsum("...si,soi->...so", parts, weight).flatten(-2) + self.bias


def code_perplexity(chosen: torch.Tensor, count: int) -> torch.Tensor:
    """How many of the codes are in even use among those that were chosen, int64 (...)."""
    return perplexity(torch.bincount(chosen.flatten(), minlength=count).float() / max(1, chosen.numel()))


def perplexity(shares: torch.Tensor) -> torch.Tensor:
    """Exponent of the entropy of shares (..., count) that sum to one: so many are in even use."""
    return torch.xlogy(shares, shares).sum(dim=-1).neg().exp()
