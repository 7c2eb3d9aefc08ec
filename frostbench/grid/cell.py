"""One run: an upstream, a task and a seed, with everything that decides its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from core.audio import SAMPLE_RATE
from core.feature_cache import DTYPES, Dtype, Kind
from core.manifest import SPLITS
from core.records import run_digest
from downstreams._base import HEADS
from downstreams._recipe import Candidate, Recipe, candidates_of
from tasks._audio import AudioRecipe
from tasks._base import Task
from tasks._rows import Example, TaskRows
from upstreams._extraction.clips import LONGEST_SECONDS
from upstreams._facts import UpstreamFacts

PROTOCOL_VERSION = 4  # raised whenever the same inputs could give another result


# What becomes of frames: kept as float16 or int8, or computed anew whenever a clip is drawn.
Frames = Literal["float16", "int8", "recompute"]


@dataclass(frozen=True)
class Cell:
    """One run: everything that decides its result.

    Attributes:
        upstream: facts of the frozen upstream.
        task: what is asked.
        recipe: how the head is trained.
        rows: what the task takes of the corpus; one value for all cells of a task.
        seed: of the head's training.
        custom: whether it stays off the leaderboard; decided where it is planned, since a worker's registry may lack
            what a file of one's own registers.
        frames: what becomes of them, where the head needs frames; else None.
        live: the splits whose recordings pass the upstream whenever they are drawn instead of once.
        long: how many recordings pass in pieces; found once it is clear that the cell has to be run.
        leaks: recordings of test that are elsewhere, too, as the record names them (see frostbench/grid/leaks.py).
    """

    upstream: UpstreamFacts
    task: Task
    recipe: Recipe
    rows: TaskRows
    seed: int
    custom: bool = False
    frames: Frames | None = None
    live: tuple[str, ...] = ()
    long: int = 0
    leaks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def examples(self) -> Mapping[str, Sequence[Example]]:
        """Split -> examples."""
        return self.rows.examples

    @property
    def counts(self) -> dict[str, int]:
        """Utterances of each split, and how many trials of test, where recordings are compared."""
        counts = {split: len(rows) for split, rows in self.examples.items()}
        return counts | ({"trials": len(self.rows.trials["test"])} if self.task.scorer else {})

    @property
    def finetuned(self) -> bool:
        """Whether the upstream is trained with the head."""
        return self.recipe.finetune is not None

    @property
    def has_row(self) -> bool:
        """Whether its record stands in a row of a leaderboard, not on a curve beside it."""
        return self.recipe.layer is None and self.rows.drawn is None and self.condition is None

    @property
    def frozen(self) -> Cell:
        """The cell whose upstream is frozen; itself where this one's is."""
        return replace(self, recipe=replace(self.recipe, finetune=None)) if self.finetuned else self

    @property
    def row(self) -> str:
        """The upstream's name in tables: what is fine-tuned has a row of its own."""
        how = self.recipe.finetune
        return self.upstream.title if how is None else f"{self.upstream.title} ({how.label})"

    @property
    def passing(self) -> tuple[str, ...]:
        """The splits whose recordings pass the upstream whenever they are drawn: of a fine-tuned one all."""
        return SPLITS if self.finetuned else self.live

    @property
    def candidates(self) -> list[Candidate]:
        """What is tried: a training each; nothing where the head is another run's."""
        if self.condition is not None:
            return []
        return candidates_of(self.recipe, self.upstream.num_layers)

    @property
    def audio(self) -> AudioRecipe:
        """What is made of the recordings."""
        return self.rows.audio

    @property
    def condition(self) -> str | None:
        """What test is heard in by a head that another run has trained."""
        return self.audio.condition

    @property
    def fold(self) -> str | None:
        """What is tested on, where the task has folds."""
        return self.rows.fold

    @property
    def kind(self) -> Kind:
        """The kind of features that the head is trained on."""
        return kind_of(self.task, self.recipe)

    @property
    def reads_frames(self) -> bool:
        """Whether the head needs every frame."""
        return HEADS.get(self.task.head).needs == "frames"

    @property
    def dtype(self) -> Dtype:
        """How they are kept; what is not kept is float32."""
        if self.finetuned:
            return "float32"
        if self.frames is None:
            return DTYPES[self.kind]
        return "float32" if self.frames == "recompute" else self.frames

    @property
    def exact(self) -> bool:
        """Whether crops pass the upstream anew at every update."""
        return bool(self.audio.crop_samples) and "train" in self.live

    @property
    def name(self) -> str:
        """For progress and messages."""
        fold = "" if self.fold is None else f" / {self.task.folds} {self.fold}"
        layer = "" if self.recipe.layer is None else f" / layer {self.recipe.layer}"
        budget = "" if self.rows.drawn is None else f" / {self.rows.drawn.budget} of train"
        condition = "" if self.condition is None else f" / {self.condition}"
        return f"{self.row} / {self.task.shown}{fold}{layer}{budget}{condition} / seed {self.seed}"

    @cached_property
    def run(self) -> str:
        """sha256 of all inputs: the name of the record."""
        return self._run_with(self.audio)

    @cached_property
    def clean_run(self) -> str:
        """The run that trains its head: itself, unless test is heard in a condition."""
        return self._run_with(replace(self.audio, condition=None))

    def _run_with(self, audio: AudioRecipe) -> str:
        return run_digest(
            protocol=PROTOCOL_VERSION,
            upstream=self.upstream.digest,
            task=self.task.recorded(),
            recipe=self.recipe,
            audio=audio,
            corpus=self.rows.digest,
            counts=self.counts,
            live=self.exact,
            frames=self.frames,
            fold=self.fold,
            custom=self.custom,
            seed=self.seed,
            drawn=None if self.rows.drawn is None else self.rows.drawn.recorded(),
        )


def departures(cell: Cell) -> list[str]:
    """Where the features differ from what the recipe asks for."""
    found: list[str] = []
    if cell.finetuned:
        return found
    if cell.audio.crop_samples and "train" not in cell.live:
        seconds = cell.audio.crop_samples / SAMPLE_RATE
        found.append(
            f"{cell.audio.crops} fixed random crops of {seconds:g} s a recording instead of a new one every time"
        )
    if cell.upstream.precision != "float32":
        found.append(f"the upstream computed in {cell.upstream.precision}")
    if cell.frames == "int8":
        found.append("frames kept in 8 bits")
    if cell.long:
        found.append(f"{cell.long} recordings above {LONGEST_SECONDS:g} s passed the upstream in pieces")
    return found


def kind_of(task: Task, recipe: Recipe) -> Kind:
    """The kind of features that a task's head is trained on."""
    if HEADS.get(task.head).needs == "frames":
        return "frames"
    return "pooled_normalised" if recipe.normalise else "pooled"


def count_long(rows: TaskRows, upstream: UpstreamFacts) -> int:
    """How many rows have a clip that passes in pieces; an upstream with windows of its own cuts no other way alone."""
    return 0 if upstream.window_samples > 1 else rows.long
