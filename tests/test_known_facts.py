"""Facts of upstreams that are kept: those that building gives, and built anew where anything could change them."""

import json
import shutil

import pytest

from core.errors import BenchmarkError
from upstreams import _known_facts
from upstreams._facts import UpstreamFacts
from upstreams._known_facts import facts_of
from upstreams._resolve import build_upstream
from upstreams.generative.apc import APC


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """The specifications that were built."""
    specs = []

    def watched(spec: str):
        specs.append(spec)
        return build_upstream(spec)

    monkeypatch.setattr(_known_facts, "build_upstream", watched)
    return specs


@pytest.fixture
def checkpoint(tmp_path):
    APC(APC.sizes["tiny"]).save(tmp_path / "apc.safetensors", {})
    return tmp_path / "apc.safetensors"


def test_facts_are_those_of_the_built_upstream_and_it_is_built_once(tmp_path, checkpoint, built):
    for spec in ("fbank", "apc@untrained", f"apc@{checkpoint}"):
        expected = UpstreamFacts.of(spec, build_upstream(spec), "bfloat16")
        assert [facts_of(spec, "bfloat16", tmp_path / "facts") for _ in range(3)] == [expected] * 3
    assert built == ["fbank", "apc@untrained", f"apc@{checkpoint}"]
    facts_of("fbank", "float32", tmp_path / "facts")
    facts_of("fbank", "float32")
    assert built[3:] == ["fbank", "fbank"], "another precision, and no folder"


def test_another_content_of_the_checkpoint_is_another_upstream(tmp_path, checkpoint, built):
    first = facts_of(f"apc@{checkpoint}", "float32", tmp_path / "facts")
    upstream = APC(APC.sizes["tiny"])
    for parameter in upstream.parameters():
        parameter.data.add_(1)
    upstream.save(checkpoint, {})
    second = facts_of(f"apc@{checkpoint}", "float32", tmp_path / "facts")
    assert first.digest != second.digest and len(built) == 2
    checkpoint.unlink()
    with pytest.raises(BenchmarkError, match=r"apc\.safetensors"):
        facts_of(f"apc@{checkpoint}", "float32", tmp_path / "facts")


def test_other_code_or_versions_build_it_anew(tmp_path, built, monkeypatch):
    copied = tmp_path / "copy"
    for folder in _known_facts.OUR_CODE:
        shutil.copytree(_known_facts.ROOT / folder, copied / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_known_facts, "ROOT", copied)

    def count() -> int:
        _known_facts._code_and_versions.cache_clear()
        facts_of("apc@untrained", "float32", tmp_path / "facts")
        return len(built)

    assert [count(), count()] == [1, 1]
    with (copied / "upstreams" / "_encoders" / "mel.py").open("a") as file:
        file.write("# another version\n")
    assert [count(), count()] == [2, 2]
    monkeypatch.setattr(_known_facts, "_version", lambda package: "0")
    assert [count(), count()] == [3, 3]
    monkeypatch.undo()
    _known_facts._code_and_versions.cache_clear()


def test_plug_ins_and_what_packages_find_are_always_built(tmp_path, built):
    plug_in = tmp_path / "mine.py"
    plug_in.write_text(
        "from upstreams.spectral.fbank import Fbank\n"
        "from upstreams._base import UpstreamCard\n"
        "class Mine(Fbank):\n    card = UpstreamCard(name='mine', title='t', paper='none')\n"
    )
    for _ in range(2):
        facts_of(f"{plug_in}:Mine", "float32", tmp_path / "facts")
    assert len(built) == 2 and not (tmp_path / "facts").exists()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"name": "x"}'])
def test_damaged_facts_are_written_anew(tmp_path, built, damage):
    expected = facts_of("fbank", "float32", tmp_path)
    (path,) = tmp_path.glob("*.json")
    path.write_text(damage)
    assert facts_of("fbank", "float32", tmp_path) == expected
    assert json.loads(path.read_text())["digest"] == expected.digest
