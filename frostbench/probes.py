"""`--probe`: tasks asked of heads that are not trained, too, as a second opinion on the order of upstreams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from core.errors import ContractError
from downstreams._base import HEADS, Head
from frostbench.entries import checked_head, checked_task
from tasks._base import Task

ALL = "all"


class Probed(NamedTuple):
    """Tasks, each followed by itself as probes are asked of it, and a note on each that no probe can take."""

    tasks: list[Task]
    notes: tuple[str, ...]


def is_probe(head: type[Head]) -> bool:
    """Whether it judges where the recordings of train lie, without being trained."""
    return not head.trains and head.keeps_train()


def probes_of(asked: Sequence[str | type[Head]]) -> list[str]:
    """The registered names of the probes that are asked for; "all" are all there are.

    Raises: UnknownNameError: no such head. ContractError: it is no probe, or not declared whole.
    """
    known = [name for name in HEADS.names() if is_probe(HEADS.get(name))]
    names = [name for each in asked for name in (known if each == ALL else [checked_head(each)])]
    for name in names:
        if not is_probe(HEADS.get(name)):
            raise ContractError(f"head '{name}' is trained, or keeps nothing of train: probes are {', '.join(known)}")
    return list(dict.fromkeys(names))


def with_probes(tasks: Sequence[Task], probes: Sequence[str]) -> Probed:
    """Tasks with what the probes are asked of them.

    Raises: ContractError: probes are asked for, but none of the tasks has labels that one takes.
    """
    found: list[Task] = []
    notes: list[str] = []
    for task in tasks:
        kind = HEADS.get(task.head).label_kind
        taking = [name for name in probes if HEADS.get(name).label_kind is kind and task.head != name]
        found += [task, *(checked_task(task, name) for name in taking)]
        if probes and not taking:
            notes.append(
                f"{task.shown} is not asked of {', '.join(probes)}: its labels are {kind.kind}, not what they take"
            )
    if probes and len(notes) == len(tasks):
        raise ContractError("; ".join(notes))
    return Probed(found, tuple(notes))
