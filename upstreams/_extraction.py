"""Manifest + upstream -> feature cache. Every clip passes the upstream once, whatever is kept of it.

Batches are laid out from all clips that were asked for, not from those still missing: an interrupted extraction that is
taken up again computes the same batches, and so the same bits, as an undisturbed one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from core.audio import SAMPLE_RATE, read_audio
from core.errors import ContractError
from core.feature_cache import FeatureCache, Features, Kind, missing
from core.hidden_states import HiddenStates
from core.lengths import pad, unpad
from upstreams._base import Upstream

BATCH_SECONDS = 64.0  # of padded audio: large enough to fill a core, small enough for a laptop's memory
FLUSH_SECONDS = 20.0  # what a kill can cost
FLUSH_BYTES = 1 << 28


@dataclass(frozen=True)
class Clip:
    """A recording, or a piece of it, as an upstream shall hear it.

    Attributes:
        audio_digest: sha256 of the file.
        path: the file.
        samples: length in samples at 16 kHz, as far as the header tells: batches are laid out by it.
        kinds: what is kept of its hidden states.
        start: first sample of the piece.
        stop: sample behind its last; None is the end of the recording.
        gain_db: level change in decibels.
    """

    audio_digest: str
    path: Path
    samples: int
    kinds: frozenset[Kind]
    start: int = 0
    stop: int | None = None
    gain_db: float = 0.0

    @property
    def key(self) -> str:
        """What its features are kept under."""
        return clip_key(self.audio_digest, self.start, self.stop, self.gain_db)

    def read(self) -> torch.Tensor:
        """The waveform (samples,)."""
        wav = read_audio(self.path)[self.start : self.stop]
        return wav if self.gain_db == 0 else wav * 10 ** (self.gain_db / 20)


def clip_key(audio_digest: str, start: int = 0, stop: int | None = None, gain_db: float = 0.0) -> str:
    """The cache key of a clip; a whole recording at its own level has its audio's digest."""
    piece = "" if start == 0 and stop is None else f"[{start}:{'' if stop is None else stop}]"
    return f"{audio_digest}{piece}{f'{gain_db:+g}dB' if gain_db else ''}"


def caches_of(folder: Path, source: str, kinds: Iterable[Kind]) -> dict[Kind, FeatureCache]:
    """The caches of the kinds that are asked for."""
    return {kind: FeatureCache(folder, source, kind) for kind in sorted(set(kinds))}


def lay_out(clips: Sequence[Clip], window_samples: int, batch_seconds: float = BATCH_SECONDS) -> list[list[Clip]]:
    """Batches of clips of about the same length, the longest first, each within the budget or of one clip.

    Args:
        clips: in any order; the same set gives the same batches.
        window_samples: the upstream computes in multiples of it.
        batch_seconds: budget of padded audio.
    """
    budget = int(batch_seconds * SAMPLE_RATE)
    batches: list[list[Clip]] = []
    room = 0
    for clip in sorted(clips, key=lambda clip: (-clip.samples, clip.key)):
        if room < 1:
            cost = max(1, math.ceil(clip.samples / window_samples)) * window_samples
            room = max(1, budget // cost)
            batches.append([])
        batches[-1].append(clip)
        room -= 1
    return batches


def unfinished(batches: Sequence[list[Clip]], caches: dict[Kind, FeatureCache]) -> list[list[Clip]]:
    """The batches of which the caches lack something."""
    return [
        batch for batch in batches if any(missing([caches[kind] for kind in clip.kinds], clip.key) for clip in batch)
    ]


def extract(
    upstream: Upstream,
    batches: Sequence[list[Clip]],
    caches: dict[Kind, FeatureCache],
    device: torch.device,
    advance: Callable[[float], None] = lambda seconds: None,
) -> int:
    """Computes the batches that the caches lack something of, and keeps what each clip asks for.

    Args:
        upstream: frozen.
        batches: as `lay_out` made them.
        caches: one for each kind that occurs.
        device: where the upstream computes.
        advance: called with the seconds of audio of every batch done.

    Returns: how many clips passed the upstream.
    Raises: ContractError: a clip is shorter than the upstream's shortest input, or its hidden states are not finite.
    """
    upstream = upstream.to(device)
    todo = unfinished(batches, caches)
    pending: dict[Kind, dict[str, Features]] = {kind: {} for kind in caches}
    flushed = time.monotonic()
    with ThreadPoolExecutor(1) as reader:  # decodes the next batch while the model computes this one
        ahead = reader.submit(_read, todo[0]) if todo else None
        for number, batch in enumerate(todo):
            assert ahead is not None, "there is one batch ahead as long as there is one to do"
            wavs = ahead.result()
            ahead = reader.submit(_read, todo[number + 1]) if number + 1 < len(todo) else None
            _keep(states_of(upstream, batch, wavs, device), batch, pending)
            size = sum(array.nbytes for arrays in pending.values() for array in arrays.values())
            if size > FLUSH_BYTES or time.monotonic() - flushed > FLUSH_SECONDS:
                _flush(pending, caches)
                flushed = time.monotonic()
            advance(sum(len(wav) for wav in wavs) / SAMPLE_RATE)
    _flush(pending, caches)
    return sum(len(batch) for batch in todo)


def _read(batch: Sequence[Clip]) -> list[torch.Tensor]:
    return [clip.read() for clip in batch]


def states_of(
    upstream: Upstream, batch: Sequence[Clip], wavs: Sequence[torch.Tensor], device: torch.device
) -> HiddenStates:
    """The hidden states of clips that were read.

    Raises: ContractError: one is shorter than the upstream's shortest input, or its hidden states are not finite.
    """
    for clip, wav in zip(batch, wavs, strict=True):
        if len(wav) < upstream.min_samples:
            raise ContractError(
                f"{clip.path}: has {len(wav)} samples at 16 kHz, the shortest legal input of {upstream.display_name} "
                f"is {upstream.min_samples}; take the recording out of the manifest"
            )
    padded, lengths = pad(wavs)
    states = upstream.extract(padded.to(device), lengths.to(device))
    for row, clip in enumerate(batch):
        if not all(torch.isfinite(layer[row]).all() for layer in states.layers):
            raise ContractError(
                f"{clip.path}: {upstream.display_name} gives hidden states that are NaN or infinite; "
                f"run: run_benchmark.py check, and look at the recording"
            )
    return states


def rows_of(states: HiddenStates, kind: Kind) -> Sequence[torch.Tensor]:
    """What a kind keeps of each row of a batch (rows, num_layers, hidden_size), on the CPU."""
    if kind == "frames":
        return unpad(states.stacked().cpu(), states.lengths.cpu())
    if kind == "pooled_normalised":
        normalised = tuple(functional.layer_norm(layer, layer.shape[-1:]) for layer in states.layers)
        states = HiddenStates(normalised, states.lengths)
    return states.pooled()[:, None].cpu().unbind()


def _keep(states: HiddenStates, batch: Sequence[Clip], pending: dict[Kind, dict[str, Features]]) -> None:
    for kind in {kind for clip in batch for kind in clip.kinds}:
        for clip, row in zip(batch, rows_of(states, kind), strict=True):
            if kind in clip.kinds:
                pending[kind][clip.key] = row.contiguous().numpy()


def _flush(pending: dict[Kind, dict[str, Features]], caches: dict[Kind, FeatureCache]) -> None:
    for kind, arrays in pending.items():
        caches[kind].add(arrays)
        arrays.clear()
