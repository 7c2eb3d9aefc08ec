"""How much the cache may take, what is thrown out of it, and who is using what.

An entry is a folder: one kind of features of one upstream, or one of FOLDERS. Whoever uses an entry holds a shared lock
on its marker; who wants to delete it needs the lock alone. The locks are the operating system's: a process that dies
holds none.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import portalocker

from core.digest import IN_THE_WAY, parsed_json, write_json
from core.errors import CacheError
from core.feature_cache import FeatureCache
from frostbench.byte_sizes import format_bytes

READ_ONLY_ERRNOS = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
MARKER = ".used"  # in an entry: its time is that of the last use
NOTE = "upstream.json"  # beside the entries of an upstream: what the list shows
REMOVING = ".removing-"
DECODED = "decoded"  # there while several upstreams hear the same recordings
# What lies in a cache besides features; folder -> what it holds.
FOLDERS = {
    "heads": "trained candidates",
    "hf": "audio of hf: corpora",
    "rows": "rows of tasks",
    DECODED: "decoded audio",
    "audio": "digests of audio files",
    "validated": "corpora that were checked",
    "upstreams": "facts of upstreams",
    "checked": "upstreams that were checked",
    "costs": "seconds that were measured",
}
MADE_BY_RUNS = ("heads", "rows")
SMALL = (
    "audio",
    "validated",
    "upstreams",
    "checked",
    "costs",
)  # never in the way of features; minutes of work to make again


@dataclass(frozen=True)
class Need:
    """An entry of the cache that a run needs.

    Attributes:
        upstream: its display name.
        cache: the entry.
        keys: of the utterances.
        size: bytes of all of them.
        coming: bytes of those that are not there yet.
    """

    upstream: str
    cache: FeatureCache
    keys: frozenset[str]
    size: int
    coming: int


@dataclass(frozen=True)
class Entry:
    """A part of the cache that is listed, counted and deleted as a whole.

    Attributes:
        path: its folder.
        title: display name of the upstream whose features it holds, or the beginning of its digest where none was
            noted; what a folder holds that is no upstream's.
        size: bytes.
        used: when a run used it last, in seconds since 1970.
    """

    path: Path
    title: str
    size: int
    used: float

    @property
    def name(self) -> str:
        """Kind and number format of features; else the folder's name."""
        return self.path.name

    @property
    def holds_features(self) -> bool:
        """Whether it is one kind of features of one upstream."""
        return self.path.name not in FOLDERS

    def count(self) -> int:
        """How many utterances it has features of; of other folders how many files."""
        if not self.holds_features:
            return sum(file.name != MARKER for file in _files(self.path))
        keys: set[str] = set()
        for index in self.path.glob("[!.]*.json"):
            with suppress(OSError, ValueError, TypeError):  # damaged: the run that needs it names it
                keys |= {str(key) for key, _ in parsed_json(index.read_text(encoding="utf-8"))}
        return len(keys)


