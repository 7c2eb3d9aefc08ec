"""One bare pass of an upstream on every core: what no benchmark of frozen upstreams can do without."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.extraction import BareLoop
from core.audio import read_audio

TRIAL = 48  # recordings on which the ways to use the cores are compared


def bare_pass_seconds(model: Path, recordings: Sequence[Path], precision: str = "float32", repeats: int = 1) -> float:
    """Seconds of the fastest bare pass: a process a core with one thread each, or one process with all threads.

    Loading of the model and decoding are not counted; the batch size is the fastest of a few. The way that is faster on
    a part of the recordings is taken, and the median of its passes.
    """
    cores = os.cpu_count() or 1
    ways = [(cores, 1)] if cores == 1 else [(cores, 1), (1, cores)]
    if len(ways) > 1:
        part = recordings[:: max(1, len(recordings) // TRIAL)]
        ways.sort(key=lambda way: _pass(model, part, precision, *way))
    return sorted(_pass(model, recordings, precision, *ways[0]) for _ in range(repeats))[repeats // 2]


def _pass(model: Path, recordings: Sequence[Path], precision: str, processes: int, threads: int) -> float:
    """Seconds from when all processes are ready until the last one is through."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Barrier(processes + 1, timeout=600), context.Barrier(processes + 1, timeout=3600)
    arguments = (model, precision, threads, ready, done)
    workers = [
        # Neighbours in order of size go to different processes, so that all have as much to do.
        context.Process(target=_work, args=(recordings[number::processes], *arguments))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    started = time.perf_counter()
    done.wait()
    seconds = time.perf_counter() - started
    for worker in workers:
        worker.join()
    return seconds


def _work(recordings: Sequence[Path], model: Path, precision: str, threads: int, ready: Any, done: Any) -> None:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    loop = BareLoop(model, precision, torch.device("cpu"))
    wavs = sorted((read_audio(path) for path in recordings), key=len)
    batch_size = loop.best_batch_size(wavs[:: max(1, len(wavs) // 16)])
    ready.wait()
    loop.run(wavs, batch_size)
    done.wait()
