"""What wav2vec 2.0 and HuBERT share: transformers' networks on waveforms, trained on masked frames, saved as a folder.

The folder holds what `save_pretrained` writes and a preprocessor configuration, so that it loads as `hf:FOLDER` here
and with plain transformers anywhere, and a file of notes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from core.audio import SAMPLE_RATE
from core.digest import folder_written_then_renamed, parsed_json, write_json
from core.errors import CheckpointError
from upstreams._base import UPSTREAMS, Upstream
from upstreams._encoders.conv_transformer import ConvTransformer
from upstreams._encoders.notes import NOTES_FILE
from upstreams._pretraining.contract import TrainableUpstream, trained_on
from upstreams._pretraining.masks import mask_spans
from upstreams._weight_files import require_content

FORMAT = "frostbench-pretraining-1"


@dataclass(frozen=True)
class WaveformConfig:
    """Sizes of the network and of the masking task; the defaults are those of wav2vec 2.0 Base and HuBERT Base.

    Attributes:
        conv_channels: of each convolution.
        conv_kernels: in samples of its input.
        conv_strides: their product is the width of a frame in samples.
        num_layers: transformer blocks.
        hidden_size: of the transformer.
        num_heads: of its attention.
        feedforward_size: of its blocks.
        position_kernel: frames that the positional convolution reads.
        position_groups: of that convolution.
        pre_norm: layer norm before attention and feed-forward instead of behind them.
        dropout: of the transformer.
        feature_dropout: of what the convolutions give.
        layer_drop: how often a block is skipped in training.
        mask_proportion: of the frames, if no two spans overlapped.
        mask_frames: of a span.
        projection_size: of predictions and of what they are compared with.
        temperature: cosines are divided by it.
        feature_penalty: weight of the mean square of what the convolutions give.
        conv_gradient: factor on the gradient of the convolutions.
    """

    conv_channels: tuple[int, ...] = (512,) * 7
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    num_layers: int = 12
    hidden_size: int = 768
    num_heads: int = 12
    feedforward_size: int = 3072
    position_kernel: int = 128
    position_groups: int = 16
    pre_norm: bool = False
    dropout: float = 0.1
    feature_dropout: float = 0.1
    layer_drop: float = 0.05
    mask_proportion: float = 0.65
    mask_frames: int = 10
    projection_size: int = 256
    temperature: float = 0.1
    feature_penalty: float = 10.0
    conv_gradient: float = 0.1

    def for_transformers(self) -> dict[str, Any]:
        """Keywords of transformers' configurations. Masks in channels are off: pretraining has none."""
        return {
            "conv_dim": self.conv_channels,
            "conv_kernel": self.conv_kernels,
            "conv_stride": self.conv_strides,
            "num_feat_extract_layers": len(self.conv_channels),
            "num_hidden_layers": self.num_layers,
            "hidden_size": self.hidden_size,
            "num_attention_heads": self.num_heads,
            "intermediate_size": self.feedforward_size,
            "num_conv_pos_embeddings": self.position_kernel,
            "num_conv_pos_embedding_groups": self.position_groups,
            "do_stable_layer_norm": self.pre_norm,
            "hidden_dropout": self.dropout,
            "attention_dropout": self.dropout,
            "activation_dropout": 0.0,
            "feat_proj_dropout": self.feature_dropout,
            "layerdrop": self.layer_drop,
            "mask_time_prob": self.mask_proportion,
            "mask_time_length": self.mask_frames,
            "mask_feature_prob": 0.0,
        }


# Sizes that two cores train in minutes: narrow where there are most samples, and forgiving of large steps.
TINY: dict[str, Any] = {
    "conv_channels": (32, 64, 64, 128, 128, 128, 128),
    "num_layers": 3,
    "hidden_size": 256,
    "num_heads": 4,
    "feedforward_size": 1024,
    "position_kernel": 64,
    "pre_norm": True,
    "layer_drop": 0.0,
    "projection_size": 128,
    "conv_gradient": 1.0,
    "feature_penalty": 1.0,
}


