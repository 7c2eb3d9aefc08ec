"""Digests of audio files, remembered for as long as the files stay as they are."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core.digest import file_digest, parsed_json, write_json
from core.processors import reading_threads

SETTLED_NANOSECONDS = 2 * 10**9  # the coarsest clock of a file system in use, FAT's


def remembered_digests(paths: Iterable[Path], memory: Path | None) -> dict[Path, str]:
    """Path -> sha256; a file is not read again as long as its size and times are those that are remembered."""
    remembered = _remembered(memory)
    stamps = {path: _stamp(path) for path in paths}
    unknown = [path for path, stamp in stamps.items() if remembered.get(str(path.absolute()), [])[:-1] != stamp]
    with ThreadPoolExecutor(reading_threads()) as pool:
        computed = dict(zip(unknown, pool.map(file_digest, unknown), strict=True))
    # What was changed a moment ago may change again within the same tick of the file system's clock.
    settled = time.time_ns() - SETTLED_NANOSECONDS
    new = {str(path.absolute()): [*stamps[path], digest] for path, digest in computed.items()
           if max(stamps[path][1:]) < settled}  # fmt: skip
    if memory is not None and new:
        write_json(memory, {**remembered, **new})
    return {path: computed.get(path) or remembered[str(path.absolute())][-1] for path in stamps}


def _remembered(memory: Path | None) -> dict[str, list[Any]]:
    """Absolute path -> size, times and digest; nothing where the file is absent or damaged."""
    try:
        content = parsed_json(memory.read_text(encoding="utf-8")) if memory is not None else {}
    except (FileNotFoundError, ValueError):
        return {}
    is_whole = isinstance(content, dict) and all(isinstance(found, list) for found in content.values())
    return content if is_whole else {}


def _stamp(path: Path) -> list[int]:
    """Changes whenever the file does: writing sets the second time, and nothing can set the third back."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