def entries(cache: Path) -> list[Entry]:
    """All entries of a cache, the longest unused first."""
    found = [
        Entry(path, _noted_name(source), _size(path), _last_used(path))
        for source in cache.glob("[0-9a-f]" * 32)
        for path in source.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    ]
    folders = ((cache / name, title) for name, title in FOLDERS.items())
    found += [Entry(path, title, _size(path), _last_used(path)) for path, title in folders if path.is_dir()]
    return sorted(found, key=lambda entry: entry.used)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _size(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another process is merging or deleting
            total += file.lstat().st_size
    return total


def _noted_name(source: Path) -> str:
    try:
        return str(parsed_json((source / NOTE).read_text(encoding="utf-8"))["upstream"])
    except (OSError, ValueError, KeyError, TypeError):
        return source.name[:12]


def _last_used(path: Path) -> float:
    try:
        return (path / MARKER).stat().st_mtime
    except OSError:
        return path.stat().st_mtime


@contextmanager
def in_use(needs: Sequence[Need]) -> Iterator[None]:
    """Marks features as used now, and keeps every other process from deleting them."""
    with ExitStack() as stack:
        for need in needs:
            entry = need.cache.folder
            stack.enter_context(_held(entry))
            if _noted_name(entry.parent) != need.upstream:
                write_json(entry.parent / NOTE, {"upstream": need.upstream})
        yield


@contextmanager
def folders_in_use(cache: Path) -> Iterator[None]:
    """The same for what is no upstream's, where a folder is there already or a run always makes it."""
    with ExitStack() as stack:
        for name in FOLDERS:
            if name in MADE_BY_RUNS or (name != DECODED and (cache / name).is_dir()):
                stack.enter_context(_held(cache / name))
        yield


@contextmanager
def decoded_folder(cache: Path) -> Iterator[Path]:
    """A folder for decoded audio that is new, and goes again; commands at work in one cache share it."""
    folder = cache / DECODED
    for_deletion = Entry(folder, FOLDERS[DECODED], 0, 0.0)
    if folder.is_dir():  # of a command that was killed
        delete(for_deletion)
    with _held(folder):
        yield folder
    delete(for_deletion)


@contextmanager
def _held(entry: Path) -> Iterator[None]:
    while True:
        entry.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            marker = _marker(entry)
            if marker is None:  # nobody can delete what can't be written to
                yield
                return
            stack.enter_context(marker)
            _lock(marker, portalocker.LOCK_SH)
            if not _is_still(marker, entry / MARKER):  # deleted while we waited
                continue
            with suppress(OSError):  # another user's, or read-only: the lock is what counts
                os.utime(entry / MARKER)
            yield
            return


def _marker(entry: Path) -> IO[str] | None:
    """An entry's marker, opened; for reading where that is all that may be done; None where there is none."""
    try:
        return (entry / MARKER).open("a")
    except OSError as error:
        if error.errno not in READ_ONLY_ERRNOS:
            raise
    try:
        return (entry / MARKER).open("r")
    except (FileNotFoundError, PermissionError):
        return None


def _is_still(file: IO[str], path: Path) -> bool:
    try:
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _lock(file: IO[str], how: portalocker.LockFlags) -> bool:
    try:
        portalocker.lock(file, how)
    except portalocker.AlreadyLocked:
        return False
    except portalocker.LockException:  # a file system without locks: then everybody has to look after himself
        return True
    return True


@contextmanager
def exclusive(entry: Path) -> Iterator[bool]:
    """Tells whether nobody uses an entry; inside it nobody will."""
    with ExitStack() as stack:
        try:
            marker = stack.enter_context((entry / MARKER).open("a"))
        except FileNotFoundError:  # another process was faster
            yield False
            return
        except OSError as error:
            if error.errno not in IN_THE_WAY:
                raise
            yield True  # it is no marker, so no command holds it
            return
        yield _lock(marker, portalocker.LOCK_EX | portalocker.LOCK_NB)


def delete(entry: Entry) -> bool:
    """Deletes an entry that nobody uses, and tells whether it did."""
    with exclusive(entry.path) as is_free:
        if not is_free:
            return False
        gone = entry.path.with_name(f"{REMOVING}{entry.name}-{os.getpid()}")
        entry.path.rename(gone)  # at once for whoever looks, however long the deletion takes
        for leftover in entry.path.parent.glob(f"{REMOVING}*"):
            shutil.rmtree(leftover, ignore_errors=True)
    if entry.holds_features and not any(path.is_dir() for path in entry.path.parent.iterdir()):
        shutil.rmtree(entry.path.parent, ignore_errors=True)
    return True


def clear(
    cache: Path, names: Collection[str] = (), unused_days: float | None = None
) -> tuple[list[Entry], list[Entry]]:
    """Deletes entries; without names and days all of them.

    Args:
        cache: folder of the cache.
        names: of upstreams, or titles of other folders; empty takes all.
        unused_days: only what no run has used for so long.

    Returns: those deleted, and those that a running command uses.
    Raises: CacheError: no entry of such a name.
    """
    found = entries(cache)
    unknown = sorted(set(names) - {entry.title for entry in found})
    if unknown:
        known = ", ".join(sorted({entry.title for entry in found})) or "none"
        raise CacheError(f"{cache}: nothing of '{unknown[0]}' (there are: {known}); see: frostbench cache list")
    before = time.time() - (unused_days or 0) * 24 * 3600
    chosen = [
        entry for entry in found if (not names or entry.title in names) and (unused_days is None or entry.used < before)
    ]
    deleted = [entry for entry in chosen if delete(entry)]
    return deleted, [entry for entry in chosen if entry not in deleted]


def make_room(cache: Path, limit: int | None, needs: Sequence[Need]) -> list[Entry]:
    """Deletes the longest unused entries until what is coming fits; of the needed ones, what is not needed itself.

    Args:
        cache: folder of the cache.
        limit: bytes of all entries; None is no limit.
        needs: features that are needed, and what is coming to them.

    Returns: what was deleted whole.
    Raises: CacheError: the disk has no room for what is coming.
    """
    cache.mkdir(parents=True, exist_ok=True)
    coming = sum(need.coming for need in needs)
    kept = {need.cache.folder for need in needs}
    deleted = []
    for entry in entries(cache):
        is_spared = entry.path in kept or entry.name in SMALL
        if not is_spared and _is_over(cache, limit, coming) and delete(entry):
            deleted.append(entry)
    for need in needs:  # other corpora of the same upstream
        if _is_over(cache, limit, coming) and need.cache.folder.is_dir():
            with exclusive(need.cache.folder) as is_free:
                if is_free:
                    need.cache.drop_segments_without(need.keys)
    free = shutil.disk_usage(cache).free
    if coming > free:
        raise CacheError(
            f"{cache}: {format_bytes(coming)} of features are to be written and {format_bytes(free)} are free; free "
            f"some space, name another --cache, or have less kept with --frames int8 or --frames recompute"
        )
    return deleted


def _is_over(cache: Path, limit: int | None, coming: int) -> bool:
    return limit is not None and sum(entry.size for entry in entries(cache)) + coming > limit
