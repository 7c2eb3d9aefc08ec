"""Trials: pairs of recordings of one split, and whether both are of one voice, or one holds what the other says."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import ManifestError
from core.manifest import Manifest, Utterance, refuse

KEY = "trials"  # of a row: ids of the recordings that it is compared with
MOST_DRAWN = 8_000  # where a corpus lists none; half of them targets, as in VoxCeleb1's list, where there are as many


class Trial(NamedTuple):
    """A pair of recordings.

    Attributes:
        first, second: their places in the split, the first before the second; in a search the second is searched.
        target: whether they are of one voice, or what is searched for is there.
    """

    first: int
    second: int
    target: bool


def trials_of(manifest: Manifest, rows: Sequence[Utterance], label: str) -> list[Trial]:
    """The trials of a split, in the order of its rows.

    Rows list them under `trials`, each as often as it is listed, by whichever of the two; where none does, all pairs of
    the split are trials, or of more than MOST_DRAWN as many drawn from a fixed seed.

    Args:
        manifest: of the whole corpus.
        rows: that are taken of a split; trials with others of the split are left out.
        label: whose equality makes a target.

    Raises: ManifestError: a row names a recording that is not in the split, itself, or no list; or all trials are of
        one kind.
    """
    split = rows[0].split
    places = {row.id: place for place, row in enumerate(rows)}
    labels = [str(row.labels[label]) for row in rows]
    listed = [row for row in rows if row.labels.get(KEY) is not None]
    whole = {row.id for row in manifest.with_label(label).split(split)}
    refuse(manifest.source, [problem for row in listed for problem in _problems(row, whole)])
    # VoxCeleb1-O has 338 pairs twice, the one way round and the other: a list's value is that of all its lines.
    named = [_pair(places[row.id], places[other]) for row in listed for other in row.labels[KEY] if other in places]
    pairs = named if listed else _drawn(labels)
    trials = [Trial(first, second, labels[first] == labels[second]) for first, second in sorted(pairs)]
    kinds = {trial.target for trial in trials}
    if len(kinds) < 2:
        lacking = "of one voice" if True not in kinds else "of two voices"
        raise ManifestError(
            f"{manifest.source}: no two recordings {lacking} ({label}) are compared in split '{split}', so nothing can "
            f"be verified"
        )
    return trials


def searches_of(manifest: Manifest, rows: Sequence[Utterance], label: str, against: str) -> list[Trial]:
    """What each row with the label is searched in: all rows with `against`, but for those of its own voice.

    Args:
        manifest: of the whole corpus.
        rows: that are taken of a split.
        label: what is searched for.
        against: key of the rows that are searched: the list of the labels that one holds.

    Raises: ManifestError: that is no list; or nothing of what is searched for is anywhere, or all of it everywhere.
    """
    searched = [(place, row) for place, row in enumerate(rows) if row.labels.get(against) is not None]
    wrong = [row for _, row in searched if not isinstance(row.labels[against], list | tuple)]
    refuse(manifest.source, [f"{row.where}: {against} must be a list of what is said there" for row in wrong])
    held = {place: frozenset(map(str, row.labels[against])) for place, row in searched}
    trials = [
        Trial(first, second, str(query.labels[label]) in held[second])
        for first, query in enumerate(rows)
        if query.labels.get(label) is not None
        for second, row in searched
        if first != second and not _of_one_voice(query, row)
    ]
    kinds = {trial.target for trial in trials}
    if len(kinds) < 2:
        found = "everywhere" if True in kinds else "nowhere"
        raise ManifestError(
            f"{manifest.source}: what is searched for ({label}) is {found} in split '{rows[0].split}' ({against}), so "
            f"nothing can be judged"
        )
    return trials


def references_of(trials: Sequence[Trial], searched: bool) -> list[Any]:
    """What scores of trials are compared with: whether each is a target, and in a search also which one it is of."""
    if not searched:
        return [trial.target for trial in trials]
    return [{"search": trial.first, "holds": trial.target} for trial in trials]


def _of_one_voice(one: Utterance, other: Utterance) -> bool:
    voice = one.labels.get("voice")
    return voice is not None and voice == other.labels.get("voice")


def _pair(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)


def _problems(row: Utterance, whole: Container[str]) -> list[str]:
    named: Any = row.labels[KEY]
    if not isinstance(named, list | tuple) or not all(isinstance(name, str) for name in named):
        return [f"{row.where}: {KEY} must be a list of ids"]
    unknown = [name for name in named if name not in whole]
    found = [f"{row.where}: {KEY} names '{name}', which is no labelled row of split '{row.split}'" for name in unknown]
    return found + ([f"{row.where}: {KEY} names the recording itself"] if row.id in named else [])


def _drawn(labels: Sequence[str]) -> set[tuple[int, int]]:
    """All pairs, or a draw of MOST_DRAWN: half of one voice, if there are as many, the rest of two."""
    members: dict[str, list[int]] = {}
    for place, name in enumerate(labels):
        members.setdefault(name, []).append(place)
    voices, sizes = list(members.values()), np.array([len(places) for places in members.values()])
    total, same = len(labels) * (len(labels) - 1) // 2, int((sizes * (sizes - 1) // 2).sum())
    if total <= MOST_DRAWN:
        return {(first, second) for second in range(len(labels)) for first in range(second)}
    targets = max(min(same, MOST_DRAWN // 2), MOST_DRAWN - (total - same))
    generator = np.random.default_rng(0)

    def of_one_voice() -> tuple[int, int]:
        places = voices[_weighted(generator, sizes * (sizes - 1))]
        return _pair(*map(int, generator.choice(places, 2, replace=False)))

    def of_two_voices() -> tuple[int, int]:
        one = _weighted(generator, sizes * (len(labels) - sizes))
        other = _weighted(generator, np.where(np.arange(len(sizes)) == one, 0, sizes))
        return _pair(int(generator.choice(voices[one])), int(generator.choice(voices[other])))

    def every(kind: bool) -> Iterator[tuple[int, int]]:
        groups = combinations_with_replacement(range(len(voices)), 2)
        chosen = ((a, b) for a, b in groups if (a == b) is kind)
        return (_pair(one, two) for a, b in chosen for one in voices[a] for two in voices[b] if a != b or one < two)

    return {
        *_some(generator, targets, same, partial(every, True), of_one_voice),
        *_some(generator, MOST_DRAWN - targets, total - same, partial(every, False), of_two_voices),
    }


def _some(
    generator: np.random.Generator,
    wanted: int,
    there: int,
    every: Callable[[], Iterator[tuple[int, int]]],
    one: Callable[[], tuple[int, int]],
) -> set[tuple[int, int]]:
    """So many different pairs of those that there are: chosen of a list where that is short, else drawn one by one."""
    if there <= 4 * wanted:
        listed = sorted(every())
        return {listed[place] for place in generator.choice(len(listed), wanted, replace=False)}
    found: set[tuple[int, int]] = set()
    while len(found) < wanted:
        found.add(one())
    return found


def _weighted(generator: np.random.Generator, weights: npt.NDArray[np.int64]) -> int:
    return int(np.searchsorted(np.cumsum(weights), generator.integers(weights.sum()), side="right"))
