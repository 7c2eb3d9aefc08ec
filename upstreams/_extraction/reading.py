"""Recordings are decoded by threads while an upstream computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from core.audio import SAMPLE_RATE
from core.processors import usable_cores
from upstreams._extraction.clips import Clip

READERS, MOST_READERS = 4, 16  # threads that decode and resample, one a core between; on a CPU they mostly wait
Read = Callable[[Clip, int], torch.Tensor]
AHEAD_SECONDS = 120.0  # of audio that is decoded ahead, 8 MB; or one batch, if that is longer, besides the one in work


def read_ahead(
    batches: Sequence[list[Clip]], sample_rate: int = SAMPLE_RATE, read: Read = Clip.read
) -> Iterator[tuple[list[Clip], list[torch.Tensor]]]:
    """The batches with their waveforms: while one is worked on, threads decode the next ones, up to a bound."""

    def submitted(batch: Sequence[Clip]) -> list[Future[torch.Tensor]]:
        return [readers.submit(read, clip, sample_rate) for clip in batch]

    with ThreadPoolExecutor(max(READERS, min(MOST_READERS, usable_cores()))) as readers:
        ahead: deque[Any] = deque()
        room = AHEAD_SECONDS * SAMPLE_RATE
        coming = deque(batches)
        while coming or ahead:
            room = _begin(coming, ahead, room, submitted)
            batch, futures = ahead.popleft()
            # Again before it is given: a batch for a GPU fills the bound alone, and the next shall be read meanwhile.
            room = _begin(coming, ahead, room + _samples(batch), submitted)
            yield batch, [future.result() for future in futures]


def _begin(
    coming: deque[list[Clip]],
    ahead: deque[Any],
    room: float,
    submitted: Callable[[Sequence[Clip]], list[Future[torch.Tensor]]],
) -> float:
    """Hands batches to the readers while there is room, at least one; returns what room is left, in samples."""
    while coming and (room > 0 or not ahead):
        batch = coming.popleft()
        room -= _samples(batch)
        ahead.append((batch, submitted(batch)))
    return room


def _samples(batch: Sequence[Clip]) -> int:
    return sum(clip.samples for clip in batch)
