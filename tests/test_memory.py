"""Freed memory: used again by a process that extracts or trains heads, given back by one that pretrains."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from upstreams._memory import keep_freed_memory, release_memory
torch.set_num_threads(1)
{first}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty({megabytes} << 18).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
{between}
print(faults() / ({megabytes} << 8))
"""


def share_of_new_pages(first: str, between: str = "", megabytes: int = 50) -> float:
    """Of a tensor that is made a second time, in a fresh process."""
    code = FAULTS.format(first=first, between=between, megabytes=megabytes)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(ended.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library does as it likes")
def test_freed_memory_is_kept_up_to_a_size_and_released_when_asked():
    assert share_of_new_pages("keep_freed_memory()") < 0.1
    assert share_of_new_pages("") > 0.9, "this is why"
    assert share_of_new_pages("keep_freed_memory()", megabytes=100) > 0.9, "blocks above 64 MB go back at once"
    assert share_of_new_pages("keep_freed_memory()", "release_memory()") > 0.5
