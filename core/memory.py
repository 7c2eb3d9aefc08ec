"""What glibc does with memory that was freed; nothing happens with another C library."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES = 256 << 20  # on top of the heap
LARGE_BYTES = 64 << 20  # above it, memory comes from the system and goes back at once


def keep_freed_memory() -> None:
    """Lets this process use freed memory again, where glibc gives blocks above 32 MB back as soon as they are free.

    It holds for the whole process, so only `set_up_worker` calls it, in a process that was started to run jobs.

    The system fills every page with zeros before it hands it out, which takes about 8 % of an extraction's CPU time:
    the first convolution of a batch of 8 s gives 52 MB. Longer recordings give larger blocks, which still go back. No
    single block is sure to be used again: torch asks for aligned memory, for which glibc wants a little more than the
    block, so a small one that was put in the gap sends it elsewhere. `benchmarks/kept_memory.py` measures the sum.
    """
    _libc("mallopt", M_MMAP_THRESHOLD, LARGE_BYTES)
    _libc("mallopt", M_TRIM_THRESHOLD, KEPT_BYTES)


def release_memory() -> None:
    """Gives free memory back: batches of ever other shapes leave the heap twice as large as what is used."""
    _libc("malloc_trim", 0)


def _libc(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)
