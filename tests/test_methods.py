"""Every method that trains here, found by the registry: resumed bit for bit, saved without heads, seen to collapse."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_pretraining import methods, plan, small_sizes, weights

from upstreams import _checks
from upstreams._base import UPSTREAMS
from upstreams._pretraining.data import Position, TrainingData
from upstreams._pretraining.plan import Pretraining, PretrainingSettings, pretrain
from upstreams._pretraining.pooled import PooledUpstream
from upstreams._pretraining.trainer import Trainer
from upstreams._resolve import build_upstream

ALWAYS = PretrainingSettings(save_seconds=0.0, evaluations=1)  # a state behind every update
METHODS = methods()
POOLED = [name for name in METHODS if issubclass(UPSTREAMS.get(name), PooledUpstream)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_sizes(monkeypatch)


class PowerCutError(Exception):
    """Instead of a power cut."""


def trained(what: Pretraining, corpus, folder: Path, monkeypatch, cut: int | None = None):
    """The upstream of the last iteration at the end of its training, heads and all."""
    trainers: list[Trainer] = []
    whole = what.kind.pretrain_loss

    def loss(self, batch, generator):
        if batch.step == cut:
            raise PowerCutError
        return whole(self, batch, generator)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "wait", lambda trainer: trainers.append(trainer))
        patch.setattr(what.kind, "pretrain_loss", loss)
        pretrain(what, corpus, folder, ALWAYS, device="cpu")
    return trainers[-1].upstream


@pytest.mark.parametrize("name", METHODS)
def test_an_interrupted_training_ends_with_the_same_bits_and_its_checkpoint_keeps_the_contract(
    name, corpus, tmp_path, monkeypatch
):
    what = plan(name, steps=6)
    straight = trained(what, corpus, tmp_path / "straight", monkeypatch)
    with pytest.raises(PowerCutError):
        trained(what, corpus, tmp_path / "broken", monkeypatch, cut=4)
    broken = trained(what, corpus, tmp_path / "broken", monkeypatch)
    expected = straight.state_dict()
    assert set(broken.state_dict()) == set(expected)
    assert [key for key, tensor in broken.state_dict().items() if not torch.equal(tensor, expected[key])] == []

    path = what.checkpoint(tmp_path / "straight")
    stored = weights(path)
    assert len(stored) < len(expected), "heads and teachers are not saved"
    built = build_upstream(f"{name}@{path}")
    wavs, lengths = 0.1 * torch.randn(2, 9_000), torch.tensor([9_000, 9_000])
    for one, other in zip(straight.extract(wavs, lengths).layers, built.extract(wavs, lengths).layers, strict=True):
        torch.testing.assert_close(one, other)  # recurrent layers take another path where no gradient is wanted
    failed = [check.__name__ for check in _checks.CHECKS if not _checks.run_check(check, built).passed]
    assert failed == []


@pytest.mark.timeout(300)
def test_two_processes_end_with_the_state_of_one(corpus, corpus_folder, tmp_path, monkeypatch):
    """All methods in one launch: heads, teachers, queues and banks are equal in both processes, and those of one."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launcher += ["--log-dir", str(tmp_path / "ranks"), str(Path(__file__).parent / "pretrain_small.py")]
    changes = ["micro_batches=2", "steps=3"]
    command = [*launcher, str(corpus_folder), str(tmp_path / "two"), ",".join(METHODS), *changes]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr.decode()
    for name in METHODS:
        alone = trained(plan(name, micro_batches=2, steps=3), corpus, tmp_path / "one", monkeypatch).state_dict()
        first, second = (torch.load(tmp_path / "two" / f"{name}-{rank}of2.pt") for rank in (0, 1))
        assert set(first) == set(second) == set(alone)
        assert [key for key in first if not torch.equal(first[key], second[key])] == [], name
        assert [key for key in first if not torch.equal(first[key], alone[key])] == [], name


def prepared(name: str, corpus, size: str = "tiny", **changes):
    """An untrained upstream with its heads, and a batch of the corpus that it is trained on."""
    kind = UPSTREAMS.get(name)
    torch.manual_seed(0)
    upstream = kind.untrained(replace(kind.sizes[size], **changes))
    recipe, rows = kind.recipes[size][-1], corpus.recordings("train")
    upstream.prepare(recipe, len(rows))
    data = TrainingData.of(rows, upstream, recipe, seed=0)
    return upstream.train(), next(data.updates(1, Position())).batches[0]


