"""The upstream contract: padded waveforms in, one hidden state a layer out, and nothing learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeVar, final

import torch
from torch import nn

from core.audio import PREPROCESSING, SAMPLE_RATE
from core.code import code_digest
from core.digest import digest_of, tensors_digest
from core.errors import ContractError
from core.fingerprints import Fingerprint
from core.hidden_states import HiddenStates
from core.lengths import padding_mask
from core.registry import Registry
from upstreams._extraction.clips import BATCH_SECONDS

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class UpstreamCard:
    """What is known of an upstream before it is built.

    Attributes:
        name: what one types on the command line and reads in the table.
        title: one line for `list`.
        paper: where it comes from.
        version: raised whenever the code's output changes; enters every digest. Of a plug-in the code itself does.
        tolerance: largest difference allowed between alone and padded in a batch.
        tolerance_reason: needed above 1e-4.
        known_failures: check -> reason, for checks that can't hold; a check that passes nevertheless is an error.
        family: how it was trained, such as generative or contrastive; the folder of its file if left out.
        licence: of the weights, where all of them have one.
        training_data: what the weights were trained on, where all of them were trained on that.
    """

    name: str
    title: str
    paper: str
    version: int = 1
    tolerance: float = 1e-4
    tolerance_reason: str = ""
    known_failures: Mapping[str, str] = field(default_factory=dict)
    family: str = ""
    licence: str = ""
    training_data: str = ""


class Upstream(nn.Module, ABC):
    """A frozen featurizer of waveforms.

    A subclass sets `card`, gives the sizes in its constructor, and writes `encode` and `frame_lengths`.

    Attributes:
        num_layers: how many hidden states `extract` returns.
        hidden_size: their width, the same for all.
        sample_rate: of the waveforms it is given, in hertz; recordings are resampled to it once, from their own rate.
        downsample_rate: input samples per frame, at its own sample rate: of 16 kHz, 160 is 10 ms and 320 is 20 ms.
        utterance_level: whether it gives one vector an utterance, as speaker encoders do: then every utterance has one
            frame, `frame_lengths` need not be written, and heads on frames refuse it.
        min_samples: the shortest legal input, in samples at its own sample rate.
        label: the name in tables where the card's does not suffice.
        training_data: what the weights were trained on, where the card can't know it.
        family: how they were trained, where the card can't know it: a loader of checkpoints of several methods.
        remark: what whoever uses it should know of how it was built, in one sentence; empty if nothing.
        checkpoint_digest: sha256 of the file or folder that a plug-in was built from, or of its name where it is none.
        window_samples: inputs are computed in multiples of this; decides how many fit in a batch.
        batch_seconds: padded audio of a batch. Transformers are fastest on a CPU, and want the least memory, if it is
            small: of base size in float32, 8 s are faster than 16 s by 6 % (short clips) to 14 % (2 to 12 s), very
            small ones slower; recurrent networks if it is large. GPUs get several batches at a time.
    """

    card: ClassVar[UpstreamCard]
    num_layers: int
    hidden_size: int
    sample_rate: int = SAMPLE_RATE
    downsample_rate: int
    utterance_level: bool = False
    min_samples: int
    window_samples: int = 1
    batch_seconds: float = BATCH_SECONDS
    label: str | None = None
    training_data: str | None = None
    family: str = ""
    remark: str = ""
    checkpoint_digest: str | None = None

    @abstractmethod
    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """The hidden states of a batch.

        Args:
            wavs: float32 (batch, samples) in [-1, 1] at `sample_rate`, zero on padding.
            wav_lengths: valid samples, int64 (batch,).
        """

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """Valid frames for valid samples, int64 (batch,): the one formula of this upstream.

        Raises: ContractError: a subclass gives frames, but has no formula.
        """
        if not self.utterance_level:
            raise ContractError(
                f"{self.display_name}: has no frame_lengths: write it, or set utterance_level = True if encode gives "
                f"one vector an utterance"
            )
        return torch.ones_like(wav_lengths)

    def configuration(self) -> Mapping[str, Any]:
        """All that shapes the output besides the weights, as JSON values; enters the digest."""
        return {}

    def trainable_blocks(self) -> Sequence[nn.Module]:
        """The modules that follow each other from the input to the output, of which fine-tuning trains the last ones.

        None where an upstream does not say: it can be fine-tuned as a whole alone.
        """
        return ()

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> Upstream:
        """Builds the upstream from what stands behind `@` on the command line.

        Raises: ContractError: a checkpoint is named, but this upstream takes none.
        """
        if checkpoint is not None:
            raise ContractError(f"{cls.card.name} takes no checkpoint: leave out '@{checkpoint}'")
        return cls()

    @classmethod
    def heard_in_pretraining(cls, checkpoint: str | None) -> Mapping[str, Fingerprint]:
        """Fingerprints of recordings that the weights were trained on, under any names; empty where unknown.

        Args:
            checkpoint: as `from_checkpoint` is given it.

        Raises: CheckpointError: what is said of them is damaged.
        """
        return {}

    @property
    def inference_module(self) -> nn.Module:
        """What computes the hidden states: its tensors are counted and digested, others serve training alone."""
        return self

    @property
    def display_name(self) -> str:
        """The name in tables."""
        return self.label or self.card.name

    @final
    def freeze(self) -> Upstream:
        """Evaluation mode, and no parameter asks for a gradient."""
        self.requires_grad_(False)
        return self.eval()

    @final
    @torch.no_grad()
    def extract(self, wavs: torch.Tensor, wav_lengths: torch.Tensor, precision: Precision = "float32") -> HiddenStates:
        """The hidden states of a padded batch, checked against the contract, zero on padding.

        Args:
            wavs: float32 (batch, samples) in [-1, 1] at `sample_rate`, zero on padding.
            wav_lengths: valid samples, int64 (batch,).
            precision: of matrix products and convolutions inside `encode`.

        Returns: `num_layers` float32 tensors (batch, frames, hidden_size) and their valid lengths.
        Raises: ContractError: an utterance is too short, or `encode` broke a promise.
        """
        return self.extract_with_gradients(wavs, wav_lengths, precision)

    @final
    def extract_with_gradients(
        self, wavs: torch.Tensor, wav_lengths: torch.Tensor, precision: Precision = "float32"
    ) -> HiddenStates:
        """See `extract`; gradients reach the parameters that ask for them, as in fine-tuning."""
        shortest = int(wav_lengths.min())
        if shortest < self.min_samples:
            raise ContractError(
                f"{self.display_name}: an utterance has {shortest} samples ({shortest / self.sample_rate:.3f} s), "
                f"the shortest legal input is {self.min_samples}; leave it out of the manifest"
            )
        with torch.autocast(wavs.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            states = self.encode(wavs, wav_lengths)
        expected = self.frame_lengths(wav_lengths)
        if not torch.equal(states.lengths.cpu(), expected.cpu()):
            raise ContractError(
                f"{self.display_name}: encode gave {states.lengths.tolist()} valid frames, "
                f"frame_lengths says {expected.tolist()}; make both use the same formula"
            )
        frames = int(expected.max())
        if len(states.layers) != self.num_layers:
            raise ContractError(f"{self.display_name}: {len(states.layers)} layers, num_layers is {self.num_layers}")
        self._require_one_width(states)
        for index, layer in enumerate(states.layers):
            if layer.shape[0] != len(wavs) or layer.shape[1] < frames or layer.shape[2:] != (self.hidden_size,):
                raise ContractError(
                    f"{self.display_name}: layer {index} has shape {tuple(layer.shape)}, "
                    f"must be ({len(wavs)}, at least {frames}, {self.hidden_size})"
                )
        layers = tuple(layer[:, :frames].float() for layer in states.layers)
        if int(expected.min()) < frames:
            mask = padding_mask(states.lengths, frames)[:, :, None]
            layers = tuple(layer.masked_fill(mask, 0) for layer in layers)
        return HiddenStates(layers, states.lengths)

    def _require_one_width(self, states: HiddenStates) -> None:
        """The weighted sum over layers of SUPERB's protocol takes layers of one width, as s3prl's featurizer does."""
        widths = [layer.shape[-1] for layer in states.layers]
        if len(set(widths)) > 1:
            raise ContractError(
                f"{self.display_name}: its layers have the widths {', '.join(map(str, widths))}; they are mixed by a "
                f"weighted sum, which takes one width: let encode return those of one width only, register the others "
                f"as an upstream of their own, or pad narrow ones with zeros to hidden_size"
            )

    @property
    def frame_samples(self) -> float:
        """Samples at 16 kHz that a frame stands for: `downsample_rate`, where the upstream computes at 16 kHz."""
        exact = self.downsample_rate * SAMPLE_RATE / self.sample_rate
        return round(exact) if exact == round(exact) else exact

    def num_params(self) -> int | None:
        """Number of parameters that compute hidden states; None where that is unknown.

        An upstream that runs weights outside torch has no torch parameters: it is unknown then, unless a subclass
        counts them here.
        """
        count = sum(parameter.numel() for parameter in self.inference_module.parameters())
        return None if count == 0 and self.checkpoint_digest is not None else count

    @final
    def digest(self) -> str:
        """sha256 of all that decides the features: code, configuration, weights, checkpoint and preprocessing."""
        checkpoint = {} if self.checkpoint_digest is None else {"checkpoint": self.checkpoint_digest}
        return digest_of(
            {
                "name": self.card.name,
                "code": code_digest(type(self)) or str(self.card.version),
                "configuration": self.configuration(),
                "weights": tensors_digest(self.inference_module.state_dict()),
                "preprocessing": {**PREPROCESSING, "sample_rate": self.sample_rate},
                **checkpoint,
            }
        )


def full_precision(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """A context in which nothing is computed in bfloat16: for spectral front ends, whose logarithms want every bit.

    Args:
        tensor: on the device that is meant.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def is_plug_in(upstream: type[Upstream]) -> bool:
    """Whether the class is somebody else's, and not one of this package."""
    return not upstream.__module__.startswith("upstreams.")


def _family(upstream: type[Upstream]) -> str:
    """The folder of one of our own files; for others unknown."""
    return "other" if is_plug_in(upstream) else upstream.__module__.split(".")[1]


UPSTREAMS: Registry[type[Upstream]] = Registry("upstream", "upstreams", group="frostbench.upstreams")
UpstreamClass = TypeVar("UpstreamClass", bound=type[Upstream])


def register_upstream(card: UpstreamCard) -> Callable[[UpstreamClass], UpstreamClass]:
    """Class decorator: gives an upstream its card and enters it in the registry."""

    def register(upstream: UpstreamClass) -> UpstreamClass:
        upstream.card = replace(card, family=card.family or _family(upstream))
        UPSTREAMS.add(card.name, upstream)
        return upstream

    return register
