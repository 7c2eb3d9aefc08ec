"""Parity with s3prl 0.4.18: what each head makes of given features with given weights, and the metrics.

`head_input.npz` has four utterances of 50, 37, 12 and 1 frames: the first is unpadded. Where Frostbench departs on
purpose both are pinned: equality where nothing is padded, and what s3prl does behind the end. Values are single
precision sums of at most 256 terms, so 1e-5 (relative for losses) is what rounding allows.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import MetricError
from core.lengths import mean_over_valid, padding_mask, unpad
from core.metrics import get_metric
from downstreams._base import HEADS, FeatureShape, Head
from downstreams.labels._base import Labels
from downstreams.labels.slots import SlotLabels
from downstreams.labels.text import TextLabels

ORACLES = Path(os.environ.get("FROSTBENCH_ORACLES") or Path(__file__).parents[2] / "shared" / "oracles")
if not (ORACLES / "head_input.npz").is_file():
    pytest.skip(
        f"no oracles in {ORACLES}: name their folder with FROSTBENCH_ORACLES to prove parity with s3prl",
        allow_module_level=True,
    )

accuracy, word_error_rate, character_error_rate, phone_error_rate, equal_error_rate, slot_type_f1, slot_value_cer = (
    get_metric(name).compute for name in ("accuracy", "wer", "cer", "per", "eer", "slot_type_f1", "slot_value_cer")
)
CLOSE = 1e-5
UTTERANCES = range(4)
IC_SLOTS = {"action": 6, "object": 14, "location": 4}
# s3prl's ids of the outputs that ours has in this order: blank, characters, end, <pad>, <unk>.
ASR_IDS = [0, *range(4, 32), 2, 1, 3]
ASR_SYMBOLS = "".join(line.split()[0] for line in (ORACLES / "asr_dict.txt").read_text().splitlines())
PHONES = (ORACLES / "pr_vocab.txt").read_text().split()
# s3prl's ids of the outputs that ours has in this order: blank, phonemes, <eos>, <unk>.
PHONE_IDS = [0, *range(3, 3 + len(PHONES)), 1, 2]


@functools.cache
def oracle(name: str) -> dict[str, np.ndarray]:
    with np.load(ORACLES / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


@functools.cache
def meta(head: str) -> dict:
    return json.loads((ORACLES / "meta.json").read_text())["heads"][head]


@functools.cache
def metrics() -> dict:
    return json.loads((ORACLES / "metrics.json").read_text())


def stored(name: str, key: str) -> torch.Tensor:
    return torch.from_numpy(oracle(name)[key])


def features() -> tuple[torch.Tensor, torch.Tensor]:
    """Features (batch, frames, hidden_size) and valid frames."""
    return stored("head_input", "x"), stored("head_input", "lens")


def slot_labels(sizes: dict[str, int]) -> SlotLabels:
    return SlotLabels(tuple((slot, tuple(f"{index:02d}" for index in range(size))) for slot, size in sizes.items()))


def head_with(name: str, labels: Labels, weights: dict[str, torch.Tensor], **options: Any) -> Head:
    """A head with the oracle's weights; every one of its parameters is given, and says the number of features."""
    head = HEADS.get(name)(
        FeatureShape(weights["projector.weight"].shape[1], 160), labels, HEADS.get(name).options_type(**options)
    )
    head.load_state_dict(weights)
    return head.eval().requires_grad_(False)


def renamed(name: str, names: dict[str, str]) -> dict[str, torch.Tensor]:
    """The oracle's weights under our names: ours -> s3prl's, of modules."""
    names = {"projector": "projector", **names}
    return {
        f"{ours}.{kind}": stored(name, f"{theirs}.{kind}")
        for ours, theirs in names.items()
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in oracle(name)
    }


def assert_losses(head: Head, logits: torch.Tensor, targets: list[torch.Tensor], expected: float) -> None:
    loss = head.loss(logits, features()[1], targets)
    assert loss.item() == pytest.approx(expected, rel=CLOSE)


