"""Text by bidirectional LSTMs and CTC: SUPERB's head for ASR (arXiv:2105.01051; CTC: Graves et al., 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.lengths import padding_mask
from downstreams._base import FeatureShape, Head, register_head
from downstreams._bidirectional import BidirectionalLSTM
from downstreams._data import Targets
from downstreams._merging import merged, merged_lengths
from downstreams._recipe import Recipe
from downstreams.labels._base import Labels
from downstreams.labels.text import BLANK, TextLabels, Unit


@dataclass(frozen=True)
class CTCOptions:
    """Sizes of the head.

    Attributes:
        projector_size: width of the first linear layer.
        lstm_size: units of an LSTM, per direction.
        lstm_layers: how many bidirectional layers; without any this is SUPERB's head for phonemes, linear all through.
        dropout: after every LSTM layer.
        projections: behind the dropout of every LSTM layer stand a linear layer of its width and tanh, as in SUPERB-SG.
        frame_samples: consecutive frames are averaged until one spans about so many samples; 0 leaves them as they are.
        drop_frames: the first of them is kept instead, as in SUPERB-SG.
        end_marks: targets end with an end symbol, and outputs stay unused, as in s3prl's vocabulary.
        unit: what a symbol is: "characters", "words" (such as phones) or "marked" (characters and slot marks).
        fold: whether letter case is folded away.
    """

    projector_size: int = 1024
    lstm_size: int = 1024
    lstm_layers: int = 2
    dropout: float = 0.2
    projections: bool = False
    frame_samples: int = 0
    drop_frames: bool = False
    end_marks: bool = False
    unit: Unit = "characters"
    fold: bool = True


@register_head("ctc")
class CTC(Head):
    """Linear -> BLSTM layers -> Linear -> CTC over characters, words, phones or slot marks; greedy decoding."""

    labels: TextLabels
    needs = "frames"
    label_kind = TextLabels
    options_type = CTCOptions
    small_options = (
        {"projector_size": 16, "lstm_size": 16},
        {"projector_size": 16, "lstm_size": 16, "frame_samples": 320, "end_marks": True},
        {"projector_size": 16, "lstm_size": 16, "frame_samples": 320, "projections": True, "drop_frames": True},
        {"projector_size": 16, "lstm_layers": 0},
        {"projector_size": 16, "lstm_layers": 0, "unit": "words"},
    )

    def __init__(self, shape: FeatureShape, labels: Labels, options: Any) -> None:
        super().__init__(shape, labels, options)
        self.stride = max(1, round(options.frame_samples / shape.downsample_rate))
        self.projector = nn.Linear(shape.hidden_size, options.projector_size)
        *inputs, last = [options.projector_size] + [2 * options.lstm_size] * options.lstm_layers
        self.lstms = nn.ModuleList(BidirectionalLSTM(size, options.lstm_size) for size in inputs)
        widths = [2 * options.lstm_size for _ in self.lstms] if options.projections else []
        self.projections = nn.ModuleList(nn.Linear(width, width) for width in widths)
        self.drop_frames = options.drop_frames
        self.dropout = nn.Dropout(options.dropout)
        self.classifier = nn.Linear(last, labels.sizes[0])

    @classmethod
    def labels_from_train(cls, values: Sequence[Any], name: str, recipe: Recipe) -> Labels:
        """See Head.labels_from_train."""
        options = cls.options_type(**recipe.head)
        return TextLabels.from_train(values, name, options.unit, options.end_marks, options.fold)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits (batch, frames / stride, symbols)."""
        hidden = self.projector(self._merged(features, lengths))
        for place, lstm in enumerate(self.lstms):
            hidden = self.dropout(lstm(hidden, self.output_lengths(lengths)))
            if self.projections:
                hidden = self.projections[place](hidden).tanh()
        return self.classifier(hidden)

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Valid frames of the logits."""
        return merged_lengths(lengths, self.stride)

    def untrainable(self, lengths: torch.Tensor, targets: Targets) -> int:
        """See Head.untrainable: a text needs a frame for each symbol, and one more between two that are the same."""
        needed = [len(target) + int((target[1:] == target[:-1]).sum()) for target in targets]
        return int((torch.tensor(needed) > self.output_lengths(lengths)).sum())

    def loss(self, logits: torch.Tensor, lengths: torch.Tensor, targets: Targets) -> torch.Tensor:
        """CTC, each utterance divided by its length in symbols; those too short for their text count as zero."""
        log_probs = logits.float().log_softmax(dim=2).transpose(0, 1)  # (frames, batch, symbols)
        target_lengths = torch.tensor([len(target) for target in targets])
        return functional.ctc_loss(
            log_probs,
            torch.cat(list(targets)).to(logits.device),
            self.output_lengths(lengths).cpu(),
            target_lengths,
            blank=BLANK,
            zero_infinity=True,
        )

    def predict(self, logits: torch.Tensor, lengths: torch.Tensor) -> list[Any]:
        """The best symbol of every frame, repeats merged, blanks dropped."""
        best = logits.argmax(dim=2)  # (batch, frames)
        silent = padding_mask(self.output_lengths(lengths).to(best.device), best.shape[1]) | (best == BLANK)
        repeated = functional.pad(best[:, 1:] == best[:, :-1], (1, 0))
        kept = ~(silent | repeated)
        ids = best[kept].cpu().split(kept.sum(dim=1).tolist())
        return [self.labels.decode(row.tolist()) for row in ids]

    def _merged(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Means of `stride` neighbouring frames, or the first of them."""
        return features[:, :: self.stride] if self.drop_frames else merged(features, lengths, self.stride)
