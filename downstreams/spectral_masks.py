"""SUPERB-SG's head for enhancement and separation: masks for the spectrum of what is heard (Kolbæk et al., 2017).

The frames of the spectrum are those of the features. Each mask is learned from the non-negative part of its source's
magnitude in the phase of the mixture; of several sources in the order that suits an utterance best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.lengths import pad, padding_mask
from downstreams._base import FeatureShape, Head, register_head
from downstreams._bidirectional import BidirectionalLSTM
from downstreams._data import Targets
from downstreams._merging import merged, merged_lengths
from downstreams.labels._base import LabelContext, Labels
from downstreams.labels.waveforms import WaveformLabels


@dataclass(frozen=True)
class SpectralMasksOptions:
    """Sizes of the head, and of the spectrum.

    Attributes:
        lstm_size: units of an LSTM, per direction.
        lstm_layers: how many bidirectional layers.
        dropout: after every layer.
        window_samples: of the spectrum's Hann windows, and points of their Fourier transform.
        hop_samples: most samples from one window to the next; of longer frames of features, several windows share the
            mask of one. Windows of 512 at every 640th would not cover the waveform.
        frame_samples: neighbouring frames are averaged until one spans about so many samples; 0 leaves them all.
    """

    lstm_size: int = 896
    lstm_layers: int = 3
    dropout: float = 0.5
    window_samples: int = 512
    hop_samples: int = 320
    frame_samples: int = 0


@register_head("spectral_masks")
class SpectralMasks(Head):
    """BLSTM layers -> Linear -> a mask a source for the spectrum of what is heard; predicts the sources' waveforms."""

    labels: WaveformLabels
    needs = "frames"
    hears = True
    label_kind = WaveformLabels
    options_type = SpectralMasksOptions
    small_options = (
        {"lstm_size": 16, "lstm_layers": 1, "dropout": 0.0},
        {"lstm_size": 16, "lstm_layers": 2, "dropout": 0.0, "frame_samples": 320, "hop_samples": 160},
    )

    def __init__(self, shape: FeatureShape, labels: Labels, options: Any) -> None:
        super().__init__(shape, labels, options)
        self.stride = max(1, round(options.frame_samples / shape.downsample_rate))
        rate = shape.downsample_rate * self.stride  # samples of a frame of features
        self.windows = math.ceil(rate / options.hop_samples)  # that share a mask
        self.hop_length = round(rate / self.windows)
        self.frames_of_mask = self.windows * self.hop_length / rate  # 1 unless a hop is no whole number of samples
        self.bins = options.window_samples // 2 + 1
        *inputs, last = [shape.hidden_size] + [2 * options.lstm_size] * options.lstm_layers
        self.lstms = nn.ModuleList(BidirectionalLSTM(size, options.lstm_size) for size in inputs)
        self.dropout = nn.Dropout(options.dropout)
        self.classifier = nn.Linear(last, labels.sizes[0] * self.bins)
        self.register_buffer("window", torch.hann_window(options.window_samples), persistent=False)
        self.window: torch.Tensor

    def forward(self, features: torch.Tensor, lengths: torch.Tensor, wavs: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """Masks (batch, masks, sources * bins); features are cut or zero-padded to the frames of the spectrum."""
        frames = self._frames(torch.tensor([len(wav) for wav in wavs])).to(features.device)
        masks = merged_lengths(frames, self.windows)
        hidden = self._at_masks(merged(features, lengths, self.stride), merged_lengths(lengths, self.stride), masks)
        for lstm in self.lstms:
            hidden = self.dropout(lstm(hidden, masks))
        return self.classifier(hidden).relu()

    def loss(self, logits: torch.Tensor, lengths: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Squared error of masked magnitudes, of all bins, a frame and source; the mean over utterances."""
        signals, samples = pad([target.T for target in targets])
        spectra = self._spectra(signals.permute(2, 0, 1).to(logits.device))  # (1 + sources, batch, frames, bins)
        heard, sources = spectra[0], spectra[1:]
        # The part of a source that is in phase with what is heard, where it is not opposite: |s| relu(cos(difference)).
        wanted = ((sources * heard.conj()).real / heard.abs().clamp(min=1e-9)).relu()
        found = self._by_source(logits)[:, :, : heard.shape[1]] * heard.abs()
        frames = self._frames(samples).to(logits.device)
        valid = ~padding_mask(frames, heard.shape[1])[:, :, None]
        errors = torch.stack(
            [torch.stack([((one - other).square() * valid).sum(dim=(1, 2)) for other in wanted]) for one in found]
        )  # (estimates, sources, batch)
        costs = [errors[list(order), list(range(len(order)))].sum(dim=0)
                 for order in permutations(range(len(found)))]  # fmt: skip
        best = torch.stack(costs).amin(dim=0)
        return (best / frames).mean() / len(found)

    def predict(self, logits: torch.Tensor, lengths: torch.Tensor, wavs: Sequence[torch.Tensor] = ()) -> list[Any]:
        """The estimated waveforms (sources, samples) of each recording."""
        found = []
        for masks, wav in zip(self._by_source(logits.detach()).unbind(dim=1), wavs, strict=True):
            estimates = self._sounding(masks[:, : self._frames(len(wav))], wav.to(masks.device))
            found.append(self.labels.decode(estimates.cpu().numpy(), LabelContext(0, self.hop_length)))
        return found

    def _frames(self, samples: Any) -> Any:
        """Frames of the spectrum, whose windows are centred on every hop from the first sample on."""
        return samples // self.hop_length + 1

    def _at_masks(self, features: torch.Tensor, lengths: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """The features that stand where the masks do, zeros behind their end."""
        places = (torch.arange(int(masks.max()), device=features.device) * self.frames_of_mask).round().long()
        inside = places[None, :] < lengths.to(features.device)[:, None]
        return features[:, places.clamp(max=features.shape[1] - 1)].masked_fill(~inside[:, :, None], 0)

    def _by_source(self, logits: torch.Tensor) -> torch.Tensor:
        """(sources, batch, frames of the spectrum, bins)."""
        return logits.unflatten(2, (-1, self.bins)).movedim(2, 0).repeat_interleave(self.windows, dim=2)

    def _spectra(self, wavs: torch.Tensor) -> torch.Tensor:
        """Complex (..., frames, bins) of waveforms (..., samples), with zeros before the first and behind the last."""
        size = self.options.window_samples
        spectra = torch.stft(
            wavs.flatten(0, -2), size, self.hop_length, window=self.window, pad_mode="constant", return_complex=True
        )
        return spectra.mT.unflatten(0, wavs.shape[:-1])

    def _sounding(self, masks: torch.Tensor, wav: torch.Tensor) -> torch.Tensor:
        """Waveforms (sources, samples) of the masked spectrum of what is heard.

        It is padded to whole hops, and the last mask counts for the frame there, too: behind the last centre windows
        may not reach, where the inverse would divide by next to nothing.
        """
        whole = functional.pad(wav, (0, -len(wav) % self.hop_length))
        spectrum = self._spectra(whole[None])[0]  # (frames, bins)
        missing = len(spectrum) - masks.shape[1]
        masks = torch.cat([masks, masks[:, -1:].expand(-1, missing, -1)], dim=1)
        masked = (masks * spectrum).mT  # (sources, bins, frames)
        size = self.options.window_samples
        return torch.istft(masked, size, self.hop_length, window=self.window, length=len(whole))[:, : len(wav)]
