"""data2vec: masked frames' states predicted, as a slow copy gives them (Baevski et al., arXiv:2202.03555).

`base` is the published network on waveforms, `tiny` a transformer on log mel frames. What stands in front of the blocks
is the student's own, the copy is of the blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.conv_transformer import ConvTransformer
from upstreams._encoders.front_ends import MEL_TINY, FrontEndConfig, encoder_of
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainableUpstream, TrainingBatch
from upstreams._pretraining.masks import mask_spans
from upstreams._pretraining.teacher import Teacher, linear_to

# The authors' own limits, of deviations over the masked frames of a batch.
NARROW_TARGETS, NARROW_PREDICTIONS = 0.1, 0.01


@dataclass(frozen=True)
class Data2VecConfig(FrontEndConfig):
    """Sizes of the network and of the prediction task.

    Attributes:
        top_layers: how many of the teacher's last blocks are averaged.
        normalise_targets: whether each channel of each of them is brought to one mean and deviation over time; what
            does not change in time would do as a target else.
        momentum: proportion of its weights that the teacher keeps at first.
        last_momentum: later on.
        momentum_until: proportion of the training in which the one becomes the other.
        position_depth: of the positional convolutions.
        position_kernel: of each.
    """

    top_layers: int = 8
    normalise_targets: bool = True
    momentum: float = 0.999
    last_momentum: float = 0.9999
    momentum_until: float = 0.075
    position_depth: int = 5
    position_kernel: int = 19


@register_upstream(
    UpstreamCard(name="data2vec", title="Prediction of a slow copy's states of masked frames", paper="arXiv:2202.03555")
)
class Data2Vec(TrainableUpstream):
    """Hidden states are the input of the first block and the output of every block."""

    config_type = Data2VecConfig
    equal_lengths = True
    sizes: ClassVar[Mapping[str, Data2VecConfig]] = {
        "base": Data2VecConfig(),
        # After 500 updates a teacher that keeps 0.999 would still be 61 % of its random self.
        "tiny": Data2VecConfig(**MEL_TINY, top_layers=2, momentum=0.99, last_momentum=0.999, momentum_until=0.5),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (
            PretrainRecipe(
                steps=400_000,
                batch_seconds=3_800,  # 16 GPUs with 3.8 million samples each
                learning_rate=5e-4,
                warmup=0.03,
                weight_decay=0.01,
                betas=(0.9, 0.98),
                epsilon=1e-6,
                crop_seconds=20.0,
                micro_batches=16,
            ),
        ),
        "tiny": (
            PretrainRecipe(steps=480, batch_seconds=24, learning_rate=5e-4, weight_decay=0.01, betas=(0.9, 0.98)),
        ),
    }

    def __init__(self, config: Data2VecConfig) -> None:
        super().__init__(config, encoder_of(config, lambda: self.network(config)))

    @classmethod
    def network(cls, config: Data2VecConfig) -> Any:
        """transformers' model with random weights."""
        import transformers  # takes seconds, and most commands never build one

        sizes = config.for_transformers()
        sizes |= {"num_conv_pos_embeddings": config.position_depth, "conv_pos_kernel_size": config.position_kernel}
        return transformers.Data2VecAudioModel(transformers.Data2VecAudioConfig(**sizes))

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        size = self.config.hidden_size
        self.mask_embedding = nn.Parameter(torch.empty(size).uniform_())
        self.head = nn.Linear(size, size)
        self.teacher = Teacher(self._blocks())

    @property
    def min_training_samples(self) -> int:
        """As many as give a span and a frame beside it."""
        return self.min_samples + self.config.mask_frames * self.downsample_rate

    @property
    def skips_layers(self) -> bool:
        """See TrainableUpstream.skips_layers. The network's own embedding of masked frames takes no part."""
        return isinstance(self.encoder, ConvTransformer)

    def _blocks(self) -> nn.ModuleList:
        """What the teacher is an average of."""
        return self.encoder.model.encoder.layers if isinstance(self.encoder, ConvTransformer) else self.encoder.blocks

    def _inputs(self, batch: TrainingBatch, mask: torch.Tensor | None) -> torch.Tensor:
        """What the first block reads, (batch, frames, hidden_size), with masked frames replaced."""
        encoder = self.encoder
        if isinstance(encoder, ConvTransformer):
            encoder.expect_no_padding(batch.wavs)
            features = encoder.model.feature_extractor(batch.wavs).transpose(1, 2)
            hidden, _ = encoder.model.feature_projection(features)
            hidden = self._masked(hidden, mask)
            hidden = encoder.model.encoder.layer_norm(hidden + encoder.model.encoder.pos_conv_embed(hidden))
            return encoder.model.encoder.dropout(hidden)
        mel = encoder.stacked(encoder.mel(batch.wavs, batch.wav_lengths)).layers[0]
        return encoder.embedded(self._masked(encoder.spec_transform(mel), mask))

    def _masked(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return hidden if mask is None else torch.where(mask[:, :, None], self.mask_embedding.to(hidden), hidden)

    @torch.no_grad()
    def targets(self, batch: TrainingBatch) -> torch.Tensor:
        """Means over the teacher's last blocks of what their feed-forward layers give, (batch, frames, hidden_size)."""
        found: list[torch.Tensor] = []
        blocks: list[Any] = list(self.teacher.network.children())
        chosen = blocks[-self.config.top_layers :]
        last = [block.feed_forward if hasattr(block, "feed_forward") else block.linear2 for block in chosen]
        hooks = [layer.register_forward_hook(lambda module, inputs, output: found.append(output)) for layer in last]
        was_training = self.encoder.training
        try:
            hidden = self._inputs_without_dropout(batch)
            for block in blocks:
                output = block(hidden)
                hidden = output[0] if isinstance(output, tuple) else output
        finally:
            for hook in hooks:
                hook.remove()
            self.encoder.train(was_training)
        states = [each.float() for each in found]
        if self.config.normalise_targets:
            states = [functional.instance_norm(each.transpose(1, 2)).transpose(1, 2) for each in states]
        return torch.stack(states).mean(dim=0)

    def _inputs_without_dropout(self, batch: TrainingBatch) -> torch.Tensor:
        self.encoder.eval()
        return self._inputs(batch, None)

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """Squared distance of masked frames' predictions over the root of their size; recordings are of one length."""
        config = self.config
        frames = int(self.frame_lengths(batch.wav_lengths)[0])
        mask = mask_spans(len(batch.wavs), frames, config.mask_proportion, config.mask_frames, generator)
        mask = mask.to(batch.wavs.device)
        wanted = self.targets(batch)[mask]
        hidden = self._inputs(batch, mask)
        for block in self._blocks():
            output = block(hidden)
            hidden = output[0] if isinstance(output, tuple) else output
        predicted = self.head(hidden[mask]).float()
        loss = (predicted - wanted).square().sum(dim=1).mean() / config.hidden_size**0.5
        figures = {"target_deviation": wanted.std(dim=0).mean(), "prediction_deviation": predicted.std(dim=0).mean()}
        return PretrainLoss(loss, {name: each.detach() for name, each in figures.items()})

    def after_update(self, kept: Mapping[str, torch.Tensor], done: float) -> None:
        """The teacher follows."""
        config = self.config
        momentum = linear_to(config.momentum, config.last_momentum, config.momentum_until, done)
        self.teacher.follow(self._blocks(), momentum)

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        targets, predictions = figures["target_deviation"], figures["prediction_deviation"]
        if targets < NARROW_TARGETS:
            return f"targets all alike: their deviation over masked frames is {targets:.3f}"
        if predictions < NARROW_PREDICTIONS:
            return f"predictions all alike: their deviation over masked frames is {predictions:.4f}"
        return None
