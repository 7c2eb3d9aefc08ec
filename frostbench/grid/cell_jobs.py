"""Cells, top to bottom: cached features -> a head for every learning rate -> the best on valid -> test -> record."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from core.digest import canonical_json, digest_of, file_digest, parsed_json, write_json, written_then_renamed
from core.errors import TrainingError
from core.feature_cache import Dtype, FeatureCache, Kind, caches_of
from core.metrics import Metric, get_metric
from core.records import WORST_FILE, RecordStore, ResultRecord, files_of
from downstreams._data import Examples, encoded, load_examples
from downstreams._downstream import Downstream, Trained, load_trained, save_trained
from downstreams._recipe import Candidate, updates_of
from downstreams._training import TrainingRun, choose, predict, train_together
from downstreams.labels._base import Labels
from frostbench.grid.candidates import Folders, candidate_path, delete_candidates, labels_of, new_downstream
from frostbench.grid.cell import PROTOCOL_VERSION, Cell, departures
from frostbench.grid.finetuning import costs_of, finetune, save_tuned, split_state, tuned_upstream
from frostbench.grid.judging import Items, items_of, kept_of
from frostbench.grid.live import LiveExamples
from frostbench.grid.measures import layer_norms
from frostbench.grid.upstream_checks import passed_checks
from frostbench.grid.worst_recordings import keep_worst
from frostbench.jobs.base import Advance
from frostbench.provenance import circumstances
from upstreams._base import Upstream
from upstreams._extraction.clips import Clip
from upstreams._extraction.decoded import DecodedAudio
from upstreams._extraction.encoding import FrozenUpstream
from upstreams._extraction.fill import extract
from upstreams._facts import UpstreamFacts
from upstreams._resolve import build_upstream


def extract_features(
    upstream: UpstreamFacts,
    batches: Sequence[list[Clip]],
    dtypes: Mapping[Kind, Dtype],
    cache: Path,
    decoded: Path | None = None,
    *,
    device: str,
    advance: Advance,
) -> int:
    """A job: computes what the cache lacks of some batches, and returns how many clips passed the upstream.

    Args:
        upstream: its facts.
        batches: as they were laid out.
        dtypes: how each kind is kept.
        cache: folder of features.
        decoded: folder of waveforms that several upstreams hear; None decodes them for this one.
        device: where to compute.
        advance: called with the seconds of audio done.
    """
    kinds: set[Kind] = {kind for batch in batches for clip in batch for kind in clip.kinds}
    caches = caches_of(cache, upstream.digest, kinds, dtypes)
    built, read = build_upstream(upstream.spec), Clip.read if decoded is None else DecodedAudio(decoded).read
    return extract(built, batches, caches, torch.device(device), advance, upstream.precision, read)


def train_heads(runs: Sequence[tuple[Cell, Candidate]], folders: Folders, *, device: str, advance: Advance) -> int:
    """A job: trains heads side by side and keeps them as candidates.

    Args:
        runs: cells that differ in their seed or layer alone, each with what is tried.
        folders: of features and candidates.
        device: where to train.
        advance: called with the updates done.

    Returns: how many updates were computed, those of trainings that ended early alone.
    """
    todo = untrained(runs, folders)
    advance(updates_of_sweep(runs) - updates_of_sweep(todo))
    if not todo:
        return 0
    cell, _ = todo[0]
    labels = labels_of(cell)
    data = load_splits(cell, ("train", "valid"), labels, folders, device)
    metric = get_metric(cell.task.selecting)
    items = items_of(cell, "valid", labels)
    started = time.monotonic()
    models = [new_downstream(cell, labels, tried.layer) for cell, tried in todo]
    _require_trainable(models[0], data["train"], cell, advance)
    candidates = train_together(
        models,
        data,
        lambda found: metric.compute(items.predictions(found), items.references),
        metric.sign,
        cell.recipe,
        [TrainingRun(tried.learning_rate, cell.seed, tried.layer) for cell, tried in todo],
        torch.device(device),
        advance,
        kept_of([metric], labels),
    )
    seconds = (time.monotonic() - started) / len(todo)
    for (cell, tried), downstream, candidate in zip(todo, models, candidates, strict=True):
        save_trained(candidate_path(cell, tried, folders), candidate, {**downstream.description, "seconds": seconds})
    return sum(candidate.diverged or round(candidate.history[-1]["step"]) for candidate in candidates)


def untrained(runs: Sequence[tuple[Cell, Candidate]], folders: Folders) -> list[tuple[Cell, Candidate]]:
    """What is still to be trained, where a command that did not come to the records trained a part."""
    todo = [(cell, tried) for cell, tried in runs if not candidate_path(cell, tried, folders).is_file()]
    if todo and runs[0][0].recipe.search_steps:  # candidates are compared on the way: all of a run or none
        unfinished = {cell.run for cell, _ in todo}
        todo = [(cell, tried) for cell, tried in runs if cell.run in unfinished]
    return todo


def updates_of_sweep(runs: Sequence[tuple[Cell, Candidate]]) -> int:
    """Updates of candidates, which may be of several runs, if none ends early."""
    counts = Counter(cell.run for cell, _ in runs)
    return sum(updates_of(runs[0][0].recipe, count) for count in counts.values())


def _require_trainable(model: Downstream, train: Examples, cell: Cell, advance: Advance) -> None:
    """Says how many utterances add nothing to the loss.

    Raises: TrainingError: none adds anything.
    """
    count, whole = model.head.untrainable(torch.tensor(train.lengths), train.targets), len(train.targets)
    if count == 0:
        return
    line = f"{cell.name}: {count} of {whole} {cell.task.label} labels of train are longer than their frames"
    if count == whole:
        raise TrainingError(f"{line}: nothing can be learned; take an upstream or a recipe with more frames a second")
    advance(0.0, f"note: {line}, and add nothing to the loss")


def run_cell(cell: Cell, folders: Folders, *, device: str, advance: Advance) -> str:
    """A job: evaluates on test the candidate that is best on valid; returns the run's digest once it is recorded."""
    _train_missing(cell, folders, device)
    started = time.monotonic()
    labels = labels_of(cell)
    loaded = [load_trained(candidate_path(cell, tried, folders)) for tried in cell.candidates]
    candidates = [trained for trained, _ in loaded]
    best = choose(candidates, get_metric(cell.task.selecting).sign)
    tuned = tuned_upstream(cell, best) if cell.finetuned else None
    data = load_splits(cell, ("valid", "test"), labels, folders, device, tuned)

    downstream = new_downstream(cell, labels, best.layer)
    downstream.load_state_dict(split_state(best)[0])
    layer_weights = downstream.featurizer.layer_weights().tolist()
    norms = layer_norms(data["valid"], downstream.featurizer.normalise)
    metrics = [get_metric(name) for name in cell.task.metrics]
    # The one look at test: everything has been decided.
    found, _ = predict(downstream.to(device), data["test"], torch.device(device), kept_of(metrics, labels))
    items = items_of(cell, "test", labels)
    predictions = items.predictions(found)
    values = {metric.name: metric.compute(predictions, items.references) for metric in metrics}
    store = RecordStore(folders.results)
    rows = prediction_rows(items, predictions, metrics)
    artifacts = _write_files(store.run_folder(cell.run), cell, downstream, best, candidates, rows)
    if labels.heard and cell.has_row:
        path, first = store.run_folder(cell.run) / WORST_FILE, metrics[0]
        keep_worst(
            path,
            downstream,
            data["test"],
            items,
            [each[first.name] for each in found],
            higher=first.direction == "higher",
        )
        artifacts[WORST_FILE] = file_digest(path)
    seconds = {
        "train": sum(float(description["seconds"]) for _, description in loaded),
        "test": time.monotonic() - started,
    }
    measured: dict[str, Any] = {"gflops_per_second": cell.upstream.gflops_per_second, "layer_norms": norms}
    if cell.finetuned:
        passed = sum(float(description["audio_seconds"]) for _, description in loaded)
        measured["finetuning"] = costs_of(cell, downstream, best, passed)
    made = {
        **circumstances_of_upstream(cell, folders.cache),
        **({"leaks": cell.leaks} if cell.leaks else {}),
        **measured,
        **circumstances(device, seconds),
    }
    store.add(_record(cell, values, best, candidates, layer_weights, artifacts, made))
    delete_candidates(cell, folders)
    advance(1.0)
    return cell.run


