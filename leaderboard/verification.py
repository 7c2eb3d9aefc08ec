"""Recomputes what a folder of results claims: every digest, and every figure that follows from another.

It finds whatever was changed after it was written, by accident or by hand, and says which file. It can't find a result
that was made up as a whole, with all its files: that takes running the cell again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from core.digest import digest_of, file_digest, parsed_json
from core.errors import BenchmarkError, MetricError
from core.metrics import Metric, find_metric
from core.records import (
    NAME_LENGTH,
    TUNED_FILE,
    WORST_FILE,
    RecordStore,
    ResultRecord,
    StoredRecord,
    inputs_digest,
    read_stored,
)
from core.selection import best_on_valid
from core.worst_waveforms import read_waveforms
from leaderboard.stored_predictions import FILE_NAME, Prediction, as_typed, read_rows
from leaderboard.usable_records import unfit

ROUNDING = 1e-5  # of a softmax computed on another machine
COMPOSED_SINCE = 3  # schema of records from which on metrics compose letters with their accents
EXACT = 1e-9  # of a value computed from the same predictions


@dataclass(frozen=True)
class Finding:
    """A file that does not fit.

    Attributes:
        path: of the file.
        problem: what is wrong with it.
    """

    path: Path
    problem: str


def verify(store: RecordStore, advance: Callable[[int], None] = lambda records: None) -> list[Finding]:
    """Everything in a folder of results that does not fit, in the order of the files.

    Args:
        store: the folder.
        advance: called after every record.
    """
    findings: list[Finding] = []
    for path in store.paths():
        try:
            findings += _record_findings(store, path)
        except OSError as error:
            findings.append(Finding(Path(error.filename or path), f"can't be read ({error.strerror})"))
        except (SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
            findings.append(Finding(path, f"it, or a file beside it, lacks what it should hold ({error!r})"))
        advance(1)
    return findings


def strays(store: RecordStore) -> list[Path]:
    """Folders of runs without a record: an interrupted run leaves them; the same command makes the record."""
    known = {path.stem for path in store.paths()}
    return sorted(path for path in (store.folder / "runs").glob("[!.]*") if path.name not in known)


def _record_findings(store: RecordStore, path: Path) -> Iterator[Finding]:
    try:
        stored = read_stored(path)
    except BenchmarkError as error:
        yield Finding(path, str(error).removeprefix(f"{path}: "))
        return
    record = stored.record
    if path.name != f"{record.run[:NAME_LENGTH]}.json":
        yield Finding(path, f"has another name than its run, {record.run[:NAME_LENGTH]}.json")
    if not stored.holds:
        yield Finding(path, "was changed after it was written: its digest is another one")
    elif not stored.as_written:
        yield Finding(path, "was changed after it was written: it says the same, but in other bytes")
    lacking = unfit(record)
    if lacking is not None:
        yield Finding(path, lacking)
        return
    yield from (Finding(path, problem) for problem in (*_contradictions(stored), *_wrong_features(stored)))
    yield from (Finding(path, problem) for problem in _other_head(record, store))
    folder = store.run_folder(record.run)
    wrong = {finding.path.name: finding for finding in _wrong_files(record, folder, path.name)}
    yield from wrong.values()
    compared = (
        ("history.json", _history), ("head.safetensors", _head), (TUNED_FILE, _tuned), (WORST_FILE, _waveforms),
    )  # fmt: skip
    for name, compare in compared:
        if name not in wrong and name in record.files:
            yield from (Finding(path, problem) for problem in compare(record, folder / name))
    if FILE_NAME not in wrong:
        yield from _predictions(stored, path, folder / FILE_NAME)


def _other_head(record: ResultRecord, store: RecordStore) -> Iterator[str]:
    """What is heard in a condition is heard by the head of the run without it, if that is there."""
    if record.condition is None or record.run_of_clean() not in store:
        return
    try:
        clean = read_stored(store.path(record.run_of_clean())).record
    except BenchmarkError:  # a finding of its own
        return
    for name in (name for name in record.files if name != FILE_NAME):
        if record.artifacts.get(name) != clean.artifacts.get(name):
            yield f"its {name} is not that of {clean.run[:NAME_LENGTH]}.json, whose head is heard in {record.condition}"


def _wrong_files(record: ResultRecord, folder: Path, name: str) -> Iterator[Finding]:
    for file in (folder / each for each in record.files):
        if not file.is_file():
            yield Finding(file, "is missing")
        elif file_digest(file) != record.artifacts.get(file.name):
            yield Finding(file, f"is not the file that {name} was made from: its digest is another one")
    for extra in sorted(folder.glob("[!.]*")):
        if extra.name not in record.files:
            yield Finding(extra, "does not belong there")


def _contradictions(stored: StoredRecord) -> Iterator[str]:
    """What the record says against itself."""
    record = stored.record
    if inputs_digest(stored.content) != record.run:
        yield "its run is not the digest of the inputs it names: upstream, task, corpus, recipe or seed was changed"
    names = [facts["name"] for facts in record.metrics]
    if names != list(record.task["metrics"]) or set(names) != set(record.values):
        yield f"has values of the metrics {sorted(record.values)}, its task has {', '.join(record.task['metrics'])}"
    if record.metric != record.metrics[0] or record.value != record.values.get(record.metric["name"]):
        yield f"its metric and value, {record.metric['name']} {record.value}, are not the first of its metrics"
    recipe = {key: value for key, value in stored.content["recipe"].items() if key != "digest"}
    if digest_of(recipe) != stored.content["recipe"].get("digest"):
        yield "the digest of its recipe is not that of its fields"
    foreign = {each["learning_rate"] for each in record.learning_rates} - set(recipe.get("learning_rates", ()))
    if foreign:
        yield f"tried the learning rates {sorted(foreign)}, which its recipe does not have"
    if record.layer is not None and any(each.get("layer") != record.layer for each in record.learning_rates):
        yield f"tried other layers than {record.layer}, the only one that its recipe has"
    yield from _wrong_rates_of_upstream(record)
    if record.drawn is not None and not (
        record.counts["train"] <= record.drawn["whole_train"]
        and record.drawn["seconds"] <= record.drawn["whole_seconds"]
    ):
        yield f"its budget drew {record.counts['train']} recordings of train, which is more than the whole"
    if len(record.layer_weights) != record.upstream["num_layers"]:
        yield f"{len(record.layer_weights)} layer weights for {record.upstream['num_layers']} layers"
    if abs(sum(record.layer_weights) - 1) > ROUNDING:
        yield f"its layer weights sum to {sum(record.layer_weights):.6f}"


def _wrong_rates_of_upstream(record: ResultRecord) -> Iterator[str]:
    """What was tried of a fine-tuned upstream, and of a frozen one nothing."""
    given = (record.recipe.get("finetune") or {}).get("learning_rates", [None])
    tried = [each.get("upstream_rate") for each in record.learning_rates]
    if tried != list(given) and (record.finetuning is not None or set(tried) != {None}):
        yield f"tried the learning rates {tried} of the upstream, its recipe has {list(given)}"


def _wrong_features(stored: StoredRecord) -> Iterator[str]:
    """What the features must have been, by frames, recipe and crops; older schemas say less of them."""
    record = stored.record
    if stored.content["schema_version"] < 3:
        return
    pooled = "pooled_normalised" if record.recipe.get("normalise") else "pooled"
    everything = record.frames == "recompute" or record.finetuning is not None
    splits = ["test", "train", "valid"] if everything else ["train"] if record.live else []
    expected = {
        "kind": pooled if record.frames is None else "frames",
        "dtype": "float32" if everything or record.frames is None else record.frames,
        "live": splits,
    }
    found = {key: record.features.get(key) for key in expected}
    if found != expected:
        yield f"its features are {found}, by its inputs they are {expected}"


def _history(record: ResultRecord, path: Path) -> Iterator[str]:
    """The search: what was best of each rate, and which rate of all, must follow from the history."""
    directions = {facts["name"]: facts["direction"] for facts in record.metrics}
    sign = 1 if directions[record.task["select"]] == "higher" else -1
    chosen: list[tuple[Tried, Mapping[str, Any]]] = []
    content = {_tried(each): each for each in parsed_json(path.read_text(encoding="utf-8"))}
    looks = {rate: each["history"] for rate, each in content.items()}
    if list(looks) != list(map(_tried, record.learning_rates)):
        yield f"its learning rates are not those of history.json, {', '.join(map(_called, looks))}"
        return
    for tried in record.learning_rates:
        rate = _tried(tried)
        if content[rate].get("diverged") != tried.get("diverged"):
            yield f"learning rate {_called(rate)}: history.json says otherwise of whether it diverged"
            return
        if tried.get("diverged") is not None:
            if tried["valid"] is not None:
                yield f"learning rate {_called(rate)}: says {tried['valid']}, although it diverged"
                return
            continue
        found = best_on_valid(looks[rate], _on_valid, sign)
        if found is None or (found["valid"], found["step"]) != (tried["valid"], tried["step"]):
            said = f"says {tried['valid']} at step {tried['step']}"
            yield f"learning rate {_called(rate)}: {said}, history.json says otherwise"
            return
        chosen.append((rate, found))
    best = best_on_valid(chosen, lambda each: _on_valid(each[1]), sign)
    if best is None or best[0].rate != record.learning_rate:
        yield f"learning rate {record.learning_rate:g} is not the one that was best on valid"

    elif best[0].layer is not None and record.layer_weights[best[0].layer] != 1:
        yield f"layer {best[0].layer} was best on valid, but it is not the one that its layer weights take"


class Tried(NamedTuple):
    """One training: no layer where a sum of all is learned, no rate of an upstream that is frozen."""

    rate: float
    layer: int | None
    upstream_rate: float | None


def _tried(entry: Mapping[str, Any]) -> Tried:
    return Tried(entry["learning_rate"], entry.get("layer"), entry.get("upstream_rate"))


def _called(tried: Tried) -> str:
    layer = "" if tried.layer is None else f" with layer {tried.layer}"
    upstream = "" if tried.upstream_rate is None else f" and {tried.upstream_rate:g} of the upstream"
    return f"{tried.rate:g}{layer}{upstream}"


def _on_valid(look: Mapping[str, Any]) -> tuple[float, float]:
    return look["valid"], look["valid_loss"]


def _head(record: ResultRecord, path: Path) -> Iterator[str]:
    """The trained head: its layer weights, learning rate and upstream are those of the record."""
    with safe_open(path, framework="pt") as file:
        told = parsed_json(file.metadata()["frostbench"])
        weights = file.get_tensor("featurizer.weights").softmax(dim=0).tolist()
    if len(weights) != len(record.layer_weights) or any(
        abs(one - other) > ROUNDING for one, other in zip(weights, record.layer_weights, strict=True)
    ):
        yield "its layer weights are not those of the trained head"
    if told["trained"]["learning_rate"] != record.learning_rate:
        yield f"head.safetensors was trained with learning rate {told['trained']['learning_rate']:g}"
    upstream = told["description"]["upstream"]
    if {key: upstream.get(key) for key in record.upstream} != record.upstream:
        yield f"head.safetensors was trained on another upstream, {upstream}"


def _tuned(record: ResultRecord, path: Path) -> Iterator[str]:
    """The parameters of the upstream that were trained: of this upstream, and trained as the recipe says.

    What they compute is not computed again: that takes the upstream and the recordings (`predict`).
    """
    with safe_open(path, framework="pt") as file:
        told = parsed_json(file.metadata()["frostbench"])
        count = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    if told != {"finetune": record.recipe["finetune"], "upstream": record.upstream["digest"]}:
        yield f"{TUNED_FILE} was trained otherwise, or on another upstream: {told}"
    costs = record.circumstances.get("finetuning", {})
    if count != costs.get("trained_parameters", 0) - costs.get("frozen_trained_parameters", 0):
        yield f"counts other parameters than the {count} of {TUNED_FILE} as trained"


def _waveforms(record: ResultRecord, path: Path) -> Iterator[str]:
    """Waveforms of recordings of test. That they are what the head makes of them takes the upstream (`predict`)."""
    try:
        kept = read_waveforms(path)
        ids = {row.id for row in read_rows(path.parent / FILE_NAME, record.metric["name"])}
    except (BenchmarkError, OSError) as error:
        yield f"{WORST_FILE} can't be compared: {error}"
        return
    yield from (f"{WORST_FILE} has '{name}', which is no recording of test" for name in kept if name not in ids)


def _predictions(stored: StoredRecord, path: Path, file: Path) -> Iterator[Finding]:
    """The values: every row's statistics, what they come to, and how many rows there are."""
    try:
        rows = read_rows(file, stored.record.metric["name"])
    except BenchmarkError as error:
        yield Finding(file, str(error).removeprefix(f"{file}, "))
        return
    record = stored.record
    if stored.content["schema_version"] < COMPOSED_SINCE:
        rows = [replace(row, prediction=as_typed(row.prediction), reference=as_typed(row.reference)) for row in rows]
    if str(record.fold) not in record.corpus.get("folds", (str(record.fold),)):
        yield Finding(path, f"tested on {record.fold}, which is none of its corpus's folds")
    counted = record.counts.get("trials", record.counts["test"])
    if len(rows) != counted:
        what = "trials" if "trials" in record.counts else "test utterances"
        yield Finding(path, f"counts {counted} {what}, {FILE_NAME} has {len(rows)}")
    for facts in record.metrics:
        metric = find_metric(facts["name"])
        if metric is None:
            yield Finding(
                path, f"metric '{facts['name']}' is not known here, so its value can't be recomputed: install the "
                f"package that registers it"
            )  # fmt: skip
        elif metric.recorded() != facts:
            yield Finding(path, f"describes metric '{metric.name}' as {facts}, it is {metric.recorded()}")
        else:
            yield from _of_metric(metric, record, rows, path, file)


def _of_metric(
    metric: Metric, record: ResultRecord, rows: Sequence[Prediction], path: Path, file: Path
) -> Iterator[Finding]:
    found = [metric.statistics(row.prediction, row.reference) for row in rows]
    for number, (row, statistics) in enumerate(zip(rows, found, strict=True), start=1):
        said = row.statistics.get(metric.name)
        if said is None or not all(map(_close, said, statistics)) or len(said) != len(statistics):
            yield Finding(file, f"line {number}: says {metric.name} {_listed(said)}, it has {_listed(statistics)}")
    try:
        value = metric.of(found) if found else None
    except MetricError:
        value = None
    said_value = record.values.get(metric.name)
    if value is None or said_value is None or not _close(value, said_value):
        yield Finding(path, f"its {metric.name} is {said_value}, the predictions give {value}")


def _listed(statistics: Sequence[float] | None) -> str:
    return "none" if statistics is None else "/".join(f"{each:g}" for each in statistics)


def _close(one: float, other: float) -> bool:
    """Equal but for the last bits, in which machines may compute a score differently."""
    return math.isclose(one, other, rel_tol=EXACT, abs_tol=EXACT)
