"""The protocol: SUPERB's recipes as published, what they need (crops, masks, balance), and tasks of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from itertools import chain

import numpy as np
import pytest
import torch

from core.digest import digest_of
from downstreams import _checks
from downstreams._base import HEADS, FeatureShape
from downstreams._data import PooledExamples, training_batches
from downstreams._downstream import Downstream
from downstreams._recipe import POWERS_OF_TEN, Recipe, SpecAugment
from downstreams._spec_augment import augment
from downstreams.ctc import CTC, BidirectionalLSTM
from downstreams.labels._base import Labels, labels_from_json
from downstreams.labels.activities import ActivityLabels
from downstreams.labels.slots import SlotLabels
from downstreams.labels.text import TextLabels
from downstreams.labels.waveforms import WaveformLabels
from frostbench.grid.plan import Grid, make_cells
from leaderboard.superb import FILE, superb_tasks
from tasks._audio import AudioRecipe
from tasks._base import TASKS

BASE = FeatureShape(hidden_size=768, downsample_rate=320)
LETTERS = " 'abcdefghijklmnopqrstuvwxyz"  # of LibriSpeech


SLOT_MARKS = [mark for index in range(39) for mark in (f"B-s{index} ", f" E-s{index}")]  # SNIPS has 39 kinds


# What is published (shared by all but ST: constant rate, no patience, clipping at 1, no layer norm before the sum).

PUBLISHED = {
    "ks": {"batch_size": 32, "steps": 200_000, "eval_every": 5_000, "balanced": True},
    "sid": {"batch_size": 32, "steps": 200_000, "eval_every": 5_000},
    "ic": {"batch_size": 32, "steps": 200_000, "eval_every": 5_000},
    "asr": {
        "batch_size": 16,
        "steps": 200_000,
        "eval_every": 2_000,
        "even_batches": True,
        "spec_augment": SpecAugment(warp_frames=5, time_masks=2, time_width=40, feature_masks=4, feature_width=50),
        "head": {"end_marks": True},
    },
    "pr": {
        "batch_size": 32,
        "steps": 100_000,
        "eval_every": 1_000,
        "even_batches": True,
        "head": {"projector_size": 256, "lstm_layers": 0, "unit": "words", "fold": False, "end_marks": True},
    },
    "ood_asr": {
        "batch_size": 16,
        "steps": 500_000,
        "eval_every": 2_000,
        "even_batches": True,
        "spec_augment": SpecAugment(warp_frames=5, time_masks=2, time_width=40, feature_masks=4, feature_width=50),
        "head": {"projections": True, "frame_samples": 320, "drop_frames": True, "unit": "marked", "end_marks": True},
    },
    "er": {"batch_size": 32, "steps": 30_000, "eval_every": 1_000},
    "sd": {"batch_size": 32, "steps": 30_000, "eval_every": 500},
    "st": {
        "batch_size": 1_600,
        "batch_seconds": 8 * 10_000 * 0.02,
        "steps": 32_000,
        "eval_every": 2_000,
        "clip": 10.0,
        "schedule": "inverse_sqrt_s3prl",
        "warmup_steps": 10_000,
        "even_batches": True,
    },
    "se": {"batch_size": 8, "steps": 150_000, "eval_every": 1_250},
    "ss": {"batch_size": 8, "steps": 150_000, "eval_every": 2_000},
    "sf": {
        "batch_size": 32,
        "steps": 200_000,
        "eval_every": 2_000,
        "even_batches": True,
        "spec_augment": SpecAugment(warp_frames=5, time_masks=2, time_width=40, feature_masks=4, feature_width=50),
        "head": {"unit": "marked", "end_marks": True},
    },
}


PUBLISHED_AUDIO = {"ks": AudioRecipe(gain_db=-3.0), "sid": AudioRecipe(crop_samples=8 * 16_000, crops=4)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_superb_recipe_is_the_published_one(name):
    plain = Recipe("superb", 0, 0, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7), 0, clip=1.0, schedule="constant")
    assert TASKS.get(name).recipe("superb") == replace(plain, **PUBLISHED[name])
    assert TASKS.get(name).audio_of(plain) == PUBLISHED_AUDIO.get(name, AudioRecipe())
    assert TASKS.get(name).audio_of(TASKS.get(name).recipe("fast")) == AudioRecipe()
    assert plain.learning_rates == POWERS_OF_TEN


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("ks", ["accuracy"]),
        ("sid", ["accuracy"]),
        ("ic", ["accuracy"]),
        ("asr", ["wer"]),
        ("pr", ["per"]),
        ("er", ["accuracy"]),
        ("asv", ["eer"]),
        ("qbe", ["mtwv"]),
        ("sd", ["der"]),
        ("st", ["bleu"]),
        ("se", ["pesq", "stoi", "si_sdri"]),  # the last beside those of the board
        ("ss", ["si_sdri"]),
        ("sf", ["slot_type_f1", "slot_value_cer"]),
    ],
)
def test_metrics_are_the_published_ones_of_which_the_first_chooses(name, metrics):
    assert list(TASKS.get(name).metrics) == metrics
    assert TASKS.get(name).selecting == metrics[0]


def slots(*sizes: int) -> SlotLabels:
    return SlotLabels(tuple((f"slot{i}", tuple(f"{j:04d}" for j in range(size))) for i, size in enumerate(sizes)))


@pytest.mark.parametrize(
    ("name", "labels", "outputs", "parameters"),
    [
        ("ks", slots(12), 12, 199_948),
        ("sid", slots(1251), 1251, 518_371),
        ("ic", slots(6, 14, 4), 24, 203_032),
        ("asr", TextLabels(tuple(LETTERS), end_marks=True), 32, 42_828_832),
        ("er", slots(4), 4, 197_892),
        ("sd", ActivityLabels(2), 2, 2_626_562),
        ("ss", WaveformLabels(2), 2 * 257, 51_427_330),
        ("sf", TextLabels((*LETTERS, *SLOT_MARKS), "marked", True), 109, 42_986_605),
        # SUPERB-SG's Spanish vocabulary; a projection behind each LSTM layer.
        (
            "ood_asr",
            TextLabels(tuple(chr(index) for index in range(0x4E00, 0x4E00 + 54)), "marked", True),
            57,
            42_828_832 + 25 * 2_049 + 2 * (2_048 * 2_048 + 2_048),
        ),
        # 28,626,944 and 1,024 a symbol, here an alphabet's and the boundary.
        ("st", TextLabels(tuple(LETTERS), fold=False), 29, 28_626_944 + 29 * 1_024),
        ("pr", TextLabels(tuple(f"p{index}" for index in range(71)), "words", True, False), 74, 215_882),
    ],
)
def test_heads_have_exactly_the_published_parameters(name, labels, outputs, parameters):
    """At the width of a Base model; besides, the layer weights learn."""
    task = TASKS.get(name)
    with torch.device("meta"):
        downstream = Downstream(task.head, 13, BASE, labels, task.recipe("superb"))
    bins = getattr(downstream.head, "bins", 1)  # of a mask
    assert downstream.head.classifier.out_features == outputs == sum(labels.sizes) * bins
    assert sum(parameter.numel() for parameter in downstream.head.parameters()) == parameters
    assert [name for name, _ in downstream.named_parameters() if not name.startswith("head.")] == ["featurizer.weights"]
    assert downstream.featurizer.weights.numel() == 13


def test_the_two_lstms_have_the_parameters_of_torchs_bidirectional_one():
    with torch.device("meta"):
        for inputs, expected in ((1024, 16_793_600), (2048, 25_182_208)):
            theirs = torch.nn.LSTM(inputs, 1024, bidirectional=True)
            for lstm in (BidirectionalLSTM(inputs, 1024), theirs):
                assert sum(parameter.numel() for parameter in lstm.parameters()) == expected


def test_asr_head_is_regular_in_training_only():
    """Dropout of 0.2 behind each of two layers."""
    options = CTC.options_type()
    assert (options.projector_size, options.lstm_size, options.lstm_layers, options.dropout) == (1024, 1024, 2, 0.2)
    head = CTC(FeatureShape(4, 320), TextLabels(("a", "b")), CTC.options_type(projector_size=8, lstm_size=8))
    seen = []
    head.dropout.register_forward_hook(lambda module, inputs, output: seen.append((output == 0).float().mean().item()))
    features, lengths = torch.randn(8, 50, 4), torch.full((8,), 50)
    head.train()(features, lengths)
    head.eval()(features, lengths)
    assert len(seen) == 4
    assert all(0.17 < share < 0.23 for share in seen[:2])
    assert seen[2:] == [0, 0]


def test_projections_and_dropped_frames_are_those_of_torchs_lstm():
    """SUPERB-SG: every second frame, then each layer's two directions, a linear layer of their width, and tanh."""
    torch.manual_seed(0)
    options = CTC.options_type(
        projector_size=6, lstm_size=5, projections=True, frame_samples=320, drop_frames=True, dropout=0.0
    )
    head = CTC(FeatureShape(4, 160), TextLabels(("a", "b")), options)
    features, lengths = torch.randn(2, 9, 4), torch.tensor([9, 6])
    logits = head(features, lengths)
    assert head.output_lengths(lengths).tolist() == [5, 3] and logits.shape == (2, 5, 3)
    for row, length in enumerate(lengths.tolist()):
        hidden = head.projector(features[row : row + 1, :length:2])
        for lstm, projection in zip(head.lstms, head.projections, strict=True):
            theirs = torch.nn.LSTM(hidden.shape[2], 5, batch_first=True, bidirectional=True)
            both = {f"{name}{suffix}": value for suffix, part in (("", lstm.forth), ("_reverse", lstm.back))
                    for name, value in part.state_dict().items()}  # fmt: skip
            theirs.load_state_dict(both)
            hidden = projection(theirs(hidden)[0]).tanh()
        expected = head.classifier(hidden)[0]
        torch.testing.assert_close(logits[row, : len(expected)], expected, atol=1e-6, rtol=1e-5)


