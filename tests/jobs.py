"""Jobs for the executors' tests: in a module of their own, for worker processes import it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import torch

from core.errors import BenchmarkError


def look_around(folder: str, *, device: str, advance: Any) -> dict[str, Any]:
    """What a job sees of its process, once another one is there as well."""
    Path(folder, str(os.getpid())).touch()
    until = time.monotonic() + 60
    while len(list(Path(folder).iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    return {
        "device": device,
        "process": os.getpid(),
        "threads": torch.get_num_threads(),
        "flushes": (torch.tensor([1e-39]) * 0.5).item() == 0,
        "folder": str(Path.cwd()),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def tell(*amounts: float, device: str, advance: Any) -> float:
    for amount in amounts:
        advance(amount)
    return sum(amounts)


def die_once(marker: Path, *, device: str, advance: Any) -> str:
    advance(10)
    if not marker.exists():
        marker.touch()
        time.sleep(0.5)  # Ray sends what was told in the background
        _die()
    advance(5)
    return "lived"


def die(*, device: str, advance: Any) -> None:
    _die()


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("never reached")


def refuse(*, device: str, advance: Any) -> None:
    raise BenchmarkError("x is 3, must be 4; make it 4")


def stumble(*, device: str, advance: Any) -> None:
    raise RuntimeError("out of order")


def fill_the_disk(*, device: str, advance: Any) -> None:
    raise OSError(28, "No space left on device", "/full/disk")


def say(*, device: str, advance: Any) -> str:
    """Says a line on the way."""
    advance(1.0)
    advance(1.0, f"on {device}")
    return "told"


def has_imported(module: str, *, device: str, advance: Any) -> bool:
    """Whether this process knows a module."""
    return module in sys.modules