def circumstances_of_upstream(cell: Cell, cache: Path) -> dict[str, Any]:
    """How the upstream was asked for, and which checks it passed."""
    return {
        "upstream_spec": cell.upstream.spec,
        **({"series": cell.upstream.series} if cell.upstream.series else {}),
        "upstream_checks": passed_checks(cell.upstream.digest, cache),
    }


def _train_missing(cell: Cell, folders: Folders, device: str) -> None:
    """Candidates that are not there, as where a job runs by itself."""
    if cell.finetuned:
        for tried in cell.candidates:
            finetune(cell, tried, folders, device=device, advance=lambda updates: None)
    else:
        train_heads([(cell, tried) for tried in cell.candidates], folders, device=device, advance=lambda updates: None)


def load_splits(
    cell: Cell, splits: Sequence[str], labels: Labels, folders: Folders, device: str, tuned: Upstream | None = None
) -> dict[str, Examples]:
    """Split -> features and targets: from the cache, or from the upstream whenever they are drawn."""
    kept = FeatureCache(folders.cache, cell.upstream.digest, cell.kind, cell.dtype)
    live = [split for split in splits if split in cell.passing]
    if live:
        upstream = (build_upstream(cell.upstream.spec) if tuned is None else tuned).to(device)
        encoder = FrozenUpstream(upstream, torch.device(device), cell.upstream.precision)
    data: dict[str, Examples] = {}
    for split in splits:
        rows = cell.examples[split]
        if split in live:
            crop_samples = cell.audio.crop_samples if split == "train" else 0
            examples = LiveExamples(encoder, cell.rows.whole(split), [], cell.kind, crop_samples)
            targets = encoded(labels, [row.label for row in rows], examples.lengths, cell.upstream.frame_samples)
            data[split] = replace(examples, targets=targets)
        else:
            values = [row.label for row in rows]
            data[split] = load_examples(kept, [row.keys for row in rows], values, labels, cell.upstream.frame_samples)
    return data