class WaveformUpstream(TrainableUpstream):
    """Hidden states are the input of the first block and the output of every block: num_layers + 1.

    A subclass says which of transformers' networks it trains, and writes the loss.

    Args:
        config: sizes of the network and of its training task.
    """

    file_suffix: ClassVar[str] = ""
    equal_lengths: ClassVar[bool] = True  # padding would reach the group norm over time

    def __init__(self, config: WaveformConfig) -> None:
        super().__init__(config, ConvTransformer(self.network(config), do_normalize=False))
        self.encoder.model.feature_extractor.register_forward_hook(self._features_made)
        self._penalty: torch.Tensor | None = None

    @classmethod
    @abstractmethod
    def network(cls, config: WaveformConfig) -> Any:
        """transformers' model with random weights, without what only its training needs."""

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> Upstream:
        """Loads a folder that `pretrain` wrote, as `hf:` would; without one the weights are untrained."""
        if checkpoint is None:
            return super().from_checkpoint(None)
        notes = cls.read_notes(Path(checkpoint))
        # The folder is one of save_pretrained: it is the upstream that `hf:` makes of it, with the same digest.
        loaded = UPSTREAMS.get("hf").from_checkpoint(str(Path(checkpoint).absolute()))
        iteration = "" if notes.get("last", True) else f" iteration {notes.get('iteration', 'unknown')}"
        loaded.label = f"{cls.card.name}{iteration}"
        loaded.training_data, loaded.family = trained_on(notes), cls.card.family
        return loaded

    @classmethod
    def read_notes(cls, path: Path) -> Mapping[str, Any]:
        """See TrainableUpstream.read_notes."""
        file = path / NOTES_FILE
        if not file.is_file():
            raise CheckpointError(
                f"{path}: holds no {NOTES_FILE}, so pretrain did not write it; "
                f"other folders of save_pretrained are loaded as hf:{path}"
            )
        require_content(file)
        try:
            content = parsed_json(file.read_text(encoding="utf-8"))
            kind, notes = content["upstream"], dict(content["notes"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{file}: is damaged ({error}); train it anew") from None
        if kind != cls.card.name:
            raise CheckpointError(f"{path}: is a checkpoint of '{kind}', not of '{cls.card.name}'; write {kind}@{path}")
        return notes

    def save(self, path: Path, notes: Mapping[str, Any]) -> None:
        """See TrainableUpstream.save. The folder is written under another name and renamed."""
        import transformers

        transformers.logging.disable_progress_bar()
        with folder_written_then_renamed(path) as temporary:
            self.encoder.model.save_pretrained(temporary)
            transformers.Wav2Vec2FeatureExtractor(
                feature_size=1, sampling_rate=SAMPLE_RATE, padding_value=0.0, do_normalize=False,
                return_attention_mask=self.config.pre_norm,
            ).save_pretrained(temporary)  # fmt: skip
            content = {
                "format": FORMAT,
                "upstream": self.card.name,
                "configuration": self.configuration(),
                "notes": notes,
            }
            write_json(temporary / NOTES_FILE, content)

    @property
    def min_training_samples(self) -> int:
        """As many as give a span and a frame beside it."""
        return self.min_samples + self.config.mask_frames * self.downsample_rate

    @property
    def skips_layers(self) -> bool:
        """See TrainableUpstream.skips_layers."""
        return self.config.layer_drop > 0

    def _features_made(self, module: Any, inputs: Any, output: torch.Tensor) -> None:
        if self.training and output.requires_grad:
            self._penalty = output.float().square().mean()
            output.register_hook(self._scaled)

    def _scaled(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * self.config.conv_gradient

    def feature_penalty(self) -> torch.Tensor | float:
        """Weighted mean square of the features last made in training; keeps fp16 in range, as in fairseq."""
        penalty, self._penalty = self._penalty, None
        return 0.0 if penalty is None else self.config.feature_penalty * penalty

    def mask(self, batch: int, frames: int, generator: torch.Generator) -> torch.Tensor:
        """Spans to mask, bool (batch, frames)."""
        return mask_spans(batch, frames, self.config.mask_proportion, self.config.mask_frames, generator)
