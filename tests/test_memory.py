"""Freed memory is kept in worker processes alone. How much that saves is measured by benchmarks/kept_memory.py."""

from __future__ import annotations

import ctypes

import jobs
import pytest
import torch

from core.memory import M_MMAP_THRESHOLD, keep_freed_memory, release_memory
from frostbench.jobs.base import Job, set_up_worker
from frostbench.jobs.local import LocalExecutor
from upstreams._extraction.fill import extract
from upstreams._resolve import build_upstream


@pytest.fixture
def asked(monkeypatch) -> list[tuple[object, ...]]:
    """What the C library is asked to do; nothing is done."""
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr("core.memory._libc", lambda *call: calls.append(call))
    return calls


def test_a_worker_keeps_freed_memory(asked, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: None)
    set_up_worker(1)
    assert [call[:2] for call in asked if call[1] == M_MMAP_THRESHOLD] == [("mallopt", M_MMAP_THRESHOLD)]


def test_the_process_of_a_caller_keeps_its_own_ways(asked):
    with LocalExecutor("cpu", workers=1) as executor:
        (outcome,) = executor.run([Job("tell", jobs.tell, (1,))], lambda amount: None)
    assert outcome.value == 1
    assert extract(build_upstream("fbank"), [], {}, torch.device("cpu")) == 0
    assert asked == []


@pytest.mark.parametrize("missing", ["library", "function"])
def test_another_c_library_does_as_it_likes(missing, monkeypatch):
    def load(name: str) -> object:
        if missing == "library":
            raise OSError(f"{name}: no such file")
        return object()

    monkeypatch.setattr(ctypes, "CDLL", load)
    keep_freed_memory()
    release_memory()
