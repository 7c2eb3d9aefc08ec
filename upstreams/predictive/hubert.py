"""HuBERT: clusters of masked frames predicted, first of MFCC, then of itself (Hsu et al., arXiv:2106.07447)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from core.errors import ContractError
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.waveform import TINY, WaveformConfig, WaveformUpstream
from upstreams._pretraining.clusters import Clusters
from upstreams._pretraining.contract import LATER, PretrainLoss, PretrainRecipe, TrainingBatch
from upstreams._pretraining.mixing import mixed
from upstreams._pretraining.quantiser import ONE_ANSWER, code_perplexity


@dataclass(frozen=True)
class HubertConfig(WaveformConfig):
    """Sizes of the network and of the masked prediction; spans begin more often than wav2vec 2.0's.

    Attributes:
        unmasked_weight: of the loss on frames that are not masked; the published models have none of it.
        predict_layers: blocks, from 1, besides the last whose states predict the clusters as well, each with a head of
            its own (ILS-SSL, arXiv:2112.08778); the loss is the mean over all of them. 0 alone is none.
        mix_proportion: of the recordings that have a piece of another one over them (WavLM, arXiv:2110.13900); the
            clusters are those of the recording alone.
    """

    mask_proportion: float = 0.8
    unmasked_weight: float = 0.0
    predict_layers: tuple[int, ...] = field(default=(0,), metadata=LATER)
    mix_proportion: float = field(default=0.0, metadata=LATER)


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
    steps=250,
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
        "tiny": (TINY_RECIPE, replace(TINY_RECIPE, steps=550, targets=Clusters(100, layer=2, fit_frames=100_000))),
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
        unknown = [layer for layer in self._inner if not 0 < layer < self.config.num_layers]
        if unknown:
            raise ContractError(f"predict_layers={unknown[0]}: must be 0, or a block from 1 to the last but one")
        self.inner_proj = nn.ModuleList(
            nn.Linear(self.config.hidden_size, self.config.projection_size) for _ in self._inner
        )
        self.inner_embeddings = nn.ParameterList(torch.randn_like(self.cluster_embeddings) for _ in self._inner)

    @property
    def _inner(self) -> list[int]:
        """Blocks besides the last that predict the clusters."""
        return [layer for layer in self.config.predict_layers if layer]

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """Cross-entropy of the masked frames' clusters, by cosines; recordings are of one length."""
        frames = int(self.frame_lengths(batch.wav_lengths)[0])
        if batch.targets is None or any(len(target) < frames for target in batch.targets):
            raise ContractError(f"hubert: its loss needs a cluster for each of {frames} frames of every utterance")
        mask = self.mask(len(batch.wavs), frames, generator).to(batch.wavs.device)
        wavs = batch.wavs
        if self.config.mix_proportion:
            wavs = mixed(wavs, batch.wav_lengths, self.config.mix_proportion, generator)
        outputs = self.encoder.model(wavs, mask_time_indices=mask, output_hidden_states=bool(self._inner))
        targets = torch.stack([target[:frames] for target in batch.targets])
        states = [outputs.last_hidden_state, *(outputs.hidden_states[layer] for layer in self._inner)]
        heads = [
            (self.final_proj, self.cluster_embeddings),
            *zip(self.inner_proj, self.inner_embeddings, strict=True),
        ]
        found = [
            self._predicted(hidden, head, embeddings, targets, mask)
            for hidden, (head, embeddings) in zip(states, heads, strict=True)
        ]
        figures = found[0].figures
        if self._inner:
            used = torch.stack([each.figures["prediction_perplexity"] for each in found]).min()
            figures = {**figures, "prediction_perplexity": used}
        loss = torch.stack([each.loss for each in found]).mean() if self._inner else found[0].loss
        return PretrainLoss(loss + self.feature_penalty(), figures)

    def _predicted(
        self,
        hidden: torch.Tensor,
        head: nn.Module,
        embeddings: torch.Tensor,
        targets: torch.Tensor,
        mask: torch.Tensor,
    ) -> PretrainLoss:
        """The loss of one layer's prediction.

        Args:
            hidden: its states, (batch, frames, hidden_size).
            head: what projects them.
            embeddings: of the clusters.
            targets: clusters, int64 (batch, frames).
            mask: True where a frame was masked, bool (batch, frames).
        """

        def logits(states: torch.Tensor) -> torch.Tensor:
            predicted = functional.normalize(head(states).float(), dim=1)
            return functional.linear(predicted, functional.normalize(embeddings.float(), dim=1)) / temperature

        temperature = self.config.temperature
        given = logits(hidden[mask])
        loss = functional.cross_entropy(given, targets[mask])
        predictions = given.detach().argmax(dim=1)
        figures = {
            "accuracy": (predictions == targets[mask]).float().mean(),
            "prediction_perplexity": code_perplexity(predictions, len(embeddings)),
            "masked": loss.detach(),
        }
        if self.config.unmasked_weight:
            others = functional.cross_entropy(logits(hidden[~mask]), targets[~mask])
            loss = loss + self.config.unmasked_weight * others
        return PretrainLoss(loss, figures)

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        used = figures["prediction_perplexity"]
        if used >= ONE_ANSWER:
            return None
        count = len(self.cluster_embeddings)
        return f"one answer for all frames: {used:.1f} of {count} clusters among the predictions"
