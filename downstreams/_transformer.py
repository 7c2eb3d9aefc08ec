"""Transformer layers whose norms come first, as fairseq's (Vaswani et al., arXiv:1706.03762), of encoder and decoder.

A decoder layer can be asked for all positions at once, or for the next one behind those that it has kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class LayerSizes:
    """Of a layer.

    Attributes:
        size: width of what goes in and comes out.
        heads: of its attention.
        inner_size: of its feed-forward network.
        dropout: of what each part adds, of attention's weights and inside the feed-forward network.
    """

    size: int
    heads: int
    inner_size: int
    dropout: float


class Memory(NamedTuple):
    """What attention looks up: keys and values (batch, heads, positions, size / heads)."""

    keys: torch.Tensor
    values: torch.Tensor


class Attention(nn.Module):
    """Scaled dot products in several heads, dropped out in training."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.heads, self.dropout = sizes.heads, sizes.dropout
        self.query, self.key, self.value, self.output = (nn.Linear(sizes.size, sizes.size) for _ in range(4))
        for part in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(part.weight, gain=1 / math.sqrt(2))
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def memory_of(self, hidden: torch.Tensor) -> Memory:
        """What can be looked up in (batch, positions, size)."""
        return Memory(self._by_head(self.key(hidden)), self._by_head(self.value(hidden)))

    def forward(self, hidden: torch.Tensor, memory: Memory, allowed: torch.Tensor | None = None) -> torch.Tensor:
        """What each of (batch, queries, size) finds; `allowed` is bool, (queries or 1, positions) behind any batch."""
        found = functional.scaled_dot_product_attention(
            self._by_head(self.query(hidden)),
            memory.keys,
            memory.values,
            attn_mask=allowed,
            dropout_p=self.dropout if self.training else 0.0,
        )
        result: torch.Tensor = self.output(found.transpose(1, 2).flatten(2))
        return result

    def _by_head(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.unflatten(2, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Linear -> ReLU -> Linear."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(sizes.size, sizes.inner_size), nn.Linear(sizes.inner_size, sizes.size)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of each position alone (batch, positions, size)."""
        result: torch.Tensor = self.second(self.dropout(self.first(hidden).relu()))
        return result


class EncoderLayer(nn.Module):
    """Attention to all valid positions, then a feed-forward network; each adds to what came in."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.attention, self.network = Attention(sizes), FeedForward(sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(sizes.size) for _ in range(2))
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, hidden: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        """(batch, frames, size); `allowed` is True on valid frames, (batch, 1, 1, frames)."""
        normed = self.norms[0](hidden)
        hidden = hidden + self.dropout(self.attention(normed, self.attention.memory_of(normed), allowed))
        return hidden + self.dropout(self.network(self.norms[1](hidden)))


class DecoderLayer(nn.Module):
    """Attention to the positions before, then to what was heard, then a feed-forward network."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.before, self.heard, self.network = Attention(sizes), Attention(sizes), FeedForward(sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(sizes.size) for _ in range(3))
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, hidden: torch.Tensor, heard: Memory, allowed: torch.Tensor) -> torch.Tensor:
        """All positions at once: (batch, positions, size); `allowed` as in EncoderLayer, of what was heard."""
        count = hidden.shape[1]
        earlier = torch.ones(count, count, dtype=torch.bool, device=hidden.device).tril()
        normed = self.norms[0](hidden)
        hidden = hidden + self.dropout(self.before(normed, self.before.memory_of(normed), earlier))
        return self._rest(hidden, heard, allowed)

    def step(
        self, hidden: torch.Tensor, heard: Memory, allowed: torch.Tensor, kept: Memory | None
    ) -> tuple[torch.Tensor, Memory]:
        """The next position of several texts of each recording.

        Args:
            hidden: (batch, texts, size).
            heard: as of `forward`; the texts share it.
            allowed: likewise.
            kept: of the positions before, a text a row (batch * texts, heads, positions, size / heads); None at first.

        Returns: (batch, texts, size), and what is kept now.
        """
        normed = self.norms[0](hidden).flatten(0, 1)[:, None]  # (batch * texts, 1, size)
        memory = self.before.memory_of(normed)
        if kept is not None:
            memory = Memory(*(torch.cat(pair, dim=2) for pair in zip(kept, memory, strict=True)))
        found = self.before(normed, memory)[:, 0].unflatten(0, hidden.shape[:2])
        return self._rest(hidden + self.dropout(found), heard, allowed), memory

    def _rest(self, hidden: torch.Tensor, heard: Memory, allowed: torch.Tensor) -> torch.Tensor:
        hidden = hidden + self.dropout(self.heard(self.norms[1](hidden), heard, allowed))
        return hidden + self.dropout(self.network(self.norms[2](hidden)))


def sinusoids(places: torch.Tensor, size: int) -> torch.Tensor:
    """Sines, then cosines of places (positions,), whose wavelengths grow from 2 pi to 20,000 pi: (positions, size)."""
    half = size // 2
    rates = torch.exp(torch.arange(half, device=places.device) * -(math.log(10_000) / max(1, half - 1)))
    angles = places[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
