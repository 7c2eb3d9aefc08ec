"""The other side of the comparison: s3prl in its own environment, on the same recordings and weights."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks._measure import ROOT, run
from core.audio import SAMPLE_RATE, read_audio
from core.manifest import Manifest, Utterance
from upstreams._base import Upstream

PYTHON = ROOT / "benchmarks" / ".s3prl-env" / "bin" / "python"
DRIVER = ROOT / "benchmarks" / "_s3prl_driver.py"
SAME = 1e-3  # relative difference of mean absolute hidden states: other versions of torch, the same weights
_numbers = count()


def require_environment() -> None:
    """Raises SystemExit where there is none, with the command that makes it."""
    if not PYTHON.is_file():
        sys.exit(f"{PYTHON}: there is no environment with s3prl; make it with: make s3prl-env")


def drive(folder: Path, threads: int, **specification: Any) -> dict[str, Any]:
    """Trains with s3prl in a child process.

    Args:
        folder: for the files that go to and fro.
        threads: OMP_NUM_THREADS of the child.
        specification: see `_s3prl_driver.py`; what is left out here has a default.

    Returns: seconds_per_update, fingerprint, peak_bytes, and accuracy if `evaluate`.
    """
    name = f"s3prl-{next(_numbers)}"
    (folder / name).mkdir()
    defaults = {"accumulate": 1, "balanced": False, "gain_db": 0.0, "seed": 0, "warm_up": 1, "evaluate": False}
    files = {"folder": str(folder / name), "output": str(folder / name / "outcome.json")}
    asked = folder / name / "specification.json"
    asked.write_text(json.dumps({**defaults, **files, **specification}), encoding="utf-8")
    run([PYTHON, DRIVER, asked], threads)
    return dict(json.loads(Path(files["output"]).read_text(encoding="utf-8")))


def fastest(folder: Path, threads: Sequence[int], **specification: Any) -> tuple[int, dict[str, Any]]:
    """The number of threads with which s3prl needs the least time for an update, and what it did with them."""
    outcomes = {number: drive(folder, number, **specification) for number in threads}
    best = min(outcomes, key=lambda number: outcomes[number]["seconds_per_update"])
    return best, outcomes[best]


def copies(manifest: Manifest, folder: Path) -> dict[str, Path]:
    """Every recording at 16 kHz as Frostbench hears it: s3prl resamples in other ways, or not at all."""
    folder.mkdir()
    paths = {}
    for row in manifest.utterances:
        paths[row.id] = folder / f"{len(paths):05d}.wav"
        soundfile.write(paths[row.id], read_audio(row.path).numpy(), SAMPLE_RATE, subtype="FLOAT")
    return paths


def hubert(folder: Path) -> dict[str, Any]:
    """How s3prl names a folder of `save_pretrained`."""
    return {"upstream": "hf_hubert_custom", "upstream_ckpt": str(folder)}


def fbank(folder: Path) -> dict[str, Any]:
    """s3prl's `fbank_no_cmvn`, which is Frostbench's `fbank`; the wheel lacks its file of settings."""
    kaldi = {"num_mel_bins": 80, "frame_length": 25.0, "frame_shift": 10.0, "use_log_fbank": True}
    settings = {"kaldi": {"feat_type": "fbank", "fbank": kaldi}, "delta": {"order": 2, "win_length": 5}}
    path = folder / "fbank_no_cmvn.yaml"
    path.write_text(json.dumps({**settings, "cmvn": {"use_cmvn": False}}), encoding="utf-8")  # JSON is YAML
    return {"upstream": "baseline_local", "upstream_model_config": str(path)}


def librispeech(folder: Path, rows: Sequence[Utterance]) -> Path:
    """Rows with a text, laid out as s3prl's data set wants LibriSpeech, all in one chapter of a split `train`."""
    chapter = folder / "train" / "1" / "1"
    chapter.mkdir(parents=True)
    characters: Counter[str] = Counter()
    with (folder / "train.csv").open("w", newline="") as table, (chapter / "1-1.trans.txt").open("w") as texts:
        writer = csv.writer(table)
        writer.writerow(["file_path", "length"])
        for number, row in enumerate(rows):
            wav = read_audio(row.path).numpy()
            name = f"1-1-{number:04d}"
            soundfile.write(chapter / f"{name}.wav", wav, SAMPLE_RATE, subtype="FLOAT")
            writer.writerow([f"train/1/1/{name}.wav", len(wav)])
            text = str(row.labels["text"]).upper()
            texts.write(f"{name} {text}\n")
            characters.update(text.replace(" ", "|") + "|")
    lines = [f"{character} {number}\n" for character, number in characters.most_common()]
    (folder / "char.dict").write_text("".join(lines), encoding="utf-8")
    return folder


@torch.no_grad()
def require_same(upstream: Upstream, outcome: Mapping[str, Any]) -> None:
    """Makes sure that both sides have the same weights.

    Raises: SystemExit: the hidden states of one waveform differ.
    """
    wav = torch.from_numpy(np.sin(np.arange(SAMPLE_RATE) / 7).astype(np.float32) / 2)
    states = upstream.extract(wav[None], torch.tensor([len(wav)]))
    ours = torch.tensor([layer.abs().mean() for layer in states.layers])
    theirs = torch.tensor(outcome["fingerprint"])
    off = ((ours - theirs).abs() / theirs).max().item() if len(ours) == len(theirs) else float("inf")
    if off > SAME:
        sys.exit(f"s3prl's hidden states differ by {off:.1e} from ours: the two sides do not run the same upstream")
