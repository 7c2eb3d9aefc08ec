"""Every kind of labels: what a row holds to targets and back, against s3prl's encodings and values made by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import BenchmarkError, TrainingError
from downstreams.labels._base import LABELS, LabelContext, Labels, labels_from_json, register_labels
from downstreams.labels.activities import ActivityLabels
from downstreams.labels.identities import IdentityLabels
from downstreams.labels.numbers import NumberLabels
from downstreams.labels.slots import SlotLabels
from downstreams.labels.text import TextLabels

ORACLES = Path(os.environ.get("FROSTBENCH_ORACLES") or Path(__file__).parents[2] / "shared" / "oracles") / "tasks"
needs_oracles = pytest.mark.skipif(
    not (ORACLES / "meta.json").is_file(),
    reason=f"no oracles in {ORACLES}: name their parent folder with FROSTBENCH_ORACLES to prove parity with s3prl",
)
TENTH = LabelContext(40, 160)  # 0.4 s at 100 frames a second
MARKED = "Fly to B-city New York E-city  B-time NOW E-time"


def turns(*rows: tuple[float, float, str]) -> list[dict[str, object]]:
    return [{"start": start, "stop": stop, "speaker": speaker} for start, stop, speaker in rows]


def known(kind: type[Labels]) -> Labels:
    return kind.from_train(kind.samples, "label")


@pytest.mark.parametrize("kind", list(LABELS), ids=LABELS.names())
def test_samples_go_round(kind):
    labels = known(kind)
    again = labels_from_json(json.loads(json.dumps(labels.to_json())))
    assert again == labels
    for sample in kind.samples:
        encoded = again.encode(sample, TENTH)
        decoded = again.decode(encoded if kind is ActivityLabels else encoded.tolist(), TENTH)
        if kind is not IdentityLabels:  # whose predictions are vectors, for a scorer to compare
            assert again.matches(decoded, again.reference(sample))
        if not kind.heard:  # whose predictions are arrays, of which scores are kept
            assert json.loads(json.dumps(decoded)) == decoded, "a prediction is kept as JSON"
    assert not again.matches(again.reference(kind.samples[0]), again.reference(kind.samples[5]))


def test_the_kinds():
    assert LABELS.names() == ["activities", "characters", "identities", "numbers", "slots", "text", "waveforms"]
    assert LABELS.get("characters") is LABELS.get("text") is TextLabels
    assert {kind.kind for kind in LABELS if kind.closed_set} == {"slots"}
    assert {kind.kind for kind in LABELS if kind.timed} == {"activities", "waveforms"}
    assert {kind.kind for kind in LABELS if kind.heard} == {"waveforms"}


def test_a_kind_of_ones_own_is_read_by_its_name(monkeypatch):
    monkeypatch.setattr(LABELS, "_entries", dict(LABELS._entries))

    @register_labels("tones")
    class Tones(SlotLabels):
        def to_json(self):
            return {**super().to_json(), "kind": "tones"}

    labels = Tones.from_train(["low", "high"], "tone")
    assert type(labels_from_json(labels.to_json())) is Tones
    with pytest.raises(BenchmarkError, match="unknown label kind 'tonnes': did you mean 'tones'"):
        labels_from_json({"kind": "tonnes"})


def test_heads_on_disk_stay_readable():
    """What the first version wrote."""
    old = labels_from_json({"kind": "characters", "symbols": " abc", "end_marks": True})
    assert old == TextLabels((" ", "a", "b", "c"), end_marks=True)
    assert old.encode("AB c").tolist() == [2, 3, 1, 4, 1, 5]
    old = labels_from_json({"kind": "slots", "slots": [["action", ["off", "on"]]]})
    assert old == SlotLabels((("action", ("off", "on")),))


# Text.


def test_words_are_symbols_of_their_own():
    labels = TextLabels.from_train(["AH0 B", "B  K AH0"], "phones", unit="words", fold=False)
    assert labels.symbols == ("AH0", "B", "K")
    assert labels.sizes == [4]
    assert labels.encode(" K AH0 ZH B").tolist() == [3, 1, 2], "what train lacks is left out"
    assert labels.decode([3, 1, 2]) == "K AH0 B"
    assert labels.reference(" K  AH0") == "K AH0"
    ended = TextLabels.from_train(["b a"], "phones", unit="words", end_marks=True)
    assert (ended.encode("A b").tolist(), ended.sizes) == ([1, 2, 3], [5])
    assert ended.decode([1, 4, 2, 3]) == "a <unk> b", "as s3prl's, whose error rate counts it"


def test_case_counts_where_a_task_says_so():
    assert TextLabels.from_train(["Ab"], "text").encode("aB").tolist() == [1, 2]
    cased = TextLabels.from_train(["Ab"], "text", fold=False)
    assert cased.symbols == ("A", "b") and cased.reference(" Ab  A") == "Ab A"


def test_slot_marks_are_symbols_between_characters():
    labels = TextLabels.from_train([MARKED], "marked", unit="marked")
    assert labels.reference(MARKED) == "fly to B-city new york E-city B-time now E-time"
    marks = [symbol for symbol in labels.symbols if len(symbol) > 1]
    assert marks == [" E-city", " E-time", "B-city ", "B-time "]
    ids = labels.encode(MARKED).tolist()
    spelt = [labels.symbols[index - 1] for index in ids]
    assert spelt == [*"fly to ", "B-city ", *"new york", " E-city", " ", "B-time ", *"now", " E-time"]
    assert labels.decode(ids) == labels.reference(MARKED)


@pytest.mark.parametrize("text", ["E-mail me", "B-city new york", "a B-x b E-y c", "B-x E-x", "grab-it B-it"])
def test_what_is_no_pair_of_marks_is_plain_text(text):
    labels = TextLabels.from_train([text], "marked", unit="marked")
    assert all(len(symbol) == 1 for symbol in labels.symbols)
    assert labels.reference(text) == text.lower()
    assert labels.decode(labels.encode(text).tolist()) == text.lower()


@needs_oracles
def test_slot_marks_equal_s3prls():
    """Its ids: 0 blank, 1 end, 2 unknown, then characters in the order of a file, then two marks a slot."""
    facts = json.loads((ORACLES / "meta.json").read_text())["sf"]
    characters = (ORACLES / "sf_characters.txt").read_text().split("\n")
    characters = [line for line in characters if line]
    slots = (ORACLES / "sf_slots.txt").read_text().split()[-3:]
    marks = [mark for slot in slots for mark in (f"B-{slot} ", f" E-{slot}")]
    labels = TextLabels((*characters, *marks), unit="marked", end_marks=True, fold=False)
    assert labels.sizes == [facts["vocabulary"]]
    theirs = [0, *range(3, 3 + len(labels.symbols)), 1, 2]
    with np.load(ORACLES / "sf.npz") as file:
        expected = [row[:size].tolist() for row, size in zip(file["targets"], file["target_lens"], strict=True)]
    found = [[theirs[index] for index in labels.encode(text).tolist()] for text in facts["target_text"]]
    assert found == expected
    assert [labels.decode([theirs.index(index) for index in row]) for row in expected] == facts["target_text"]


# Turns.


def test_turns_become_frames_by_rounding_at_the_upstreams_rate():
    labels = ActivityLabels(2)
    label = turns((0.034, 0.06, "b"), (0.0, 0.02, "a"), (0.015, 0.04, "a"))
    fine = labels.encode(label, LabelContext(8, 160))
    assert fine[:, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0], "who speaks first has the first column"
    assert fine[:, 1].tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    assert labels.encode(label, LabelContext(3, 320)).T.tolist() == [[1, 1, 0], [0, 0, 1]]
    beyond = labels.encode(turns((0.01, 9.0, "a")), LabelContext(3, 160))
    assert beyond.T.tolist() == [[0, 1, 1], [0, 0, 0]], "no frame behind the end"
    with pytest.raises(TrainingError, match=r"3 speakers \(a, b, c\), but train has 2"):
        labels.encode(turns((0, 1, "a"), (0, 1, "b"), (0, 1, "c")), TENTH)


def test_frames_become_turns():
    labels = ActivityLabels(2)
    active = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0], [1, 0]])
    assert labels.decode(active, LabelContext(5, 320)) == turns((0.0, 0.04, "0"), (0.02, 0.06, "1"), (0.08, 0.1, "0"))
    assert labels.decode(torch.zeros(5, 2), TENTH) == []


def test_turns_of_one_speaker_are_merged_in_references():
    assert ActivityLabels(2).reference(turns((1, 2, "b"), (0, 1.5, "a"), (1.25, 3, "a"))) == turns(
        (0.0, 3.0, "a"), (1.0, 2.0, "b")
    )
    assert ActivityLabels.from_train([turns((0, 1, "a")), turns((0, 1, "x"), (2, 3, "y"), (4, 5, "x"))], "t").sizes == [
        2
    ]


def test_names_of_speakers_do_not_matter():
    labels = ActivityLabels(2)
    truth = turns((0, 1, "a"), (0, 2, "b"))
    assert labels.matches(turns((0, 2.01, "x"), (0, 1, "y")), truth)
    assert not labels.matches(turns((0, 2.1, "x"), (0, 1, "y")), truth)
    assert not labels.matches(turns((0, 2, "x")), truth)


@needs_oracles
def test_activity_of_the_oracle_goes_round():
    """Frames -> turns -> frames gives back what s3prl's loader made, but for columns of who never speaks first."""
    with np.load(ORACLES / "sd.npz") as file:
        rows = [row[:size] for row, size in zip(torch.from_numpy(file["activity"]), file["lens"], strict=True)]
    for rate in (160, 320):
        for row in rows:
            context = LabelContext(len(row), rate)
            again = ActivityLabels(2).encode(ActivityLabels(2).decode(row, context), context)
            assert torch.equal(again, row) or torch.equal(again, row.flip(1))


