"""wav2vec 2.0: the true quantised frame told from distractors, behind a mask (Baevski et al., arXiv:2006.11477)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.waveform import TINY, WaveformConfig, WaveformUpstream, numpy_seeded
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainingBatch

DEAD_CODEBOOK = 0.05  # of the codes: where fewer are in even use, the loss is mostly solved by telling nothing apart


@dataclass(frozen=True)
class Wav2Vec2Config(WaveformConfig):
    """Sizes of the network and of the contrastive task.

    Attributes:
        codebooks: groups of the quantiser.
        codes: of a group.
        code_size: of all groups together.
        distractors: masked frames of the same utterance that the true one is told from.
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
    UpstreamCard(name="wav2vec2", title="Contrast of masked, quantised frames, transformer", paper="arXiv:2006.11477")
)
class Wav2Vec2(WaveformUpstream):
    """transformers' Wav2Vec2ForPreTraining; without a checkpoint its tiny size with random weights."""

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
                steps=1_200,
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
        import transformers  # takes seconds, and most commands never build one

        self.model = transformers.Wav2Vec2ForPreTraining(
            transformers.Wav2Vec2Config(
                **config.for_transformers(),
                num_codevector_groups=config.codebooks,
                num_codevectors_per_group=config.codes,
                codevector_dim=config.code_size,
                proj_codevector_dim=config.projection_size,
                num_negatives=config.distractors,
                contrastive_logits_temperature=config.temperature,
                diversity_loss_weight=config.diversity,
                feat_quantizer_dropout=config.feature_dropout,
            )
        )
        self.watch_features()

    @property
    def encoder(self) -> Any:
        """See WaveformUpstream.encoder."""
        return self.model.wav2vec2

    @property
    def saved_model(self) -> Any:
        """See WaveformUpstream.saved_model; the quantiser goes with it, as in published checkpoints."""
        return self.model

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """Contrastive and diversity loss of the masked frames, per masked frame; recordings are of one length."""
        from transformers.models.wav2vec2.modeling_wav2vec2 import _sample_negative_indices

        shape = len(batch.wavs), int(self.frame_lengths(batch.wav_lengths)[0])
        with numpy_seeded(generator):
            mask = self.mask(*shape)
            distractors = _sample_negative_indices(shape, self.config.distractors, mask)
        temperature = self.config.gumbel_start * self.config.gumbel_decay**batch.step
        self.model.set_gumbel_temperature(max(temperature, self.config.gumbel_end))
        outputs = self.model(
            batch.wavs,
            mask_time_indices=torch.from_numpy(mask).to(batch.wavs.device),
            sampled_negative_indices=torch.from_numpy(distractors).to(batch.wavs.device),
        )
        masked = int(mask.sum())
        figures = {
            "contrastive": outputs.contrastive_loss / masked,
            "code_perplexity": outputs.codevector_perplexity,
        }
        return PretrainLoss(outputs.loss / masked + self.feature_penalty(), figures)

    def collapsed(self, figures: Mapping[str, float]) -> str | None:
        """See TrainableUpstream.collapsed."""
        codes, used = self.config.codebooks * self.config.codes, figures["code_perplexity"]
        if used >= DEAD_CODEBOOK * codes:
            return None
        return f"dead codebook: {used:.1f} of {codes} codes in use"
