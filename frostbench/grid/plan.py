"""What is asked for, and the cells that it comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from core.checkpoint_series import told_apart
from core.conditions import Condition
from core.errors import ContractError
from core.finetuning import FineTuning
from core.manifest import SPLITS, Manifest
from downstreams._base import HEADS
from downstreams._recipe import Recipe
from frostbench.grid.cell import Cell, Frames, kind_of
from frostbench.grid.needs import AskedFrames, choose_frames, sizes_of
from frostbench.grid.wanted import GridClips
from tasks._audio import AudioRecipe
from tasks._base import Task
from tasks._budgets import Budget, no_budget, within
from tasks._folds import folds_of
from tasks._rows import TaskRows, task_rows
from upstreams._base import Precision
from upstreams._facts import UpstreamFacts
from upstreams._finetuning import trainable_copy
from upstreams._known_facts import facts_of

AskedLayers = Literal["each"] | tuple[int, ...]


@dataclass(frozen=True)
class Grid:
    """What is asked for.

    Attributes:
        upstreams: specifications.
        tasks: declarations.
        seeds: of head training.
        recipe: name of the recipe; None is each task's default.
        limit: rows a split at most, for a quick try.
        exact: where a recipe crops at random, let every crop pass the upstream anew instead of keeping a few.
        precision: in which the upstreams compute.
        frames: how they are kept, or not; "auto" takes what fits within the limit.
        cache_limit: bytes of all features; None is no limit.
        layers: that heads are trained on one by one, for a curve: "each" is the learned sum and, for heads on means,
            every layer alone; None is the learned sum.
        finetune: how upstreams are trained with their heads, besides the frozen runs that this begins at; None leaves
            them frozen.
        budgets: how much of train heads are given, one after the other, for a curve; None among them is all of it.
        conditions: what test is heard in, one after the other, by the heads that all of train has taught.
        quick_seeds: more seeds, of heads on means alone, which train in seconds; they come last.
        series: specification -> the series over checkpoints that it belongs to, named by its pattern.
    """

    upstreams: Sequence[str]
    tasks: Sequence[Task]
    seeds: Sequence[int]
    recipe: str | None = None
    limit: int | None = None
    exact: bool = False
    precision: Precision = "float32"
    frames: AskedFrames = "auto"
    cache_limit: int | None = None
    layers: AskedLayers | None = None
    finetune: FineTuning | None = None
    budgets: tuple[Budget | None, ...] = (None,)
    conditions: tuple[Condition, ...] = ()
    quick_seeds: tuple[int, ...] = ()
    series: Mapping[str, str] = field(default_factory=dict)

    def seeds_of(self, task: Task) -> tuple[int, ...]:
        """The seeds of a task's heads."""
        more = () if kind_of(task, task.recipe(self.recipe)) == "frames" else self.quick_seeds
        return tuple(dict.fromkeys((*self.seeds, *more)))


@dataclass(frozen=True)
class Taken:
    """What a task takes of the corpus.

    Attributes:
        task: that takes it.
        rows: of a fold, of a label budget, and heard in a condition.
        seeds: of the heads that are trained on it: a budget's part of train is another one for every seed.
    """

    task: Task
    rows: TaskRows
    seeds: tuple[int, ...]


class Plan(NamedTuple):
    """What a grid comes to.

    Attributes:
        cells: all of them.
        rows: what each task takes of the corpus, in the order of the grid's tasks; of one with folds, of each fold; of
            budgets, of each budget and seed.
        clips: what the upstreams have to pass for them.
        notes: of what was asked for and is not among them.
    """

    cells: list[Cell]
    rows: list[TaskRows]
    clips: GridClips
    notes: tuple[str, ...] = ()


