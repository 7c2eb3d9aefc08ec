"""Networks of transformers in which padding gets everywhere, each utterance alone.

The Conformer's convolutions read frames behind the end, SEW averages a frame with the one behind it, w2v-BERT's
spectra are normalised and stacked in pairs, Moonshine has a norm over time, and Parakeet's spectra are normalised. A
single utterance has the hidden states that transformers gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from core.audio import SAMPLE_RATE
from core.hidden_states import HiddenStates
from core.lengths import pad, unpad
from upstreams._base import full_precision
from upstreams._encoders.conv_transformer import NORMALISATION_EPSILON, frames_after
from upstreams._encoders.fingerprint import (
    PROBE_FRAMES,
    fixed_noise,
    in_float64,
    mel_bands,
    rounded,
    second_of_noise,
)

MEL_WINDOW, MEL_HOP = 400, 160  # samples, of SeamlessM4TFeatureExtractor


def _of_encoder(model: Any) -> Iterable[nn.Module]:
    encoder = model.encoder
    found: Iterable[nn.Module] = encoder.layers if hasattr(encoder, "layers") else encoder.encoder.layer  # SEW-D's
    return found


def _of_model(model: Any) -> Iterable[nn.Module]:
    found: Iterable[nn.Module] = model.layers  # the model is an encoder itself
    return found


class EachAlone(nn.Module):
    """A network that computes one utterance at a time.

    Args:
        model: of transformers.
        arguments: a waveform (samples,) -> the keywords that the model takes.
        frames: valid frames for valid samples, int64 (batch,) -> int64 (batch,).
        downsample_rate: samples a frame.
        min_samples: the shortest input that gives a frame.
        num_layers: hidden states of the model, where its configuration has them by another name.
        blocks_of: the model's, see Upstream.trainable_blocks.
        probe: keywords made of fixed noise, for the fingerprint; of a second of waveform if left out.
        spectrum: what the model's spectra of a second of noise are known by, where it reads spectra.
    """

    window_samples = 1

    def __init__(
        self,
        model: Any,
        arguments: Callable[[torch.Tensor], dict[str, torch.Tensor]],
        frames: Callable[[torch.Tensor], torch.Tensor],
        downsample_rate: int,
        min_samples: int,
        *,
        num_layers: int | None = None,
        blocks_of: Callable[[Any], Iterable[nn.Module]] = _of_encoder,
        probe: dict[str, torch.Tensor] | None = None,
        spectrum: Callable[[], list[str]] = list,
    ) -> None:
        super().__init__()
        self.model = model
        if getattr(model, "adapter", None) is not None:
            model.adapter = None  # added for fine-tuning; it would shorten and change the last hidden state
        self.arguments = arguments
        self.frames = frames
        self.num_layers = int(model.config.num_hidden_layers) + 1 if num_layers is None else num_layers
        self.sample_rate = int(getattr(model.config, "sampling_rate", None) or SAMPLE_RATE)  # a codec's
        self.blocks_of = blocks_of
        self.hidden_size = int(model.config.hidden_size)
        self.downsample_rate = downsample_rate
        self.min_samples = min_samples
        self.probe = probe
        self.spectrum = spectrum

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """See Upstream.trainable_blocks."""
        return list(self.blocks_of(self.model))

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        return self.frames(wav_lengths)

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        lengths = self.frame_lengths(wav_lengths)
        states = [
            self._states(self.arguments(wav))[:length]
            for wav, length in zip(unpad(wavs, wav_lengths), lengths.tolist(), strict=True)
        ]
        joined, _ = pad(states)  # (batch, frames, num_layers, hidden_size)
        return HiddenStates(joined.unbind(dim=2), lengths)

    def fingerprint(self) -> list[str]:
        """What this version of transformers computes from noise."""
        with in_float64(self):
            probe = self.arguments(second_of_noise()[0][0]) if self.probe is None else self.probe
            states = self._states(probe)
        return [*rounded(states.unbind(dim=1)), *self.spectrum()]

    def _states(self, arguments: dict[str, torch.Tensor]) -> torch.Tensor:
        """Keywords of one utterance -> (frames, num_layers, hidden_size)."""
        outputs = self.model(**arguments, output_hidden_states=True)
        layers = outputs.hidden_states
        if outputs.last_hidden_state.shape == layers[-1].shape:  # SEW's frames there are others
            layers = (*layers[:-1], outputs.last_hidden_state)  # after the final norm, where there is one
        return torch.stack([layer[0] for layer in layers], dim=1)


def of_waveforms(model: Any, extractor: Any) -> EachAlone:
    """Conformer, SEW and SEW-D.

    SEW's blocks run on `squeeze_factor` frames in one; these are the hidden states, and not the frames that a last
    layer makes of them again.
    """
    config = model.config
    kernels_and_strides = list(zip(config.conv_kernel, config.conv_stride, strict=True))
    return _of_convolutions(model, extractor, kernels_and_strides, squeeze=int(getattr(config, "squeeze_factor", 1)))


def of_moonshine(model: Any, extractor: Any) -> EachAlone:
    """Moonshine's encoder; the number of its blocks is named apart from the decoder's."""
    kernels_and_strides = [(conv.kernel_size[0], conv.stride[0]) for conv in (model.conv1, model.conv2, model.conv3)]
    return _of_convolutions(
        model,
        extractor,
        kernels_and_strides,
        num_layers=int(model.config.encoder_num_hidden_layers) + 1,
        blocks_of=_of_model,
    )


def _of_convolutions(
    model: Any,
    extractor: Any,
    kernels_and_strides: Sequence[tuple[int, int]],
    *,
    squeeze: int = 1,
    num_layers: int | None = None,
    blocks_of: Callable[[Any], Iterable[nn.Module]] = _of_encoder,
) -> EachAlone:
    def arguments(wav: torch.Tensor) -> dict[str, torch.Tensor]:
        if extractor.do_normalize:
            wav = (wav - wav.mean()) / (wav.var(correction=0) + NORMALISATION_EPSILON).sqrt()
        return {"input_values": wav[None]}

    def frames(wav_lengths: torch.Tensor) -> torch.Tensor:
        return frames_after(kernels_and_strides, wav_lengths).div(squeeze, rounding_mode="floor")

    rate, shortest = squeeze, squeeze
    for kernel, stride in reversed(kernels_and_strides):
        rate, shortest = rate * stride, (shortest - 1) * stride + kernel
    return EachAlone(model, arguments, frames, rate, shortest, num_layers=num_layers, blocks_of=blocks_of)


def of_stacked_mel(model: Any, extractor: Any) -> EachAlone:
    """w2v-BERT 2.0 on its feature extractor's spectra, `stride` frames in one."""
    stride = int(extractor.stride)

    def frames(wav_lengths: torch.Tensor) -> torch.Tensor:
        spectra = (wav_lengths - MEL_WINDOW).div(MEL_HOP, rounding_mode="floor") + 1
        return spectra.div(stride, rounding_mode="floor")

    shortest = MEL_WINDOW + (stride - 1) * MEL_HOP
    size = int(model.config.feature_projection_input_dim)
    return _of_spectra(model, extractor, frames, MEL_HOP * stride, shortest, size)


