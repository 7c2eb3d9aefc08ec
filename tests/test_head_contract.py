"""Every registered head x every check, and the checks against heads that break them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from core.feature_cache import Kind
from core.hidden_states import HiddenStates
from core.lengths import pad, padding_mask
from downstreams import _checks
from downstreams._base import HEADS, FeatureShape, register_head
from downstreams._downstream import Downstream
from downstreams._featurizer import Featurizer
from downstreams._recipe import Recipe
from downstreams.ctc import CTC, BidirectionalLSTM
from downstreams.labels.slots import SlotLabels
from downstreams.labels.text import TextLabels
from downstreams.utterance_linear import UtteranceLinear
from upstreams._extraction.encoding import rows_of

CASES = [(name, check) for name in HEADS.names() for check in _checks.CHECKS]


@pytest.mark.parametrize(("name", "check"), CASES, ids=[f"{name}-{check.__name__}" for name, check in CASES])
def test_contract(name, check):
    assert _checks.run_check(check, name).error is None


class MeansPadding(UtteranceLinear):
    """Takes padding into the mean."""

    def forward(self, features, lengths):
        return self.classifier(self.projector(features).mean(dim=1))


class Bends(UtteranceLinear):
    """An activation before the mean: pooling does not commute any more."""

    def forward(self, features, lengths):
        hidden = self.projector(features).relu()
        mask = padding_mask(lengths, features.shape[1])[:, :, None]
        return self.classifier(hidden.masked_fill(mask, 0).sum(dim=1) / lengths[:, None])


class Idle(UtteranceLinear):
    """A parameter that nothing uses."""

    def __init__(self, shape, labels, options):
        super().__init__(shape, labels, options)
        self.unused = torch.nn.Parameter(torch.zeros(1))


class Forgetful(UtteranceLinear):
    """Logits depend on what the state does not hold."""

    def __init__(self, shape, labels, options):
        super().__init__(shape, labels, options)
        self.shift = float(torch.rand(1))

    def forward(self, features, lengths):
        return super().forward(features, lengths) + self.shift


class Noisy(UtteranceLinear):
    """Dropout that never ends."""

    def forward(self, features, lengths):
        return functional.dropout(super().forward(features, lengths), 0.5, training=True)


class Backwards(UtteranceLinear):
    """Its loss rises as predictions improve."""

    def loss(self, logits, lengths, targets):
        return -super().loss(logits, lengths, targets).clamp(max=9)


class Ids(UtteranceLinear):
    """Predictions are numbers, references are names."""

    def predict(self, logits, lengths):
        return logits.argmax(dim=1).tolist()


class ReadsOn(CTC):
    """Decodes what stands behind the end."""

    def predict(self, logits, lengths):
        return super().predict(logits, torch.full_like(lengths, logits.shape[1] * self.stride))


class LossOnPadding(CTC):
    """The loss counts frames behind the end."""

    def loss(self, logits, lengths, targets):
        return super().loss(logits, torch.full_like(lengths, logits.shape[1] * self.stride), targets)


class LeakyLSTM(CTC):
    """The backward direction starts in the padding."""

    def forward(self, features, lengths):
        return super().forward(features, torch.full_like(lengths, features.shape[1]))


BREAKERS = [
    (MeansPadding, "check_padding_changes_nothing"),
    (MeansPadding, "check_padding_changes_no_gradient"),
    (Bends, "check_pooled_path_equals_frame_path"),
    (Idle, "check_every_parameter_gets_a_gradient"),
    (Forgetful, "check_save_and_load_give_equal_output"),
    (Noisy, "check_evaluation_is_repeatable"),
    (Backwards, "check_overfits_eight_utterances"),
    (Ids, "check_predictions_have_the_form_of_references"),
    (ReadsOn, "check_padding_changes_nothing"),
    (LeakyLSTM, "check_padding_changes_nothing"),
    (LossOnPadding, "check_padding_changes_no_gradient"),
]


@pytest.mark.parametrize(("head", "broken"), BREAKERS, ids=lambda value: getattr(value, "__name__", value))
def test_a_head_that_breaks_a_promise_is_found(head, broken, monkeypatch):
    HEADS.names()
    monkeypatch.setattr(HEADS, "_entries", {})
    register_head("broken")(head)
    assert _checks.run_check(getattr(_checks, broken), "broken").error is not None


@pytest.mark.parametrize("normalise", [False, True])
def test_cached_means_equal_frames(normalise):
    """What the cache keeps of hidden states gives the logits and gradients that their frames give."""
    lengths = (50, 31, 7)
    layers = [torch.randn(length, 4, 10, dtype=torch.float64) for length in lengths]
    padded, valid = pad(layers)  # (batch, frames, num_layers, hidden_size)
    states = HiddenStates(padded.unbind(dim=2), valid)
    kind: Kind = "pooled_normalised" if normalise else "pooled"
    means = torch.stack(rows_of(states, {kind})[kind])
    labels = SlotLabels.from_train(["a", "b", "c"], "keyword")
    recipe = Recipe("test", 1, 3, (1.0,), 1, normalise=normalise)
    downstream = Downstream("utterance_linear", 4, FeatureShape(10, 160), labels, recipe).double()
    torch.nn.init.normal_(downstream.featurizer.weights)
    targets = [labels.encode(value) for value in "abc"]

    def outcome(features, logits):
        loss = downstream.head.loss(logits, torch.ones(3), targets)
        return [logits, *torch.autograd.grad(loss, list(downstream.parameters()))]

    on_means = outcome(means, downstream(means, torch.ones(3, dtype=torch.int64)))
    framewise = Featurizer(4, normalise)
    framewise.weights = downstream.featurizer.weights
    on_frames = outcome(padded, downstream.head(framewise(padded), valid))
    assert len(on_means) == 6  # logits; layer weights; weight and bias of projector and classifier
    for one, other in zip(on_means, on_frames, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_intents_are_several_questions_at_once():
    """Losses of the slots are summed; a prediction has the best class of each."""
    labels = SlotLabels.from_train([{"a": "x", "b": "1"}, {"a": "y", "b": "2"}, {"a": "y", "b": "3"}], "intent")
    assert labels.slots == (("a", ("x", "y")), ("b", ("1", "2", "3")))
    head = UtteranceLinear(FeatureShape(4, 160), labels, UtteranceLinear.options_type())
    logits = torch.tensor([[2.0, 0.0, 0.0, 1.0, 5.0]])
    targets = [labels.encode({"a": "y", "b": "3"})]
    expected = torch.tensor([2.0, 0.0]).logsumexp(0) - 0 + torch.tensor([0.0, 1.0, 5.0]).logsumexp(0) - 5
    torch.testing.assert_close(head.loss(logits, torch.ones(1), targets), expected)
    assert head.predict(logits, torch.ones(1)) == [{"a": "x", "b": "3"}]


def test_greedy_decoding_merges_repeats_and_drops_blanks():
    labels = TextLabels.from_train(["ab"], "text")
    head = CTC(FeatureShape(4, 160), labels, CTC.options_type(projector_size=2, lstm_size=2))
    path = torch.tensor([[0, 1, 1, 0, 1, 2, 2, 0, 2]])
    logits = functional.one_hot(path, 3).float()
    assert head.predict(logits, torch.tensor([9])) == ["aabb"]
    assert head.predict(logits, torch.tensor([6])) == ["aab"]


def test_the_two_lstms_equal_torchs_packed_bidirectional_one():
    size, lengths = 5, torch.tensor([9, 4, 1])
    ours, theirs = BidirectionalLSTM(3, size), torch.nn.LSTM(3, size, batch_first=True, bidirectional=True)
    state = {f"forth.{name}": value for name, value in theirs.named_parameters() if "reverse" not in name}
    state |= {f"back.{name[:-8]}": value for name, value in theirs.named_parameters() if "reverse" in name}
    ours.load_state_dict(state)
    inputs = torch.randn(3, 9, 3)
    packed = torch.nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    found = ours(inputs, lengths).masked_fill(padding_mask(lengths, 9)[:, :, None], 0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_merged_frames_are_means_of_what_there_is():
    labels = TextLabels.from_train(["ab"], "text")
    head = CTC(FeatureShape(1, 160), labels, CTC.options_type(projector_size=2, lstm_size=2, frame_samples=320))
    features = torch.tensor([[1.0, 3.0, 5.0, 9.0, 9.0]])[:, :, None]
    merged = head._merged(features, torch.tensor([3]))
    assert merged[0, :, 0].tolist() == [2.0, 5.0, 0.0]
    assert head.output_lengths(torch.tensor([3])).tolist() == [2]


def test_layer_weights_start_equal_and_sum_to_one():
    featurizer = Featurizer(4)
    assert featurizer.layer_weights().tolist() == [0.25] * 4
    layers = torch.arange(8.0).reshape(1, 1, 4, 2)
    assert featurizer(layers).tolist() == [[[3.0, 4.0]]]
    featurizer.weights.data = torch.tensor([0.0, 0.0, 0.0, 50.0])
    torch.testing.assert_close(featurizer(layers), torch.tensor([[[6.0, 7.0]]]))
