"""One cell, top to bottom: cached features -> a head for every learning rate -> the best on valid -> test -> record."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from core.digest import digest_of, file_digest, write_json, written_then_renamed
from core.feature_cache import Dtype, FeatureCache, Kind, caches_of
from core.records import RecordStore, ResultRecord
from downstreams._base import HEADS, FeatureShape
from downstreams._data import Examples, load_examples
from downstreams._labels import Labels
from downstreams._training import Probe, Trained, load_trained, predict, save_trained, train
from tasks._executors import Advance
from tasks._live import LiveExamples
from tasks._metrics import Metric, get_metric
from tasks._plan import Cell, UpstreamFacts, departures
from tasks._provenance import circumstances
from upstreams._clips import Clip
from upstreams._encoding import Encoder
from upstreams._extraction import extract
from upstreams._resolve import build_upstream


@dataclass(frozen=True)
class Folders:
    """Where things are kept: features and trained candidates in the cache, records and their files in results."""

    cache: Path
    results: Path


def extract_features(
    upstream: UpstreamFacts,
    batches: Sequence[list[Clip]],
    dtypes: Mapping[Kind, Dtype],
    cache: Path,
    device: str,
    *,
    advance: Advance,
) -> int:
    """A job: computes what the cache lacks of some batches, and returns how many clips passed the upstream."""
    kinds: set[Kind] = {kind for batch in batches for clip in batch for kind in clip.kinds}
    caches = caches_of(cache, upstream.digest, kinds, dtypes)
    return extract(build_upstream(upstream.spec), batches, caches, torch.device(device), advance, upstream.precision)


def run_cell(cell: Cell, folders: Folders, device: str, *, advance: Advance) -> str:
    """A job: trains and evaluates one cell, and returns its run digest once the record is written."""
    started = time.monotonic()
    labels: Labels = HEADS.get(cell.task.head).labels_from_train(
        [example.label for example in cell.examples["train"]], cell.task.label, cell.recipe
    )
    data = _examples(cell, labels, folders.cache, device)
    loaded = time.monotonic()
    metric = get_metric(cell.task.metric)
    candidates = _candidates(cell, data, labels, metric, folders, device, advance)
    best = _best(candidates, metric)
    trained = time.monotonic()

    probe = _new_probe(cell, labels)
    probe.load_state_dict(dict(best.state))
    predictions, _ = predict(probe.to(device), data["test"], torch.device(device))
    references = [labels.reference(example.label) for example in cell.examples["test"]]
    value = metric.compute(predictions, references)
    store = RecordStore(folders.results)
    artifacts = _write_files(store.run_folder(cell.run), cell, probe, best, candidates, predictions, references)
    seconds = {
        "load": loaded - started,
        "train": trained - loaded,
        "test": time.monotonic() - trained,
    }
    weights = probe.featurizer.layer_weights().tolist()
    made = {"upstream_spec": cell.upstream.spec, **circumstances(device, seconds)}
    store.add(_record(cell, metric, value, best, candidates, weights, artifacts, made))
    return cell.run


def _examples(cell: Cell, labels: Labels, cache: Path, device: str) -> dict[str, Examples]:
    """Split -> features and targets: from the cache, or from the upstream whenever they are drawn."""
    kept = FeatureCache(cache, cell.upstream.digest, cell.kind, cell.dtype)
    data: dict[str, Examples] = {
        split: load_examples(kept, [row.keys for row in rows], [row.label for row in rows], labels)
        for split, rows in cell.examples.items()
        if split not in cell.live
    }
    if cell.live:
        upstream = build_upstream(cell.upstream.spec).to(device)
        encoder = Encoder(upstream, torch.device(device), cell.upstream.precision)
    for split, clips in cell.live.items():
        targets = [labels.encode(row.label) for row in cell.examples[split]]
        crop_samples = cell.recipe.crop_samples if split == "train" else 0
        data[split] = LiveExamples(encoder, clips, targets, cell.kind, crop_samples)
    return data


def _new_probe(cell: Cell, labels: Labels) -> Probe:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        shape = FeatureShape(cell.upstream.hidden_size, cell.upstream.downsample_rate)
        return Probe(cell.task.head, cell.upstream.num_layers, shape, labels, cell.recipe)


def _candidates(
    cell: Cell,
    data: Mapping[str, Examples],
    labels: Labels,
    metric: Metric,
    folders: Folders,
    device: str,
    advance: Callable[[float], None],
) -> list[Trained]:
    """A trained head for every learning rate; those that an interrupted run has finished are read, not made again."""
    references = [labels.reference(example.label) for example in cell.examples["valid"]]
    candidates = []
    for learning_rate in cell.recipe.learning_rates:
        digest = digest_of([cell.run, learning_rate])
        path = folders.cache / "heads" / f"{digest[:32]}.safetensors"
        if path.is_file():
            candidates.append(load_trained(path)[0])
            advance(cell.recipe.steps)
            continue
        probe = _new_probe(cell, labels)
        trained = train(
            probe,
            data,
            lambda predictions: metric.compute(predictions, references),
            metric.sign,
            cell.recipe,
            learning_rate,
            cell.seed,
            torch.device(device),
            advance,
        )
        save_trained(path, trained, probe.description)
        candidates.append(trained)
    return candidates


def _best(candidates: Sequence[Trained], metric: Metric) -> Trained:
    best: Trained | None = None
    for candidate in candidates:
        if candidate.better_than(best, metric.sign):
            best = candidate
    assert best is not None, "a recipe has at least one learning rate"
    return best


def _write_files(
    folder: Path,
    cell: Cell,
    probe: Probe,
    best: Trained,
    candidates: Sequence[Trained],
    predictions: Sequence[Any],
    references: Sequence[Any],
) -> dict[str, str]:
    """Predictions, head and training history; the record, written last, holds their digests."""
    with written_then_renamed(folder / "predictions.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        for example, prediction, reference in zip(cell.examples["test"], predictions, references, strict=True):
            row = {"id": example.id, "prediction": prediction, "reference": reference}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    save_trained(folder / "head.safetensors", best, {**probe.description, "upstream": cell.upstream.recorded()})
    write_json(
        folder / "history.json",
        [{"learning_rate": candidate.learning_rate, "history": candidate.history} for candidate in candidates],
    )
    names = ("predictions.jsonl", "head.safetensors", "history.json")
    return {name: file_digest(folder / name) for name in names}


def _record(
    cell: Cell,
    metric: Metric,
    value: float,
    best: Trained,
    candidates: Sequence[Trained],
    layer_weights: list[float],
    artifacts: Mapping[str, str],
    made: Mapping[str, Any],
) -> ResultRecord:
    return ResultRecord(
        run=cell.run,
        upstream=cell.upstream.recorded(),
        task={"name": cell.task.name, "title": cell.task.title, "head": cell.task.head, "label": cell.task.label},
        corpus={"name": cell.corpus, "digest": cell.corpus_digest},
        recipe={**asdict(cell.recipe), "digest": digest_of(cell.recipe)},
        custom=cell.custom,
        seed=cell.seed,
        metric={key: getattr(metric, key) for key in ("name", "title", "unit", "direction")},
        value=value,
        learning_rate=best.learning_rate,
        learning_rates=[
            {"learning_rate": trained.learning_rate, "valid": trained.valid, "step": trained.step}
            for trained in candidates
        ],
        counts={split: len(rows) for split, rows in cell.examples.items()},
        layer_weights=layer_weights,
        features={
            "kind": cell.kind,
            "dtype": cell.dtype,
            "live": sorted(cell.live),
            "departures": departures(cell),
        },
        artifacts=dict(artifacts),
        circumstances=made,
    )
