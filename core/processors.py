"""How many processors this process may use: fewer than the machine has, where taskset or a batch system says so."""

from __future__ import annotations

import os

MOST_READERS = 8  # more threads than that wait for the disk


def usable_cores() -> int:
    """Processors that the operating system lets this process run on; at least 1."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def reading_threads() -> int:
    """Threads that read files side by side."""
    return min(MOST_READERS, usable_cores())
