"""The eye on the goal: what small heads get right is seen, test rows are not, and a look changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.hidden_states import HiddenStates
from core.manifest import Manifest, Utterance
from frostbench.pretraining import goal_probe
from frostbench.pretraining.goal_probe import GoalProbe
from upstreams._base import Upstream, UpstreamCard
from upstreams._resolve import build_upstream


class Silent(Upstream):
    """Hears nothing."""

    card = UpstreamCard("silent", "Constant", "none")
    num_layers, hidden_size, downsample_rate, min_samples = 1, 4, 160, 160

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        return HiddenStates((torch.ones(len(wavs), wavs.shape[1] // 160, 4),), self.frame_lengths(wav_lengths))


@pytest.fixture
def small(corpus, monkeypatch) -> Manifest:
    opened = []
    monkeypatch.setattr(goal_probe, "open_corpus", lambda name: opened.append(name) or corpus)
    return corpus


def test_it_tells_what_features_are_worth(small):
    good = GoalProbe()(build_upstream("fbank"))
    assert set(good) == {"ks", "sid"}
    nothing = GoalProbe()(Silent())
    assert good["ks"] > 80
    assert nothing["ks"] <= 50  # three words
    assert GoalProbe()(build_upstream("fbank")) == good


def test_rows_are_drawn_from_all_of_a_split_always_the_same():
    rows = tuple(Utterance(str(number), Path("x"), "train", {}) for number in range(1_000))
    drawn = [int(row.id) for row in goal_probe._drawn(rows, 200)]
    assert len(set(drawn)) == 200
    assert all(sum(row // 250 == part for row in drawn) > 10 for part in range(4))
    assert drawn == [int(row.id) for row in goal_probe._drawn(rows, 200)]


def test_test_rows_are_not_touched(small, monkeypatch):
    asked = []
    split = Manifest.split
    monkeypatch.setattr(Manifest, "split", lambda self, name: asked.append(name) or split(self, name))
    GoalProbe()(build_upstream("mfcc"))
    assert set(asked) == {"train", "valid"}


def test_training_goes_on_as_if_nobody_had_looked(small, tmp_path, monkeypatch):
    from small_pretraining import plan, small_sizes, weights

    from upstreams._pretraining.plan import PretrainingSettings, pretrain

    small_sizes(monkeypatch)
    what = plan("wav2vec2", steps=20)
    for name, watch in (("blind", None), ("watched", GoalProbe())):
        pretrain(what, small, tmp_path / name, PretrainingSettings(evaluations=4, evaluate=watch), device="cpu")
    blind, watched = (weights(what.checkpoint(tmp_path / name)) for name in ("blind", "watched"))
    assert all(torch.equal(tensor, watched[key]) for key, tensor in blind.items())