def of_normalised_mel(model: Any, extractor: Any) -> EachAlone:
    """Parakeet's encoder on log mel spectra, each bin normalised over the utterance: two spectra at least."""
    hop, config = int(extractor.hop_length), model.config
    halvings = config.subsampling_factor.bit_length() - 1
    kernel, stride = int(config.subsampling_conv_kernel_size), int(config.subsampling_conv_stride)

    def frames(wav_lengths: torch.Tensor) -> torch.Tensor:
        lengths = wav_lengths.div(hop, rounding_mode="floor")
        for _ in range(halvings):
            lengths = (lengths + (kernel - 1) // 2 * 2 - kernel).div(stride, rounding_mode="floor") + 1
        return lengths

    size = int(config.num_mel_bins)
    return _of_spectra(model, extractor, frames, hop * stride**halvings, 2 * hop, size, blocks_of=_of_model)


def _of_spectra(
    model: Any,
    extractor: Any,
    frames: Callable[[torch.Tensor], torch.Tensor],
    downsample_rate: int,
    min_samples: int,
    size: int,
    *,
    blocks_of: Callable[[Any], Iterable[nn.Module]] = _of_encoder,
) -> EachAlone:
    """A network on its feature extractor's spectra of `size` values each."""

    def arguments(wav: torch.Tensor) -> dict[str, torch.Tensor]:
        with full_precision(torch.empty(0)):  # transformers computes it on the CPU
            inputs = extractor(wav.cpu().numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return {
            "input_features": inputs.input_features.to(wav),
            "attention_mask": inputs.attention_mask.to(wav.device),
        }

    def spectrum() -> list[str]:
        wavs, _ = second_of_noise()
        return mel_bands(arguments(wavs[0].float())["input_features"][0].T.abs())  # their means are zero

    noise = 10 * fixed_noise(PROBE_FRAMES * size).view(1, PROBE_FRAMES, size)
    probe = {"input_features": noise, "attention_mask": torch.ones(1, PROBE_FRAMES, dtype=torch.int64)}
    return EachAlone(
        model, arguments, frames, downsample_rate, min_samples, blocks_of=blocks_of, probe=probe, spectrum=spectrum
    )
