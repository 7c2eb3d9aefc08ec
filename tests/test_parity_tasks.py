"""Parity with s3prl 0.4.18 on the tasks beyond its first four: heads with given weights, targets, scores.

Sizes are those of the oracles' files, whatever they are. Values are single precision sums of some hundred terms.
"""

from __future__ import annotations

import functools
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.lengths import mean_over_valid, unpad
from core.metrics import get_metric, marked_values
from downstreams._base import HEADS, FeatureShape, Head
from downstreams.labels._base import Labels
from downstreams.labels.slots import SlotLabels
from downstreams.labels.text import TextLabels
from tasks.corpora.audio_snips import marked

ORACLES = Path(os.environ.get("FROSTBENCH_ORACLES") or Path(__file__).parents[2] / "shared" / "oracles") / "tasks"
CLOSE = 1e-5


@functools.cache
def oracle(name: str) -> dict[str, torch.Tensor]:
    if not (ORACLES / f"{name}.npz").is_file():
        pytest.skip(f"no {name}.npz in {ORACLES}: name the folder above it with FROSTBENCH_ORACLES to prove parity")
    with np.load(ORACLES / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@functools.cache
def meta(name: str) -> Any:
    oracle(name)
    return json.loads((ORACLES / "meta.json").read_text())[name]


def head_with(name: str, labels: Labels, weights: dict[str, torch.Tensor], **options: Any) -> Head:
    """A head with the oracle's weights; every one of its parameters is given."""
    head = HEADS.get(name)(
        FeatureShape(weights["projector.weight"].shape[1], 160), labels, HEADS.get(name).options_type(**options)
    )
    head.load_state_dict(weights)
    return head.eval().requires_grad_(False)


def renamed(known: dict[str, torch.Tensor], ours: str, theirs: str) -> dict[str, torch.Tensor]:
    return {f"{ours}.{kind}": known[f"{theirs}.{kind}"] for kind in ("weight", "bias")}


# Emotion recognition: the mean over valid frames between two linear layers.


def emotion_head() -> Head:
    known = oracle("er")
    weights = renamed(known, "projector", "projector") | renamed(known, "classifier", "model.post_net.linear")
    classes = tuple(f"{index:02}" for index in range(known["logits"].shape[1]))
    return head_with(
        "utterance_linear", SlotLabels((("emotion", classes),)), weights, projector_size=len(known["projector.bias"])
    )


def test_emotions_equal_s3prls():
    """Logits of a padded batch and of the means alone, loss, accuracy."""
    head, known = emotion_head(), oracle("er")
    logits = head(known["x"], known["lens"])
    means = mean_over_valid(known["x"], known["lens"])[:, None]
    for found in (logits, head(means, torch.ones_like(known["lens"]))):
        torch.testing.assert_close(found, known["logits"], rtol=0, atol=CLOSE)
    targets = list(known["labels"][:, None])
    assert head.loss(logits, known["lens"], targets).item() == pytest.approx(known["loss"].item(), rel=CLOSE)
    references = [head.labels.decode(target.tolist()) for target in targets]
    right = get_metric("accuracy").compute(head.predict(logits, known["lens"]), references)
    assert right == pytest.approx(100 * known["accuracy"].item())


# Slot filling: BLSTM and CTC over characters and marks.


def slot_symbols() -> list[str]:
    """s3prl's outputs from 3 on, as ours are called; the first line of the slots is not one."""
    oracle("sf")
    characters = (ORACLES / "sf_characters.txt").read_text().split("\n")
    slots = (ORACLES / "sf_slots.txt").read_text().split("\n")[1:]
    return [*"".join(characters).lower(), *(mark for slot in slots for mark in (f"B-{slot} ", f" E-{slot}"))]


def slot_ids() -> list[int]:
    """s3prl's ids of the outputs that ours has in this order: blank, characters and marks, end, unknown."""
    return [0, *range(3, 3 + len(slot_symbols())), 1, 2]


@functools.cache
def slot_head() -> Head:
    known = oracle("sf")
    weights = renamed(known, "projector", "projector")
    layers = sum(name.endswith("weight_ih_l0") for name in known)
    for layer in range(layers):
        for kind in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            for ours, theirs in (("forth", kind), ("back", f"{kind}_reverse")):
                weights[f"lstms.{layer}.{ours}.{kind}"] = known[f"model.rnns.{layer}.layer.{theirs}"]
    for kind in ("weight", "bias"):
        weights[f"classifier.{kind}"] = known[f"model.linear.{kind}"][slot_ids()]
    labels = TextLabels(tuple(slot_symbols()), unit="marked", end_marks=True)
    sizes = {
        "projector_size": len(known["projector.bias"]),
        "lstm_size": known["model.rnns.0.layer.weight_hh_l0"].shape[1],
        "lstm_layers": layers,
    }
    return head_with("ctc", labels, weights, **sizes)


def slot_targets() -> list[torch.Tensor]:
    """s3prl's targets in our ids."""
    ours = {theirs: place for place, theirs in enumerate(slot_ids())}
    rows = unpad(oracle("sf")["targets"], oracle("sf")["target_lens"])
    return [torch.tensor([ours[index] for index in row.tolist()]) for row in rows]


def test_slot_logits_equal_s3prls_on_valid_frames():
    head, known = slot_head(), oracle("sf")
    assert head.labels.sizes == [meta("sf")["vocabulary"]]
    logits = head(known["x"], known["lens"])
    for row, (found, batched) in enumerate(
        zip(unpad(logits, known["lens"]), unpad(known["logits"], known["lens"]), strict=True)
    ):
        for expected in (batched, known[f"logits_alone{row}"]):
            torch.testing.assert_close(found, expected[:, slot_ids()], rtol=0, atol=CLOSE)


def test_tagged_words_become_s3prls_targets():
    """From words and tags to marks, and from marks to ids: the same outputs in the same order."""
    texts = [
        marked(text.upper().split(), iob.split())
        for text, iob in zip(meta("sf")["texts"], meta("sf")["iob"], strict=True)
    ]
    assert texts == meta("sf")["target_text"]
    encoded = [slot_head().labels.encode(text).tolist() for text in texts]
    assert encoded == [target.tolist() for target in slot_targets()]


def test_slot_loss_equals_s3prls():
    head, known = slot_head(), oracle("sf")
    logits, targets = head(known["x"], known["lens"]), slot_targets()
    assert head.loss(logits, known["lens"], targets).item() == pytest.approx(known["ctc_loss"].item(), rel=CLOSE)
    each = [
        head.loss(logits[[row]], known["lens"][[row]], [target]).item() * len(target)
        for row, target in enumerate(targets)
    ]
    assert each == pytest.approx(known["ctc_loss_each"].tolist(), rel=CLOSE)


def test_slots_are_read_as_s3prl_reads_them():
    """Up to letter case and spaces: ours stand around every mark."""
    head, known = slot_head(), oracle("sf")
    found = head.predict(head(known["x"], known["lens"]), known["lens"])
    theirs = meta("sf")["greedy_alone"]
    assert [text.replace(" ", "").lower() for text in found] == [text.replace(" ", "").lower() for text in theirs]


# Of a hypothesis without spaces around the marks: kinds and values that s3prl's regular expression finds there.
GLUED = [
    ("FLY TOB-city NEW YORK E-cityNOW", "fly to B-city new york E-city now"),
    ("B-city OSLO E-cityB-city BONN E-city", "B-city oslo E-city B-city bonn E-city"),
]


@pytest.mark.parametrize(("theirs", "ours"), GLUED)
def test_slots_count_where_a_space_beside_a_mark_was_not_recognised(theirs, ours):
    """As in s3prl, whose expression wants no space behind an end mark."""
    labels = slot_head().labels
    if not {"B-city ", " E-city"} <= set(slot_symbols()):
        pytest.skip("these oracles have no slot 'city'")
    symbols = re.split(r"(B-city | E-city)", theirs)
    ids = [slot_symbols().index(symbol) + 1 for part in symbols for symbol in ([part] if "-" in part else part.lower())]
    assert labels.decode(ids) == ours
    found = re.findall(r"B\-(\S+) (.+?) E\-\1", theirs)
    assert marked_values(ours) == {"city": [value.lower() for _, value in found]}


def test_slot_scores_equal_s3prls():
    scored = meta("sf")["scored"]
    for name in ("slot_type_f1", "slot_value_cer"):
        value = get_metric(name).compute(scored["hyp"], scored["ref"])
        assert value == pytest.approx(100 * scored[name])
    each = [
        get_metric("slot_type_f1").compute([one], [other])
        for one, other in zip(scored["hyp"], scored["ref"], strict=True)
    ]
    assert each == pytest.approx([100 * value for value in scored["each_f1"]])