# Keyword spotting, speaker identification, intent classification: the masked mean.


def linear_head(name: str) -> Head:
    labels = slot_labels(IC_SLOTS if name == "ic" else {"label": len(stored(f"head_{name}", "logits")[0])})
    return head_with("utterance_linear", labels, renamed(f"head_{name}", {"classifier": "model.post_net.linear"}))


@pytest.mark.parametrize("name", ["ks", "sid", "ic"])
def test_linear_head_equals_s3prls(name):
    head, lengths = linear_head(name), features()[1]
    logits = head(*features())
    torch.testing.assert_close(logits, stored(f"head_{name}", "logits"), rtol=0, atol=CLOSE)
    pooled = mean_over_valid(*features())[:, None]  # the way it is trained: on means alone
    torch.testing.assert_close(
        head(pooled, torch.ones_like(lengths)), stored(f"head_{name}", "logits"), rtol=0, atol=CLOSE
    )


@pytest.mark.parametrize(("name", "loss"), [("ks", "loss"), ("sid", "loss"), ("ic", "loss_summed")])
def test_linear_heads_loss_and_accuracy_equal_s3prls(name, loss):
    head, expected = linear_head(name), oracle(f"head_{name}")
    targets = list(stored(f"head_{name}", "labels").reshape(4, -1))
    logits = head(*features())
    assert_losses(head, logits, targets, expected[loss].item())
    assert_losses(head, logits, targets, meta(name)[loss])
    predictions = head.predict(logits, features()[1])
    references = [head.labels.decode(target.tolist()) for target in targets]
    assert accuracy(predictions, references) == pytest.approx(100 * expected["accuracy"].item())
    assert accuracy(predictions, references) == pytest.approx(100 * meta(name)["accuracy"])


def test_an_intent_is_right_if_all_its_slots_are():
    head, expected = linear_head("ic"), oracle("head_ic")
    assert list(IC_SLOTS.values()) == expected["slot_sizes"].tolist() == head.labels.sizes
    predictions = head.predict(head(*features()), features()[1])
    references = [head.labels.decode(row) for row in expected["labels"].tolist()]
    right = [float(prediction == reference) for prediction, reference in zip(predictions, references, strict=True)]
    assert right == expected["item_right"].tolist()
    slots_right = [
        sum(one[slot] == two[slot] for slot in one) for one, two in zip(predictions, references, strict=True)
    ]
    assert max(count for count, whole in zip(slots_right, right, strict=True) if not whole) > 0, "partly right counts 0"


# Attentive pooling: s3prl's padding keeps a weight.


def attention_head() -> Head:
    names = {"classifier": "model.post_net.linear", "attention": "model.pooling.sap_layer.W_a"}
    weights = renamed("head_attentive_pooling", names)
    weights["score.weight"] = stored("head_attentive_pooling", "model.pooling.sap_layer.W.weight")
    return head_with("utterance_attention", slot_labels({"label": 12}), weights)


def s3prls_pooling(head: Any, score_bias: torch.Tensor) -> torch.Tensor:
    """Logits as s3prl computes them: 1 is added to the scores of valid frames, none is removed."""
    x, lengths = features()
    hidden = head.projector(x)
    scores = head.score(head.attention(hidden).relu()) + score_bias
    weights = (scores + (~padding_mask(lengths, x.shape[1]))[:, :, None].float()).softmax(dim=1)
    return head.classifier((weights * hidden).sum(dim=1))


def test_attentive_pooling_equals_s3prls_without_padding():
    logits = attention_head()(*features())
    expected = stored("head_attentive_pooling", "logits")
    torch.testing.assert_close(logits[0], expected[0], rtol=0, atol=CLOSE)


