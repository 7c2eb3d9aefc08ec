"""A speaker encoder trained on thousands of real voices: GE2E (Wan et al. 2018, arXiv:1710.10467), one vector a voice.

Its weights lie inside Resemblyzer's wheel (0.1.4, Apache-2.0); nothing of that package is run, so its dependencies are
not needed:

    pip install --no-deps Resemblyzer==0.1.4
    frostbench check examples/plugins/ge2e.py:GE2E
    frostbench run --upstream examples/plugins/ge2e.py:GE2E --task sid

`examples/plugins/ge2e.py:GE2E@FILE` reads weights from another place.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import torch
import torchaudio
from torch import nn

import frostbench as fb

RATE, WINDOW, HOP, MELS, SIZE = 16_000, 400, 160, 40, 256
PIECE, STEP = 160, 77  # frames: 1.6 s, as in training, 1.3 times a second
COVERED = 0.75  # of a last piece, or it is left out
LOUDNESS = 10 ** (-30 / 20)  # root mean square that quieter recordings are raised to


def installed_weights() -> Path:
    """Where the wheel's weights lie.

    Raises: FileNotFoundError: the package is not installed.
    """
    package = importlib.util.find_spec("resemblyzer")
    if package is None or package.origin is None:
        raise FileNotFoundError("GE2E's weights are not here: pip install --no-deps Resemblyzer==0.1.4")
    return Path(package.origin).with_name("pretrained.pt")


@fb.register_upstream(
    fb.UpstreamCard(
        name="ge2e",
        title="GE2E speaker encoder, 3 LSTM of 256 (Resemblyzer)",
        paper="arXiv:1710.10467",
        family="supervised",
        licence="Apache-2.0",
        training_data="LibriSpeech other, VoxCeleb1, VoxCeleb2: 8,000 voices with their names",
    )
)
class GE2E(fb.Upstream):
    """One layer: the mean of the vectors of pieces of 1.6 s, of length 1."""

    num_layers, hidden_size, utterance_level, min_samples = 1, SIZE, True, WINDOW

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, SIZE, num_layers=3, batch_first=True)
        self.linear = nn.Linear(SIZE, SIZE)
        state = torch.load(weights, map_location="cpu", weights_only=True)["model_state"]
        self.load_state_dict({name: state[name] for name in self.state_dict()})
        filters = torchaudio.functional.melscale_fbanks(
            WINDOW // 2 + 1, 0, RATE / 2, MELS, RATE, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> GE2E:
        """From the file that is named, else from the installed wheel."""
        return cls(Path(checkpoint) if checkpoint else installed_weights())

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> fb.HiddenStates:
        """Each recording alone: its loudness and its last piece depend on its own length."""
        vectors = [self._vector(wav[:length]) for wav, length in zip(wavs, wav_lengths.tolist(), strict=True)]
        return fb.HiddenStates((torch.stack(vectors)[:, None],), self.frame_lengths(wav_lengths))

    def _vector(self, wav: torch.Tensor) -> torch.Tensor:
        rms = wav.square().mean().sqrt()
        wav = wav * (LOUDNESS / rms.clamp(min=1e-8)).clamp(min=1)  # it never lowers
        mels = self._mels(wav)
        steps = range(0, max(1, math.ceil((len(wav) + 1) / HOP) - PIECE + STEP + 1), STEP)
        starts = [start for start in steps if start == 0 or (len(wav) - start * HOP) / (PIECE * HOP) >= COVERED]
        mels = nn.functional.pad(mels, (0, 0, 0, max(0, starts[-1] + PIECE - len(mels))))
        _, (hidden, _) = self.lstm(torch.stack([mels[start : start + PIECE] for start in starts]))
        pieces = nn.functional.normalize(self.linear(hidden[-1]).relu(), dim=-1)
        return nn.functional.normalize(pieces.mean(dim=0), dim=-1)

    def _mels(self, wav: torch.Tensor) -> torch.Tensor:
        """Energies of the mel bands, not logarithmic: (frames, 40)."""
        with torch.autocast(wav.device.type, enabled=False):
            spectrum = torch.stft(
                wav.float(), WINDOW, HOP, window=self.window, center=True, pad_mode="constant", return_complex=True
            )
            return spectrum.abs().square().T @ self.filters