def problem(upstream, batch, done: float) -> str | None:
    found = upstream.pretrain_loss(batch, torch.Generator().manual_seed(0))
    return upstream.collapsed({name: float(each) for name, each in found.figures.items()}, done)


@pytest.mark.parametrize("name", POOLED)
def test_an_encoder_that_gives_all_recordings_one_vector_is_named_and_an_untrained_one_is_not(name, corpus):
    upstream, batch = prepared(name, corpus, piece_frames=16)
    assert problem(upstream, batch, 0.5) is None
    for encoder in [module for key, module in upstream.encoder.named_modules() if key.endswith("final_norm")]:
        torch.nn.init.zeros_(encoder.weight)
        torch.nn.init.ones_(encoder.bias)
    assert problem(upstream, batch, 0.5).startswith("recordings all alike")


@pytest.mark.parametrize("name", METHODS)
def test_what_serves_training_alone_has_no_gradient_where_it_is_an_average_or_a_store(name, corpus):
    upstream, batch = prepared(name, corpus, "small")
    upstream.pretrain_loss(batch, torch.Generator().manual_seed(0)).loss.backward()
    trained = [parameter for parameter in upstream.parameters() if parameter.requires_grad]
    assert [parameter for parameter in trained if parameter.grad is None] == [], "several processes would wait for it"
    fixed = [parameter for parameter in upstream.parameters() if not parameter.requires_grad]
    assert all(parameter.grad is None for parameter in fixed)


@pytest.mark.parametrize("name", POOLED)
def test_the_order_of_the_clips_changes_no_loss(name, corpus):
    upstream, batch = prepared(name, corpus, piece_frames=16)
    generator = torch.Generator().manual_seed(0)
    mel = upstream.encoder.spectrum(batch.wavs, batch.wav_lengths).layers[0]
    views = [upstream.config.view(mel, upstream.encoder.normalise, generator)[0] for _ in range(2)]
    order = torch.randperm(len(mel), generator=generator)
    losses = []
    for places in (torch.arange(len(mel)), order):
        turned = [view[places] for view in views]
        pooled = upstream.pooled(torch.cat(turned[: upstream.encoded_views])).chunk(upstream.encoded_views)
        losses.append(upstream.loss_of(pooled, turned, batch._replace(rows=batch.rows[places])).loss)
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)


VARIANTS: list[tuple[str, dict[str, object]]] = [
    ("cpc", {"front_end": "waveform", "recurrent": "lstm"}),
    ("wav2vec", {"norm": "group"}),
    ("vq_wav2vec", {"norm": "group", "quantiser": "kmeans", "activation": "gelu"}),
    ("vq_apc", {"quantised_layer": 1}),
    ("data2vec", {"front_end": "waveform", "conv_channels": (8,) * 7, "position_kernel": 3, "position_groups": 2}),
    ("distil", {"front_end": "waveform", "conv_channels": (8,) * 7, "position_kernel": 8, "position_groups": 2}),
    ("npc", {"depthwise": False, "codebooks": 0}),
    ("vae", {"kl_weight": 0.0, "normalise": "cmvn"}),
    ("simclr", {"similarity": "bilinear", "reconstruction": 1.0, "normalise": "none"}),
    ("byol", {"predictor": False, "resize": False, "shift_bins": 2, "fade": 0.5}),
    ("cmc", {"bank": True}),
    ("best_rq", {"stack": 1, "mix_proportion": 0.5, "unmasked_weight": 0.0}),
    ("segment_gap", {"order": False}),
]


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=[name for name, _ in VARIANTS])
def test_other_networks_of_a_method_keep_the_contract(name, changes):
    kind = UPSTREAMS.get(name)
    torch.manual_seed(0)
    built = kind.untrained(replace(kind.sizes["small"], **changes)).freeze()
    results = [_checks.run_check(check, built) for check in _checks.CHECKS]
    assert [(each.check, each.error) for each in results if not each.passed] == []
