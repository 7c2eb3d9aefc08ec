"""SUPERB-SG's head for translation: a Transformer that reads frames and writes symbols (Wang et al., arXiv:2010.05171).

It is fairseq's `s2t_transformer`, whose encoder begins with convolutions that leave a quarter of the frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from core.lengths import pad, padding_mask
from downstreams._base import FeatureShape, Head, register_head
from downstreams._beam_search import beam_search
from downstreams._data import Targets
from downstreams._merging import merged, merged_lengths
from downstreams._recipe import Recipe
from downstreams._transformer import DecoderLayer, EncoderLayer, LayerSizes, Memory, sinusoids
from downstreams.labels._base import Labels
from downstreams.labels.text import BLANK, TextLabels, Unit

BOUNDARY = BLANK  # stands before the first symbol of a text and behind the last, as one symbol does in fairseq
KERNEL, STRIDE = 5, 2  # of a convolution
NO_TARGET = -100  # behind the end of a text


@dataclass(frozen=True)
class AttentionDecoderOptions:
    """Sizes of the head, and how it writes.

    Attributes:
        size: width of the Transformer.
        heads: of each attention.
        inner_size: of the feed-forward networks.
        encoder_layers: how many.
        decoder_layers: how many.
        conv_size: outputs of the convolutions but the last, which gated linear units halve.
        conv_layers: how many of them; each leaves every second frame.
        dropout: of all that layers add, and inside them.
        smoothing: share of a target that all symbols get equally.
        beam: texts of a recording that are followed; 1 takes the best symbol every time.
        most_symbols: of a text.
        frame_samples: consecutive frames are averaged until one spans about so many samples; 0 leaves them as they are.
        unit: what a symbol is: "characters" or "words".
        fold: whether letter case is folded away.
    """

    size: int = 512
    heads: int = 8
    inner_size: int = 2048
    encoder_layers: int = 3
    decoder_layers: int = 3
    conv_size: int = 1024
    conv_layers: int = 2
    dropout: float = 0.1
    smoothing: float = 0.1
    beam: int = 20
    most_symbols: int = 400
    frame_samples: int = 0
    unit: Unit = "characters"
    fold: bool = False


@register_head("attention_decoder")
class AttentionDecoder(Head):
    """Convolutions -> Transformer encoder -> Transformer decoder, symbol by symbol; beam search."""

    labels: TextLabels
    needs = "frames"
    label_kind = TextLabels
    options_type = AttentionDecoderOptions
    small_options = (
        {"size": 16, "heads": 2, "inner_size": 32, "encoder_layers": 1, "decoder_layers": 1, "conv_size": 32,
         "dropout": 0.0, "beam": 3, "most_symbols": 6},
        {"size": 16, "heads": 2, "inner_size": 32, "encoder_layers": 1, "decoder_layers": 2, "conv_size": 32,
         "conv_layers": 1, "dropout": 0.0, "beam": 1, "most_symbols": 6, "frame_samples": 320, "unit": "words"},
    )  # fmt: skip

    def __init__(self, shape: FeatureShape, labels: Labels, options: Any) -> None:
        super().__init__(shape, labels, options)
        self.stride = max(1, round(options.frame_samples / shape.downsample_rate))
        widths = [shape.hidden_size, *[options.conv_size // 2] * (options.conv_layers - 1)]
        outputs = [*[options.conv_size] * (options.conv_layers - 1), 2 * options.size]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, output, KERNEL, STRIDE, KERNEL // 2)
            for width, output in zip(widths, outputs, strict=True)
        )  # fmt: skip
        sizes = LayerSizes(options.size, options.heads, options.inner_size, options.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(sizes) for _ in range(options.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(sizes) for _ in range(options.decoder_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(options.size) for _ in range(2))  # behind encoder and decoder
        self.dropout = nn.Dropout(options.dropout)
        self.symbols = nn.Embedding(labels.sizes[0], options.size)
        self.classifier = nn.Linear(options.size, labels.sizes[0], bias=False)
        for weight in (self.symbols.weight, self.classifier.weight):
            nn.init.normal_(weight, std=options.size**-0.5)

    @classmethod
    def labels_from_train(cls, values: Sequence[Any], name: str, recipe: Recipe) -> Labels:
        """See Head.labels_from_train."""
        options = cls.options_type(**recipe.head)
        return TextLabels.from_train(values, name, options.unit, fold=options.fold)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """What the decoder looks up (batch, frames, size): not logits yet, which depend on the symbols before."""
        hidden, valid = merged(features, lengths, self.stride), merged_lengths(lengths, self.stride)
        for convolution in self.convolutions:
            hidden = hidden.masked_fill(padding_mask(valid, hidden.shape[1])[:, :, None], 0)
            hidden = functional.glu(convolution(hidden.mT), dim=1).mT
            valid = _strided(valid)
        hidden = self._placed(hidden, torch.arange(hidden.shape[1], device=hidden.device))
        allowed = self._allowed(hidden, lengths)
        for layer in self.encoder:
            hidden = layer(hidden, allowed)
        return self.norms[0](hidden)

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Valid frames of what `forward` gives."""
        valid = merged_lengths(lengths, self.stride)
        for _ in self.convolutions:
            valid = _strided(valid)
        return valid

    def loss(self, logits: torch.Tensor, lengths: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Cross-entropy with smoothed targets, each symbol after the right ones: summed over a text, mean over texts.

        The end of a text is a symbol of it.
        """
        texts, sizes = pad(list(targets))
        texts, sizes = texts.to(logits.device), sizes.to(logits.device)
        before = functional.pad(texts, (1, 0), value=BOUNDARY)
        after = functional.pad(texts, (0, 1), value=BOUNDARY)
        after = after.masked_fill(padding_mask(sizes + 1, after.shape[1]), NO_TARGET)
        found = self.scores(logits, lengths, before)
        total = functional.cross_entropy(
            found.flatten(0, 1), after.flatten(), ignore_index=NO_TARGET, reduction="sum",
            label_smoothing=self.options.smoothing,
        )  # fmt: skip
        return total / len(texts)

    def scores(self, memory: torch.Tensor, lengths: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Logits of each next symbol (batch, symbols, classes).

        Args:
            memory: of `forward`.
            lengths: valid frames of the features (batch,).
            before: the symbols before each, int64 (batch, symbols); the first is the boundary.
        """
        hidden = self._placed(self.symbols(before), torch.arange(before.shape[1], device=memory.device))
        allowed = self._allowed(memory, lengths)
        for layer in self._layers():
            hidden = layer(hidden, layer.heard.memory_of(memory), allowed)
        scores: torch.Tensor = self.classifier(self.norms[1](hidden))
        return scores

    @torch.no_grad()
    def predict(self, logits: torch.Tensor, lengths: torch.Tensor) -> list[Any]:
        """The best text of each recording."""
        allowed = self._allowed(logits, lengths)
        layers = self._layers()
        heard = [layer.heard.memory_of(logits) for layer in layers]

        def step(last: torch.Tensor, kept: Any, rows: torch.Tensor) -> tuple[torch.Tensor, Any]:
            before = [None] * len(heard) if kept is None else [Memory(*(part[rows] for part in each)) for each in kept]
            place = torch.tensor([0 if kept is None else kept[0].keys.shape[2]], device=last.device)
            hidden = self._placed(self.symbols(last), place)
            now = []
            for layer, memory, own in zip(layers, heard, before, strict=True):
                hidden, keeps = layer.step(hidden, memory, allowed, own)
                now.append(keeps)
            return self.classifier(self.norms[1](hidden)).log_softmax(dim=2), now

        found = beam_search(
            step, len(logits), self.options.beam, self.options.most_symbols, BOUNDARY, logits.device
        )  # fmt: skip
        return [self.labels.decode(text) for text in found]

    def _layers(self) -> list[DecoderLayer]:
        """Of the decoder."""
        return [cast(DecoderLayer, layer) for layer in self.decoder]

    def _placed(self, hidden: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Scaled, with what says where each stands."""
        size = self.options.size
        return self.dropout(hidden * math.sqrt(size) + sinusoids(places, size))

    def _allowed(self, memory: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """True on valid frames (batch, 1, 1, frames)."""
        valid = self.output_lengths(lengths).to(memory.device)
        return ~padding_mask(valid, memory.shape[1])[:, None, None]


def _strided(lengths: torch.Tensor) -> torch.Tensor:
    """Valid frames behind a convolution, centred on the first, the third..."""
    return (lengths + STRIDE - 1).div(STRIDE, rounding_mode="floor")
