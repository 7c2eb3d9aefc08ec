"""A piece of a long recording is what a file of its own would be, on every way to a result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_tasks

import frostbench as fb
from core.audio import SAMPLE_RATE, read_audio
from core.manifest import Manifest
from tasks._audio import AudioRecipe

CROP = 3_000
KS = replace(tiny_tasks.KS, recipes={"tiny": replace(tiny_tasks.CLASSIFY, steps=30)})
CROPPED = replace(KS, audio={"tiny": AudioRecipe(crop_samples=CROP, crops=3)})
ASR = replace(tiny_tasks.ASR, recipes={"tiny": replace(tiny_tasks.TRANSCRIBE, steps=20, eval_every=10)})


@pytest.fixture(scope="module")
def corpora(corpus: Manifest, tmp_path_factory) -> tuple[Path, Path]:
    """The same utterances as files, and as pieces of one file a split, with noise before and behind each."""
    folder, rng = tmp_path_factory.mktemp("pieces"), np.random.default_rng(0)
    files, pieces = folder / "files", folder / "pieces"
    rows: dict[Path, list[dict]] = {files: [], pieces: []}
    for place in rows:
        place.mkdir()
    for split in ("train", "valid", "test"):
        parts, end = [], 0
        for row in corpus.split(split):
            if "text" not in row.labels:
                continue
            wav, gap = read_audio(row.path).numpy(), rng.uniform(-1, 1, int(rng.integers(100, 900)))
            soundfile.write(files / f"{row.id}.wav", wav, SAMPLE_RATE, "FLOAT")
            start = end + len(gap)
            parts += [gap, wav]
            end = start + len(wav)
            known = {"id": row.id, "split": split, **row.labels}
            rows[files].append({"file_name": f"{row.id}.wav", **known})
            place = {"start_sample": start, "stop_sample": end}
            rows[pieces].append({"file_name": f"{split}.wav", **place, **known})
        soundfile.write(
            pieces / f"{split}.wav", np.concatenate([*parts, rng.uniform(-1, 1, 500)]), SAMPLE_RATE, "FLOAT"
        )
    for place, lines in rows.items():
        (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return files, pieces


WAYS = {
    "means": (KS, {}),
    "frames": (ASR, {}),
    "8 bits": (ASR, {"frames": "int8"}),
    "recompute": (ASR, {"frames": "recompute"}),
    "new crops": (CROPPED, {"exact": True}),
}


@pytest.mark.parametrize("way", WAYS)
def test_pieces_give_what_files_give(corpora, way, tmp_path):
    task, options = WAYS[way]
    results = []
    for number, corpus in enumerate(corpora):
        folders = {"output": tmp_path / f"results{number}", "cache": tmp_path / f"cache{number}"}
        results.append(fb.evaluate("fbank", task, corpus=corpus, workers=1, device="cpu", **folders, **options))
    (one,), (other,) = (each.records for each in results)
    for field in ("value", "learning_rates", "layer_weights", "counts"):
        assert getattr(one, field) == getattr(other, field)
    columns = ["id", "prediction", "reference", "speaker"]
    assert results[0].predictions()[columns].equals(results[1].predictions()[columns])
    assert one.circumstances["layer_norms"] == other.circumstances["layer_norms"]