def test_size_of_s3prls_departure_with_padding():
    """The shorter the utterance, the further its padding moves s3prl's logits; alone they would be ours."""
    head = attention_head()
    expected = stored("head_attentive_pooling", "logits")
    departures = (head(*features()) - expected).abs().amax(dim=1).tolist()
    assert departures[1:] == pytest.approx([0.01241, 0.04776, 1.7338], rel=1e-3)
    bias = stored("head_attentive_pooling", "model.pooling.sap_layer.W.bias")
    torch.testing.assert_close(s3prls_pooling(head, bias), expected, rtol=0, atol=CLOSE)
    torch.testing.assert_close(s3prls_pooling(head, bias + 3), expected, rtol=0, atol=CLOSE)  # why ours has no bias


def test_attentive_poolings_loss_and_accuracy_equal_s3prls_on_its_logits():
    head, expected = attention_head(), oracle("head_attentive_pooling")
    logits = stored("head_attentive_pooling", "logits")
    targets = list(stored("head_attentive_pooling", "labels")[:, None])
    assert_losses(head, logits, targets, expected["loss"].item())
    assert_losses(head, logits, targets, meta("attentive_pooling")["loss"])
    references = [head.labels.decode(target.tolist()) for target in targets]
    right = accuracy(head.predict(logits, features()[1]), references)
    assert right == pytest.approx(100 * expected["accuracy"].item())
    assert right == pytest.approx(100 * meta("attentive_pooling")["accuracy"])


# Speech recognition: BLSTM and CTC over characters.


def asr_head() -> Head:
    weights = renamed("head_asr", {})
    for layer in range(2):
        theirs = f"model.rnns.{layer}.layer"
        for kind in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            weights[f"lstms.{layer}.forth.{kind}"] = stored("head_asr", f"{theirs}.{kind}")
            weights[f"lstms.{layer}.back.{kind}"] = stored("head_asr", f"{theirs}.{kind}_reverse")
    for kind in ("weight", "bias"):
        weights[f"classifier.{kind}"] = stored("head_asr", f"model.linear.{kind}")[ASR_IDS]
    labels = TextLabels(tuple(ASR_SYMBOLS.replace("|", " ").lower()), end_marks=True)
    return head_with("ctc", labels, weights, projector_size=48, lstm_size=32)


def asr_targets() -> list[torch.Tensor]:
    """s3prl's targets in our ids."""
    ours = {theirs: ours for ours, theirs in enumerate(ASR_IDS)}
    lengths = oracle("head_asr")["target_lens"].tolist()
    rows = [row[:length] for row, length in zip(oracle("head_asr")["targets"].tolist(), lengths, strict=True)]
    return [torch.tensor([ours[index] for index in row]) for row in rows]


def test_asr_log_probabilities_equal_s3prls_on_valid_frames():
    head, (_, lengths) = asr_head(), features()
    logits = head(*features())
    assert head.output_lengths(lengths).tolist() == oracle("head_asr")["out_lens"].tolist()
    for key, found in (("logits", logits), ("log_probs", logits.log_softmax(dim=2))):
        expected = stored("head_asr", key)[:, :, ASR_IDS]
        for one, other in zip(unpad(found, lengths), unpad(expected, lengths), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=CLOSE)


def test_asr_targets_are_what_end_marks_encode():
    """A space behind every word, `</s>` at the end."""
    head = asr_head()
    texts = [" ".join(words) for words in meta("asr")["target_words"]]
    assert [head.labels.encode(text).tolist() for text in texts] == [target.tolist() for target in asr_targets()]
    assert [text.replace(" ", "|") + "|" for text in texts] == [
        units.replace(" ", "") for units in meta("asr")["target_tokens"]
    ]
    assert head.labels.sizes == [32]


