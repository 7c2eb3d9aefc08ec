"""Columns of a foreign table -> labels: `--columns text=sentence,intent=action+object`, and the names known without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core._metadata import cleaned
from core.errors import ManifestError
from core.manifest import RESERVED

AUDIO = "audio"
# What is taken for a label where no column has its name. Others have to be asked for, since they could be either: a
# column `label` may hold keywords, speakers or intents, and `speaker_id` who is to be told apart (`speaker`) or who is
# not to be in two splits (`voice`).
SYNONYMS: dict[str, list[tuple[str, ...]]] = {
    "text": [("sentence",), ("transcription",), ("transcript",), ("normalized_text",)],
    "intent": [("action", "object", "location")],
}
Plain = str | int | float | bool


def parse_columns(text: str | None) -> dict[str, tuple[str, ...]]:
    """`text=sentence,intent=action+object` -> label to columns; several columns make an object with a slot each.

    Raises: ManifestError: not of that form.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    for item in (text or "").split(","):
        label, equals, columns = (part.strip() for part in item.partition("="))
        if not item.strip():
            continue
        names = tuple(name.strip() for name in columns.split("+"))
        if not equals or not label or not all(names) or label in chosen:
            raise ManifestError(
                f"--columns: '{item}' is not LABEL=COLUMN, or stands twice; write text=sentence,speaker=id"
            )
        if label in RESERVED:
            raise ManifestError(
                f"--columns: '{label}' can't be a label; these names are kept: {', '.join(sorted(RESERVED))}"
            )
        chosen[label] = names
    return chosen


def choose_columns(
    asked: Mapping[str, tuple[str, ...]], columns: Sequence[str], audio: str
) -> dict[str, tuple[str, ...]]:
    """Which columns make which label: what was asked for, known synonyms, and every other column under its own name.

    Raises: ManifestError: a column that was asked for is not there.
    """
    absent = sorted({name for names in asked.values() for name in names} - set(columns))
    if absent:
        raise ManifestError(f"--columns: no column {', '.join(absent)}; there are: {', '.join(columns)}")
    chosen = {label: names for label, names in asked.items() if label != AUDIO}
    for label, synonyms in SYNONYMS.items():
        present = [names for names in synonyms if set(names) <= set(columns)]
        if present and label not in chosen and label not in columns:
            chosen[label] = present[0]
    used = {name for names in chosen.values() for name in names}
    rest = {name: (name,) for name in columns if name not in {*used, *chosen, *RESERVED, audio}}
    return chosen | rest


def labels_of(row: Mapping[str, Any], columns: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The labels of a row. Values that are no text, number, truth value or object of them are left out; so is None."""
    labels: dict[str, Any] = {}
    for label, names in columns.items():
        values = {name: cleaned(row[name], name) for name in names if _is_label(row[name])}
        if len(names) == 1 and values:
            labels[label] = values[names[0]]
        elif len(names) > 1 and len(values) == len(names):
            labels[label] = values
    return labels


def _is_label(value: object) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(slot, Plain) for slot in value.values())
    return isinstance(value, Plain)
