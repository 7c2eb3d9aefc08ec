"""Features as files: as the cache has them, in the corpus' order, in each format, each recording passed once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import call

import frostbench as fb
from core.audio import read_audio
from core.errors import BenchmarkError, CheckpointError, ContractError
from core.manifest import read_manifest
from core.records import RecordStore
from frostbench.jobs.progress import Watcher

ROOT = Path(__file__).parent.parent
FORMATS = ["npz", "safetensors", "parquet"]


def read(files: list[Path]) -> dict[str, np.ndarray]:
    """id -> array, as a stranger would read it."""
    found: dict[str, np.ndarray] = {}
    for path in files:
        if path.suffix == ".npz":
            with np.load(path) as archive:
                found |= {name: archive[name] for name in archive.files}
        elif path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            found |= load_file(path)
        elif path.suffix == ".parquet":
            import pyarrow.parquet as pq

            for row in pq.read_table(path).to_pylist():
                found[row["id"]] = np.array(row["values"]).reshape(row["shape"])
    return found


@pytest.fixture
def places(tmp_path):
    return {"cache": tmp_path / "cache", "workers": 1, "device": "cpu"}


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("kind", ["pooled", "frames"])
def test_each_format_holds_what_the_upstream_computes(file_format, kind, corpus_folder, tmp_path, places):
    *files, index = fb.features(
        "apc@untrained", tmp_path / "out", corpus=corpus_folder, file_format=file_format, kind=kind, **places
    )
    found, rows = read(files), read_manifest(corpus_folder / "metadata.jsonl").utterances
    assert set(found) == {row.id for row in rows}
    upstream = fb.upstream("apc@untrained")
    for row in rows[::11]:
        wavs, lengths = fb.pad([read_audio(row.path)])
        states = upstream.extract(wavs, lengths)
        expected = torch.stack(states.layers, dim=2)[0]  # (frames, layers, hidden_size)
        expected = expected.mean(dim=0) if kind == "pooled" else expected
        np.testing.assert_allclose(found[row.id], expected.numpy(), rtol=2e-3, atol=2e-3)
    about = json.loads(index.read_text(encoding="utf-8"))
    assert [each["id"] for each in about["utterances"]] == [row.id for row in rows], "in the corpus' order"
    assert {each["id"]: tuple(each["shape"]) for each in about["utterances"]} == {
        name: array.shape for name, array in found.items()
    }
    assert about["upstream"]["digest"] == upstream.digest()
    assert about["dtype"] == ("float32" if kind == "pooled" else "float16")


def test_the_formats_agree_to_the_bit_and_nothing_passes_twice(corpus_folder, tmp_path, places):
    told = []

    class Notes(Watcher):
        def stage(self, title, total, unit):
            told.append(title)

    made = {
        each: read(
            fb.features(
                "fbank",
                tmp_path / each,
                corpus=corpus_folder,
                file_format=each,
                kind="frames",
                progress=Notes(),
                **places,
            )[:-1]
        )
        for each in FORMATS
    }
    assert told.count("extracting features") == 1, "the others read the cache"
    for name, array in made["npz"].items():
        for other in ("safetensors", "parquet"):
            np.testing.assert_array_equal(array, made[other][name].astype(array.dtype))


def test_layers_are_those_that_were_asked_for(corpus_folder, tmp_path, places):
    common = {"corpus": corpus_folder, **places}
    whole = read(fb.features("apc@untrained", tmp_path / "all", **common)[:-1])
    some = read(fb.features("apc@untrained", tmp_path / "some", layers=[2, 0], **common)[:-1])
    one = read(fb.features("apc@untrained", tmp_path / "one", layers=1, **common)[:-1])
    for name, array in whole.items():
        np.testing.assert_array_equal(some[name], array[[2, 0]])
        np.testing.assert_array_equal(one[name], array[[1]])
    with pytest.raises(ContractError, match="apc \\(untrained\\) has layers 0 to 2, not 4, -1"):
        fb.features("apc@untrained", tmp_path / "no", layers=[4, -1], **common)
    assert not (tmp_path / "no").exists() or not list((tmp_path / "no").iterdir())


def test_the_sum_that_a_head_learned(corpus_folder, tasks_file, tmp_path, places):
    fb.evaluate(["apc@untrained"], [f"{tasks_file}:KS"], corpus=corpus_folder, output=tmp_path / "results", **places)
    (record,) = RecordStore(tmp_path / "results").all()
    asked = {"corpus": corpus_folder, "run": record.run[:8], "results": tmp_path / "results", **places}
    *files, index = fb.features("apc@untrained", tmp_path / "mix", **asked)
    whole = read(fb.features("apc@untrained", tmp_path / "all", corpus=corpus_folder, **places)[:-1])
    weights = np.array(record.layer_weights)
    assert np.ptp(weights) > 1e-3, "something was learned"
    for name, array in read(files).items():
        np.testing.assert_allclose(array, weights @ whole[name], rtol=1e-4, atol=1e-5)
    assert json.loads(index.read_text(encoding="utf-8"))["layer_weights"] == pytest.approx(record.layer_weights)
    with pytest.raises(CheckpointError, match="is one of apc"):
        fb.features("mockingjay@untrained", tmp_path / "no", **asked)
    with pytest.raises(ContractError, match="leave layers out"):
        fb.features("apc@untrained", tmp_path / "no", layers=1, **asked)
    head = RecordStore(tmp_path / "results").run_folder(record.run) / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(CheckpointError, match="not the head of this run"):
        fb.features("apc@untrained", tmp_path / "no", **asked)


def test_the_command_and_what_it_refuses(corpus_folder, tmp_path):
    command = ["features", "fbank", "--corpus", corpus_folder, "--cache", tmp_path / "cache", "--workers", "1"]
    called = call(*command, "--output", tmp_path / "out", "--format", "npz")
    assert called.code == 0
    assert [line.split(": ")[0] for line in called.out.splitlines()] == [
        str(tmp_path / "out" / "features.npz"), str(tmp_path / "out" / "index.json")
    ]  # fmt: skip
    refused = call(*command, "--output", tmp_path / "out", "--layers", "a,b")
    assert (refused.code, refused.err.strip()) == (2, "error: --layers 'a,b': write numbers, such as 9 or 3,6,9")
    (tmp_path / "file").touch()
    assert call(*command, "--output", tmp_path / "file").code == 2
    with pytest.raises(BenchmarkError, match="'fbnk': did you mean"):
        fb.features("fbnk", tmp_path / "out", corpus=corpus_folder, cache=tmp_path / "cache")


WIDE = """
import torch
import frostbench as fb


