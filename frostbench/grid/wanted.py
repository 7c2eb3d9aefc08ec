"""The clips that upstreams have to pass, worked out once for all upstreams and cells that need the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from core.feature_cache import KINDS, Kind
from core.manifest import SPLITS
from frostbench.grid.cell import Frames, kind_of
from tasks._base import Task
from tasks._rows import TaskRows, clips_of
from upstreams._extraction.clips import Clip, lay_out


@dataclass(frozen=True)
class Amount:
    """How much of a kind of features is wanted.

    Attributes:
        clips: how many.
        samples: of all of them.
    """

    clips: int
    samples: int

    @classmethod
    def of(cls, clips: Iterable[Clip]) -> Amount:
        """What these clips come to."""
        lengths = [clip.samples for clip in clips]
        return cls(len(lengths), sum(lengths))


def keeps_means(clip: Clip) -> bool:
    """Whether something is kept of a clip that a head on means reads."""
    return bool(clip.kinds - {"frames"})


class WantedClips:
    """Clips with the kinds of features that are kept of each; what follows from them is computed once.

    Args:
        clips: each once, with its length and kinds.
        first: keys of those that pass before the others; None are those of which more than frames is kept.
    """

    def __init__(self, clips: Sequence[Clip], first: frozenset[str] | None = None) -> None:
        self.clips = clips
        self.first = frozenset(clip.key for clip in clips if keeps_means(clip)) if first is None else first
        self._batches: dict[tuple[int, float], list[list[Clip]]] = {}

    @cached_property
    def by_kind(self) -> Mapping[Kind, Mapping[str, Clip]]:
        """Kind -> key -> clip, of the clips of which that kind is kept."""
        keyed = [(clip.key, clip) for clip in self.clips]
        return {kind: {key: clip for key, clip in keyed if kind in clip.kinds} for kind in KINDS}

    @cached_property
    def amounts(self) -> Mapping[Kind, Amount]:
        """Kind -> how much of it is kept."""
        return {kind: Amount.of(clips.values()) for kind, clips in self.by_kind.items()}

    @cached_property
    def keys(self) -> Mapping[Kind, frozenset[str]]:
        """Kind -> keys of the clips of which that kind is kept."""
        return {kind: frozenset(clips) for kind, clips in self.by_kind.items()}

    def batches(self, window_samples: int, batch_seconds: float) -> list[list[Clip]]:
        """See `lay_out`; no batch has clips that pass first and others, and those that pass first come first."""
        sizes = window_samples, batch_seconds
        if sizes not in self._batches:
            groups = ([clip for clip in self.clips if (clip.key in self.first) == first] for first in (True, False))
            self._batches[sizes] = [batch for clips in groups for batch in lay_out(clips, *sizes)]
        return self._batches[sizes]


class GridClips:
    """The clips of a grid, and what is kept of them for some of its tasks.

    Args:
        taken: (task, what it takes of the corpus), several of a task with folds.
        recipe: its name; None is each task's default.
        exact: whether crops pass the upstream anew at every update, so that train needs no cache where a recipe crops.
    """

    def __init__(self, taken: Sequence[tuple[Task, TaskRows]], recipe: str | None, exact: bool) -> None:
        self._rows = [(task.shown, rows) for task, rows in taken]
        self._kinds = {task.shown: kind_of(task, task.recipe(recipe)) for task, _ in taken}
        self._exact = exact
        self._kept: dict[tuple[frozenset[str], bool], WantedClips] = {}

    @cached_property
    def all(self) -> WantedClips:
        """What has to pass an upstream once, if its frames are kept."""
        return WantedClips(self._clips(self._kinds))

    def kept(self, tasks: Collection[str], frames: Frames | None) -> WantedClips:
        """All clips of the grid, of which only what these tasks need is kept.

        All are laid out, also those of a task that is finished, so that batches stay what they were.
        """
        asked = frozenset(tasks), frames == "recompute"
        if asked not in self._kept:
            left_out = {"frames"} if frames == "recompute" else set()
            wanted = {clip.key: clip.kinds - left_out for clip in self._clips(asked[0])}
            nothing: frozenset[Kind] = frozenset()
            kept = [(clip, wanted.get(clip.key, nothing)) for clip in self.all.clips]
            is_all = all(clip.kinds == kinds for clip, kinds in kept)
            changed = [replace(clip, kinds=kinds) for clip, kinds in kept]
            self._kept[asked] = self.all if is_all else WantedClips(changed, self.all.first)
        return self._kept[asked]

    def _clips(self, tasks: Collection[str]) -> list[Clip]:
        needs = [(rows, self._kinds[name]) for name, rows in self._rows if name in tasks]
        return clips_of((rows.all_clips(self._cached_splits(rows)), kind) for rows, kind in needs)

    def _cached_splits(self, rows: TaskRows) -> list[str]:
        return [split for split in SPLITS if not (self._exact and rows.audio.crop_samples and split == "train")]