# SpecAugment.

OFF = SpecAugment(warp_frames=0, time_masks=0, time_width=40, feature_masks=0, feature_width=50)
FRAMES = torch.tensor([200, 90])


def masked(settings: SpecAugment, seed: int, size: int = 120) -> torch.Tensor:
    """bool (2, 200, size): what became zero of ones, padding included."""
    torch.manual_seed(seed)
    return augment(torch.ones(2, 200, size), FRAMES, settings) == 0


def runs(line: torch.Tensor) -> list[int]:
    """Lengths of the runs of True."""
    values, counts = line.unique_consecutive(return_counts=True)
    return counts[values].tolist()


def test_off_changes_nothing():
    features = torch.randn(2, 200, 7)
    assert torch.equal(augment(features, FRAMES, OFF), features)


def test_time_masks_are_bounded_whole_and_zero():
    settings, seen = replace(OFF, time_masks=2), []
    for seed in range(60):
        for row, length in enumerate(FRAMES.tolist()):
            mask = masked(settings, seed)[row]
            assert torch.equal(mask.any(dim=1), mask.all(dim=1)), "whole frames"
            assert not mask[length:].any(), "padding is left alone"
            assert len(runs(mask[:, 0])) <= 2 and int(mask[:, 0].sum()) <= 2 * 39
            seen += runs(mask[:, 0])
    assert max(seen) > 39, "two may touch"
    assert len({width for width in seen if width < 40}) > 30, "every width below 40 occurs"


