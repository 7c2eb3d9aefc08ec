"""HuBERT: clusters of masked frames predicted, first of MFCC, then of itself (Hsu et al., arXiv:2106.07447)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from core.errors import ContractError
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.waveform import TINY, WaveformConfig, WaveformUpstream
from upstreams._pretraining.clusters import Clusters
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainingBatch
from upstreams._pretraining.quantiser import ONE_ANSWER, code_perplexity


@dataclass(frozen=True)
class HubertConfig(WaveformConfig):
    """Sizes of the network and of the masked prediction; spans begin more often than wav2vec 2.0's.

    Attributes:
        unmasked_weight: of the loss on frames that are not masked; the published models have none of it.
    """

    mask_proportion: float = 0.8
    unmasked_weight: float = 0.0


# Minutes suffice only if the convolutions learn from frames that are not masked, too.
TINY_CONFIG = HubertConfig(**TINY, unmasked_weight=0.5)
BASE_RECIPE = PretrainRecipe(
    steps=250_000,
    batch_seconds=2_800,  # 32 GPUs with 1.4 million samples each
    learning_rate=5e-4,
    warmup=0.08,
    clip=10.0,
    weight_decay=0.01,
    betas=(0.9, 0.98),
    epsilon=1e-6,
    crop_seconds=15.625,
    micro_batches=32,
    targets=Clusters(100),
)
TINY_RECIPE = PretrainRecipe(
    steps=1_000,
    batch_seconds=12,
    learning_rate=1e-3,
    clip=10.0,
    weight_decay=0.01,
    betas=(0.9, 0.98),
    epsilon=1e-6,
    targets=Clusters(100, fit_frames=100_000, centred=True),
)


@register_upstream(
    UpstreamCard(
        name="hubert",
        title="Prediction of masked frames' clusters, transformer",
        paper="arXiv:2106.07447",
        version=2,
    )
)
class Hubert(WaveformUpstream):
    """transformers' HubertModel; without a checkpoint its tiny size with random weights."""

    config_type = HubertConfig
    sizes: ClassVar[Mapping[str, HubertConfig]] = {"base": HubertConfig(), "tiny": TINY_CONFIG}
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (BASE_RECIPE, replace(BASE_RECIPE, steps=400_000, targets=Clusters(500, layer=6))),
        "tiny": (TINY_RECIPE, replace(TINY_RECIPE, steps=1_500, targets=Clusters(100, layer=2, fit_frames=100_000))),
    }

    def __init__(self, config: HubertConfig = TINY_CONFIG) -> None:
        super().__init__(config)

    @classmethod
    def network(cls, config: WaveformConfig) -> Any:
        """See WaveformUpstream.network."""
        import transformers  # takes seconds, and most commands never build one

        return transformers.HubertModel(transformers.HubertConfig(**config.for_transformers()))

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare.

        Raises: ContractError: the recipe's targets are no clusters.
        """
        if not isinstance(recipe.targets, Clusters):
            raise ContractError("hubert: its recipe names no clusters, and there is nothing else to predict")
        self.final_proj = nn.Linear(self.config.hidden_size, self.config.projection_size)
        # Not uniform between 0 and 1 as in fairseq, where all begin with nearly the same direction.
        self.cluster_embeddings = nn.Parameter(torch.randn(recipe.targets.count, self.config.projection_size))

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """Cross-entropy of the masked frames' clusters, by cosines; recordings are of one length."""
        frames = int(self.frame_lengths(batch.wav_lengths)[0])
        if batch.targets is None or any(len(target) < frames for target in batch.targets):
            raise ContractError(f"hubert: its loss needs a cluster for each of {frames} frames of every utterance")
        mask = self.mask(len(batch.wavs), frames, generator).to(batch.wavs.device)
        hidden = self.encoder.model(batch.wavs, mask_time_indices=mask).last_hidden_state
        targets = torch.stack([target[:frames] for target in batch.targets])
        logits = self._logits(hidden[mask])
        loss = functional.cross_entropy(logits, targets[mask])
        predictions = logits.detach().argmax(dim=1)
        figures = {
            "accuracy": (predictions == targets[mask]).float().mean(),
            "prediction_perplexity": code_perplexity(predictions, len(self.cluster_embeddings)),
            "masked": loss.detach(),
        }
        if self.config.unmasked_weight:
            others = functional.cross_entropy(self._logits(hidden[~mask]), targets[~mask])
            loss = loss + self.config.unmasked_weight * others
        return PretrainLoss(loss + self.feature_penalty(), figures)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(frames, hidden_size) -> (frames, clusters)."""
        predicted = functional.normalize(self.final_proj(hidden).float(), dim=1)
        codes = functional.normalize(self.cluster_embeddings.float(), dim=1)
        return functional.linear(predicted, codes) / self.config.temperature

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        used = figures["prediction_perplexity"]
        if used >= ONE_ANSWER:
            return None
        count = len(self.cluster_embeddings)
        return f"one answer for all frames: {used:.1f} of {count} clusters among the predictions"
