"""Results as a run leaves them, made by hand: records whose every figure follows from the files beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import torch
from safetensors.torch import save_file
from test_records import record, task

from core.digest import canonical_json, digest_of, file_digest, write_json
from core.metrics import get_metric
from core.records import FILES, RecordStore, ResultRecord

WER, ACCURACY = get_metric("wer").recorded(), get_metric("accuracy").recorded()
ASR = task(
    name="asr", title="Speech recognition", head="ctc", default_head="ctc", label="text", metrics=["wer"], select="wer"
)
MEANS = {"kind": "pooled", "dtype": "float32", "live": [], "departures": []}
FRAMES = {"kind": "frames", "dtype": "float16", "live": [], "departures": []}
RECIPE = {"name": "fast", "steps": 20, "learning_rates": [0.1, 0.01]}
# valid of both rates, first and second look: the best is 0.1 at its second look, whatever the direction
LOOKS = {"higher": {0.1: (40.0, 50.0), 0.01: (40.0, 45.0)}, "lower": {0.1: (60.0, 50.0), 0.01: (60.0, 55.0)}}


def upstream(name: str, params: int = 0, digest: str = "", layers: int = 1) -> dict:
    facts = {"name": name, "digest": digest or name, "params": params, "num_layers": layers}
    return {**facts, "hidden_size": 2, "downsample_rate": 160, "precision": "float32"}


def rows_of(pairs: Sequence[tuple[object, object]], speakers: int = 0) -> list[dict]:
    """(prediction, reference) pairs as rows, dealt out to the speakers in turn."""
    rows = [{"id": f"u{n}", "prediction": said, "reference": meant} for n, (said, meant) in enumerate(pairs)]
    return [{**row, "speaker": f"s{n % speakers}"} for n, row in enumerate(rows)] if speakers else rows


def classified(right: Sequence[int], speakers: int = 0) -> list[dict]:
    """Rows of a keyword task: 1 is right."""
    return rows_of([("yes" if each else "no", "yes") for each in right], speakers)


def add(store: RecordStore, rows: Sequence[dict], metric: dict = ACCURACY, **changes: object) -> ResultRecord:
    """Writes a run with its files; nothing in it contradicts another. Metrics of a task among the changes all count."""
    history = [
        {
            "learning_rate": rate,
            "history": [
                {"step": 10 * number, "train_loss": 1.0, "valid_loss": 1 / number, "valid": valid}
                for number, valid in enumerate(looks, start=1)
            ],
        }
        for rate, looks in LOOKS[metric["direction"]].items()
    ]
    made = record(
        upstream=upstream("fbank"),
        task=task() if metric is ACCURACY else ASR,
        recipe=RECIPE | {"digest": digest_of(RECIPE)},
        frames="float16" if metric["name"] in ("wer", "cer") else None,
        features=FRAMES if metric["name"] in ("wer", "cer") else MEANS,
        metric=metric,
        counts={"train": 3, "valid": 2, "test": len(rows)},
        learning_rates=[
            {"learning_rate": each["learning_rate"], "valid": each["history"][1]["valid"], "step": 20}
            for each in history
        ],
    )
    made = replace(made, **changes)
    scales = [get_metric(name) for name in made.task["metrics"]]
    texts = [row["prediction"] for row in rows], [row["reference"] for row in rows]
    values = {scale.name: scale.compute(*texts) for scale in scales}
    first = scales[0].name
    made = replace(made, metrics=[scale.recorded() for scale in scales], value=values[first], values=values)
    made = replace(made, run=made.inputs_digest())
    folder = store.run_folder(made.run)
    folder.mkdir(parents=True)
    lines = [
        {**row, "statistics": {scale.name: scale.statistics(row["prediction"], row["reference"]) for scale in scales}}
        for row in rows
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    weights = torch.arange(float(made.upstream["num_layers"]))
    told = {"trained": {"learning_rate": made.learning_rate}, "description": {"upstream": made.upstream}}
    save_file({"featurizer.weights": weights}, folder / "head.safetensors", {"frostbench": canonical_json(told)})
    write_json(folder / "history.json", history)
    digests = {name: file_digest(folder / name) for name in FILES}
    made = replace(made, layer_weights=weights.softmax(dim=0).tolist(), artifacts=digests)
    store.add(made)
    return made
