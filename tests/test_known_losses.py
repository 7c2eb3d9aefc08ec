"""Losses against numbers of lightly and pytorch-metric-learning, which tests/golden/make_ssl_losses.py wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from upstreams._base import UPSTREAMS
from upstreams._pretraining.contract import TrainingBatch

KNOWN = json.loads((Path(__file__).parent / "golden" / "ssl_losses.json").read_text(encoding="utf-8"))
LOSSES = KNOWN["losses"]
VIEWS = [torch.tensor(KNOWN[name]) for name in ("first", "second")]
ROWS = TrainingBatch(torch.zeros(6, 1), torch.ones(6), torch.arange(6))


def bare(name: str, *heads: str, **changes: Any):
    """An upstream whose heads hand on what they are given."""
    kind = UPSTREAMS.get(name)
    config = type(kind.sizes["tiny"])(**{**vars(kind.sizes["tiny"]), "hidden_size": 8, **changes})
    upstream = kind.untrained(config)
    upstream.prepare(kind.recipes["tiny"][-1], 6)
    for head in heads:
        setattr(upstream, head, nn.Identity())
    return upstream


@pytest.mark.parametrize(("name", "heads", "changes", "known"), [
    ("vicreg", ["expander"], {}, ["vicreg"]),
    ("barlow_twins", ["projector"], {"redundancy": 5e-3, "scale": 1.0}, ["barlow_twins"]),
    ("simclr", ["projector"], {"temperature": 0.2}, ["nt_xent", "nt_xent_pairs"]),
])  # fmt: skip
def test_losses_of_two_views_are_those_of_other_libraries(name, heads, changes, known):
    found = float(bare(name, *heads, **changes).loss_of(VIEWS, [], ROWS).loss.detach())
    for each in known:
        assert found == pytest.approx(LOSSES[each], rel=1e-5)


def test_simsiams_half_of_one_direction_is_the_negative_cosine_of_another_library():
    found = bare("simsiam", "projector", "predictor").loss_of(VIEWS, [], ROWS)
    assert float(found.loss.detach()) == pytest.approx(LOSSES["simsiam"], rel=1e-5)


def test_dinos_loss_and_its_centre_are_those_of_another_library():
    upstream = bare("dino", teacher_temperature=0.07, student_temperature=0.1, centre_momentum=0.9, prototypes=5)
    teachers, students = ([torch.tensor(each) for each in KNOWN[name]] for name in ("teachers", "students"))
    upstream.head.forward = lambda vectors, frozen: vectors
    upstream._taught = lambda view: teachers[view]
    for known in LOSSES["dino"]:
        found = upstream.loss_of(students, [0, 1], ROWS)
        assert float(found.loss) == pytest.approx(known, rel=1e-5)
        upstream.after_update(found.kept, 0.0)
