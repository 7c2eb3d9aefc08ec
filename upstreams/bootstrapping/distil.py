"""Distillation: a small network predicts layers of a larger one, as DistilHuBERT (Chang et al., arXiv:2110.01900).

Any upstream can be the teacher: `--set teacher=hubert@checkpoints/hubert-tiny --set layers=2,3`, or one of `hf:`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from core.audio import SAMPLE_RATE
from core.errors import ContractError
from core.lengths import padding_mask
from upstreams._base import Upstream, UpstreamCard, register_upstream
from upstreams._encoders.conv_transformer import ConvTransformer
from upstreams._encoders.front_ends import MEL_TINY, FrontEndConfig, encoder_of
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainableUpstream, TrainingBatch

HALFWAY, FOLLOWED = 0.5, 0.05  # when in the training it counts, and proportion of the distance that is explained


@dataclass(frozen=True)
class DistilConfig(FrontEndConfig):
    """Sizes of the network, and what it is taught.

    Attributes:
        num_layers: blocks of the student.
        teacher: an upstream as `run` takes it.
        layers: of the teacher, each of which a head predicts.
        cosine: weight of the angle beside the distance.
        copied: whether weights of the teacher that have the student's names and shapes are where it begins.
    """

    num_layers: int = 2
    teacher: str = "hf:facebook/hubert-base-ls960"
    layers: tuple[int, ...] = (4, 8, 12)
    cosine: float = 1.0
    copied: bool = True


class Heads(nn.Module):
    """A hidden layer for all targets, and a linear layer for each.

    Args:
        size: of the student's frames.
        targets: how many layers of the teacher are predicted.
        width: of these.
    """

    def __init__(self, size: int, targets: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(size, size * targets)
        self.outputs = nn.ModuleList(nn.Linear(size, width) for _ in range(targets))

    def forward(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """A prediction of each target, (frames, width)."""
        parts = functional.gelu(self.hidden(frames)).chunk(len(self.outputs), dim=-1)
        return [output(part) for output, part in zip(self.outputs, parts, strict=True)]


@register_upstream(
    UpstreamCard(name="distil", title="Prediction of another upstream's layers, transformer", paper="arXiv:2110.01900")
)
class Distil(TrainableUpstream):
    """Hidden states are the input of the first block and the output of every block."""

    config_type = DistilConfig
    equal_lengths = True  # padding would reach the teacher's and the student's norms over time
    sizes: ClassVar[Mapping[str, DistilConfig]] = {
        "base": DistilConfig(),
        # Spectra teach no context: the default is there to be replaced by an upstream that was trained.
        "tiny": DistilConfig(**{**MEL_TINY, "num_layers": 1}, teacher="fbank_cmvn", layers=(0,)),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (
            PretrainRecipe(
                steps=200_000,
                batch_seconds=375,  # 24 pieces of 250,000 samples
                learning_rate=2e-4,
                betas=(0.9, 0.98),
                epsilon=1e-6,
                weight_decay=1e-6,
                crop_seconds=15.625,
            ),
        ),
        "tiny": (PretrainRecipe(steps=900, batch_seconds=24, learning_rate=1e-3, betas=(0.9, 0.98)),),
    }

    def __init__(self, config: DistilConfig) -> None:
        super().__init__(config, encoder_of(config, lambda: self.network(config)))

    @classmethod
    def network(cls, config: DistilConfig) -> Any:
        """transformers' model with random weights."""
        import transformers  # takes seconds, and most commands never build one

        # As published, without the norm that HuBERT has between convolutions and projection.
        sizes = {**config.for_transformers(), "feat_proj_layer_norm": False}
        return transformers.HubertModel(transformers.HubertConfig(**sizes))

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare.

        Raises: ContractError: the teacher's frames or layers can't be predicted.
        """
        from upstreams._resolve import build_upstream  # which imports the registry that this is in

        with torch.device("cpu"):
            teacher = build_upstream(self.config.teacher).freeze()
        self._require_fit(teacher)
        # In a list, so that it is neither saved with the state of the training nor trained.
        self._teacher = [teacher]
        self.heads = Heads(self.config.hidden_size, len(self.config.layers), teacher.hidden_size)
        if self.config.copied:
            self._copy(teacher)

    def _require_fit(self, teacher: Upstream) -> None:
        name, rate = self.config.teacher, self.downsample_rate
        if teacher.utterance_level or teacher.sample_rate != SAMPLE_RATE or rate % teacher.downsample_rate:
            raise ContractError(
                f"teacher={name}: its frames can't be predicted every {rate} samples; take one whose frames are of "
                f"{rate} samples at 16 kHz, or of a part of that"
            )
        unknown = [layer for layer in self.config.layers if not 0 <= layer < teacher.num_layers]
        if unknown:
            raise ContractError(f"layers={unknown[0]}: {name} has layers 0 to {teacher.num_layers - 1}")

    def _copy(self, teacher: Upstream) -> None:
        theirs, own = getattr(teacher, "network", None), self.encoder
        if isinstance(theirs, ConvTransformer) and isinstance(own, ConvTransformer):
            known, mine = theirs.model.state_dict(), own.model.state_dict()
            fitting = {key: known[key] for key in mine if key in known and known[key].shape == mine[key].shape}
            own.model.load_state_dict(fitting, strict=False)

    @torch.no_grad()
    def taught(self, batch: TrainingBatch, frames: int) -> list[torch.Tensor]:
        """The teacher's layers at the student's frames, each (batch, frames or less, width)."""
        teacher = self._teacher[0].to(batch.wavs.device)
        states = teacher.extract(batch.wavs, batch.wav_lengths)
        step = self.downsample_rate // teacher.downsample_rate
        return [states.layers[layer][:, ::step][:, :frames] for layer in self.config.layers]

    @property
    def min_training_samples(self) -> int:
        """A frame of the student's; a teacher that needs more says so."""
        taught = getattr(self, "_teacher", None)
        return max(self.min_samples, taught[0].min_samples if taught else 0)

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """Mean distance a number, and the weighted softplus of minus the cosine, mean over layers and frames."""
        if isinstance(self.encoder, ConvTransformer):
            self.encoder.expect_no_padding(batch.wavs)
        states = self.encoder.encode(batch.wavs, batch.wav_lengths)
        targets = self.taught(batch, states.layers[-1].shape[1])
        frames = targets[0].shape[1]
        valid = ~padding_mask(states.lengths.clamp(max=frames), frames)
        predictions = self.heads(states.layers[-1][:, :frames][valid])
        distances, angles, means = [], [], []
        for predicted, target in zip(predictions, (each[valid] for each in targets), strict=True):
            distances.append((predicted.float() - target).abs().mean())
            angles.append(-functional.logsigmoid(functional.cosine_similarity(predicted.float(), target, dim=1)).mean())
            means.append((target - target.mean(dim=0)).abs().mean())
        distance, angle = torch.stack(distances).mean(), torch.stack(angles).mean()
        explained = 1 - distance.detach() / torch.stack(means).mean()
        figures = {"distance": distance.detach(), "angle": angle.detach(), "explained": explained}
        return PretrainLoss(distance + self.config.cosine * angle, figures)

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        if done < HALFWAY or figures["explained"] > FOLLOWED:
            return None
        closer = 100 * figures["explained"]
        return f"teacher not followed: predictions are {closer:.0f} % nearer to it than its mean frame is"