def test_feature_masks_are_bounded_whole_and_zero():
    settings, seen = replace(OFF, feature_masks=4), []
    for seed in range(60):
        mask = masked(settings, seed, 768)[0]
        assert torch.equal(mask.any(dim=0), mask.all(dim=0)), "the same features in all frames"
        assert len(runs(mask[0])) <= 4 and int(mask[0].sum()) <= 4 * 49
        seen += runs(mask[0])
    assert len({width for width in seen if width < 50}) > 40, "every width below 50 occurs"


@pytest.mark.parametrize(("field", "width"), [("time", 40), ("feature", 50)])
def test_the_width_of_one_mask_is_uniform_below_its_bound(field, width):
    settings = replace(OFF, **{f"{field}_masks": 1})
    widths = []
    for seed in range(400):
        mask = masked(settings, seed)[0]
        widths.append(int(mask.all(dim=1).sum() if field == "time" else mask.all(dim=0).sum()))
    assert (min(widths), max(widths)) == (0, width - 1)
    assert np.mean(widths) == pytest.approx((width - 1) / 2, abs=2.5)


def test_masks_fit_utterances_that_are_shorter_than_they():
    torch.manual_seed(0)
    for length in (1, 2, 9):
        out = augment(torch.ones(1, 12, 5), torch.tensor([length]), SpecAugment())
        assert out.shape == (1, 12, 5)
        assert out[0, length:].eq(1).all()
        assert set(out[0].unique().tolist()) <= {0.0, 1.0}


