"""Recordings are decoded by threads while an upstream computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from core.audio import SAMPLE_RATE
from upstreams._extraction.clips import Clip

READERS = 4  # threads that decode and resample; on a CPU they mostly wait
AHEAD_SECONDS = 120.0  # of audio that is decoded ahead, 8 MB; or one batch, if that is longer


def read_ahead(
    batches: Sequence[list[Clip]], sample_rate: int = SAMPLE_RATE
) -> Iterator[tuple[list[Clip], list[torch.Tensor]]]:
    """The batches with their waveforms: while one is worked on, threads decode the next ones, up to a bound."""
    with ThreadPoolExecutor(READERS) as readers:
        ahead: deque[Any] = deque()
        room = AHEAD_SECONDS * SAMPLE_RATE
        coming = deque(batches)
        while coming or ahead:
            while coming and (room > 0 or not ahead):
                batch = coming.popleft()
                room -= sum(clip.samples for clip in batch)
                ahead.append((batch, [readers.submit(clip.read, sample_rate) for clip in batch]))
            batch, futures = ahead.popleft()
            room += sum(clip.samples for clip in batch)
            yield batch, [future.result() for future in futures]
