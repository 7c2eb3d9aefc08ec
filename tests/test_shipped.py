"""Checkpoints that come with the program: what a name alone means, and that they are what the recipes of today make."""

import re
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.first_table import of_make_benchmark
from core.digest import path_digest
from core.errors import CheckpointError, UnknownNameError
from tasks.corpora._base import open_corpus
from tests.conftest import call
from upstreams._base import UPSTREAMS
from upstreams._facts import UpstreamFacts
from upstreams._pretraining.contract import trainable
from upstreams._pretraining.plan import planned, pretrain
from upstreams._pretraining.trainer import Trainer
from upstreams._resolve import build_upstream
from upstreams._shipped import FOLDER, shipped, shipped_checkpoint
from upstreams._shipped.build import halve

MOST_BYTES = 30_000_000
FAMILIES = {"generative", "predictive", "contrastive", "bootstrapping", "regularised"}
OTHERS = [kind.card.name for kind in UPSTREAMS if trainable(kind) and kind.card.name not in shipped()]


class Seen(Exception):  # noqa: N818
    """Ends a training that showed enough."""


def files(name: str) -> list[Path]:
    path = shipped_checkpoint(UPSTREAMS.get(name))
    return [path] if path.is_file() else sorted(path.iterdir())


def test_each_family_has_one_and_all_are_small():
    assert {UPSTREAMS.get(name).card.family for name in shipped()} == FAMILIES
    assert sum(path.stat().st_size for name in shipped() for path in files(name)) < MOST_BYTES


def test_make_benchmark_takes_one_or_two_of_each_family_of_what_ships():
    names = of_make_benchmark()
    assert names[:2] == ["fbank", "mfcc"] and set(names[2:]) <= set(shipped())
    families = Counter(UPSTREAMS.get(name).card.family for name in names[2:])
    assert set(families) == FAMILIES and set(families.values()) <= {1, 2}


@pytest.mark.parametrize("name", shipped())
def test_a_name_alone_means_the_checkpoint(name):
    alone = build_upstream(name)
    assert alone.display_name == name
    assert alone.training_data == "mini"
    assert UpstreamFacts.of(name, alone).family == UPSTREAMS.get(name).card.family, "whatever class loads it"
    assert alone.digest() == build_upstream(f"{name}@{shipped_checkpoint(UPSTREAMS.get(name))}").digest()
    untrained = build_upstream(f"{name}@untrained")
    assert untrained.display_name == f"{name} (untrained)"
    assert untrained.digest() != alone.digest()
    assert untrained.digest() == build_upstream(f"{name}@untrained").digest()


@pytest.mark.parametrize("name", OTHERS)
def test_a_method_that_does_not_ship_says_how_to_train_it(name):
    with pytest.raises(CheckpointError, match=rf"^{name}: no checkpoint .*: frostbench pretrain {name} .*@untrained$"):
        build_upstream(name)
    ended = call("check", name)
    assert (ended.code, "frostbench pretrain" in ended.err) == (2, True)


def test_what_has_no_training_has_no_untrained_one():
    with pytest.raises(Exception, match="fbank takes no checkpoint"):
        build_upstream("fbank@untrained")
    with pytest.raises(UnknownNameError, match="'apcc': did you mean 'apc'"):
        build_upstream("apcc@untrained")


@pytest.mark.parametrize("name", shipped())
def test_they_are_what_the_recipes_of_today_make_of_mini(name):
    notes = UPSTREAMS.get(name).read_notes(shipped_checkpoint(UPSTREAMS.get(name)))
    assert notes["pretraining"] == planned(name, "tiny").digest(open_corpus("mini")), (
        "recipe, configuration or corpus are others now: make pretrain, then upstreams/_shipped/build.py"
    )
    assert notes["last"]


def test_a_training_begins_as_the_one_that_ships_began(tmp_path, monkeypatch):
    """A few updates of the same recipe: the curve that is stored is no other program's."""
    stored = UPSTREAMS.get("simclr").read_notes(shipped_checkpoint(UPSTREAMS.get("simclr")))
    losses, log = [], Trainer._log

    def logged(trainer, *arguments):
        log(trainer, *arguments)
        losses.append(trainer.progress.curve[-1]["loss"])
        raise Seen

    monkeypatch.setattr(Trainer, "_log", logged)
    with pytest.raises(Seen):
        pretrain(planned("simclr", "tiny"), open_corpus("mini"), tmp_path, device="cpu")
    assert losses == pytest.approx(stored["loss_curve"][:1], rel=0.02)
    assert stored["loss_curve"][-1] < 0.75 * losses[0]


def test_the_table_has_each_with_its_digest():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*?\| `([0-9a-f]{16})` \|", text, re.MULTILINE))
    assert rows == {name: path_digest(shipped_checkpoint(UPSTREAMS.get(name)))[:16] for name in shipped()}


def test_halving_keeps_what_half_precision_has_no_room_for(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    tensors = {"small": torch.rand(3), "large": torch.tensor([1e6, 1.0]), "count": torch.tensor([70_000])}
    save_file(tensors, tmp_path / "whole", {"note": "kept"})
    halve(tmp_path / "whole", tmp_path / "half")
    found = load_file(tmp_path / "half")
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "small": torch.float16,
        "large": torch.float32,
        "count": torch.int64,
    }
    assert torch.equal(found["large"], tensors["large"])
    assert torch.equal(found["small"], tensors["small"].half())
