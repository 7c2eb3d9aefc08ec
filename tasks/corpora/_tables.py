"""Tables of recordings with columns between tabs, as Common Voice and the preparation of SBCSAE have them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.errors import ManifestError


def read_table(path: Path, columns: Sequence[str], escape: str | None = None) -> list[Mapping[str, str]]:
    """The rows of a table whose first line names its columns; quotation marks are letters like others.

    Args:
        path: UTF-8.
        columns: that every row has to have.
        escape: letter behind which any other stands for itself; None where there is none.

    Raises: ManifestError: a column is not there, or a row has fewer than the first line names.
    """
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar=escape)
        lacking = [name for name in columns if name not in (table.fieldnames or ())]
        if lacking:
            raise ManifestError(f"{path}: has no column '{lacking[0]}'; unpack or prepare the corpus anew")
        rows: list[Mapping[str, str]] = [*table]
    for number, row in enumerate(rows, 2):
        if any(row[name] is None for name in columns):
            raise ManifestError(f"{path}, line {number}: damaged; unpack or prepare the corpus anew")
    return rows
