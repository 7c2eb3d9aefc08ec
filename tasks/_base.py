"""The task contract: a task is a declaration that can be printed, hashed and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.digest import digest_of
from core.errors import ContractError
from core.registry import Registry, load_module, unknown_name
from downstreams._recipe import Recipe


@dataclass(frozen=True)
class Task:
    """What is asked of a representation.

    Attributes:
        name: what one types, and the column of the table.
        title: one line for `list`.
        paper: where data and protocol come from.
        label: key of the manifest's rows; a row without it is not part of the task.
        head: name of the head.
        metric: name of the metric.
        recipes: name -> recipe; the first is the default.
        disjoint: key whose values may not occur in two splits, such as the voice; None where that is the point.
        version: raised whenever the meaning changes.
    """

    name: str
    title: str
    paper: str
    label: str
    head: str
    metric: str
    recipes: Mapping[str, Recipe]
    disjoint: str | None = None
    version: int = 1

    def recipe(self, name: str | None) -> Recipe:
        """The recipe of that name, or the default.

        Raises: UnknownNameError: there is none.
        """
        name = next(iter(self.recipes)) if name is None else name
        if name not in self.recipes:
            raise unknown_name(f"recipe of {self.name}", name, self.recipes)
        return self.recipes[name]

    def digest(self) -> str:
        """sha256 of what decides a result besides recipe and data."""
        return digest_of([self.name, self.label, self.head, self.metric, self.version])


TASKS: Registry[Task] = Registry("task", "tasks", group="frostbench.tasks")


def register_task(task: Task) -> Task:
    """Enters a task in the registry."""
    TASKS.add(task.name, task)
    return task


def resolve_task(spec: str) -> Task:
    """The task behind `--task`: a registered name, or `FILE.py:NAME` for a declaration in a file of one's own.

    Raises: UnknownNameError: no such task. ContractError: the file has no task of that name.
    """
    file, colon, name = spec.rpartition(":")
    if not colon:
        return TASKS.get(spec)
    module = load_module(Path(file))
    found = getattr(module, name, None)
    if not isinstance(found, Task):
        known = [key for key, value in vars(module).items() if isinstance(value, Task)]
        raise ContractError(
            f"{file}: has no task '{name}' (found: {', '.join(known) or 'none'}); write {name} = Task(...)"
        )
    return found
