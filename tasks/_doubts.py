"""What makes a number mean less than it seems, found in the rows that a task takes before anything is computed."""

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from core.errors import ManifestError
from core.manifest import Utterance, slots_of
from core.metrics import find_metric

Rows = Mapping[str, Sequence[Utterance]]  # split -> rows
SHOWN = 5


def doubts(rows: Rows, label: str, digests: Mapping[str, str]) -> list[str]:
    """Lines for a person: audio that is in two splits, or stands under two labels.

    Args:
        rows: that a task takes.
        label: what it asks for.
        digests: utterance id -> sha256 of the audio file.
    """
    groups: dict[tuple[str, int, int | None], list[Utterance]] = defaultdict(list)
    for row in (row for split in rows.values() for row in split):
        groups[digests[row.id], row.start, row.stop].append(row)
    copies = [group for group in groups.values() if len(group) > 1]
    return [*_in_two_splits(copies), *_under_two_labels(copies, label)]


# Beginnings of the names of letters that are written without spaces -> letters of a word, at most, in the mean.
WITHOUT_SPACES = {
    ("CJK UNIFIED", "HIRAGANA", "KATAKANA"): 2.5,
    ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"): 8.0,
}


def words_without_spaces(rows: Sequence[Utterance], label: str, metrics: Sequence[str]) -> list[str]:
    """A line where text is scored by its words, and has no spaces between them: each sentence is a word.

    Args:
        rows: of train.
        label: of the task.
        metrics: names of those of the task; characters may be scored as well.
    """
    aligned = {metric.align for metric in map(find_metric, metrics) if metric is not None}
    if "words" not in aligned or "characters" in aligned:
        return []
    words = [word for row in rows for word in str(row.labels[label]).split()]
    letters = [letter for word in words for letter in word if letter.isalpha()]
    for names, usual in WITHOUT_SPACES.items():
        count = sum(unicodedata.name(letter, "").startswith(names) for letter in letters)
        if 2 * count > len(letters) and len(letters) > usual * len(words):
            first = next(word for word in words if len(word) > 1)
            return [
                f"{label} is written without spaces, so that '{first}' is one word: WER says little; score characters "
                f'instead, by a task of your own with metrics=("cer",)'
            ]
    return []


def _in_two_splits(copies: Sequence[Sequence[Utterance]]) -> Iterator[str]:
    shared = [(row, group[0]) for group in copies for row in group[1:] if row.split != group[0].split]
    if shared:
        shown = ", ".join(
            f"'{row.id}' of {row.split} is '{first.id}' of {first.split}" for row, first in shared[:SHOWN]
        )
        more = f", and {len(shared) - SHOWN} more" if len(shared) > SHOWN else ""
        yield f"the same audio is in two splits: {shown}{more}; whoever has learned it knows the answer"


def _under_two_labels(copies: Sequence[Sequence[Utterance]], label: str) -> Iterator[str]:
    torn = [group for group in copies if len({str(row.labels.get(label)) for row in group}) > 1]
    if torn:
        first, other = next(
            (first, row)
            for first in torn[0][:1]
            for row in torn[0]
            if str(row.labels.get(label)) != str(first.labels.get(label))
        )
        more = f", and {len(torn) - 1} more" if len(torn) > 1 else ""
        yield (
            f"the same audio has two labels: {label} of '{first.id}' is '{first.labels.get(label)}', of '{other.id}' "
            f"'{other.labels.get(label)}'{more}; one of them is wrong"
        )


def refuse_one_class(source: Path, rows: Rows, label: str) -> None:
    """Refuses a task with nothing to tell apart.

    Raises: ManifestError: every row of train has the same value, in every slot.
    """
    values = defaultdict(set)
    for row in rows["train"]:
        for slot, value in slots_of(row.labels[label], label):
            values[slot].add(value)
    if all(len(found) == 1 for found in values.values()):
        said = ", ".join(f"{slot} '{min(found)}'" for slot, found in sorted(values.items()))
        raise ManifestError(
            f"{source}: every row of train has {said}: there is nothing to tell apart; add other classes"
        )


def drawn_by_class(rows: Sequence[Utterance], label: str, limit: int | None) -> tuple[Utterance, ...]:
    """So many rows in their order, drawn from a seed: of each class as many as of any other, as far as there are.

    Args:
        rows: of a split.
        label: whose values are the classes; of text hardly any value occurs twice, and rows are drawn at random.
        limit: how many at most; None takes all.
    """
    if limit is None or len(rows) <= limit:
        return tuple(rows)
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    seen: dict[str, int] = defaultdict(int)
    rounds = {}
    for place in order:
        value = str(rows[place].labels.get(label))
        rounds[place] = seen[value]
        seen[value] += 1
    chosen = sorted(order, key=rounds.__getitem__)[:limit]  # stable: by chance within a round
    return tuple(rows[place] for place in sorted(chosen))
