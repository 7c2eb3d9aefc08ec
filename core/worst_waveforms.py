"""Waveforms of the few test recordings that went most wrong in a run, kept beside its record to be listened to.

A file of safetensors: id of the recording -> float16 (1 + 2 * sources, samples) at 16 kHz: what was heard, the targets,
and the estimates that stand for them, the beginning of each. Half precision is 60 dB below them, and does not clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from core.audio import SAMPLE_RATE
from core.digest import written_then_renamed
from core.errors import RecordError

MOST_RECORDINGS = 3
MOST_SAMPLES = 6 * SAMPLE_RATE  # enough to hear what is wrong, and little beside a head
Waveforms = npt.NDArray[np.float32]


def worst_places(values: Sequence[float], ids: Sequence[str], *, higher: bool) -> list[int]:
    """Places of the recordings that went most wrong, the worst first.

    Args:
        values: the metric of each recording.
        ids: of the recordings; decide where values are equal.
        higher: whether higher values are better.
    """
    return sorted(range(len(ids)), key=lambda i: (values[i] if higher else -values[i], ids[i]))[:MOST_RECORDINGS]


def write_waveforms(path: Path, signals: Mapping[str, Waveforms]) -> None:
    """Writes a file, atomically.

    Args:
        path: of the file.
        signals: id -> (1 + 2 * sources, samples).
    """
    kept = {name: np.ascontiguousarray(each[:, :MOST_SAMPLES], np.float16) for name, each in signals.items()}
    with written_then_renamed(path) as temporary:
        save_file(kept, temporary)


def read_waveforms(path: Path) -> dict[str, Waveforms]:
    """Id -> float32 (1 + 2 * sources, samples), in the order of the ids.

    Raises: RecordError: the file is no such file.
    """
    try:
        kept = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise RecordError(f"{path}: no waveforms ({error}); delete the record and its run, and run it again") from None
    bad = [name for name, each in kept.items() if each.ndim != 2 or len(each) < 3 or len(each) % 2 == 0]
    if bad or any(each.dtype != np.float16 or not np.isfinite(each).all() for each in kept.values()):
        raise RecordError(f"{path}: holds what are no waveforms; delete the record and its run, and run it again")
    return {name: kept[name].astype(np.float32) for name in sorted(kept)}
