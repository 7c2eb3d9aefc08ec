"""The training loop: killed and taken up again, on several processes, ended by the clock, watched, and found collapsed.

FROSTBENCH_KILLS says how often a training is killed; two in the suite, five for the whole proof.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_pretraining import curve, plan, small_sizes, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from core.errors import CheckpointError, TrainingError
from upstreams._encoders.mel_gru import MelGRU
from upstreams._pretraining.contract import PretrainRecipe
from upstreams._pretraining.optimisers import OPTIMISERS, SCHEDULES, build_optimiser, rate_factor
from upstreams._pretraining.plan import PretrainingSettings, pretrain
from upstreams._pretraining.trainer import variation
from upstreams.contrastive.wav2vec2 import Wav2Vec2
from upstreams.generative.apc import APC
from upstreams.predictive.hubert import Hubert

ROOT = Path(__file__).parent.parent
SCRIPT = Path(__file__).parent / "pretrain_small.py"
KILLS = int(os.environ.get("FROSTBENCH_KILLS", "2"))
ALWAYS = PretrainingSettings(save_seconds=0.0, evaluations=2)  # a state behind every update


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_sizes(monkeypatch)


class PowerCutError(Exception):
    """Instead of a power cut."""


def interrupt_at(step: int, monkeypatch, kind) -> None:
    whole = kind.pretrain_loss

    def loss(self, batch, generator):
        if batch.step == step:
            raise PowerCutError
        return whole(self, batch, generator)

    monkeypatch.setattr(kind, "pretrain_loss", loss)


@pytest.mark.parametrize(("name", "kind"), [("apc", APC), ("wav2vec2", Wav2Vec2), ("hubert", Hubert)])
def test_an_interrupted_training_goes_on_where_it_was(name, kind, corpus, tmp_path, monkeypatch):
    what = plan(name)
    straight = pretrain(what, corpus, tmp_path / "straight", ALWAYS, device="cpu")
    for step in (7, 31, 52):
        with monkeypatch.context() as patch:
            interrupt_at(step, patch, kind)
            with pytest.raises(PowerCutError):
                pretrain(what, corpus, tmp_path / "broken", ALWAYS, device="cpu")
    heard = []
    whole = kind.pretrain_loss
    monkeypatch.setattr(
        kind, "pretrain_loss", lambda self, batch, generator: heard.append(batch.step) or whole(self, batch, generator)
    )
    told = []
    broken = pretrain(
        what,
        corpus,
        tmp_path / "broken",
        ALWAYS,
        device="cpu",
        advance=lambda amount, line="": told.append((amount, line)),
    )
    assert heard[0] == 52  # what was done before is not done again
    assert "goes on at update 51" in " ".join(line for _, line in told)
    assert sum(amount for amount, _ in told) == pytest.approx(sum(r.steps * r.batch_seconds for r in what.recipes))
    for key in ("loss_curve", "evaluations", "steps", "audio_seconds", "figures"):
        assert broken[key] == straight[key], key
    expected = weights(what.checkpoint(tmp_path / "straight"))
    assert all(
        torch.equal(tensor, expected[key]) for key, tensor in weights(what.checkpoint(tmp_path / "broken")).items()
    )


def start(folder: Path, corpus: Path, *more: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    command = [sys.executable, *launcher, str(SCRIPT), str(corpus), str(folder), *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors.decode()


@pytest.mark.timeout(300 + 60 * KILLS)
def test_a_killed_training_ends_with_the_checkpoint_of_an_undisturbed_one(corpus_folder, tmp_path):
    """Both iterations of HuBERT and the clustering between them; moments are told by the state on disk."""
    finish(start(tmp_path / "straight", corpus_folder, "hubert"))
    chance = random.Random(0)
    what = plan("hubert")
    for number in sorted(chance.choices((1, 2), k=KILLS)):
        moment = what.checkpoint(tmp_path / "broken", number).name
        process = start(tmp_path / "broken", corpus_folder, "hubert")
        state, before = tmp_path / "broken" / ".training" / moment / "state.pt", time.time()
        while process.poll() is None and not (state.exists() and state.stat().st_mtime > before):
            time.sleep(0.001)
        time.sleep(chance.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f"it ended before it could be killed in {moment}"
    finish(start(tmp_path / "broken", corpus_folder, "hubert"))
    for number in (1, 2):
        paths = [what.checkpoint(tmp_path / folder, number) for folder in ("straight", "broken")]
        notes = [what.kind.read_notes(path) for path in paths]
        assert notes[0]["loss_curve"] == notes[1]["loss_curve"]
        assert (paths[0] / "model.safetensors").read_bytes() == (paths[1] / "model.safetensors").read_bytes()


def two(folder: Path) -> tuple[str, ...]:
    return ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--log-dir", str(folder / "ranks"))


@pytest.mark.parametrize(("name", "more"), [
    ("mockingjay", ()), ("hubert", ()), ("wav2vec2", ("layer_drop=0.5", "micro_batches=4")),
])  # fmt: skip
def test_two_processes_give_the_curve_of_one(name, more, corpus_folder, tmp_path):
    changes = ("micro_batches=2", *more)
    finish(start(tmp_path / "one", corpus_folder, name, *changes))
    finish(start(tmp_path / "two", corpus_folder, name, *changes, launcher=two(tmp_path)))
    seen = [(tmp_path / folder / "processes").read_text().split() for folder in ("one", "two")]
    assert [sorted(each) for each in seen] == [["0/1"], ["0/2", "1/2"]]  # who trained
    what = plan(name)
    one, both = (curve(what, tmp_path / folder) for folder in ("one", "two"))
    assert len(one) == len(both) == 3
    assert one == pytest.approx(both, abs=1e-3)
    heard = [what.kind.read_notes(what.checkpoint(tmp_path / folder))["audio_seconds"] for folder in ("one", "two")]
    assert heard[0] == pytest.approx(heard[1], abs=0.2)


def test_where_one_process_fails_all_end_and_say_why(corpus_folder, tmp_path):
    command = [sys.executable, *two(tmp_path), str(ROOT / "run_benchmark.py"), "pretrain", "mockingjay", "apc",
               "--corpus", str(corpus_folder), "--output", str(tmp_path / "out"), "--looks", "0", "--device", "cpu",
               "--set", "micro_batches=2", "--set", "batch_seconds=6", "--set", "learning_rate=1e38"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=120)
    assert done.returncode != 0
    assert b"error: pretraining mockingjay: the loss is" in done.stderr


def test_micro_batches_that_processes_can_not_share_are_refused(corpus, tmp_path, monkeypatch):
    from accelerate import Accelerator

    monkeypatch.setattr(Accelerator, "num_processes", property(lambda self: 3))
    with pytest.raises(TrainingError, match=r"3 processes can't share the 2 micro-batches .* multiple of 3"):
        pretrain(plan("apc", micro_batches=2), corpus, tmp_path, device="cpu")


def test_micro_batches_make_an_update_of_the_same_audio(corpus, tmp_path):
    whole = pretrain(plan("apc", steps=20), corpus, tmp_path / "1", device="cpu")
    parts = pretrain(plan("apc", steps=20, micro_batches=3), corpus, tmp_path / "3", device="cpu")
    assert parts["audio_seconds"] == pytest.approx(whole["audio_seconds"], rel=0.25)
    assert parts["loss_curve"] == pytest.approx(whole["loss_curve"], rel=0.05)


def test_each_micro_batch_of_each_update_and_seed_draws_masks_and_dropout_of_its_own(corpus, tmp_path, monkeypatch):
    drawn = []
    whole = APC.pretrain_loss

    def loss(self, batch, generator):
        drawn.append((int(torch.randint(1 << 40, (1,), generator=generator)), int(torch.randint(1 << 40, (1,)))))
        return whole(self, batch, generator)

    monkeypatch.setattr(APC, "pretrain_loss", loss)
    for seed in (0, 1):
        what = replace(plan("apc", steps=4, micro_batches=3), seed=seed)
        pretrain(what, corpus, tmp_path / str(seed), PretrainingSettings(evaluations=0), device="cpu")
    assert len(drawn) == 2 * 4 * 3
    for what in zip(*drawn, strict=True):
        assert len(set(what)) == len(drawn)


def test_a_state_of_another_training_is_refused(corpus, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(5, patch, APC)
        with pytest.raises(PowerCutError):
            pretrain(plan("apc"), corpus, tmp_path, ALWAYS, device="cpu")
    state = tmp_path / ".training" / "apc-small.safetensors" / "state.pt"
    assert state.exists()
    with pytest.raises(CheckpointError, match="the state of an interrupted training with other settings or data"):
        pretrain(plan("apc", learning_rate=1e-4), corpus, tmp_path, ALWAYS, device="cpu")


def test_targets_of_an_interrupted_training_are_not_overwritten_by_another(corpus, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(5, patch, Hubert)
        with pytest.raises(PowerCutError):
            pretrain(plan("hubert"), corpus, tmp_path, ALWAYS, device="cpu")
    targets = tmp_path / ".training" / "hubert-small-iteration1" / "targets.safetensors"
    before = targets.read_bytes()
    with pytest.raises(CheckpointError, match="the state of an interrupted training"):
        pretrain(plan("hubert", learning_rate=1e-4), corpus, tmp_path, ALWAYS, device="cpu")
    assert targets.read_bytes() == before


def test_mixed_precision_computes_in_it_and_is_noted(corpus, tmp_path):
    notes = {
        precision: pretrain(
            replace(plan("mockingjay"), mixed_precision=precision), corpus, tmp_path / precision, device="cpu"
        )
        for precision in ("no", "bf16")
    }
    assert notes["bf16"]["mixed_precision"] == "bf16"
    assert notes["bf16"]["loss_curve"] != notes["no"]["loss_curve"]
    assert notes["bf16"]["loss_curve"] == pytest.approx(notes["no"]["loss_curve"], rel=0.05)
    stored = weights(plan("mockingjay").checkpoint(tmp_path / "bf16"))
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    with pytest.raises(TrainingError, match="fp16 needs a GPU; take bf16"):
        pretrain(replace(plan("apc"), mixed_precision="fp16"), corpus, tmp_path / "fp16", device="cpu")


def test_the_log_has_losses_rates_and_looks(corpus, tmp_path):
    settings = PretrainingSettings(evaluations=3, evaluate=lambda upstream: {"ks": 12.5})
    notes = pretrain(plan("wav2vec2"), corpus, tmp_path, settings, device="cpu")
    log = EventAccumulator(str(tmp_path / "logs" / "wav2vec2-small"))
    log.Reload()
    assert {"train/loss", "train/contrastive", "train/code_perplexity", "train/learning_rate", "train/gradient_norm",
            "train/audio_seconds_per_second", "evaluation/ks",
            "evaluation/variation"} <= set(log.Tags()["scalars"])  # fmt: skip
    losses = [event.value for event in log.Scalars("train/loss")]
    assert losses == pytest.approx(notes["loss_curve"], abs=1e-4)
    assert [event.step for event in log.Scalars("evaluation/ks")] == [20, 40, 60]


def test_a_constant_representation_is_named(corpus, tmp_path, monkeypatch):
    def constant(self, mel, lengths):
        return tuple(torch.ones(*mel.shape[:2], 32) for _ in range(2))

    monkeypatch.setattr(MelGRU, "layers", constant)
    notes = pretrain(plan("apc", steps=20), corpus, tmp_path, PretrainingSettings(evaluations=2), device="cpu")
    told = [
        warning for warning in notes["warnings"] if warning.startswith("constant representation: 0.00 % of the last")
    ]
    assert len(told) == 1  # once


@pytest.mark.parametrize(("name", "figure", "said"), [
    ("wav2vec2", "code_perplexity", "dead codebook: 0.5 of 16 codes in use"),
    ("hubert", "prediction_perplexity", "one answer for all frames: 0.5 of 10 clusters among the predictions"),
])  # fmt: skip
def test_a_solved_loss_that_learns_nothing_is_named(name, figure, said, corpus, tmp_path, monkeypatch):
    kind = plan(name).kind
    whole = kind.pretrain_loss

    def loss(self, batch, generator):
        found = whole(self, batch, generator)
        return replace(found, figures={**found.figures, figure: torch.tensor(0.5)})

    monkeypatch.setattr(kind, "pretrain_loss", loss)
    notes = pretrain(plan(name, steps=40), corpus, tmp_path, device="cpu")
    assert any(said in warning for warning in notes["warnings"])
    healthy = {"code_perplexity": 12.0, "prediction_perplexity": 5.0}
    made = kind.untrained(plan(name).config)
    made.prepare(plan(name).recipes[0], 1)
    assert made.collapsed(healthy, 0.5) is None


def test_variation_is_what_is_left_without_the_mean():
    frames = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert variation(frames) == 1.0
    assert variation(frames + torch.tensor([1.0, 1.0])) == pytest.approx(1 / 3)  # energies 5 and 1, 1 each by itself
    assert variation(torch.ones(4, 3)) == 0.0
    assert variation(torch.zeros(4, 3)) == 0.0


@given(name=st.sampled_from(["linear", "cosine"]), warmup=st.floats(0.01, 0.5), steps=st.integers(2, 500))
def test_the_rate_rises_to_its_peak_and_falls_to_zero(name, warmup, steps):
    rates = [rate_factor(name, step / steps, (step + 1) / steps, warmup) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert abs(peak / steps - warmup) <= 2 / steps
    assert rate_factor(name, 1.0, 1.0, warmup) == 0


def test_schedules_in_the_middle_and_at_their_ends():
    """By hand: a warm-up of 0.2, then 0.8 that fall; half of these are done at 0.6, three quarters at 0.8."""
    expected = {
        "linear": (0.5, 1.0, 0.5, 0.25),
        "cosine": (0.5, 1.0, 0.5, 0.14644661),
        "constant": (0.5, 1.0, 1.0, 1.0),
    }
    for name, factors in expected.items():
        found = [rate_factor(name, done, then, 0.2) for done, then in ((0.0, 0.1), (0.2, 0.3), (0.6, 0.7), (0.8, 0.9))]
        assert found == pytest.approx(factors), name
    assert set(expected) == set(SCHEDULES)


def test_replaced_recipes_keep_their_targets():
    """`replace` in these tests changes what it names only."""
    assert [recipe.targets.layer for recipe in plan("hubert", steps=3).recipes] == [None, 1]
    assert replace(plan("apc"), seed=3).recipes == plan("apc").recipes


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_steps_as_its_recipe_says(name):
    """Three updates written out; what asks for no gradient stays where it is."""
    rate, decay, (first, second), epsilon = 0.02, 0.3, (0.7, 0.8), 1e-2
    recipe = PretrainRecipe(3, 1.0, rate, weight_decay=decay, betas=(first, second), epsilon=epsilon, optimiser=name)
    learned = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    frozen = nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)
    optimiser = build_optimiser([learned, frozen], recipe)
    place, mean, square = learned.detach().clone(), torch.zeros(2), torch.zeros(2)
    for step, slope in enumerate(torch.tensor([[0.5, 3.0], [-1.0, 2.0], [0.1, -4.0]], dtype=torch.float64), start=1):
        learned.grad, frozen.grad = slope.clone(), slope.clone()
        optimiser.step()
        if name == "adamw":
            place = place - rate * decay * place
        else:
            slope = slope + decay * place
        if name == "sgd":
            mean = first * mean + slope
            place = place - rate * mean
            continue
        mean, square = first * mean + (1 - first) * slope, second * square + (1 - second) * slope.square()
        root = (square / (1 - second**step)).sqrt()
        place = place - rate * mean / (1 - first**step) / (root + epsilon)
    torch.testing.assert_close(learned.detach(), place)
    assert frozen.tolist() == [1, 1]


def test_an_update_is_the_clipped_mean_of_its_micro_batches(corpus, tmp_path, monkeypatch):
    """A plain step of rate 1 is the gradient: as long as the recipe allows, and no longer for being in parts."""
    states, whole = [], APC.pretrain_loss

    def loss(self, batch, generator):
        if batch.step > len(states):
            states.append([each.detach().clone() for each in self.parameters()])
        return whole(self, batch, generator)

    monkeypatch.setattr(APC, "pretrain_loss", loss)

    def moved(number: int, **changes) -> float:
        states.clear()
        plain = {"optimiser": "sgd", "schedule": "constant", "learning_rate": 1.0, "weight_decay": 0.0, "warmup": 0.0}
        what = plan("apc", steps=2, **plain, **changes)
        pretrain(what, corpus, tmp_path / str(number), PretrainingSettings(evaluations=0), device="cpu")
        return float(nn.utils.get_total_norm([one - other for one, other in zip(*states, strict=True)]))

    free, in_parts = moved(0, clip=0.0), moved(1, clip=0.0, micro_batches=3)
    assert in_parts == pytest.approx(free, rel=0.5)
    for number, parts in enumerate((1, 3), start=2):
        assert moved(number, clip=free / 10, micro_batches=parts) == pytest.approx(free / 10, rel=1e-3)