def make_cells(grid: Grid, manifest: Manifest, known_upstreams: Path | None = None) -> Plan:
    """All cells of a grid, and the rows and clips that they share.

    Args:
        grid: what is asked for.
        manifest: of the corpus.
        known_upstreams: folder of facts of upstreams; None builds every upstream.

    Raises: BenchmarkError: an upstream can't be built or fine-tuned, or lacks a layer, a task can't use the corpus or
        chooses its layer itself, or no task has a part of train as large as the budgets.
    """
    _require_one_curve(grid)
    taken_by, smaller = _taken(grid, manifest)
    clips = GridClips([(taken.task, taken.rows) for taken in taken_by], grid.recipe, grid.exact)
    cells: dict[str, Cell] = {}
    for facts in _upstreams(grid, known_upstreams):
        _require_frames(facts, grid.tasks)
        _require_layers(facts, grid)
        _require_trainable(facts, grid)
        frames = _choice(grid, facts, clips)
        for taken in taken_by:
            task, rows, recipe = taken.task, taken.rows, taken.task.recipe(grid.recipe)
            kept = frames if kind_of(task, recipe) == "frames" else None
            live = _live(rows.audio, grid.exact, kept)
            custom = rows.limited or task.is_custom(recipe)
            for asked in [recipe] if rows.audio.condition else _recipes(task, recipe, grid, facts.num_layers):
                for seed in taken.seeds:
                    cell = Cell(facts, task, asked, rows, seed, custom, kept, live)
                    cells.setdefault(cell.run, cell)  # two names for one upstream are one cell
    notes = (*smaller, *(_left_out(grid) if grid.layers == "each" else ()))
    return Plan(list(cells.values()), [taken.rows for taken in taken_by], clips, notes)


def _upstreams(grid: Grid, known: Path | None) -> list[UpstreamFacts]:
    """Facts of the upstreams, several of one name told apart by their checkpoints."""
    found = [facts_of(spec, grid.precision, known) for spec in grid.upstreams]
    shown = told_apart({facts.digest: (facts.name, facts.spec) for facts in reversed(found)})
    return [replace(each, shown=shown[each.digest], series=grid.series.get(each.spec, "")) for each in found]


def _taken(grid: Grid, manifest: Manifest) -> tuple[list[Taken], list[str]]:
    """What each task takes, and why some of it is not what was asked for."""
    taken: list[Taken] = []
    notes: list[str] = []
    for task in grid.tasks:
        seeds = grid.seeds_of(task)
        for fold in folds_of(manifest, task):
            rows = task_rows(manifest, task, task.recipe(grid.recipe), grid.limit, fold)
            for budget in grid.budgets:
                why = None if budget is None else no_budget(rows, task, budget)
                if budget is None:
                    taken += [Taken(task, each, seeds) for each in (rows, *_in_conditions(task, rows, grid.conditions))]
                elif why is None:
                    taken += [Taken(task, within(rows, task, budget, seed), (seed,)) for seed in seeds]
                else:
                    notes.append(f"{task.shown} has no budget {budget}: {why}")
        if grid.conditions and HEADS.get(task.head).label_kind.heard:
            notes.append(f"{task.shown} is not heard in conditions: its labels are made of the recordings as they are")
    if not taken:
        raise ContractError("; ".join(notes))
    return taken, notes


def _in_conditions(task: Task, rows: TaskRows, conditions: Sequence[Condition]) -> list[TaskRows]:
    if HEADS.get(task.head).label_kind.heard:
        return []
    return [rows.heard_in(str(condition)) for condition in conditions]


def _require_one_curve(grid: Grid) -> None:
    """Refuses curves whose end, the run that they are compared with, is not asked for, and curves of curves."""
    if grid.conditions and (None not in grid.budgets or grid.layers not in (None, "each")):
        raise ContractError(
            "conditions are heard by the head on the learned sum and all of train: ask for the budget all, too, and "
            "leave chosen layers out"
        )
    if grid.layers is not None and any(budget is not None for budget in grid.budgets):
        raise ContractError("single layers are for all of train, budgets for the learned sum: ask for one at a time")


def _recipes(task: Task, recipe: Recipe, grid: Grid, num_layers: int) -> list[Recipe]:
    """What is trained: on the frozen upstream, and with it."""
    tuned = [] if grid.finetune is None else [replace(recipe, finetune=grid.finetune)]
    return [*_with_layers(task, recipe, grid.layers, num_layers), *tuned]


