"""A cache that nobody here may write to: its features are used, and what a run writes beside them goes elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from core.digest import require_writable
from core.errors import CacheError
from frostbench.byte_sizes import format_bytes
from frostbench.cache_space import FOLDERS, READ_ONLY_ERRNOS, Need

NOT_SHOWN = frozenset({"hf"})  # audio, which corpora are opened with before


@contextmanager
def overlay_of(cache: Path) -> Iterator[Path | None]:
    """A temporary folder that shows what a read-only cache holds, by links, and takes what is written; it goes again.

    Args:
        cache: folder of a cache.

    Returns: None where the cache can be written to, or is not there.
    Raises: OSError: it can't be written to for another reason, such as a full disk.
    """
    folders = (cache, *(cache / name for name in FOLDERS if name not in NOT_SHOWN))  # as of another user
    if not cache.is_dir() or all(is_writable(folder) for folder in folders if folder.is_dir()):
        yield None
        return
    with TemporaryDirectory(prefix="frostbench-cache-", ignore_cleanup_errors=True) as folder:
        _show(cache.absolute(), Path(folder))
        yield Path(folder)


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder.

    Raises: OSError: it can't be written to for another reason than that it is read-only, such as a full disk.
    """
    try:
        require_writable(folder)
    except OSError as error:
        if error.errno in READ_ONLY_ERRNOS:
            return False
        raise
    return True


def _show(source: Path, target: Path) -> None:
    """Real folders with links to files, so that a file that is written anew takes the place of its link."""
    with os.scandir(source) as found:
        for each in found:
            if each.name in NOT_SHOWN or each.name.startswith(".writing-"):
                continue
            if each.is_dir():
                (target / each.name).mkdir()
                with suppress(PermissionError):  # what may not be read is not there
                    _show(source / each.name, target / each.name)
            else:
                (target / each.name).symlink_to(source / each.name)


def require_whole(cache: Path, needs: Sequence[Need]) -> None:
    """Refuses a read-only cache that lacks features: hours of work would be lost with the temporary folder.

    Raises: CacheError: says of which upstreams, and how many bytes.
    """
    lacking = [need for need in needs if need.coming]
    if lacking:
        names = ", ".join(dict.fromkeys(need.upstream for need in lacking))
        size = format_bytes(sum(need.coming for need in lacking))
        raise CacheError(
            f"{cache}: nothing can be written there, and it lacks features of {names} ({size}); name another folder "
            f"with --cache"
        )