def test_asr_loss_equals_s3prls():
    head, (_, lengths), expected = asr_head(), features(), oracle("head_asr")
    targets, logits = asr_targets(), head(*features())
    assert_losses(head, logits, targets, expected["ctc_loss"].item())
    assert_losses(head, logits, targets, meta("asr")["ctc_loss"])
    assert_losses_of_each(head, logits, targets, expected["ctc_loss_each"])
    assert lengths[3] < len(targets[3]) and expected["ctc_loss_each"][3] == 0, "too short for its text: counts as zero"


def assert_losses_of_each(
    head: Head, logits: torch.Tensor, targets: Sequence[torch.Tensor], expected: np.ndarray
) -> None:
    """Ours divides by the target's length, the oracles' values without reduction are whole."""
    each = [
        head.loss(logits[[row]], features()[1][[row]], [target]).item() * len(target)
        for row, target in enumerate(targets)
    ]
    assert each == pytest.approx(expected.tolist(), rel=CLOSE)


def test_asr_greedy_decoding_equals_s3prls():
    head, expected = asr_head(), oracle("head_asr")
    texts = head.predict(head(*features()), features()[1])
    assert [text.upper().split() for text in texts] == meta("asr")["greedy_words"]
    rows = zip(expected["greedy_ids"], expected["greedy_lens"], strict=True)
    assert texts == [head.labels.decode([ASR_IDS.index(index) for index in row[:length]]) for row, length in rows]
    units = [text.upper().replace(" ", "|") for text in texts]
    assert units == [tokens.replace(" ", "") for tokens in meta("asr")["greedy_tokens"]]


def test_asr_error_rates_equal_s3prls():
    head, expected = asr_head(), oracle("head_asr")
    texts = head.predict(head(*features()), features()[1])
    references = [" ".join(words).lower() for words in meta("asr")["target_words"]]
    assert word_error_rate(texts, references) == pytest.approx(expected["wer"].item())
    assert word_error_rate(texts, references) == pytest.approx(meta("asr")["wer"])
    found = character_error_rate(
        [text.replace(" ", "|") for text in texts], [text.replace(" ", "|") + "|" for text in references]
    )
    assert found == pytest.approx(expected["uer"].item())
    assert found == pytest.approx(meta("asr")["uer"])


# Phoneme recognition: a linear classifier a frame.


def phone_head() -> Head:
    weights = renamed("head_pr_framelevel", {"classifier": "model.linear"})
    for kind in ("weight", "bias"):
        weights[f"classifier.{kind}"] = weights[f"classifier.{kind}"][PHONE_IDS]
    labels = TextLabels(tuple(PHONES), unit="words", end_marks=True, fold=False)
    return head_with("ctc", labels, weights, projector_size=len(weights["projector.bias"]), lstm_layers=0)


def phone_targets() -> list[torch.Tensor]:
    """s3prl's targets in our ids."""
    ours = {theirs: ours for ours, theirs in enumerate(PHONE_IDS)}
    rows = unpad(stored("head_pr_framelevel", "targets"), stored("head_pr_framelevel", "target_lens"))
    return [torch.tensor([ours[index] for index in row.tolist()]) for row in rows]


def test_phone_logits_equal_s3prls():
    """Each frame stands for itself, so padding has the same logits here and there: those of the bias."""
    head = phone_head()
    assert head.labels.sizes == [len(PHONES) + 3] == [len(PHONE_IDS)]
    expected = stored("head_pr_framelevel", "logits")[:, :, PHONE_IDS]
    torch.testing.assert_close(head(*features()), expected, rtol=0, atol=CLOSE)


def test_phone_targets_are_what_words_with_an_end_mark_encode():
    """`<eos>` at the end, and no symbol between two phonemes."""
    labels = phone_head().labels
    texts = meta("pr_framelevel")["reference"]
    assert [labels.encode(text).tolist() for text in texts] == [target.tolist() for target in phone_targets()]
    assert all(text == labels.reference(f" {text}  ") for text in texts)