def _with_layers(task: Task, recipe: Recipe, asked: AskedLayers | None, num_layers: int) -> list[Recipe]:
    """The recipe as it is, with one layer after the other, or both."""
    if asked is None:
        return [recipe]
    if asked != "each":
        return [replace(recipe, layer=layer) for layer in asked]
    alone = range(num_layers) if _why_not_each(task, recipe) is None else ()
    return [recipe, *(replace(recipe, layer=layer) for layer in alone)]


def _why_not_each(task: Task, recipe: Recipe) -> str | None:
    """Why "each" layer does not mean those of a task; None where it does."""
    if _chooses_layer(task, recipe):
        return "it tries one layer after the other itself, and takes the best on valid"
    if HEADS.get(task.head).needs == "frames":
        return "its head reads frames, and takes long: name some layers, such as 3,6,9"
    return None


def _chooses_layer(task: Task, recipe: Recipe) -> bool:
    """Whether a task is asked of the layer alone that is best on valid; with means each layer costs next to nothing."""
    return recipe.layers == "single" and HEADS.get(task.head).needs == "frames"


def _left_out(grid: Grid) -> Iterator[str]:
    for task in grid.tasks:
        why = _why_not_each(task, task.recipe(grid.recipe))
        if why is not None:
            yield f"{task.shown} is not asked of each layer alone: {why}"


def _require_layers(upstream: UpstreamFacts, grid: Grid) -> None:
    """Refuses single layers that an upstream does not have, and tasks that choose one themselves."""
    if grid.layers is None or grid.layers == "each":
        return
    unknown = [layer for layer in grid.layers if not 0 <= layer < upstream.num_layers]
    if unknown or not grid.layers:
        asked = ", ".join(map(str, unknown)) or "none at all"
        raise ContractError(f"{upstream.title} has layers 0 to {upstream.num_layers - 1}, not {asked}")
    choosing = [task.shown for task in grid.tasks if _chooses_layer(task, task.recipe(grid.recipe))]
    if choosing:
        raise ContractError(
            f"{', '.join(choosing)}: tries one layer after the other itself; leave it out, or leave out the layers"
        )


def _require_trainable(upstream: UpstreamFacts, grid: Grid) -> None:
    """Refuses what can't be fine-tuned, before any work."""
    if grid.finetune is None:
        return
    if grid.layers is not None:
        raise ContractError("a fine-tuned upstream has the learned sum of all layers: leave out the layers")
    if grid.precision != "float32":
        raise ContractError(f"fine-tuning computes in float32: leave out the precision, {grid.precision}")
    untrained = [task.shown for task in grid.tasks if not HEADS.get(task.head).trains]
    if untrained:
        raise ContractError(f"{', '.join(untrained)}: nothing is trained, so nothing can be fine-tuned; leave it out")
    trainable_copy(upstream.spec, grid.finetune)


def _require_frames(upstream: UpstreamFacts, tasks: Sequence[Task]) -> None:
    """Refuses tasks whose heads read frames for an upstream that gives one vector an utterance."""
    unfit = [task.shown for task in tasks if HEADS.get(task.head).needs == "frames"]
    if upstream.utterance_level and unfit:
        raise ContractError(
            f"{upstream.title} gives one vector an utterance, but {', '.join(unfit)} read frames: leave these tasks "
            f"out for it"
        )


def _choice(grid: Grid, upstream: UpstreamFacts, clips: GridClips) -> Frames | None:
    """What becomes of frames; the same for all tasks of an upstream, for they are kept once."""
    if all(kind_of(task, task.recipe(grid.recipe)) != "frames" for task in grid.tasks):
        return None
    if grid.frames != "auto":
        return grid.frames
    if grid.cache_limit is None:
        return "float16"
    return choose_frames(sizes_of(upstream, clips.all), grid.cache_limit)


def _live(audio: AudioRecipe, exact: bool, frames: Frames | None) -> tuple[str, ...]:
    """The splits that pass the upstream whenever they are drawn."""
    if frames == "recompute":
        return SPLITS
    return ("train",) if exact and audio.crop_samples else ()
