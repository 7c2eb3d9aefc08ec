"""Workers and threads follow the processors that this process may use, not those that the machine has."""

from __future__ import annotations

import os

import pytest

from core.processors import reading_threads, usable_cores
from frostbench.jobs.local import LocalExecutor


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes can't be bound to processors here")
def test_a_process_bound_to_one_processor_starts_one_worker():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert (usable_cores(), reading_threads(), LocalExecutor("cpu").workers) == (1, 1, 1)
    finally:
        os.sched_setaffinity(0, allowed)
    assert (usable_cores(), LocalExecutor("cpu").workers) == (len(allowed), len(allowed))


def test_where_the_system_does_not_say_all_processors_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert (usable_cores(), reading_threads()) == (64, 8)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert (usable_cores(), reading_threads()) == (1, 1)
