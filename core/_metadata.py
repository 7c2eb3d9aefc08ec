"""Rows of `metadata.jsonl` and `metadata.csv` as people and their tools write them, and the files that they name.

What can be read in one way only is read: byte order marks, Windows' separators and letter case, composed and decomposed
letters. What is no label (NaN, half of a surrogate pair, an intent without slots) is refused by line.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import ManifestError

FILE_NAMES = ("metadata.jsonl", "metadata.csv")
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
MOST_DIGITS = 18  # of the place of a sample; Python reads no number of thousands
SEPARATORS = ",;\t"  # of the columns of a CSV file; some languages' spreadsheets write semicolons


class Row(NamedTuple):
    """A row and where it stands: from line 1; what could not be read holds the reason."""

    line: int
    content: dict[str, Any] | ManifestError


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file.

    Raises: ManifestError: it is no text, or a CSV file without a column file_name.
    """
    text = _text(path)
    yield from _csv_rows(path, text) if path.suffix.lower() == ".csv" else _json_rows(text)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path}: can't be read ({error.strerror}); name another file") from None
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def _json_rows(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                content = json.loads(line)
                if not isinstance(content, dict):
                    raise ManifestError("not a JSON object; write one object a recording")
                yield Row(number, content)
            except ManifestError as problem:
                yield Row(number, problem)
            except ValueError as error:
                yield Row(number, ManifestError(f"not JSON ({error})"))
            except RecursionError:
                yield Row(number, ManifestError("not a row: objects within objects beyond all bounds"))


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    """Cells are text, "null" and "NA" as well; an empty one is a label that the row does not have."""
    first = text.partition("\n")[0]
    separator = max(SEPARATORS, key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise ManifestError(f"{path}: its first line is not CSV ({error}); write the names of the columns") from None
    if "file_name" not in names:
        raise ManifestError(f"{path}: has no column file_name in its first line (there are: {', '.join(names)})")
    reader.fieldnames = names
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(reader.line_num, ManifestError(f"not CSV ({error})"))
            return
        if None in cells:
            yield Row(reader.line_num, ManifestError(f"has more cells than the {len(names)} columns; quote the commas"))
            continue
        yield Row(reader.line_num, {name: _cell(name, cell) for name, cell in cells.items() if cell})


def _cell(name: str, cell: str) -> str | int:
    """Places of pieces are numbers; all other cells are what they say."""
    is_place = name in {"start_sample", "stop_sample"} and cell.strip().isdecimal() and len(cell) < MOST_DIGITS
    return int(cell) if is_place else cell


def cleaned(value: Any, name: str) -> Any:
    """A label or note with its text composed (NFC), so that one word is one class however it was typed.

    Raises: ManifestError: it is no label.
    """
    if isinstance(value, str):
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ManifestError(
                f"{name} holds half of a surrogate pair: text that was cut in the middle of a sign; write it anew"
            )
        return unicodedata.normalize("NFC", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ManifestError(f"{name} is {value}, which is no label; leave it out, or write null, where it is unknown")
    if isinstance(value, Mapping):
        return _cleaned_slots(value, name)
    if isinstance(value, list):
        return [cleaned(each, name) for each in value]
    return value


def _cleaned_slots(slots: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not slots or not all(map(str.strip, slots)):
        raise ManifestError(
            f"{name} has no slots, or one without a name: write an object such as {{'action': 'bring'}}"
        )
    empty = [slot for slot, value in slots.items() if value is None or value == ""]
    if empty:
        raise ManifestError(f"{name} has no value for '{empty[0]}'; write a word for it, such as \"none\"")
    return {cleaned(slot, name): cleaned(value, f"{name}.{slot}") for slot, value in slots.items()}


class Files:
    """The files below a folder, found by names as another system may have written them.

    Args:
        folder: that the names start from.

    Attributes:
        matched: how many names were found in another form than they were written in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.matched = 0
        self._folders: dict[Path, _Listing] = {}

    def find(self, name: str) -> Path:
        """The file of that name; where there is none, the path it would have.

        Raises: ManifestError: the name is empty or no name, or fits several files.
        """
        if not Path(name).name or "\0" in name:
            raise ManifestError("file_name is empty" if not name.strip(". /") else f"file_name {name!r} is no name")
        path = self.folder / name
        if path.name in self._listing(path.parent).names:
            return path
        parts = Path(name.replace("\\", "/")).parts
        found = self.folder
        for part in parts:
            other = self._listing(found).find(part)
            if other is None:
                return _possible(path, name)
            found /= other
        self.matched += 1
        return found

    def _listing(self, folder: Path) -> _Listing:
        if folder not in self._folders:
            self._folders[folder] = _Listing(folder)
        return self._folders[folder]


def _possible(path: Path, name: str) -> Path:
    """A path that the operating system can look for, though nothing is there."""
    try:
        path.exists()
    except OSError as error:
        raise ManifestError(f"file_name {name[:40]!r}... is no name ({error.strerror})") from None
    return path


class _Listing:
    """The names in one folder."""

    def __init__(self, folder: Path) -> None:
        try:
            self.names = frozenset(os.listdir(folder))  # noqa: PTH208  # names, not paths
        except OSError:
            self.names = frozenset()

    @cached_property
    def _folded(self) -> dict[str, list[str]]:
        folded: dict[str, list[str]] = {}
        for name in sorted(self.names):
            folded.setdefault(_folded(name), []).append(name)
        return folded

    def find(self, part: str) -> str | None:
        if part in self.names or part in ("/", "..", "."):
            return part
        found = self._folded.get(_folded(part), [])
        if len(found) > 1:
            raise ManifestError(f"file_name '{part}' fits {' and '.join(found)}; write the name of one")
        return found[0] if found else None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