def test_time_warp_moves_frames_by_less_than_its_window():
    ramp = torch.arange(200.0)[None, :, None].expand(2, 200, 3).contiguous()
    moved = []
    for seed in range(20):
        torch.manual_seed(seed)
        out = augment(ramp, FRAMES, replace(OFF, warp_frames=5))
        assert out.shape == ramp.shape
        assert torch.equal(out[1, 90:], ramp[1, 90:])
        torch.testing.assert_close(out[..., 0], out[..., 1])  # features stay where they are
        moved.append((out[0] - ramp[0]).abs().max().item())
    assert 1 < max(moved) < 7  # the window, and the cubic's overshoot
    torch.manual_seed(0)
    short = augment(ramp[:, :10], torch.tensor([10, 10]), replace(OFF, warp_frames=5))
    assert torch.equal(short, ramp[:, :10]), "too short to bend"


def test_masks_are_drawn_in_training_only_and_differ_between_utterances():
    recipe = Recipe("superb", 1, 1, (1.0,), 1, spec_augment=SpecAugment(warp_frames=0), head={"lstm_size": 4})
    downstream = Downstream("ctc", 1, FeatureShape(60, 320), TextLabels(("a", "b")), recipe)
    seen = []
    downstream.head.projector.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    layers = torch.ones(2, 200, 1, 60)
    torch.manual_seed(0)
    downstream.train()(layers, torch.tensor([200, 200]))
    downstream.eval()(layers, torch.tensor([200, 200]))
    training, evaluation = seen
    assert training.eq(0).any() and not torch.equal(training[0], training[1])
    assert torch.equal(evaluation, torch.ones(2, 200, 60))
    assert torch.equal(layers, torch.ones_like(layers)), "the features themselves stay"


# The order of training.


def in_memory(labels: list[str], lengths: list[int] | None = None) -> PooledExamples:
    known = SlotLabels.from_train(labels, "label")
    data = PooledExamples(torch.zeros(1, 1, 1, 1), [[0]] * len(labels), [known.encode(label) for label in labels])
    return data if lengths is None else WithLengths(data, lengths)  # type: ignore[return-value]


class WithLengths:
    """Utterances of given lengths."""

    def __init__(self, data: PooledExamples, lengths: list[int]) -> None:
        self.targets, self.lengths = data.targets, lengths


def epochs(data: PooledExamples, recipe: Recipe, count: int, batches: int, seed: int = 0) -> list[list[list[int]]]:
    stream = training_batches(data, recipe, torch.Generator().manual_seed(seed))
    return [[next(stream) for _ in range(batches)] for _ in range(count)]


