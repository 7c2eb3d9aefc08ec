"""What SECURITY.md calls data runs no code, wherever it is read."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import call
from results import add, classified, upstream

from core.code import OURS
from core.errors import CacheError, CheckpointError
from core.feature_cache import FeatureCache
from core.records import RecordStore
from leaderboard.verification import verify
from upstreams._pretraining.state import read_state

ROOT = Path(__file__).parent.parent


class Touch:
    """Unpickled freely, it would run a shell."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def marker(tmp_path) -> Iterator[Path]:
    """What unpickling would make; it is not there at the end, though the same pickle makes it elsewhere."""
    path = tmp_path / "RAN"
    pickle.loads(pickle.dumps(Touch(path)))  # noqa: S301
    path.unlink()
    yield path
    assert not path.exists()


def test_a_pickle_in_the_cache_is_damage(marker, tmp_path):
    cache = FeatureCache(tmp_path, "source", "pooled")
    cache.add({"key": np.ones((1, 1, 2), np.float32)})
    (segment,) = tmp_path.rglob("*.npy")
    with segment.open("wb") as file:
        np.save(file, np.array([Touch(marker)], dtype=object), allow_pickle=True)
    with pytest.raises(CacheError, match="damaged"):
        FeatureCache(tmp_path, "source", "pooled").get("key")
    segment.write_bytes(pickle.dumps(Touch(marker)))
    with pytest.raises(CacheError, match="damaged"):
        FeatureCache(tmp_path, "source", "pooled").get("key")


@pytest.mark.parametrize("content", ["a pickle", "an object", "cut off", "no dictionary", "another one"])
def test_the_state_of_a_training_holds_plain_values_alone(marker, tmp_path, content):
    path = tmp_path / "state.pt"
    torch.save({"digest": "d", "more": Touch(marker)} if content == "an object" else [1], path)
    if content == "a pickle":
        path.write_bytes(pickle.dumps({"digest": "d", "more": Touch(marker)}))
    if content == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    if content == "another one":
        torch.save({}, path)
    with pytest.raises(CheckpointError, match=r"^[^\n]*state\.pt: "):
        read_state(path, "d")


def test_a_head_that_is_a_pickle_is_a_finding_and_predicts_nothing(marker, tmp_path):
    store = RecordStore(tmp_path / "results")
    record = add(store, classified([1, 0, 1, 1], 2), upstream=upstream("fbank"))
    head = store.run_folder(record.run) / "head.safetensors"
    head.write_bytes(pickle.dumps(Touch(marker)))
    assert [finding.path for finding in verify(store)] == [head]
    called = call("predict", "x.wav", "--run", record.run, "--output", store.folder)
    assert (called.code, called.out) == (2, "")
    assert "not the head of this run" in called.err


def test_the_page_names_every_group_of_entry_points_and_tests_that_are_there():
    """And nothing in the code unpickles, evaluates or trusts remote code behind its back."""
    text = (ROOT / "SECURITY.md").read_text()
    code = {path: path.read_text() for folder in OURS for path in (ROOT / folder).rglob("*.py")}
    groups = set(re.findall(r'group="frostbench\.(\w+)"', "\n".join(code.values())))
    assert len(groups) > 5
    for group in groups:
        assert f".{group}`" in text, group
    for test in re.findall(r"`(?:tests/)?(test_\w+\.py)`", text):
        assert (ROOT / "tests" / test).is_file()
    loads = re.compile(
        r"pickle\.loads?\(|(?<![.\w])(?:eval|exec)\(|trust_remote_code=True|allow_pickle=True|weights_only=False"
    )
    found = {path.relative_to(ROOT).as_posix() for path, source in code.items() if loads.search(source)}
    assert found == {"tasks/_checks.py"}, "whose pickle is of its own making"
