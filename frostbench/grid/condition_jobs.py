"""Test heard in a condition, by the head that another run has trained without it."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import torch

from core.digest import canonical_json, file_digest, parsed_json, written_then_renamed
from core.errors import RecordError
from core.metrics import get_metric
from core.records import FILES, RecordStore
from downstreams._downstream import downstream_of, load_trained
from downstreams._training import predict
from frostbench.grid.candidates import Folders
from frostbench.grid.cell import Cell
from frostbench.grid.cell_jobs import circumstances_of_upstream, load_splits, prediction_rows, write_predictions
from frostbench.grid.judging import items_of, kept_of
from frostbench.jobs.base import Advance
from frostbench.provenance import circumstances

PREDICTIONS, *TRAINED = FILES  # the head and how it was trained are those of the other run
ANEW = "delete its record and run the same command again"


def run_in_condition(cell: Cell, folders: Folders, *, device: str, advance: Advance) -> str:
    """A job: evaluates a recorded head on test as it is heard; returns the run's digest once it is recorded.

    Raises: RecordError: the head is not there, or not the one that was recorded.
    """
    started = time.monotonic()
    store = RecordStore(folders.results)
    clean = store.read(store.path(cell.clean_run))
    source, folder = store.run_folder(clean.run), store.run_folder(cell.run)
    for name in TRAINED:
        if not (source / name).is_file() or file_digest(source / name) != clean.artifacts[name]:
            raise RecordError(f"{source / name}: is gone or was changed since it was recorded; restore it, or {ANEW}")
    trained, description = load_trained(source / "head.safetensors")
    downstream = downstream_of(description, trained.state)
    labels = downstream.head.labels
    data = load_splits(cell, ("test",), labels, folders, device)
    metrics = [get_metric(name) for name in cell.task.metrics]
    found, _ = predict(downstream.to(device), data["test"], torch.device(device), kept_of(metrics, labels))
    items = items_of(cell, "test", labels)
    predictions = items.predictions(found)
    values = {metric.name: metric.compute(predictions, items.references) for metric in metrics}
    write_predictions(folder, prediction_rows(items, predictions, metrics))
    for name in TRAINED:
        with written_then_renamed(folder / name) as temporary:
            shutil.copyfile(source / name, temporary)
    made = {
        **clean.circumstances,
        **circumstances_of_upstream(cell, folders.cache),
        **circumstances(device, {"test": time.monotonic() - started}),
    }
    record = replace(
        clean,
        run=cell.run,
        audio=parsed_json(canonical_json(cell.audio)),
        value=values[metrics[0].name],
        values=values,
        artifacts={name: file_digest(folder / name) for name in FILES},
        circumstances=made,
    )
    store.add(record)
    advance(1.0)
    return cell.run
