"""A variational autoencoder of frames, and with `kl_weight=0` an autoencoder (Kingma & Welling, arXiv:1312.6114).

For speech as in Chorowski et al., arXiv:1901.08810: what is left of a frame behind a narrow place. Nothing asks for
context, which makes it the control of methods that mask or predict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from core.lengths import padding_mask
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.mel_conv import STRIDE, MelConv, Residual, strided
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainableUpstream, TrainingBatch

ACTIVE = 0.01  # nats of a latent that is in use
FEWEST = 0.1  # of the latents that are in use
LEAST_KL = 0.1  # nats of a frame
LEAST_VARIANCE = 1e-4  # of the latents of an autoencoder
RISES_OVER = 1 / 3  # of the training


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of the network and the weight of its bottleneck.

    Attributes:
        hidden_size: of encoder and decoder.
        dilations: of the encoder's blocks.
        decoder_blocks: of the decoder.
        num_mel_bins: of each frame.
        normalise: how a recording is brought to a common level.
        latents: numbers that a hidden frame, which is two mel frames, passes through.
        kl_weight: of the divergence in nats a frame, summed over the latents, beside an error summed over the bins of
            two mel frames and divided by their number; it rises to this over a third of the training. 0 is an
            autoencoder, without noise.
        free_nats: of each latent, which cost nothing.
    """

    hidden_size: int = 512
    dilations: tuple[int, ...] = (1, 1, 2)
    decoder_blocks: int = 2
    num_mel_bins: int = 80
    normalise: str = "level"
    latents: int = 128
    kl_weight: float = 0.02
    free_nats: float = 0.05


class Bottleneck(MelConv):
    """Hidden states are those of MelConv, and the means of the latents, with zeros to the width of the others.

    Args:
        config: sizes.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__(config.hidden_size, config.dilations, config.num_mel_bins, config.normalise)
        self.num_layers += 1
        self.latents = config.latents
        self.to_latents = nn.Linear(config.hidden_size, 2 * config.latents)

    def layers(self, mel: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See MelConv.layers."""
        layers = super().layers(mel, lengths)
        means = self.to_latents(layers[-1])[:, :, : self.latents]
        return (*layers, functional.pad(means, (0, self.hidden_size - self.latents)))

    def gaussians(self, mel: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and logarithms of the variances, each (batch, frames, latents)."""
        means, log_variances = self.to_latents(super().layers(mel, lengths)[-1]).chunk(2, dim=2)
        return means, log_variances


@register_upstream(
    UpstreamCard(name="vae", title="Variational autoencoder of frames, convolutions", paper="arXiv:1312.6114")
)
class VAE(TrainableUpstream):
    """See Bottleneck for what the hidden states are."""

    config_type = VAEConfig
    sizes: ClassVar[Mapping[str, VAEConfig]] = {
        "base": VAEConfig(),  # none is published for frozen features
        "tiny": VAEConfig(hidden_size=192, latents=32),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (PretrainRecipe(steps=200_000, batch_seconds=400, learning_rate=1e-3),),
        "tiny": (PretrainRecipe(steps=1_600, batch_seconds=24, learning_rate=1e-3),),
    }

    def __init__(self, config: VAEConfig = VAEConfig()) -> None:
        super().__init__(config, Bottleneck(config))

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        config = self.config
        self.widen = nn.Linear(config.latents, config.hidden_size)
        self.decoder = nn.ModuleList(
            Residual(config.hidden_size, 1, causal=False) for _ in range(config.decoder_blocks)
        )
        self.to_mel = nn.Linear(config.hidden_size, STRIDE * config.num_mel_bins)

    def decoded(self, latents: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Mel frames of latents (batch, frames, latents): twice as many frames."""
        mask = padding_mask(lengths, latents.shape[1])[:, :, None]
        hidden = self.widen(latents)
        for block in self.decoder:
            hidden = block(hidden, mask)
        return self.to_mel(hidden).unflatten(2, (STRIDE, -1)).flatten(1, 2)

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """Absolute error of the decoded frames a bin, and the weighted divergence of the latents from a normal."""
        config = self.config
        mel = self.encoder.mel(batch.wavs, batch.wav_lengths)
        means, log_variances = self.encoder.gaussians(mel.layers[0], mel.lengths)
        lengths = strided(mel.lengths)
        latents = means
        if config.kl_weight:
            noise = torch.randn(means.shape, generator=generator).to(means)
            latents = means + noise * (log_variances / 2).exp()
        wanted = mel.layers[0]
        valid = ~padding_mask(mel.lengths, wanted.shape[1])
        error = (self.decoded(latents, lengths)[:, : wanted.shape[1]] - wanted).abs()[valid].mean()
        frames = ~padding_mask(lengths, means.shape[1])
        divergence = kl_from_normal(means[frames], log_variances[frames]).mean(dim=0)  # of each latent
        figures = {
            "error": error.detach(),
            "kl": divergence.sum().detach(),
            "active": (divergence > ACTIVE).float().mean(),
            "latent_variance": means.detach()[frames].var(dim=0).mean(),
        }
        weight = config.kl_weight * min(1.0, batch.done / RISES_OVER)
        return PretrainLoss(error + weight * divergence.clamp(min=config.free_nats).sum(), figures)

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        if not self.config.kl_weight:
            if figures["latent_variance"] >= LEAST_VARIANCE:
                return None
            return f"posterior collapse: the latents' variance is {figures['latent_variance']:.1g}"
        if figures["kl"] >= LEAST_KL and figures["active"] >= FEWEST:
            return None
        used = 100 * figures["active"]
        return f"posterior collapse: {figures['kl']:.2f} nats a frame, {used:.0f} % of the latents in use"


def kl_from_normal(means: torch.Tensor, log_variances: torch.Tensor) -> torch.Tensor:
    """Divergence in nats of each normal distribution from the one of mean 0 and variance 1, of any shape."""
    return (means.square() + log_variances.exp() - 1 - log_variances) / 2
