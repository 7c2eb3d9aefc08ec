"""wav2vec 2.0: the true quantised frame among distractors, behind a mask (Baevski et al., arXiv:2006.11477)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.waveform import TINY, WaveformConfig, WaveformUpstream
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainingBatch
from upstreams._pretraining.masks import draw_distractors
from upstreams._pretraining.quantiser import DEAD_CODEBOOK, GumbelQuantiser


@dataclass(frozen=True)
class Wav2Vec2Config(WaveformConfig):
    """Sizes of the network and of the contrastive task.

    Attributes:
        codebooks: groups of the quantiser.
        codes: of a group.
        code_size: of all groups together.
        distractors: masked frames of the same utterance that the true one is compared with.
        diversity: weight of the loss that wants all codes used.
        gumbel_start: temperature of the quantiser's softmax at first.
        gumbel_end: below it, it does not fall.
        gumbel_decay: its factor at every update.
    """

    codebooks: int = 2
    codes: int = 320
    code_size: int = 256
    distractors: int = 100
    diversity: float = 0.1
    gumbel_start: float = 2.0
    gumbel_end: float = 0.5
    gumbel_decay: float = 0.999995


TINY_CONFIG = Wav2Vec2Config(**TINY, codes=64, code_size=64, distractors=25, gumbel_decay=0.999)


@register_upstream(
    UpstreamCard(
        name="wav2vec2",
        title="Contrast of masked, quantised frames, transformer",
        paper="arXiv:2006.11477",
        version=2,
    )
)
class Wav2Vec2(WaveformUpstream):
    """transformers' Wav2Vec2Model; without a checkpoint its tiny size with random weights."""

    config_type = Wav2Vec2Config
    sizes: ClassVar[Mapping[str, Wav2Vec2Config]] = {"base": Wav2Vec2Config(), "tiny": TINY_CONFIG}
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        # 64 GPUs with 1.4 million samples each.
        "base": (
            PretrainRecipe(
                steps=400_000,
                batch_seconds=5_600,
                learning_rate=5e-4,
                warmup=0.08,
                clip=0.0,
                weight_decay=0.01,
                betas=(0.9, 0.98),
                epsilon=1e-6,
                crop_seconds=15.625,
                micro_batches=64,
            ),
        ),
        "tiny": (
            PretrainRecipe(
                steps=670,
                batch_seconds=12,
                learning_rate=1e-3,
                weight_decay=0.01,
                betas=(0.9, 0.98),
                epsilon=1e-6,
            ),
        ),
    }

    def __init__(self, config: Wav2Vec2Config = TINY_CONFIG) -> None:
        super().__init__(config)

    @classmethod
    def network(cls, config: WaveformConfig) -> Any:
        """See WaveformUpstream.network."""
        import transformers  # takes seconds, and most commands never build one

        return transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**config.for_transformers()))

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        config = self.config
        self.dropout = nn.Dropout(config.feature_dropout)
        self.quantiser = GumbelQuantiser(config.conv_channels[-1], config.codebooks, config.codes, config.code_size)
        self.project_context = nn.Linear(config.hidden_size, config.projection_size)
        self.project_codes = nn.Linear(config.code_size, config.projection_size)

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """Contrastive and diversity loss of the masked frames, per masked frame; recordings are of one length."""
        config = self.config
        mask = self.mask(len(batch.wavs), int(self.frame_lengths(batch.wav_lengths)[0]), generator)
        distractors = draw_distractors(mask, config.distractors, generator).to(batch.wavs.device)
        mask = mask.to(batch.wavs.device)
        outputs = self.encoder.model(batch.wavs, mask_time_indices=mask)
        temperature = max(config.gumbel_start * config.gumbel_decay**batch.step, config.gumbel_end)
        quantised = self.quantiser(self.dropout(outputs.extract_features[mask]), temperature)
        context = self.project_context(outputs.last_hidden_state[mask])
        contrastive = self._contrastive(context, self.project_codes(quantised.codes), distractors)
        codes = config.codebooks * config.codes
        diversity = config.diversity * (codes - quantised.perplexity) / codes
        figures = {"contrastive": contrastive.detach(), "code_perplexity": quantised.perplexity.detach()}
        return PretrainLoss(contrastive + diversity + self.feature_penalty(), figures)

    def _contrastive(self, context: torch.Tensor, true: torch.Tensor, distractors: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of the true codes among the distractors, by cosines.

        Args:
            context: float (masked, projection_size).
            true: codes of the same frames, float (masked, projection_size).
            distractors: their places among the masked frames, int64 (masked, count).
        """
        others = true[distractors]  # (masked, count, projection_size)
        candidates = torch.cat([true[:, None], others], dim=1)
        logits = functional.cosine_similarity(context.float()[:, None], candidates.float(), dim=2)
        logits = logits / self.config.temperature
        same = (others == true[:, None]).all(dim=2)  # a distractor of the same codes would be no false answer
        logits = logits.masked_fill(functional.pad(same, (1, 0)), float("-inf"))
        return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        codes, used = self.config.codebooks * self.config.codes, figures["code_perplexity"]
        if used >= DEAD_CODEBOOK * codes:
            return None
        return f"dead codebook: {used:.1f} of {codes} codes in use"
