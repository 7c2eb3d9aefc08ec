"""The task contract: a task is a declaration that can be printed, hashed and compared."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from core.code import code_digest
from core.digest import digest_of
from core.errors import ContractError, UnknownNameError
from core.manifest import SPLITS, Manifest
from core.metrics import get_metric
from core.records import task_digest
from core.registry import Registry, load_module, unknown_name
from downstreams._base import HEADS
from downstreams._recipe import Recipe, untrained_recipe
from tasks._audio import AudioRecipe


@dataclass(frozen=True)
class Task:
    """What is asked of a representation.

    Attributes:
        name: what one types, and the column of the table.
        title: one line for `list`.
        paper: where data and protocol come from.
        label: key of the manifest's rows; a row without it is not part of the task.
        head: name of the head.
        metrics: names of the metrics that test is evaluated by; the first is the one that tables show first.
        recipes: name -> how the head is trained; the first is the default.
        audio: name of a recipe -> what is made of the recordings under it; nothing where it is not named.
        disjoint: key whose values may not occur in two splits, such as the voice; None where that is the point. Where
            there are folds, not in a fold and the others.
        folds: key by whose values the corpus is divided, such as the session: each is tested on once, with a head that
            was trained on the others, and the result is the mean over them; None goes by the splits of the rows.
        version: raised whenever the meaning changes.
        scorer: name of what compares two recordings, for a task whose items are pairs of them, and whose head embeds
            them; None judges each recording alone.
        against: key of the recordings that are searched for those with the label: the list of the labels that one
            holds. Each is a pair with all of them, and nothing is learnt, so there is no train; None compares the
            recordings with the label among themselves.
        select: the one of the metrics that chooses step and learning rate on valid; None is the first.
        default_head: the head that was declared, where another one was put in its place.
    """

    name: str
    title: str
    paper: str
    label: str
    head: str
    metrics: tuple[str, ...]
    recipes: Mapping[str, Recipe]
    disjoint: str | None = None
    folds: str | None = None
    version: int = 1
    scorer: str | None = None
    against: str | None = None
    select: str | None = None
    audio: Mapping[str, AudioRecipe] = field(default_factory=dict)
    default_head: str | None = None

    @property
    def shown(self) -> str:
        """Its name for people, with the head where that is another one than it was declared with."""
        return self.name if self.head == (self.default_head or self.head) else f"{self.name} by {self.head}"

    @property
    def splits(self) -> tuple[str, ...]:
        """Those whose rows it takes."""
        return SPLITS if self.against is None else SPLITS[1:]

    def rows_of(self, manifest: Manifest) -> Manifest:
        """The rows that carry the label, or are searched for it.

        Raises: ManifestError: no row has the label, or is searched.
        """
        labelled = manifest.with_label(self.label)
        if self.against is None:
            return labelled
        taken = {row.id for part in (labelled, manifest.with_label(self.against)) for row in part.utterances}
        rows = (row for row in manifest.utterances if row.id in taken and row.split in self.splits)
        return replace(manifest, utterances=tuple(rows))

    @property
    def selecting(self) -> str:
        """The metric that chooses on valid."""
        return self.select or self.metrics[0]

    def recipe(self, name: str | None) -> Recipe:
        """The recipe of that name, or the default.

        Raises: UnknownNameError: there is none.
        """
        name = next(iter(self.recipes)) if name is None else name
        if name not in self.recipes:
            raise unknown_name(f"recipe of {self.name}", name, self.recipes)
        return self.recipes[name]

    def audio_of(self, recipe: Recipe) -> AudioRecipe:
        """What is made of the recordings under a recipe."""
        return self.audio.get(recipe.name, AudioRecipe())

    def digest(self) -> str:
        """sha256 of what decides a result besides recipe and data."""
        return task_digest(self.recorded())

    def recorded(self) -> dict[str, Any]:
        """What a record repeats."""
        return {
            **{name: getattr(self, name) for name in ("name", "title", "head", "label", "version")},
            "metrics": list(self.metrics),
            "select": self.selecting,
            "default_head": self.default_head or self.head,
            **({} if self.scorer is None else {"scorer": self.scorer}),
            **({} if self.against is None else {"against": self.against}),
            "code": self._code(),
        }

    def _code(self) -> str | None:
        """Digest of the code of head, labels and metrics as far as they are plug-ins; our own raise a version.

        Names that nothing is registered under are refused where they are looked up.
        """
        entries: dict[str, Any] = {}
        with suppress(UnknownNameError):
            head = HEADS.get(self.head)
            entries |= {"head": head, "labels": head.label_kind}
        for name in self.metrics:
            with suppress(UnknownNameError):
                parts = vars(get_metric(name)).items()
                entries |= {f"metric {name}, {part}": value for part, value in parts if callable(value)}
        found = {name: code_digest(entry) for name, entry in entries.items()}
        plugins = {name: digest for name, digest in found.items() if digest is not None}
        return digest_of(plugins) if plugins else None

    def is_custom(self, recipe: Recipe) -> bool:
        """Whether it has a registered task's name, but with this recipe it is another task than that one.

        A task under a name of its own is none, nor is a registered one that was asked of another registered head: both
        are what they are called, and neither stands beside the registered one.
        """
        if self.name not in TASKS.names():
            return False
        registered = TASKS.get(self.name)
        if self.default_head is not None:
            if self.head not in HEADS.names() or self.default_head != registered.head:
                return True
            registered = registered.with_head(self.head)
        if recipe.name not in registered.recipes:
            return True
        return self._content(recipe) != registered._content(registered.recipe(recipe.name))

    def _content(self, recipe: Recipe) -> Task:
        """All but what is for people, and the other recipes."""
        name, audio = recipe.name, self.audio_of(recipe)
        return replace(self, title="", paper="", recipes={name: recipe}, audio={name: audio})

    def with_head(self, head: str) -> Task:
        """The same task asked of another head, whose options are its defaults: shows what an order of upstreams owes
        to the head. Its runs are no part of the leaderboard.

        A head that is not trained goes by a recipe of its own, under the names of the task's; one that has metrics of
        its own is judged by these.

        Raises: UnknownNameError: no such head. ContractError: the head takes other labels, or the task was asked of one
            that is not trained before, which left nothing of how to train another.
        """
        other, current = HEADS.get(head), HEADS.get(self.head)
        if other.label_kind is not current.label_kind:
            fitting = [name for name in HEADS.names() if HEADS.get(name).label_kind is current.label_kind]
            raise ContractError(
                f"head '{head}' takes other labels than task '{self.name}' has; heads for it: {', '.join(fitting)}"
            )
        if head == self.head:
            return self
        if self.default_head is not None and not current.trains:
            raise ContractError(f"task '{self.name}' is asked of '{self.head}' already: begin with its own head")
        changed = {
            name: replace(recipe, head={}) if other.trains or not current.trains else untrained_recipe(recipe)
            for name, recipe in self.recipes.items()
        }
        asked = replace(self, head=head, recipes=changed, default_head=self.default_head or self.head)
        return replace(asked, metrics=other.metrics, select=None) if other.metrics else asked


TASKS: Registry[Task] = Registry("task", "tasks", group="frostbench.tasks")


def register_task(task: Task) -> Task:
    """Enters a task in the registry."""
    TASKS.add(task.name, task)
    return task


def resolve_task(spec: str) -> Task:
    """The task behind `--task`: a registered name, or `FILE.py:NAME` for a declaration in a file of one's own.

    Raises: UnknownNameError: no such task. ContractError: the file has no task of that name.
    """
    if spec.endswith(".py"):
        raise ContractError(f"{spec}: name one task of it, as {spec}:NAME ({_found_in(load_module(Path(spec)))})")
    file, colon, name = spec.rpartition(":")
    if not colon:
        return TASKS.get(spec)
    module = load_module(Path(file))
    found = getattr(module, name, None)
    if not isinstance(found, Task):
        raise ContractError(f"{file}: has no task '{name}' ({_found_in(module)}); write {name} = Task(...)")
    return found


def _found_in(module: ModuleType) -> str:
    known = [key for key, value in vars(module).items() if isinstance(value, Task)]
    return f"found: {', '.join(known) or 'none'}"