def prediction_rows(items: Items, predictions: Sequence[Any], metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """What is kept of every item of test, and what it adds to each metric."""
    return [
        {
            "id": name,
            **({} if speaker is None else {"speaker": speaker}),
            "prediction": prediction,
            "reference": reference,
            "statistics": {metric.name: metric.statistics(prediction, reference) for metric in metrics},
        }
        for name, speaker, prediction, reference in zip(
            items.ids, items.speakers, predictions, items.references, strict=True
        )
    ]


def write_predictions(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line for every item of test."""
    with written_then_renamed(folder / "predictions.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_files(
    folder: Path,
    cell: Cell,
    downstream: Downstream,
    best: Trained,
    candidates: Sequence[Trained],
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, str]:
    """Predictions, head and training history; the record, written last, holds their digests."""
    write_predictions(folder, rows)
    own, tuned = split_state(best)
    description = {**downstream.description, "upstream": cell.upstream.recorded()}
    save_trained(folder / "head.safetensors", replace(best, state=own), description)
    if cell.finetuned:
        save_tuned(folder, cell, tuned)
    write_json(
        folder / "history.json",
        [{**_tried(candidate), "history": candidate.history, **_divergence(candidate)} for candidate in candidates],
    )
    return {name: file_digest(folder / name) for name in files_of(cell.finetuned)}


def _tried(trained: Trained) -> dict[str, float]:
    """The learning rate, the layer where each is tried alone, and the upstream's learning rate where it has one."""
    named = {"layer": trained.layer, "upstream_rate": trained.upstream_rate}
    return {
        "learning_rate": trained.learning_rate,
        **{name: value for name, value in named.items() if value is not None},
    }


def _divergence(trained: Trained) -> dict[str, int]:
    """What is recorded of a training that diverged: when."""
    return {} if trained.diverged is None else {"diverged": trained.diverged}


def _record(
    cell: Cell,
    values: Mapping[str, float],
    best: Trained,
    candidates: Sequence[Trained],
    layer_weights: list[float],
    artifacts: Mapping[str, str],
    made: Mapping[str, Any],
) -> ResultRecord:
    metrics = [get_metric(name).recorded() for name in cell.task.metrics]
    return ResultRecord(
        run=cell.run,
        upstream=cell.upstream.recorded(),
        task=cell.task.recorded(),
        corpus={
            "name": cell.rows.corpus,
            "digest": cell.rows.digest,
            **cell.rows.divided,
            **({} if cell.rows.drawn is None else {"drawn": cell.rows.drawn.recorded()}),
        },
        recipe={**parsed_json(canonical_json(cell.recipe)), "digest": digest_of(cell.recipe)},
        audio=parsed_json(canonical_json(cell.audio)),
        protocol=PROTOCOL_VERSION,
        live=cell.exact,
        frames=cell.frames,
        fold=cell.fold,
        custom=cell.custom,
        seed=cell.seed,
        metrics=metrics,
        metric=metrics[0],
        value=values[metrics[0]["name"]],
        values=dict(values),
        learning_rate=best.learning_rate,
        learning_rates=[
            {
                **_tried(trained),
                "valid": trained.valid,
                "step": trained.step,
                **_divergence(trained),
            }
            for trained in candidates
        ],
        counts=cell.counts,
        layer_weights=layer_weights,
        features={
            "kind": cell.kind,
            "dtype": cell.dtype,
            "live": sorted(cell.passing),
            "departures": departures(cell),
        },
        artifacts=dict(artifacts),
        circumstances=made,
    )