def test_phone_loss_equals_s3prls():
    head, expected = phone_head(), oracle("head_pr_framelevel")
    logits, targets = head(*features()), phone_targets()
    assert_losses(head, logits, targets, expected["ctc_loss"].item())
    assert_losses(head, logits, targets, meta("pr_framelevel")["ctc_loss"])
    assert_losses_of_each(head, logits, targets, expected["ctc_loss_each"])


def greedy_phones(row: int, frames: int) -> str:
    """s3prl's logits of an utterance decoded step by step: the best of each frame, repeats merged, blanks dropped."""
    best = stored("head_pr_framelevel", "logits")[row, :frames].argmax(dim=1).tolist()
    heard = [index for place, index in enumerate(best) if place == 0 or index != best[place - 1]]
    return " ".join([None, None, "<unk>", *PHONES][index] for index in heard if index >= 2)


def test_phones_are_read_to_the_end_and_s3prls_beyond():
    """s3prl decodes padding, too, all of whose frames are alike: those of the bias."""
    head, theirs = phone_head(), meta("pr_framelevel")["greedy"]
    logits, lengths = head(*features()), features()[1]
    ours = head.predict(logits, lengths)
    most = logits.shape[1]
    assert ours == [greedy_phones(row, length) for row, length in enumerate(lengths.tolist())]
    assert theirs == [greedy_phones(row, most) for row in UTTERANCES] != ours
    assert [one for one, length in zip(ours, lengths, strict=True) if length == most] == [
        one for one, length in zip(theirs, lengths, strict=True) if length == most
    ]
    assert head.predict(logits, torch.full_like(lengths, most)) == theirs


def test_phone_error_rate_equals_s3prls_on_its_output():
    """Its output has the phonemes of padding, each of which may cost it an edit; ours has none of them."""
    head, expected = phone_head(), oracle("head_pr_framelevel")["per"].item()
    references = [head.labels.decode(target.tolist()) for target in phone_targets()]
    assert references == meta("pr_framelevel")["reference"]
    assert phone_error_rate(meta("pr_framelevel")["greedy"], references) == pytest.approx(100 * expected)
    assert meta("pr_framelevel")["per"] == pytest.approx(expected)
    ours = head.predict(head(*features()), features()[1])
    assert abs(phone_error_rate(ours, references) - 100 * expected) <= 100 * len(UTTERANCES) / sum(
        len(reference.split()) for reference in references
    )


# Metrics.


def unit_error_rate(predictions: Sequence[str], references: Sequence[str]) -> float:
    """s3prl's count in its ASR task: letters in one case, `|` for a space and at the end, also of an empty text."""

    def units(texts: Sequence[str]) -> list[str]:
        return [text.lower().replace(" ", "|") + "|" for text in texts]

    return character_error_rate(units(predictions), units(references))


TEXT_METRICS = {
    "wer": (word_error_rate, 100),
    "cer": (character_error_rate, 100),
    "wer_percent": (word_error_rate, 1),
    "uer_percent": (unit_error_rate, 1),
}


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_error_rates_of_texts_equal_s3prls(name):
    compute, scale = TEXT_METRICS[name]
    pairs = metrics()["text"]["pairs"]
    assert len(pairs) == 20
    for pair in pairs:
        assert compute([pair["hyp"]], [pair["ref"]]) == pytest.approx(scale * pair[name])
    corpus = compute([pair["hyp"] for pair in pairs], [pair["ref"] for pair in pairs])
    assert corpus == pytest.approx(scale * metrics()["text"][name])
    if not name.endswith("_percent"):
        assert corpus == pytest.approx(100 * metrics()["text"][f"legacy_ctc_{name}"])


def test_phone_error_rates_equal_s3prls():
    pairs = metrics()["phones"]["pairs"]
    for pair in pairs:
        assert phone_error_rate([pair["hyp"]], [pair["ref"]]) == pytest.approx(100 * pair["per"])
    corpus = phone_error_rate([pair["hyp"] for pair in pairs], [pair["ref"] for pair in pairs])
    assert len(pairs) == 20
    assert corpus == pytest.approx(100 * metrics()["phones"]["per"])
    assert corpus == pytest.approx(100 * metrics()["phones"]["legacy_ctc_per"])