# Numbers.


def test_numbers_are_trained_on_in_deviations_from_the_mean():
    labels = NumberLabels.from_train([20, 40.0, "30"], "age")
    assert labels.encode(30).tolist() == [0]
    torch.testing.assert_close(labels.encode(40), torch.tensor([np.sqrt(1.5)], dtype=torch.float32))
    assert labels.decode([2.0]) == pytest.approx(30 + 2 * np.sqrt(200 / 3))
    assert (labels.reference("40"), labels.sizes) == (40.0, [1])
    same = NumberLabels.from_train([{"x": 1, "y": 5}, {"y": 7, "x": 1}], "point")
    assert same.encode({"y": 6, "x": 3}).tolist() == [2, 0]
    assert same.reference({"y": 6, "x": 3, "z": 1}) == {"x": 3.0, "y": 6.0}
    for bad in ("old", None, float("nan"), {"x": 1}):
        with pytest.raises(TrainingError):
            same.encode(bad)
    with pytest.raises(TrainingError, match="lacks y"):
        NumberLabels.from_train([{"x": 1, "y": 5}, {"x": 1}], "point")


def test_several_numbers_keep_their_names_and_their_own_scales():
    labels = NumberLabels.from_train([{"y": 0, "x": 10}, {"x": 10, "y": 4}], "point")
    assert (labels.names, labels.means, labels.deviations) == (("x", "y"), (10.0, 2.0), (1.0, 2.0))
    assert labels.sizes == [1, 1]
    assert labels.encode({"y": 5, "x": 9}).tolist() == [-1, 1.5]
    assert labels.encode({"y": 5, "x": 9}).dtype == torch.float32
    assert labels.decode([-1, 1.5]) == {"x": 9.0, "y": 5.0}
    assert labels.to_json() == {"kind": "numbers", "names": ["x", "y"], "means": [10.0, 2.0], "deviations": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("prediction", "right"),
    [({"x": 10.19, "y": 2}, True), ({"x": 9.81, "y": 2}, True), ({"x": 10.21, "y": 2}, False),
     ({"x": 9.79, "y": 2}, False), ({"x": 10, "y": 2.39}, True), ({"x": 10, "y": 1.59}, False),
     ({"x": 10.19, "y": 2.41}, False)],
)  # fmt: skip
def test_numbers_match_within_a_fifth_of_trains_deviation_each(prediction, right):
    labels = NumberLabels.from_train([{"y": 0, "x": 10}, {"x": 10, "y": 4}], "point")
    assert labels.matches(prediction, {"x": 10.0, "y": 2.0}) is right
    assert labels.matches({"x": 10.0, "y": 2.0}, prediction) is right
    assert NumberLabels(("x",), (0.0,), (0.5,)).matches(0.0, 0.1), "the edge itself"


def test_labels_that_are_no_numbers_are_named():
    labels = NumberLabels.from_train([{"x": 1, "y": 5}], "point")
    for bad, words in (("old", "label 'old' is no number; correct the row"), ({"x": None, "y": 1}, "is no number"),
                       ({"x": float("inf"), "y": 1}, "is not finite; correct the row"),
                       ({"x": 1}, "lacks one of x, y")):  # fmt: skip
        with pytest.raises(TrainingError, match=words):
            labels.encode(bad)
    with pytest.raises(TrainingError, match="lacks x, y"):
        NumberLabels.from_train([{"z": 1, "x": 1, "y": 1}, {"z": 1}], "point")
