"""What `run` asks of an upstream before it trusts it, once for each digest."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.errors import ContractError
from core.hidden_states import HiddenStates
from core.records import RecordStore
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import Report, run_grid
from frostbench.jobs.local import LocalExecutor
from frostbench.jobs.progress import Watcher
from tasks._base import resolve_task
from upstreams._base import Upstream, UpstreamCard
from upstreams._checks import CHECKS
from upstreams._quick_checks import QUICK, require_contract
from upstreams._resolve import at_hand, build_upstream
from upstreams.spectral.fbank import Fbank

CARD = UpstreamCard(name="planted", title="planted", paper="none")
NAMES = list(QUICK)


class Counting(Fbank):
    """Keeps the contract, and counts what it computes."""

    card = CARD
    seconds = 0.0

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        self.seconds += wavs.numel() / 16_000
        return super().encode(wavs, wav_lengths)


class Leaking(Fbank):
    """Depends on how far the batch is padded."""

    card = CARD

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        states = super().encode(wavs, wav_lengths)
        return HiddenStates(tuple(layer + wavs.shape[1] / 100 for layer in states.layers), states.lengths)


class Random(Fbank):
    card = CARD

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        states = super().encode(wavs, wav_lengths)
        return HiddenStates(tuple(layer + 1e-6 * torch.randn(1) for layer in states.layers), states.lengths)


class Infinite(Fbank):
    card = CARD

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        states = super().encode(wavs, wav_lengths)
        loudness = wavs.abs().amax(dim=1)[:, None, None]
        return HiddenStates(tuple(layer / loudness for layer in states.layers), states.lengths)


class Miscounting(Fbank):
    """Says another number of frames than it gives, for short inputs alone."""

    card = CARD

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        return super().frame_lengths(wav_lengths) + (wav_lengths < 1_000)

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        states = super().encode(wavs, wav_lengths)
        return HiddenStates(states.layers, Fbank.frame_lengths(self, wav_lengths))


class Undefined(Fbank):
    card = CARD

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        states = super().encode(wavs, wav_lengths)
        return HiddenStates(tuple(layer * float("nan") for layer in states.layers), states.lengths)


FAULTS: dict[type[Upstream], str] = {
    Leaking: "check_padding_changes_nothing",
    Random: "check_same_input_same_bits",
    Infinite: "check_silence_is_finite",
    Miscounting: "check_frame_lengths_exact|check_sizes_hold",
    Undefined: "check_sizes_hold",
}


@pytest.fixture
def ks(tasks_file):
    task = resolve_task(f"{tasks_file}:KS")
    return replace(task, recipes={"tiny": replace(task.recipe("tiny"), steps=4, eval_every=2)})


def ran(upstreams: dict[str, Upstream], corpus, task, folder: Path, **asked: object) -> tuple[Report, list[str]]:
    stages: list[str] = []
    watcher = Watcher()
    watcher.stage = lambda name, *rest: stages.append(name)  # type: ignore[method-assign]
    folders = Folders(folder / "cache", folder / "results")
    with at_hand(upstreams):
        grid = Grid(tuple(upstreams), (task,), (0,), **asked)
        return run_grid(grid, corpus, folders, LocalExecutor("cpu", 1), watcher), stages


def test_the_quick_checks_are_some_of_the_contract():
    assert set(QUICK) < {check.__name__ for check in CHECKS}
    assert all(getattr(check, "func", check).__name__ == name for name, check in QUICK.items())


@pytest.mark.parametrize("name", ["fbank", "mfcc", "apc", "mockingjay"])
def test_our_own_pass(name):
    assert require_contract(build_upstream(name)).checks == tuple(NAMES)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_broken_promise_is_found(kind):
    with pytest.raises(ContractError, match=f"^({FAULTS[kind]})"):
        require_contract(kind().freeze())


def test_nothing_is_computed_twice_but_what_has_to_be():
    upstream = Counting().freeze()
    require_contract(upstream)
    plain = Counting().freeze()
    for check in QUICK.values():
        check(plain)
    assert upstream.seconds < 0.7 * plain.seconds
    assert upstream.seconds < 10


def test_an_upstream_that_breaks_its_contract_gets_no_number_and_others_do(corpus, ks, tmp_path):
    report, stages = ran({"instance:0": Leaking(), "fbank": build_upstream("fbank")}, corpus, ks, tmp_path)
    ((name, error),) = report.failures
    assert name == "planted"
    assert error.startswith("check_padding_changes_nothing: layer 0 of an utterance of 0.47 s differs by ")
    assert error.endswith("all checks: frostbench check instance:0")
    assert report.computed == 1
    assert report.passed.keys() == {"fbank"}
    assert stages.index("checking upstreams") < stages.index("extracting features")
    assert [record.upstream["name"] for record in RecordStore(tmp_path / "results").all()] == ["fbank"]


def test_a_known_failure_of_the_card_is_respected_and_recorded(corpus, ks, tmp_path):
    leaking = Leaking()
    leaking.card = replace(CARD, known_failures={"check_padding_changes_nothing": "it looks at the batch"})
    report, _ = ran({"instance:0": leaking}, corpus, ks, tmp_path)
    assert report.failures == []
    (record,) = RecordStore(tmp_path / "results").all()
    assert record.circumstances["upstream_checks"] == {
        "passed": sorted(set(NAMES) - {"check_padding_changes_nothing"}),
        "known_failures": ["check_padding_changes_nothing"],
    }


def test_an_upstream_is_checked_once_for_each_digest_and_its_records_say_so(corpus, ks, tmp_path):
    assert "checking upstreams" in ran({"fbank": build_upstream("fbank")}, corpus, ks, tmp_path)[1]
    (marker,) = (tmp_path / "cache" / "checked").iterdir()
    assert json.loads(marker.read_text())["checks"] == NAMES
    (record,) = RecordStore(tmp_path / "results").all()
    assert record.circumstances["upstream_checks"] == {"passed": sorted(NAMES), "known_failures": []}
    assert marker.stem == record.upstream["digest"][:32]
    other = tmp_path / "other"
    (other / "cache" / "checked").mkdir(parents=True)
    copy = other / "cache" / "checked" / marker.name
    copy.write_bytes(marker.read_bytes())
    assert "checking upstreams" not in ran({"fbank": build_upstream("fbank")}, corpus, ks, other)[1]
    # Another precision is another digest; a marker that is damaged, or of fewer checks, is none.
    found = Counter(ran({"fbank": build_upstream("fbank")}, corpus, ks, other, precision="bfloat16")[1])
    assert found["checking upstreams"] == 1
    for number, content in enumerate(("{", json.dumps({"checks": NAMES[:2], "known_failures": []}))):
        copy.write_text(content)
        assert "checking upstreams" in ran({"fbank": build_upstream("fbank")}, corpus, ks, other / str(number))[1]


def test_checks_of_a_failing_upstream_are_run_again(corpus, ks, tmp_path):
    for _ in range(2):
        report, stages = ran({"instance:0": Leaking()}, corpus, ks, tmp_path)
        assert "checking upstreams" in stages
        assert len(report.failures) == 1 and report.computed == 0
