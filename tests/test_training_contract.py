"""What a method may ask of training, by one made for the purpose: heads, a teacher, a queue, a bank, float targets."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from queue_method import QUEUE, Projections, QueueMethod, register
from safetensors.torch import load_file

from core.errors import ContractError, TrainingError
from core.manifest import Manifest
from upstreams import _checks
from upstreams._pretraining.plan import PretrainingSettings, planned, pretrain
from upstreams._pretraining.trainer import Trainer
from upstreams._resolve import build_upstream

ROOT = Path(__file__).parent.parent
SCRIPT = Path(__file__).parent / "pretrain_small.py"
ALWAYS = PretrainingSettings(save_seconds=0.0, evaluations=0)  # a state behind every update


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    register(monkeypatch)


class PowerCutError(Exception):
    """Instead of a power cut."""


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert set(one) == set(other)
    return [key for key, tensor in one.items() if not torch.equal(tensor, other[key])]


def test_what_serves_training_alone_is_neither_saved_nor_counted_nor_digested(corpus, tmp_path):
    what = planned("queue_method", "small")
    notes = pretrain(what, corpus, tmp_path, device="cpu")
    made = QueueMethod.last
    stored = load_file(what.checkpoint(tmp_path))
    assert set(stored) == {f"rnn_layers.0.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    built = build_upstream(f"queue_method@{what.checkpoint(tmp_path)}")
    assert built.num_params() == sum(tensor.numel() for tensor in stored.values())
    digest = made.digest()
    assert built.digest() != digest, "of a plug-in, the file behind @ is in the digest"
    made.queue.add_(1)
    made.head.weight.data.add_(1)
    assert made.digest() == digest
    made.encoder.rnn_layers[0].bias_ih_l0.data.add_(1)
    assert made.digest() != digest
    assert notes["loss_curve"][-1] < notes["loss_curve"][0]
    assert notes["targets"]["spread"] > 0


def test_a_loss_learns_which_recordings_they_are_and_how_much_is_done(corpus, tmp_path):
    what = planned("queue_method", "small", steps=10)
    pretrain(what, corpus, tmp_path, device="cpu")
    seen = QueueMethod.last.seen
    assert [(step, done) for step, done, _ in seen] == [(1 + n // 2, pytest.approx((n // 2) / 10)) for n in range(20)]
    rows = [row for _, _, batch in seen for row in batch]
    assert len(set(rows)) > 10
    assert 0 <= min(rows) <= max(rows) < len(corpus.split("train"))
    assert all(len(batch) >= QueueMethod.min_utterances for _, _, batch in seen)
    bank = QueueMethod.last.bank
    assert {row for row in range(len(bank)) if bank[row].any()} == set(rows)


def test_warnings_are_asked_for_with_the_share_that_is_done(corpus, tmp_path):
    notes = pretrain(planned("queue_method", "small", steps=20), corpus, tmp_path, device="cpu")
    assert notes["warnings"] == ["asked at the end: 1, at update 20"]


def test_a_teacher_has_neither_gradient_nor_a_place_in_the_optimiser(corpus, tmp_path, monkeypatch):
    trainers = []
    monkeypatch.setattr(Trainer, "wait", lambda trainer: trainers.append(trainer))
    pretrain(planned("queue_method", "small", steps=3), corpus, tmp_path, device="cpu")
    taught = {id(each) for each in QueueMethod.last.teacher.parameters()}
    held = {id(each) for group in trainers[0]._optimizer.param_groups for each in group["params"]}
    assert held
    assert not taught & held


@pytest.mark.parametrize("cut", [2, 29])  # the queue has not been filled yet; it has come round
def test_state_that_is_kept_survives_an_interruption_bit_for_bit(cut, corpus, tmp_path, monkeypatch):
    what = planned("queue_method", "small")
    pretrain(what, corpus, tmp_path / "straight", ALWAYS, device="cpu")
    straight = {key: each.clone() for key, each in QueueMethod.last.state_dict().items()}
    with monkeypatch.context() as patch:
        whole = QueueMethod.pretrain_loss

        def loss(self, batch, generator):
            if batch.step == cut + 1:
                raise PowerCutError
            return whole(self, batch, generator)

        patch.setattr(QueueMethod, "pretrain_loss", loss)
        with pytest.raises(PowerCutError):
            pretrain(what, corpus, tmp_path / "broken", ALWAYS, device="cpu")
    pushed = sum(len(batch) for step, _, batch in QueueMethod.last.seen if step <= cut)
    assert (pushed > QUEUE) == (cut == 29)
    pretrain(what, corpus, tmp_path / "broken", ALWAYS, device="cpu")
    assert QueueMethod.last.seen[0][0] == cut + 1
    assert not equal(QueueMethod.last.state_dict(), straight)


def start(folder: Path, corpus: Path, *launcher: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, *launcher, str(SCRIPT), str(corpus), str(folder), "queue_method"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors.decode()


def final(folder: Path, rank: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"queue_method-{rank}.pt", weights_only=True)


@pytest.mark.timeout(400)
def test_killed_or_shared_by_two_processes_it_ends_with_the_same_bits(corpus_folder, tmp_path):
    finish(start(tmp_path / "one", corpus_folder))
    one = final(tmp_path / "one", "0of1")

    process = start(tmp_path / "killed", corpus_folder)
    state = tmp_path / "killed" / ".training" / "queue_method-small.safetensors" / "state.pt"
    while process.poll() is None and not state.exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    finish(start(tmp_path / "killed", corpus_folder))
    assert not equal(final(tmp_path / "killed", "0of1"), one)

    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--log-dir", str(tmp_path))
    finish(start(tmp_path / "two", corpus_folder, *launcher))
    first, second = (final(tmp_path / "two", f"{rank}of2") for rank in (0, 1))
    assert not equal(first, second)
    assert not equal(first, one)
    paths = [tmp_path / folder / "queue_method-small.safetensors" for folder in ("one", "killed", "two")]
    assert len({tuple(load_file(path)["rnn_layers.0.weight_ih_l0"].flatten().tolist()) for path in paths}) == 1


def test_targets_are_a_protocol_with_options_of_their_own(corpus, tmp_path):
    what = planned("queue_method", "small", steps=2, options={"projection_size": "5"})
    assert what.recipes[0].targets == Projections(5)
    assert what.digest(corpus) != planned("queue_method", "small", steps=2).digest(corpus)
    pretrain(what, corpus, tmp_path, device="cpu")
    assert QueueMethod.last.regression.out_features == 5
    with pytest.raises(ContractError, match="projection_size must be above 0"):
        planned("queue_method", "small", options={"projection_size": "0"})


def test_too_few_recordings_to_compare_are_refused(corpus, tmp_path):
    few = Manifest(corpus.name, corpus.source, corpus.split("train")[:2])
    with pytest.raises(TrainingError, match=r"2 recordings are long enough, but queue_method compares at least 3"):
        pretrain(planned("queue_method", "small"), few, tmp_path, device="cpu")


def test_the_check_of_losses_prepares_what_they_need():
    assert _checks.run_check(_checks.check_pretrain_loss_trains, build_upstream("queue_method")).passed


def test_a_class_may_say_that_its_frames_need_not_differ(corpus, tmp_path, monkeypatch):
    def constant(self, mel, lengths):
        return (torch.ones(*mel.shape[:2], 16) + 0 * self.rnn_layers[0].bias_ih_l0.sum(),)

    monkeypatch.setattr("upstreams._encoders.mel_gru.MelGRU.layers", constant)
    what = planned("queue_method", "small", steps=4)
    for differ, warnings in ((False, 0), (True, 1)):
        monkeypatch.setattr(QueueMethod, "frames_differ", differ)
        notes = pretrain(what, corpus, tmp_path / str(differ), PretrainingSettings(evaluations=1), device="cpu")
        assert sum(each.startswith("constant representation") for each in notes["warnings"]) == warnings


def test_replaced_recipes_are_other_trainings(corpus):
    what = planned("queue_method", "small")
    recipes = tuple(replace(recipe, schedule="cosine") for recipe in what.recipes)
    assert replace(what, recipes=recipes).digest(corpus) != what.digest(corpus)
