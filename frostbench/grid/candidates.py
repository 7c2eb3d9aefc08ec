"""The folders of a run, and its candidates: the models that are tried for a cell, and where they are kept meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.digest import digest_of
from downstreams._base import HEADS, FeatureShape
from downstreams._downstream import Downstream
from downstreams._recipe import Candidate
from downstreams.labels._base import Labels
from frostbench.grid.cell import Cell


@dataclass(frozen=True)
class Folders:
    """Where things are kept.

    Attributes:
        cache: of features and trained candidates.
        results: of records and their files.
        read_only: a cache that nothing can be written to; `cache` is then a temporary folder that shows its features.
    """

    cache: Path
    results: Path
    read_only: Path | None = None


def labels_of(cell: Cell) -> Labels:
    """What is to be known of the labels of train."""
    return HEADS.get(cell.task.head).labels_from_train(cell.rows.known_labels, cell.task.label, cell.recipe)


def new_downstream(cell: Cell, labels: Labels, layer: int | None) -> Downstream:
    """Featurizer and head before training."""
    shape = FeatureShape(cell.upstream.hidden_size, cell.upstream.frame_samples)
    return Downstream.fresh(cell.seed, cell.task.head, cell.upstream.num_layers, shape, labels, cell.recipe, layer)


def candidate_path(cell: Cell, tried: Candidate, folders: Folders) -> Path:
    """Where a candidate is kept until its cell has its record."""
    asked = tried if tried.upstream_rate is not None else tried[:2]
    return folders.cache / "heads" / f"{digest_of([cell.run, *asked])[:32]}.safetensors"


def delete_candidates(cell: Cell, folders: Folders) -> None:
    """Deletes what was trained for a cell that has its record: the chosen head lies beside it."""
    for tried in cell.candidates:
        candidate_path(cell, tried, folders).unlink(missing_ok=True)
