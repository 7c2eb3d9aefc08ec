"""Content digests and atomic files: the same content has the same digest, and a file is whole or absent."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

CHUNK_BYTES = 1 << 20
# Metadata of a dataclass' field that came later than digests which it does not concern: while it has its default, it is
# left out of canonical JSON.
LATER: Mapping[str, bool] = {"later": True}
# What stops every further write as well: no space, over quota, over the size limit, read-only, not allowed, no device.
STORAGE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE}
)
# A folder, a file or a link lies where another of them is wanted.
IN_THE_WAY = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP})


def canonical_json(value: object) -> str:
    """One text for one value: sorted keys, no spaces, dataclasses as objects, tuples as lists.

    Raises: TypeError: the value holds something JSON has no form for; a silent `str()` would hide a change.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)
                if not (field.metadata.get("later") and getattr(value, field.name) == field.default)}  # fmt: skip
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


def digest_of(value: object) -> str:
    """sha256 (hex) of a value's canonical JSON."""
    # Names of files that are no text have lone surrogates.
    return hashlib.sha256(canonical_json(value).encode(errors="surrogatepass")).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            sha.update(chunk)
    return sha.hexdigest()


def path_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes, of the names and bytes of all files of a folder, or of a name that is neither."""
    if path.is_file():
        return file_digest(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return digest_of({file.relative_to(path).as_posix(): file_digest(file) for file in files})
    return digest_of(str(path))


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 (hex) of named tensors: names, types, shapes and values, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


@contextmanager
def written_then_renamed(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is flushed to disk and takes the name, else it goes.

    Raises: OSError: it can't be written; `errno` and `filename` are set, also where a library told it in words only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _named(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        with _storage_errors_of(path):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Writes a file that goes again, where the folder is or will be: before hours of work, not after them.

    A folder that is not there is not made: what is refused before any work leaves nothing behind.

    Raises: OSError: it can't be written to; `errno` and `filename` are set.
    """
    with _named(folder):
        try:
            str(folder).encode()
        except UnicodeEncodeError:  # libraries that write weights and logs take no such name
            raise OSError(errno.EILSEQ, "Name is not UTF-8") from None
        there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
        if not there.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")


def require_writable_file(path: Path) -> None:
    """The same for a file that will be written or replaced.

    Raises: OSError: it can't be; `errno` and `filename` are set.
    """
    with _named(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    require_writable(path.parent)


@contextmanager
def folder_written_then_renamed(path: Path) -> Iterator[Path]:
    """The same for a folder: yields one beside `path`, whose files are flushed before it takes the name.

    Raises: OSError: it can't be written; `errno` and `filename` are set, also where a library told it in words only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _named(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=".writing-"))
    try:
        with _storage_errors_of(path):
            yield temporary
            for file in temporary.iterdir():
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
            temporary.chmod(0o755)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the operating system name the path that was wanted, not the temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def _storage_errors_of(path: Path) -> Iterator[None]:
    """Names the path that was wanted, whoever found no room for it, and in whatever words."""
    try:
        yield
    except Exception as error:
        number = _storage_errno(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _storage_errno(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in STORAGE_ERRNOS else None
    if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", str(error)):  # numpy
        return errno.ENOSPC
    told = re.search(r"\(os error (\d+)\)", str(error))  # safetensors
    return int(told[1]) if told and int(told[1]) in STORAGE_ERRNOS else None


def write_json(path: Path, value: object) -> None:
    """Writes a value as indented JSON with sorted keys, atomically: the same value gives the same bytes."""
    with written_then_renamed(path) as temporary:
        temporary.write_text(json_text(value), encoding="utf-8")


def parsed_json(text: str | bytes) -> Any:
    """The value of JSON text.

    Raises: ValueError: it is none, or nested beyond all bounds.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested beyond all bounds") from None


def json_text(value: object) -> str:
    """The content of a file that `write_json` writes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=_plain) + "\n"
