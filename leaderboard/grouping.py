"""Which records stand on one board, and what their upstreams, tasks and corpora are called there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.digest import digest_of
from core.records import ResultRecord, task_digest
from leaderboard.scores import SUPERB_DATA

SUPERB_RECIPE = "superb"


@dataclass(frozen=True)
class Entry:
    """A record with the names it has on its board, where one name never stands for two contents."""

    record: ResultRecord
    upstream: str
    task: str
    corpus: str
    recipe: str

    @property
    def head(self) -> str | None:
        """The head, if it is not the task's own."""
        task = self.record.task
        return None if task["head"] == task["default_head"] else str(task["head"])


@dataclass(frozen=True)
class Group:
    """The entries of one board.

    Attributes:
        title: of the board.
        recipe: its name.
        superb: whether they are SUPERB's own corpora, whole, with its recipe and heads.
        head: that the tasks were run with instead of their own; None is the leaderboard.
        entries: any number of upstreams, tasks and seeds.
    """

    title: str
    recipe: str
    superb: bool
    head: str | None
    entries: tuple[Entry, ...]


def grouped(records: Sequence[ResultRecord]) -> list[Group]:
    """Groups in the order of their titles, SUPERB's first.

    Features that were computed anew for every crop (`--exact`) have a board of their own, together with the tasks of
    the recipe that do not crop.
    """
    boards: dict[tuple[bool, str, str, str | None], list[Entry]] = defaultdict(list)
    for entry in named(records):
        superb = _is_superb(entry)
        boards[not superb, "" if superb else entry.corpus, entry.recipe, entry.head].append(entry)
    groups = []
    for (other, corpus, recipe, head), entries in boards.items():
        for suffix, part in _by_exactness(entries):
            title = f"{corpus}, recipe {recipe}{suffix}" if other else f"SUPERB{suffix}"
            title += f", head {head}" if head else ""
            groups.append(Group(title, recipe, not other, head, tuple(part)))
    return sorted(groups, key=lambda group: (not group.superb, group.title))


def _by_exactness(entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    exact = [entry for entry in entries if entry.record.live]
    if not exact:
        return [("", list(entries))]
    uncropped = [entry for entry in entries if not entry.record.recipe.get("crop_samples")]
    cached = [entry for entry in entries if not entry.record.live]
    kept = [("", cached)] if len(cached) > len(uncropped) else []
    return [*kept, (" (exact)", uncropped + exact)]


def _is_superb(entry: Entry) -> bool:
    record = entry.record
    corpus = SUPERB_DATA.get(entry.task)
    found = (entry.corpus, record.counts.get("test"))
    return record.recipe["name"] == SUPERB_RECIPE and not record.custom and entry.head is None and found == corpus


def named(records: Sequence[ResultRecord]) -> list[Entry]:
    """The names that records have beside each other, in their order."""
    upstreams = _distinct(records, lambda r: r.upstream["name"], lambda r: r.upstream["digest"], lambda r: "")
    tasks = _distinct(records, lambda r: r.task["name"], lambda r: task_digest(r.task), _head)
    newest = max((record.protocol for record in records), default=0)

    def recipe(record: ResultRecord) -> str:
        old = f" (protocol {record.protocol})" if record.protocol < newest else ""
        frames = "" if record.frames in (None, "float16") else f" ({record.frames} frames)"
        return f"{record.recipe['name']}{' (custom)' if record.custom else ''}{frames}{old}"

    recipes = _distinct(records, recipe, lambda r: r.recipe["digest"], lambda r: [r.task["name"], _head(r)])
    # Within a recipe: one that crops or changes the level makes other clips of the same corpus.
    corpora = _distinct(
        records,
        lambda r: r.corpus["name"],
        lambda r: r.corpus["digest"],
        lambda r: [r.task["name"], r.task["label"], r.recipe["digest"], r.protocol, r.custom],
    )
    return [Entry(*each) for each in zip(records, upstreams, tasks, corpora, recipes, strict=True)]


def _head(record: ResultRecord) -> str:
    return str(record.task["head"])


Key = Callable[[ResultRecord], object]


def _distinct(records: Sequence[ResultRecord], name: Key, content: Key, within: Key) -> list[str]:
    """Names made unique: where one name stands for several contents, the beginning of the digest is added."""
    contents: dict[str, set[object]] = defaultdict(set)
    for record in records:
        contents[digest_of([within(record), name(record)])].add(content(record))
    return [
        f"{name(record)}#{str(content(record))[:6]}"
        if len(contents[digest_of([within(record), name(record)])]) > 1
        else str(name(record))
        for record in records
    ]