def test_slot_scores_equal_s3prls():
    """Type F1 is a mean over utterances; an utterance without slots adds nothing to the errors of values."""
    examples = metrics()["slots"]["examples"]
    for each in examples:
        assert slot_type_f1([each["hyp"]], [each["ref"]]) == pytest.approx(100 * each["slot_type_f1"])
        if isinstance(each["slot_value_cer"], str):
            with pytest.raises(MetricError, match="every reference is empty"):
                slot_value_cer([each["hyp"]], [each["ref"]])
        else:
            assert slot_value_cer([each["hyp"]], [each["ref"]]) == pytest.approx(100 * each["slot_value_cer"])
    texts = [each["hyp"] for each in examples], [each["ref"] for each in examples]
    assert slot_type_f1(*texts) == pytest.approx(100 * metrics()["slots"]["slot_type_f1"])
    assert slot_value_cer(*texts) == pytest.approx(100 * metrics()["slots"]["slot_value_cer"])


@pytest.mark.parametrize("case", metrics()["eer"], ids=lambda case: case["case"])
def test_equal_error_rates_equal_s3prls(case):
    assert equal_error_rate(case["scores"], case["labels"]) == pytest.approx(100 * case["eer"], abs=1e-6)


# case: our WER and CER as the metrics get the texts, then WER as a task gets them (folded); s3prl.metric's WER and CER,
# and the WER of its ASR task. None: a rate without a reference word is refused.
EDGE_CASES = {
    "empty hypothesis": ((100, 100, 100), (100, 100, 100)),
    "two spaces in the hypothesis": ((0, 100 / 9, 0), (50, 100 / 9, 0)),  # there an empty word
    "space at the end of the reference": ((0, 0, 0), (100 / 3, 10, 0)),  # there an empty word
    "empty reference": ((None, None, None), (100, None, 100)),
    "both empty": ((None, None, None), (0, None, 100)),
    "letter case": ((50, 100 / 9, 0), (50, 100 / 9, 0)),
}


def rate_or_none(compute: Any, prediction: str, reference: str) -> float | None:
    try:
        return compute([prediction], [reference])
    except MetricError as error:
        assert "every reference is empty" in str(error)
        return None


@pytest.mark.parametrize("case", metrics()["edge_cases"], ids=lambda case: case["case"])
def test_edge_cases_of_error_rates(case):
    texts = case["hyp"], case["ref"]
    ours, theirs = EDGE_CASES[case["case"]]
    reference = TextLabels(()).reference
    found = (
        rate_or_none(word_error_rate, *texts),
        rate_or_none(character_error_rate, *texts),
        rate_or_none(word_error_rate, *map(reference, texts)),
    )
    assert found == pytest.approx(ours)
    raised = isinstance(case["cer"], str)
    assert raised == (theirs[1] is None)
    assert not raised or case["cer"].startswith("ZeroDivisionError")
    units, words = case["expert_uer_and_wer_percent"]
    assert (100 * case["wer"], None if raised else 100 * case["cer"], words) == pytest.approx(theirs)
    assert unit_error_rate([case["hyp"]], [case["ref"]]) == pytest.approx(units)


def test_words_against_an_empty_reference_are_insertions_in_a_corpus():
    """A corpus has a rate all the same, where s3prl counts an empty reference as a word of no letters."""
    assert word_error_rate(["word", "two words"], ["", "two words"]) == pytest.approx(100 / 2)
    assert word_error_rate(["", "two words"], ["", "two words"]) == 0
    assert character_error_rate(["word", "two words"], ["", "two words"]) == pytest.approx(400 / 9)
