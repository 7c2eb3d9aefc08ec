"""VQ-APC: autoregressive prediction through a layer of few codes (Chung et al., Interspeech 2020, arXiv:2005.08392).

How many codes there are limits what passes, and so shows which information the network keeps first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from core.lengths import padding_mask
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.mel_gru import MelGRU
from upstreams._pretraining.contract import PretrainRecipe, TrainingBatch
from upstreams._pretraining.quantiser import DEAD_CODEBOOK, GumbelQuantiser, code_perplexity
from upstreams.generative.apc import APC, APCConfig

FASTEST = 0.5  # of the training, in which the temperature falls


@dataclass(frozen=True)
class VQAPCConfig(APCConfig):
    """Sizes of the network, its codes and the prediction task.

    Attributes:
        quantised_layer: behind which the codes stand, from 1; what comes behind reads codes alone.
        codes: how many there are.
        gumbel_start: temperature of the choice at first.
        gumbel_end: in the second half of the training.
    """

    quantised_layer: int = 3
    codes: int = 128
    gumbel_start: float = 0.5
    gumbel_end: float = 0.5


class QuantisedGRU(MelGRU):
    """Hidden states are the outputs of the GRU layers, each before it is quantised.

    Args:
        config: sizes.
    """

    def __init__(self, config: VQAPCConfig) -> None:
        super().__init__(
            config.num_layers,
            config.hidden_size,
            config.num_mel_bins,
            dropout=config.dropout,
            residual=config.residual,
            window_type=config.window_type,
            cmvn=config.cmvn,
        )
        self.quantised_layer = config.quantised_layer
        self.quantiser = GumbelQuantiser(config.hidden_size, 1, config.codes, config.hidden_size).plain_start()

    def layers(self, mel: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See MelEncoder.layers."""
        return self.layers_and_codes(mel, 1.0)[0]

    def layers_and_codes(
        self, mel: torch.Tensor, temperature: float
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
        """Hidden states; what the last layer hands on, (batch, frames, hidden_size); the code of each frame."""
        layers: list[torch.Tensor] = []
        inputs, chosen = mel, mel.new_zeros(mel.shape[:2], dtype=torch.int64)
        for number, rnn in enumerate(self.rnn_layers, start=1):
            outputs = self.dropout(rnn(inputs)[0])
            layers.append(outputs + inputs if number > 1 and self.residual else outputs)
            inputs = layers[-1]
            if number == self.quantised_layer:
                inputs = self.quantiser(layers[-1].flatten(0, 1), temperature).codes.view_as(layers[-1])
                chosen = self.quantiser.logits(layers[-1]).detach().argmax(dim=2)
        return tuple(layers), inputs, chosen


@register_upstream(
    UpstreamCard(name="vq_apc", title="Autoregressive prediction through few codes, GRUs", paper="arXiv:2005.08392")
)
class VQAPC(APC):
    """See QuantisedGRU for what the hidden states are."""

    config_type = VQAPCConfig
    formerly_saved: ClassVar[tuple[str, ...]] = ()
    sizes: ClassVar[Mapping[str, VQAPCConfig]] = {
        "base": VQAPCConfig(),
        "tiny": VQAPCConfig(hidden_size=256, codes=64, gumbel_start=2.0),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        # 10 epochs of LibriSpeech's 360 hours in batches of 32 utterances, about 12 s each.
        "base": (PretrainRecipe(steps=32_500, batch_seconds=400, learning_rate=1e-4, clip=1.0),),
        "tiny": (PretrainRecipe(steps=455, batch_seconds=24, learning_rate=1e-3),),
    }

    @classmethod
    def network(cls, config: APCConfig) -> MelGRU:
        """See APC.network."""
        assert isinstance(config, VQAPCConfig)
        return QuantisedGRU(config)

    def read(
        self, mel: torch.Tensor, lengths: torch.Tensor, batch: TrainingBatch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See APC.read: codes, where the last layer is quantised."""
        config = self.config
        share = min(1.0, batch.done / FASTEST)
        temperature = config.gumbel_start + (config.gumbel_end - config.gumbel_start) * share
        _, handed_on, codes = self.encoder.layers_and_codes(mel, temperature)
        codes = codes[~padding_mask(lengths, mel.shape[1])]
        return handed_on, {"code_perplexity": code_perplexity(codes, config.codes)}

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        used, codes = figures["code_perplexity"], self.config.codes
        if used < DEAD_CODEBOOK * codes:
            return f"dead codebook: {used:.1f} of {codes} codes in use"
        return super().collapsed(figures, done)
