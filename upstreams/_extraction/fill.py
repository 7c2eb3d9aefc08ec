"""Batches of clips + upstream -> feature cache. Every clip passes the upstream once, whatever is kept of it.

Batches are laid out from all clips that were asked for, not from those still missing: an interrupted extraction that is
taken up again computes the same batches, and so the same bits on a CPU, as an undisturbed one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import torch

from core.audio import SAMPLE_RATE
from core.feature_cache import FeatureCache, Features, Kind, caches_of, missing
from upstreams._base import Precision, Upstream
from upstreams._extraction.clips import GPU_BATCHES, Clip, clip_key, is_long, lay_out, longest_first
from upstreams._extraction.encoding import FrozenUpstream
from upstreams._extraction.reading import Read

__all__ = ["Clip", "caches_of", "clip_key", "extract", "lay_out", "unfinished"]

FLUSH_SECONDS = 20.0  # what a kill can cost
FLUSH_BYTES = 1 << 27


def unfinished(batches: Sequence[list[Clip]], caches: Mapping[Kind, FeatureCache]) -> list[list[Clip]]:
    """The batches of which the caches lack something."""
    return [
        batch for batch in batches if any(missing([caches[kind] for kind in clip.kinds], clip.key) for clip in batch)
    ]


def extract(
    upstream: Upstream,
    batches: Sequence[list[Clip]],
    caches: Mapping[Kind, FeatureCache],
    device: torch.device,
    advance: Callable[[float], None] = lambda seconds: None,
    precision: Precision = "float32",
    read: Read = Clip.read,
) -> int:
    """Computes the batches that the caches lack something of, and keeps what each clip asks for.

    Args:
        upstream: frozen.
        batches: as `lay_out` made them.
        caches: one for each kind that occurs.
        device: where the upstream computes.
        advance: called with the seconds of audio of every batch done.
        precision: in which it computes.
        read: gives the waveform of a clip at a sample rate.

    Returns: how many clips passed the upstream.
    Raises: ContractError: a clip is shorter than the upstream's shortest input, or its hidden states are not finite.
    """
    encoder = FrozenUpstream(upstream.to(device), device, precision)
    todo = unfinished(batches, caches)
    if device.type != "cpu":
        todo = _together(todo, GPU_BATCHES)
    names = {clip.key: str(clip.path) for clip in chain(*todo)}
    pending: dict[Kind, dict[str, Features]] = {kind: {} for kind in caches}
    flushed = time.monotonic()
    for batch, found in encoder.stream(todo, read=read):
        for kind, rows in found.items():
            kept = zip(batch, rows, strict=True)
            pending[kind].update((clip.key, row.numpy()) for clip, row in kept if kind in clip.kinds)
        size = sum(array.nbytes for arrays in pending.values() for array in arrays.values())
        if size > FLUSH_BYTES or time.monotonic() - flushed > FLUSH_SECONDS:
            _flush(pending, caches, names)
            flushed = time.monotonic()
        advance(sum(clip.samples for clip in batch) / SAMPLE_RATE)
    _flush(pending, caches, names)
    return sum(map(len, todo))


def _together(batches: Sequence[list[Clip]], count: int) -> list[list[Clip]]:
    """Neighbours of about the same length as one batch; very long clips stay alone: they pass in pieces."""
    ordered = longest_first(batches)
    long = [batch for batch in ordered if is_long(batch[0].samples)]
    others = ordered[len(long) :]
    return long + [list(chain(*others[start : start + count])) for start in range(0, len(others), count)]


def _flush(
    pending: dict[Kind, dict[str, Features]], caches: Mapping[Kind, FeatureCache], names: Mapping[str, str]
) -> None:
    for kind, arrays in pending.items():
        caches[kind].add(arrays, names)
        arrays.clear()
