"""Results from several machines: `submit` packs a verified folder into one file, `merge` takes folders and such files.

A bundle is a zip file of records/ and runs/, nothing else. Whoever takes one trusts no name in it: only the files that
a result has are read, by names of its own, into a folder of its own, and verified there before anything is kept.
"""

from __future__ import annotations

import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from core.digest import require_writable_file, written_then_renamed
from core.errors import RecordError
from core.records import MEASURED, NAME_LENGTH, WORST_FILE, RecordStore, ResultRecord, files_of
from leaderboard.usable_records import usable_records
from leaderboard.verification import Finding, verify

_FILES = "|".join(map(re.escape, (*files_of(finetuned=True), WORST_FILE)))
MEMBER = re.compile(rf"records/[0-9a-f]{{{NAME_LENGTH}}}\.json|runs/[0-9a-f]{{{NAME_LENGTH}}}/({_FILES})")
MAX_BYTES = 16 << 30  # unpacked: a hundred heads of SUPERB's speech recognition
TIME = (1980, 1, 1, 0, 0, 0)  # the same content makes the same file
SHOWN = 5


def submit(store: RecordStore, bundle: Path) -> int:
    """Packs all results of a folder that hold, with predictions and heads.

    Returns: how many records.
    Raises: RecordError: there are none, or verification finds something; nothing is written then.
    """
    require_writable_file(bundle)
    records = _verified(store, store.folder)
    with written_then_renamed(bundle) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for record in records:
            for path in (store.path(record.run), *(store.run_folder(record.run) / name for name in record.files)):
                entry = zipfile.ZipInfo(path.relative_to(store.folder).as_posix(), TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target)
    return len(records)


@dataclass(frozen=True)
class Merged:
    """What a merge did.

    Attributes:
        added: how many records are new.
        known: how many were there already.
        differences: a line for each of those that another machine measured differently; ours was kept.
    """

    added: int
    known: int
    differences: tuple[str, ...]


def merge(sources: Sequence[Path], store: RecordStore, *, strict: bool = False) -> Merged:
    """Takes over the results of folders and bundles.

    Two machines seldom measure the same to the last bit. Of two results of one run that differ in what is measured
    (`core.records.MEASURED`) the first is kept, ours before all others, and the difference is reported. Inputs, and
    what follows from them, have to agree.

    Args:
        sources: folders of results, or what `submit` wrote.
        store: where to; may hold results already.
        strict: whether a difference in what is measured is refused, too.

    Raises: RecordError: a source does not hold, or two results of one run contradict each other; nothing is taken then.
    """
    store.require_writable()
    with TemporaryDirectory(prefix="frostbench-merge-") as scratch:
        taken: dict[str, tuple[ResultRecord, RecordStore, Path]] = {
            record.run: (record, store, store.folder) for record in usable_records(store).records
        }
        known = set(taken)
        again = 0
        differences: list[str] = []
        for number, source in enumerate(sources):
            opened = RecordStore(source if source.is_dir() else _unpacked(source, Path(scratch) / str(number)))
            for record in _verified(opened, source):
                other = taken.setdefault(record.run, (record, opened, source))
                again += other[1] is not opened
                differences += _differences(record, source, other[0], other[2], strict)
        new = [each for run, each in taken.items() if run not in known]
        for record, _, source in new:
            if record.run in store:
                raise RecordError(
                    f"{store.path(record.run)}: damaged, and {source} has a result of that run; delete it, and merge "
                    f"again"
                )
        for record, opened, _ in new:
            _copy(record, opened, store)
    return Merged(len(new), again, tuple(differences))


def _verified(store: RecordStore, source: Path) -> list[ResultRecord]:
    findings = verify(store)
    if findings:
        raise RecordError("\n  ".join([f"{source}: does not hold, nothing is taken from it:", *_told(store, findings)]))
    records = store.all()
    if not records:
        raise RecordError(f"{source}: no records there; name a folder of results, or a file that submit wrote")
    return records


def _told(store: RecordStore, findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings[:SHOWN]:
        yield f"{finding.path.relative_to(store.folder)}: {finding.problem}"
    if len(findings) > SHOWN:
        yield f"and {len(findings) - SHOWN} more"


def _differences(
    record: ResultRecord, source: Path, other: ResultRecord, other_source: Path, strict: bool
) -> Iterator[str]:
    """In what two results of one run differ, in one line; none where they are the same.

    Raises: RecordError: they may not differ in this.
    """
    theirs, ours = record.result(), other.result()
    fields = [key for key in ours if ours[key] != theirs[key]]
    if not fields:
        return
    what = f"run {record.run[:NAME_LENGTH]} ({record.upstream['name']} / {record.task['name']} / seed {record.seed}"
    if strict or not set(fields) <= set(MEASURED):
        raise RecordError(
            f"{source} and {other_source} contradict each other on {what}: {record.value:g} and {other.value:g}; they "
            f"differ in {', '.join(fields)}): run the cell on one machine, and leave the other's record out"
        )
    amounts = [f"{key}{_distance(ours[key], theirs[key])}" for key in fields]
    yield f"{what}): {source} has {record.value:g}, kept is {other.value:g}; they differ in {', '.join(amounts)}"


def _distance(one: Any, other: Any) -> str:
    """How far numbers are apart at most, wherever they stand in two values of the same shape; else nothing."""
    pairs = list(zip(_numbers(one), _numbers(other), strict=False))
    return f" (by {max(abs(mine - theirs) for mine, theirs in pairs):.2g})" if pairs else ""


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)


def _copy(record: ResultRecord, source: RecordStore, target: RecordStore) -> None:
    """The files first, the record last and as it was written, so that no interruption leaves it without them."""
    files = [(source.run_folder(record.run) / name, target.run_folder(record.run) / name) for name in record.files]
    for file, copy in (*files, (source.path(record.run), target.path(record.run))):
        with written_then_renamed(copy) as temporary:
            shutil.copyfile(file, temporary)


def _unpacked(bundle: Path, folder: Path) -> Path:
    with _opened(bundle) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        for member in members:
            if not MEMBER.fullmatch(member.filename):
                raise RecordError(f"{bundle}: holds '{member.filename}', which is no part of a result; it is not taken")
        if len({member.filename for member in members}) < len(members):
            raise RecordError(f"{bundle}: holds a file twice; it is not taken")
        if sum(member.file_size for member in members) > MAX_BYTES:
            raise RecordError(f"{bundle}: unpacks to more than {MAX_BYTES >> 30} GiB; it is not taken")
        for member in members:
            path = folder / member.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
    return folder


@contextmanager
def _opened(bundle: Path) -> Iterator[zipfile.ZipFile]:
    if not bundle.is_file():
        raise RecordError(f"{bundle}: does not exist; name a folder of results or a file that submit wrote")
    try:
        with zipfile.ZipFile(bundle) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise RecordError(f"{bundle}: no bundle that submit wrote, or damaged ({error}); fetch it again") from None