def test_balanced_draws_give_every_class_about_its_share():
    """Eleven words and six recordings of silence, as in Speech Commands: a twelfth each."""
    data = in_memory([*(word for word in "abcdefghijk" for _ in range(80)), *["silence"] * 6])
    recipe = Recipe("test", 1, 32, (1.0,), 1, balanced=True)
    drawn = [index for epoch in epochs(data, recipe, 40, 886 // 32) for batch in epoch for index in batch]
    classes = torch.stack(data.targets)[drawn].flatten()
    shares = classes.bincount(minlength=12) / len(drawn)
    assert len(drawn) == 40 * 27 * 32
    assert shares.min() > 0.9 / 12 and shares.max() < 1.1 / 12


def test_balanced_epochs_drop_the_last_small_batch_unless_it_is_the_only_one():
    recipe = Recipe("test", 1, 4, (1.0,), 1, balanced=True)
    many = epochs(in_memory(list("abcabcabca")), recipe, 30, 2)
    assert {len(batch) for epoch in many for batch in epoch} == {4}
    few = epochs(in_memory(list("abc")), recipe, 5, 1)
    assert {len(batch) for epoch in few for batch in epoch} == {3}
    assert any(len(set(batch)) < 3 for epoch in few for batch in epoch), "with replacement"


def test_plain_epochs_have_everything_once():
    for epoch in epochs(in_memory(list("abcabcabca")), Recipe("test", 1, 4, (1.0,), 1), 3, 3):
        assert sorted(index for batch in epoch for index in batch) == list(range(10))


def test_even_batches_are_the_same_neighbours_every_epoch_in_another_order():
    """Also where lengths are equal, which s3prl keeps in the order of its list."""
    lengths = [30, 10, 10, 20, 10, 10, 20, 30, 10, 20, 40]
    data = in_memory(["a"] * 11, lengths)
    recipe = Recipe("test", 1, 3, (1.0,), 1, even_batches=True)
    first, *others = epochs(data, recipe, 12, 4)
    assert sorted(map(tuple, first)) == [(1, 2, 4), (5, 8, 3), (6, 9, 0), (7, 10)]
    for epoch in others:
        assert sorted(epoch) == sorted(first)
    assert any(epoch != first for epoch in others)
    assert epochs(data, recipe, 3, 4) == epochs(data, recipe, 3, 4)
    assert epochs(data, recipe, 3, 4) != epochs(data, recipe, 3, 4, seed=1)


def test_blurred_batches_differ_between_epochs():
    data = in_memory(["a"] * 40, list(range(100, 140)))
    first, second = epochs(data, Recipe("test", 1, 4, (1.0,), 1), 2, 10)
    assert sorted(first) != sorted(second)
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(40))


# Marks at the end of a text.


def test_end_marks_go_round():
    labels = TextLabels.from_train(["Hello you", "it's"], "text", end_marks=True)
    assert labels.sizes == [1 + len(labels.symbols) + 3]
    for text in ("hello you", "it's", "you"):
        ids = labels.encode(text).tolist()
        assert ids[-2:] == [labels.symbols.index(" ") + 1, len(labels.symbols) + 1]
        assert labels.decode(ids) == text == labels.reference(text.upper())
        assert labels.decode([*ids, len(labels.symbols) + 2, len(labels.symbols) + 3]) == text
    plain = TextLabels(labels.symbols)
    assert plain.encode("you").tolist() == labels.encode("you").tolist()[:-2]
    assert labels_from_json(json.loads(json.dumps(labels.to_json()))) == labels


def test_superb_asr_reads_end_marks_from_its_recipe():
    head = HEADS.get("ctc")
    task = TASKS.get("asr")
    told: dict[str, Labels] = {
        name: head.labels_from_train(["ab c"], "text", task.recipe(name)) for name in ("fast", "superb")
    }
    assert (told["fast"].sizes, told["superb"].sizes) == ([5], [8])
    assert told["superb"].encode("ab").tolist() == [2, 3, 1, 5]


# Heads beyond the four tasks.


def test_attention_pools_valid_frames_by_their_weight():
    """With scores of nothing it is the mean; one frame that shouts is all there is."""
    labels = SlotLabels.from_train(["a", "b"], "label")
    head = HEADS.get("utterance_attention")(FeatureShape(3, 160), labels, _options(projector_size=3))
    hidden, lengths = torch.randn(2, 6, 3), torch.tensor([6, 4])
    head.score.weight.data.zero_()
    means = torch.stack([hidden[0].mean(dim=0), hidden[1, :4].mean(dim=0)])
    torch.testing.assert_close(head.pool(hidden, lengths), means)
    head.attention.load_state_dict({"weight": torch.eye(3), "bias": torch.zeros(3)})
    head.score.weight.data.fill_(100.0)
    hidden[:, 2], hidden[1, 5] = 9.0, 99.0
    torch.testing.assert_close(head.pool(hidden, lengths), hidden[:, 2])


def _options(**sizes: int):
    return HEADS.get("utterance_attention").options_type(**sizes)


def test_heads_for_utterances_name_their_weights_alike():
    labels = SlotLabels.from_train(["a", "b"], "label")
    names = {
        name: {key.split(".")[0] for key in HEADS.get(name)(_checks.SHAPE, labels, _options()).state_dict()}
        for name in ("utterance_linear", "utterance_attention")
    }
    assert names["utterance_linear"] == {"projector", "classifier"}
    assert names["utterance_attention"] == {"projector", "classifier", "attention", "score"}


def test_the_superb_board_knows_the_tasks_as_they_are_declared(request):
    """`leaderboard/superb.json` can't import the declarations: what it holds of them is written by --update-golden."""
    found = {
        name: asdict(task)
        | {
            "metrics": list(TASKS.get(name).metrics),
            "head": TASKS.get(name).head,
            "task": TASKS.get(name).digest(),
            "recipe": digest_of(TASKS.get(name).recipe("superb")),
            "audio": digest_of(TASKS.get(name).audio_of(TASKS.get(name).recipe("superb"))),
        }
        for name, task in superb_tasks().items()
    }
    if request.config.getoption("--update-golden"):
        FILE.write_text(json.dumps(found, indent=2) + "\n")
        superb_tasks.cache_clear()
    assert found == {name: asdict(task) for name, task in superb_tasks().items()}
    not_superbs = {"ood_asr"}  # SUPERB-SG's, of several corpora
    assert set(found) == {task.name for task in TASKS if "superb" in task.recipes} - not_superbs


SLOWER = replace(TASKS.get("ks").recipe("superb"), steps=2_000_000)
FAST = TASKS.get("ks").recipe("fast")


@pytest.mark.parametrize(
    ("task", "recipe", "custom"),
    [
        (TASKS.get("ks"), "superb", False),
        (replace(TASKS.get("ks"), title="Words"), "superb", False),
        (TASKS.get("ks").with_head("utterance_attention"), "superb", False),
        (replace(TASKS.get("ks"), name="mine", head="utterance_attention"), "superb", False),
        (replace(TASKS.get("ks"), head="utterance_attention"), "superb", True),
        (replace(TASKS.get("ks"), head="utterance_attention", default_head="utterance_attention"), "superb", True),
        (replace(TASKS.get("ks"), recipes={"superb": SLOWER}), "superb", True),
        (replace(TASKS.get("ks").with_head("utterance_attention"), recipes={"superb": SLOWER}), "superb", True),
        (replace(TASKS.get("ks"), recipes={"superb": replace(FAST, name="superb")}), "superb", True),
        (replace(TASKS.get("ks"), recipes={"mine": replace(FAST, name="mine")}), "mine", True),
        (replace(TASKS.get("ks"), label="text"), "superb", True),
        (replace(TASKS.get("ks"), metrics=("accuracy", "wer")), "superb", True),
    ],
)
def test_another_content_under_a_registered_name_is_custom(corpus, task, recipe, custom):
    assert task.is_custom(task.recipe(recipe)) is custom
    if task.label == "keyword" and recipe == "superb":
        (cell,) = make_cells(Grid(("mfcc",), (task,), (0,), recipe), corpus).cells
        assert cell.custom is custom
        assert replace(cell, custom=not custom).run != cell.run
    (limited,) = make_cells(Grid(("mfcc",), (TASKS.get("ks"),), (0,), "superb", 5), corpus).cells
    assert limited.custom is True


def other(value: object) -> object:
    """Another value of the kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, tuple):
        return value[:-1] or (*value, *value)
    return {"projector_size": 7} if isinstance(value, Mapping) else "other"


KS = TASKS.get("ks")
SUPERBS, AUDIO = KS.recipe("superb"), KS.audio["superb"]
FOR_PEOPLE, OF_OTHER_RECIPES = {"title", "paper"}, {"recipes", "audio"}


@pytest.mark.parametrize(
    ("changed", "custom"),
    [
        *((replace(KS, **{each.name: other(getattr(KS, each.name))}), each.name not in FOR_PEOPLE)
          for each in fields(KS) if each.name not in {"name", *OF_OTHER_RECIPES}),
        *((replace(KS, recipes={"superb": replace(SUPERBS, **{each.name: other(getattr(SUPERBS, each.name))})}), True)
          for each in fields(SUPERBS) if each.name != "name"),
        *((replace(KS, audio={"superb": replace(AUDIO, **{each.name: other(getattr(AUDIO, each.name))})}), True)
          for each in fields(AUDIO)),
        (replace(KS, recipes={"superb": SUPERBS}, audio={"superb": KS.audio["superb"]}), False),
    ],
)  # fmt: skip
def test_every_field_counts_that_is_not_for_people_or_of_another_recipe(changed, custom):
    assert changed.is_custom(changed.recipe("superb")) is custom