@fb.register_upstream(fb.UpstreamCard(name="wide", title="Much from little", paper="none"))
class Wide(fb.Upstream):
    num_layers, hidden_size, downsample_rate, min_samples = 2, 1024, 160, 160

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        blocks = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160))
        layer = blocks.mean(dim=2, keepdim=True) * torch.linspace(1, 2, 1024)
        return fb.HiddenStates((layer, 2 * layer), self.frame_lengths(wav_lengths))
"""
MEASURED = """
import sys, threading, time
import frostbench as fb

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.02)

fb.upstream(sys.argv[4])
peak = [0]
threading.Thread(target=watch, daemon=True).start()
fb.features(sys.argv[4], sys.argv[2], corpus=sys.argv[1], kind="frames", cache=sys.argv[3], workers=1, device="cpu")
print(peak[0] * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Three times as many recordings, whose features are 196 MB more and as computed twice that."""
    (tmp_path / "wide.py").write_text(WIDE, encoding="utf-8")
    wav = 0.1 * np.random.default_rng(0).normal(size=16_000 * 30).astype(np.float32)
    peaks, written = [], []
    for size in (8, 24):
        folder = tmp_path / f"corpus{size}"
        folder.mkdir()
        rows = [{"file_name": f"{number}.wav", "id": str(number), "split": "train"} for number in range(size)]
        for number, row in enumerate(rows):
            soundfile.write(folder / row["file_name"], np.roll(wav, number), 16_000)
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        places = [folder, tmp_path / f"out{size}", tmp_path / f"cache{size}"]
        command = [sys.executable, "-c", MEASURED, *places, f"{tmp_path / 'wide.py'}:Wide"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
        written.append((tmp_path / f"out{size}" / "features.npz").stat().st_size)
    assert written[1] - written[0] > 180e6
    assert peaks[1] - peaks[0] < 150e6, f"{peaks}"
