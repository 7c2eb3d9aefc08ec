"""Which records stand on one board, and what their upstreams, tasks and corpora are called there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from core.digest import digest_of
from core.records import ResultRecord, task_digest
from leaderboard.checkpoint_series import names_in_series
from leaderboard.superb import superb_tasks


@dataclass(frozen=True)
class Entry:
    """A record with the names it has on its board, where one name never stands for two contents.

    Attributes:
        record: of a run.
        upstream, task, corpus, recipe: their names there.
        superb: whether it is a run of SUPERB's own suite, by its content.
    """

    record: ResultRecord
    upstream: str
    task: str
    corpus: str
    recipe: str
    superb: bool

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
        superb: whether they are SUPERB's own tasks on its corpora, whole, with its recipes and heads.
        head: that the tasks were run with instead of their own; None is the leaderboard.
        entries: any number of upstreams, tasks and seeds.
        finetuned: whether they are fine-tuned upstreams and the frozen ones that this began at.
    """

    title: str
    recipe: str
    superb: bool
    head: str | None
    entries: tuple[Entry, ...]
    finetuned: bool = False


def grouped(records: Sequence[ResultRecord]) -> list[Group]:
    """Groups in the order of their titles, SUPERB's first.

    Features that were computed anew for every crop (`--exact`) have a board of their own, together with the tasks of
    the recipe that do not crop. So have fine-tuned upstreams, together with the frozen ones that this began at.
    """
    boards: dict[tuple[bool, str, str, str | None], list[Entry]] = defaultdict(list)
    all_named = named(records)
    for entry in all_named:
        if entry.record.finetuning is not None:
            continue
        whole = entry.superb and entry.corpus == entry.record.corpus["name"]
        boards[not entry.superb, "" if whole else entry.corpus, entry.recipe, entry.head].append(entry)
    groups = []
    for (other, corpus, recipe, head), entries in boards.items():
        for suffix, part in _by_exactness(entries):
            suite = ", ".join(text for text in ("SUPERB", corpus) if text) + recipe.removeprefix("superb")
            title = (f"{corpus}, recipe {recipe}" if other else suite) + suffix
            title += f", head {head}" if head else ""
            groups.append(Group(title, recipe, not other, head, tuple(part)))
    groups += _finetuned(all_named)
    return sorted(groups, key=lambda group: (not group.superb, group.title))


def _finetuned(entries: Sequence[Entry]) -> list[Group]:
    frozen = {entry.record.run: entry for entry in entries if entry.record.finetuning is None}
    boards: dict[tuple[str, str, str | None], dict[str, Entry]] = defaultdict(dict)
    for entry in entries:
        if entry.record.finetuning is not None:
            start = frozen.get(entry.record.run_of_frozen(), entry)  # both have one task, one data set and one recipe
            like = replace(entry, task=start.task, corpus=start.corpus, recipe=start.recipe)
            boards[like.corpus, like.recipe, like.head] |= {each.record.run: each for each in (start, like)}
    return [
        Group(
            f"{corpus}, recipe {recipe}, frozen and fine-tuned{f', head {head}' if head else ''}",
            recipe,
            False,
            head,
            tuple(found.values()),
            finetuned=True,
        )
        for (corpus, recipe, head), found in boards.items()
    ]


def _by_exactness(entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    exact = [entry for entry in entries if entry.record.live]
    if not exact:
        return [("", list(entries))]
    uncropped = [entry for entry in entries if not _crops(entry.record)]
    cached = [entry for entry in entries if not entry.record.live]
    kept = [("", cached)] if len(cached) > len(uncropped) else []
    return [*kept, (" (exact)", uncropped + exact)]


def _crops(record: ResultRecord) -> bool:
    return bool(record.audio.get("crop_samples"))


def _is_superb(record: ResultRecord) -> bool:
    """By content: names are whatever a file of one's own says."""
    task = superb_tasks().get(record.task["name"])
    own_head = record.task["head"] == record.task["default_head"]
    return task is not None and own_head and not record.custom and task.is_of(record)


class _Named(NamedTuple):
    """A name that a record has.

    Attributes:
        name: that it has by itself.
        content: digest of what it stands for.
        within: among the records that agree in this, one name may stand for one content only.
    """

    name: str
    content: str
    within: tuple[object, ...] = ()


def named(records: Sequence[ResultRecord]) -> list[Entry]:
    """The names that records have beside each other, in their order."""
    newest = max((record.protocol for record in records), default=0)
    called = names_in_series(records)
    upstreams, tasks, recipes, corpora, superb = [], [], [], [], []
    for record in records:
        superb.append(_is_superb(record))
        task, head, recipe = record.task["name"], record.task["head"], record.recipe["digest"]
        if record.layer is not None or record.finetuning is not None:  # by the recipe that it was asked of
            recipe = digest_of(record.recipe_of_sum)
        audio = record.clean_audio
        treated = digest_of([recipe, audio]) if any(audio.values()) else recipe
        tuned = "" if record.finetuning is None else f" ({record.finetuning})"
        content = (
            digest_of([record.upstream["digest"], record.recipe["finetune"]]) if tuned else record.upstream["digest"]
        )
        name = called.get(record.upstream["digest"], record.upstream["name"])
        upstreams.append(_Named(f"{name}{tuned}", content))
        tasks.append(_Named(task, task_digest(record.task), (superb[-1], head)))
        recipes.append(_Named(_recipe_name(record, newest), treated, (superb[-1], task, head)))
        # Up to protocol 3 the digest of a corpus depended on the clips that a recipe made of it.
        clips = treated if record.protocol <= 3 else None
        alike = (superb[-1], task, record.task["label"], clips, record.protocol, record.custom)
        all_of_train = record.corpus["digest"] if record.drawn is None else record.drawn["whole"]
        whole = record.corpus.get("undivided", all_of_train)  # the same for all folds and budgets
        corpora.append(_Named(record.corpus["name"], whole, alike))
    names = map(_distinct, (upstreams, tasks, corpora, recipes))
    return [Entry(*each) for each in zip(records, *names, superb, strict=True)]


def _recipe_name(record: ResultRecord, newest: int) -> str:
    """The recipe with what else sets runs of it apart."""
    old = f" (protocol {record.protocol})" if record.protocol < newest else ""
    frames = "" if record.frames in (None, "float16") else f" ({record.frames} frames)"
    return f"{record.recipe['name']}{' (custom)' if record.custom else ''}{frames}{old}"


def _distinct(found: Sequence[_Named]) -> list[str]:
    """Names made unique: where one name stands for several contents, the beginning of the digest is added."""
    contents: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for each in found:
        contents[each.within, each.name].add(each.content)
    return [
        f"{each.name}#{each.content[:6]}" if len(contents[each.within, each.name]) > 1 else each.name for each in found
    ]
