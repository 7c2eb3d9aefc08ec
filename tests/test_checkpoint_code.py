"""Code that a checkpoint or a data set brings, and pickles that could run some: nothing of it ever runs."""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faulty_checkpoints import (
    CONFIG,
    PREPROCESSOR,
    WEIGHTS,
    edit,
    refusal,
    save_hubert,
)
from pretrained_files import (
    apc_content,
)

from core.errors import CheckpointError, ManifestError
from upstreams._resolve import build_upstream

CODE = """
import pathlib
pathlib.Path({marker!r}).touch()
from transformers import HubertConfig as Config, HubertModel as Model, Wav2Vec2FeatureExtractor as Extractor
from transformers import Wav2Vec2CTCTokenizer as Tokenizer, Wav2Vec2Processor as Processor
Config.model_type = "my_encoder"
"""
OWN_CODE: dict[str, tuple[str, dict[str, Any]]] = {
    "configuration": (CONFIG, {"model_type": "my_encoder", "auto_map": {"AutoConfig": "code.Config"}}),
    "configuration of a known kind": (CONFIG, {"auto_map": {"AutoConfig": "code.Config"}}),
    "model": (CONFIG, {"auto_map": {"AutoModel": "code.Model"}}),
    "model of another repository": (CONFIG, {"auto_map": {"AutoModel": "somebody/repo--code.Model"}}),
    "feature extractor": (PREPROCESSOR, {"auto_map": {"AutoFeatureExtractor": "code.Extractor"}}),
    "text": (CONFIG, {"auto_map": "code.Model"}),
}
NO_MATTER = {
    "tokenizer": (CONFIG, {"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}}),
    "tokenizer of its own": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}}),
    "processor": (PREPROCESSOR, {"auto_map": {"AutoProcessor": "code.Processor"}}),
}


@pytest.fixture
def nobody_asks(monkeypatch):
    """A question on the terminal would be answered with yes."""
    asked: list[str] = []
    monkeypatch.setattr(builtins, "input", lambda question="": asked.append(question) or "y")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\ny\n"))
    monkeypatch.setattr("signal.alarm", lambda seconds: asked.append("alarm") or 0)
    yield
    assert asked == []


def plant(folder: Path, file: str, values: dict[str, Any]) -> Path:
    marker = folder / "RAN"
    (folder / "code.py").write_text(CODE.format(marker=str(marker)))
    if not (folder / file).exists():
        (folder / file).write_text("{}")
    edit(folder, file, **values)
    return marker


@pytest.mark.parametrize("place", OWN_CODE)
def test_code_of_a_checkpoint_is_not_run_and_nobody_is_asked(place, tmp_path, nobody_asks):
    folder = save_hubert(tmp_path)
    marker = plant(folder, *OWN_CODE[place])
    message = refusal(f"hf:{folder}")
    assert "Frostbench never runs code of a checkpoint" in message
    assert OWN_CODE[place][0] in message
    assert not marker.exists()


@pytest.mark.parametrize("place", NO_MATTER)
def test_code_of_parts_that_are_not_loaded_does_not_matter(place, tmp_path, nobody_asks):
    folder = save_hubert(tmp_path)
    marker = plant(folder, *NO_MATTER[place])
    build_upstream(f"hf:{folder}")
    assert not marker.exists()


class Touch:
    """Unpickled freely, it would run a shell."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def pickled_model(folder: Path, marker: Path) -> str:
    save_hubert(folder)
    (folder / WEIGHTS).unlink()
    torch.save({"encoder": Touch(marker)}, folder / "pytorch_model.bin")
    return f"hf:{folder}"


def pickled_shard(folder: Path, marker: Path) -> str:
    save_hubert(folder)
    (folder / WEIGHTS).unlink()
    torch.save({"encoder": Touch(marker)}, folder / "part.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"encoder": "part.bin"}}))
    return f"hf:{folder}"


def named_safetensors(folder: Path, marker: Path) -> str:
    save_hubert(folder)
    torch.save({"encoder": Touch(marker)}, folder / WEIGHTS)
    return f"hf:{folder}"


def plain_pickle(spec: str) -> Callable[[Path, Path], str]:
    def write(folder: Path, marker: Path) -> str:
        (folder / "file").write_bytes(pickle.dumps({"model": Touch(marker)}))
        return spec.format(folder / "file")

    return write


def numpy_pickle(spec: str) -> Callable[[Path, Path], str]:
    def write(folder: Path, marker: Path) -> str:
        np.save(folder / "file.npy", np.array([Touch(marker)], dtype=object), allow_pickle=True)
        return spec.format(folder / "file.npy")

    return write


def torch_pickle(spec: str) -> Callable[[Path, Path], str]:
    def write(folder: Path, marker: Path) -> str:
        torch.save(apc_content() | {"Optimizer": Touch(marker)}, folder / "file.ckpt")
        return spec.format(folder / "file.ckpt")

    return write


SPECS = ("s3prl-ckpt:{}", "torchaudio:WAV2VEC2_BASE@{}", "apc@{}", "mockingjay@{}")
PICKLES: dict[str, Callable[[Path, Path], str]] = {
    "pytorch_model.bin": pickled_model,
    "a shard": pickled_shard,
    "a pickle named safetensors": named_safetensors,
    **{f"{kind.__name__} {spec}": kind(spec) for kind in (plain_pickle, numpy_pickle, torch_pickle) for spec in SPECS},
}


@pytest.mark.parametrize("kind", PICKLES)
def test_no_pickle_runs_whatever_reads_it(kind, tmp_path):
    marker = tmp_path / "RAN"
    spec = PICKLES[kind](tmp_path, marker)
    with pytest.raises(CheckpointError):
        build_upstream(spec)
    assert not marker.exists()


def test_a_data_set_with_a_script_is_not_run(tmp_path):
    from tasks.corpora._base import open_corpus

    folder = tmp_path / "set"
    folder.mkdir()
    marker = tmp_path / "RAN"
    (folder / "set.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    with pytest.raises(ManifestError, match="scripts are no longer supported"):
        open_corpus(f"hf:{folder}", cache=tmp_path / "cache")
    assert not marker.exists()
