"""What holds for all inputs: lengths and masks, padding, digests, the feature cache, records, labels, batches."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from core.audio import SAMPLE_RATE
from core.digest import canonical_json, digest_of, file_digest, path_digest, tensors_digest
from core.feature_cache import DTYPES, KINDS, FeatureCache
from core.hidden_states import HiddenStates
from core.lengths import bounded_batches, lengths_of, mean_over_valid, pad, padding_mask, unpad
from core.records import RecordStore, ResultRecord
from downstreams._data import PooledExamples, evaluation_batches, training_batches
from downstreams._recipe import Recipe, SpecAugment
from downstreams._spec_augment import augment
from downstreams.labels._base import labels_from_json
from downstreams.labels.slots import SlotLabels
from downstreams.labels.text import TextLabels
from upstreams._extraction.fill import Clip, lay_out

lengths = st.lists(st.integers(1, 30), min_size=1, max_size=6)
text = st.text(alphabet="abc ", max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(lengths, st.integers(0, 5))
def test_lengths_to_mask_to_lengths(counts, more):
    valid = torch.tensor(counts)
    mask = padding_mask(valid, max(counts) + more)
    assert mask.shape == (len(counts), max(counts) + more)
    assert torch.equal(lengths_of(mask), valid)
    assert all(not row[:count].any() and row[count:].all() for row, count in zip(mask, counts, strict=True))


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 60), st.sampled_from([None, 1, 3]), st.randoms())
def test_batches_are_bounded_full_and_in_order(sizes, budget, most, chance):
    order = list(range(len(sizes)))
    chance.shuffle(order)
    batches = bounded_batches(order, sizes, budget, most)
    assert [place for batch in batches for place in batch] == order

    def fits(batch: list[int]) -> bool:
        return len(batch) <= (most or len(batch)) and max(sizes[place] for place in batch) * len(batch) <= budget

    assert all(fits(batch) or len(batch) == 1 for batch in batches)
    assert not any(fits([*batch, following[0]]) for batch, following in pairwise(batches)), "no room is left"


@given(lengths)
def test_pad_to_unpad(counts):
    sequences = [torch.randn(count, 2) for count in counts]
    batch, valid = pad(sequences)
    assert batch.shape == (len(counts), max(counts), 2)
    assert batch.masked_select(padding_mask(valid)[:, :, None]).abs().sum() == 0
    for one, other in zip(unpad(batch, valid), sequences, strict=True):
        assert torch.equal(one, other)


@given(lengths)
def test_means_look_at_valid_frames_alone(counts):
    sequences = [torch.randn(count, 3, dtype=torch.float64) for count in counts]
    batch, valid = pad(sequences)
    batch = batch.masked_fill(padding_mask(valid)[:, :, None], math.nan)
    expected = torch.stack([sequence.mean(dim=0) for sequence in sequences])
    torch.testing.assert_close(mean_over_valid(batch, valid), expected)
    states = HiddenStates((batch, 2 * batch), valid)
    torch.testing.assert_close(states.pooled(), torch.stack([expected, 2 * expected], dim=1))


@given(values)
def test_canonical_json_is_a_round_trip_and_forgets_the_order_of_keys(value):
    once = canonical_json(value)
    assert json.loads(once) == value
    assert canonical_json(json.loads(once)) == once
    backwards = {key: value for key in ("b", "a")}
    assert digest_of(backwards) == digest_of({key: value for key in ("a", "b")})


@given(values, values)
def test_equal_digests_mean_equal_values(one, other):
    assert (digest_of(one) == digest_of(other)) == (canonical_json(one) == canonical_json(other))


def test_canonical_json_by_hand():
    @dataclasses.dataclass
    class Point:
        y: int
        x: tuple[float, ...]

    assert canonical_json({"b": Point(1, (0.5,)), "a": "é"}) == '{"a":"é","b":{"x":[0.5],"y":1}}'
    with pytest.raises(TypeError, match="Path has no canonical JSON form"):
        canonical_json({"path": Path()})


def test_a_tensors_digest_sees_names_types_shapes_and_values():
    tensors = [
        {"a": torch.zeros(2, 3)},
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(2, 3, dtype=torch.float64)},
        {"a": torch.full((2, 3), 1e-45)},
        {"a": torch.zeros(2, 3), "b": torch.zeros(0)},
    ]
    assert len({tensors_digest(each) for each in tensors}) == len(tensors)
    turned = torch.zeros(3, 2).T
    assert tensors_digest({"a": turned}) == tensors_digest({"a": torch.zeros(2, 3)})


trees = st.dictionaries(
    st.sampled_from(["weights", "notes", "one/weights", "two/weights", "two/notes", "two/one/weights"]),
    st.sampled_from([b"", b"0", b"1"]),
    max_size=4,
)


@given(trees, trees)
@example({"one/weights": b"0", "two/weights": b"1"}, {"one/weights": b"1", "two/weights": b"0"})
@example({"one/weights": b"0", "two/weights": b"1"}, {"one/weights": b"1", "two/weights": b"1"})
@example({"two/weights": b"0"}, {"weights": b"0"})
@example({"two/weights": b"0"}, {"two/notes": b"0"})
@example({"weights": b"0", "notes": b""}, {"weights": b"0"})
def test_digests_of_folders_are_equal_if_and_only_if_the_same_files_lie_at_the_same_places(one, other):
    with tempfile.TemporaryDirectory() as scratch:
        digests = []
        for number, tree in enumerate((one, other)):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            for name, content in reversed(tree.items()):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            digests.append(path_digest(folder))
        assert (digests[0] == digests[1]) == (one == other)
        single = Path(scratch) / "single"
        single.write_bytes(b"0")
        assert path_digest(single) == file_digest(single) not in digests
        assert path_digest(Path("no/such/file")) == path_digest(Path("no/such/file")) != path_digest(Path("another"))


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text here")
def test_files_whose_names_are_no_text_have_digests_of_their_own(tmp_path):
    digests = set()
    for name in (b"a\xff", b"a\xfe", b"a"):
        folder = tmp_path / str(len(digests))
        folder.mkdir()
        (folder / os.fsdecode(name)).write_bytes(b"0")
        digests.add(path_digest(folder))
    assert len(digests) == 3


@given(
    st.sampled_from(KINDS),
    st.lists(
        st.tuples(st.integers(1, 4)).flatmap(
            lambda rows: arrays.arrays(np.float16, (*rows, 2, 3), elements=st.floats(-60_000, 60_000, width=16))
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 5),
)
def test_cache_round_trip(kind, features, cut):
    given_ = {f"key{number}": array for number, array in enumerate(features)}
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder), "source", kind)
        names = list(given_)
        for part in (names[:cut], names[cut:]):  # one segment or two
            cache.add({name: given_[name] for name in part})
        for reader in (cache, FeatureCache(Path(folder), "source", kind)):
            assert "other" not in reader
            for name, array in given_.items():
                found = reader.get(name)
                assert found.dtype == DTYPES[kind]
                assert reader.rows(name) == len(array)
                np.testing.assert_array_equal(found, array)


numbers = st.floats(allow_nan=False, allow_infinity=False)
objects = st.dictionaries(st.text(max_size=5), numbers | st.text(max_size=5), max_size=3)


@given(
    run=st.text(alphabet="0123456789abcdef", min_size=20, max_size=20),
    things=st.lists(objects, min_size=8, max_size=8),
    value=numbers,
    rates=st.lists(objects, max_size=3),
    weights=st.lists(numbers, max_size=4),
    custom=st.booleans(),
)
def test_record_round_trip(run, things, value, rates, weights, custom):
    upstream, task, corpus, recipe, metric, features, artifacts, circumstances = things
    record = ResultRecord(
        run=run, upstream=upstream, task=task, corpus=corpus, recipe=recipe, audio=features, protocol=2, live=custom,
        frames="int8", fold=None, custom=custom, seed=3, metrics=[metric], metric=metric, value=value,
        values={"one": value}, learning_rate=0.1, learning_rates=rates, counts={"test": 1}, layer_weights=weights,
        features=features, artifacts=artifacts, circumstances=circumstances,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        store = RecordStore(Path(folder))
        assert run not in store
        store.add(record)
        assert run in store
        assert store.all() == [record]
        store.add(dataclasses.replace(record, circumstances={"other": 1}))  # the same result: nothing to do
        assert store.all() == [record]


@given(st.lists(st.dictionaries(st.sampled_from("xyz"), st.sampled_from("abc"), min_size=3), min_size=1, max_size=6))
def test_slot_labels_round_trip(rows):
    labels = SlotLabels.from_train(rows, "intent")
    again = labels_from_json(json.loads(json.dumps(labels.to_json())))
    assert again == labels
    for row in rows:
        assert labels.decode(labels.encode(row).tolist()) == row == labels.reference(row)
    assert labels.sizes == [len({row[slot] for row in rows}) for slot in "xyz"]


@given(st.lists(text, min_size=1, max_size=5), st.booleans())
def test_character_labels_round_trip(rows, end_marks):
    assume(any(map(str.strip, rows)))  # text without any character is refused
    labels = TextLabels.from_train(rows, "text", end_marks=end_marks)
    assert labels_from_json(json.loads(json.dumps(labels.to_json()))) == labels
    for row in rows:
        ids = labels.encode(row).tolist()
        assert labels.decode(ids) == labels.reference(row) == " ".join(row.split())
        assert all(0 < index < labels.sizes[0] for index in ids)


def examples(count: int) -> PooledExamples:
    return PooledExamples(torch.zeros(count, 1, 1, 1), [[place] for place in range(count)], [torch.tensor([0])] * count)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_has_every_utterance_once(count, batch_size, seed):
    data, recipe = examples(count), Recipe("test", 1, batch_size, (1.0,), 1)
    stream = training_batches(data, recipe, torch.Generator().manual_seed(seed))
    for _ in range(2):
        epoch = [next(stream) for _ in range(math.ceil(count / batch_size))]
        assert sorted(index for batch in epoch for index in batch) == list(range(count))
        assert max(map(len, epoch)) <= batch_size
    found = [index for batch in evaluation_batches(data, batch_size) for index in batch]
    assert sorted(found) == list(range(count))


@given(st.lists(st.integers(400, 80_000), min_size=1, max_size=30), st.sampled_from([1, 1_000, 480_000]))
def test_batches_of_clips_are_within_the_budget_and_the_same_in_any_order(samples, window):
    clips = [Clip(f"{number:03}", Path(), size, frozenset(["pooled"])) for number, size in enumerate(samples)]
    seconds = 2.0
    batches = lay_out(clips, window, seconds)
    assert sorted(clip.key for batch in batches for clip in batch) == [clip.key for clip in clips]
    for batch in batches:
        longest = math.ceil(max(clip.samples for clip in batch) / window) * window
        assert len(batch) == 1 or longest * len(batch) <= seconds * SAMPLE_RATE
    assert lay_out(clips[::-1], window, seconds) == batches


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 9))
def test_spec_augment_keeps_shape_and_padding(frames, size, seed):
    settings = SpecAugment(time_width=5, feature_width=3)
    features = 1 + torch.rand(2, frames + 4, size)
    valid = torch.tensor([frames + 4, frames])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        masked = augment(features, valid, settings)
        off = augment(features, valid, SpecAugment(0, 0, 1, 0, 1))
    assert masked.shape == features.shape
    assert torch.equal(masked[1, frames:], features[1, frames:])
    assert torch.equal(off, features)
    zeros = (masked[0] == 0).all(dim=1).sum()  # at most two masks of at most four frames, unless all features go
    assert zeros <= 8 or (masked[0] == 0).all(dim=0).sum() > 0


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 20), st.integers(0, 5), st.integers(0, 9))
def test_spec_augment_alters_an_utterance_in_a_batch_as_it_does_alone(frames, more, size, warp, seed):
    """Masks and warps are drawn over its own frames: longer neighbours take none of them."""
    settings = SpecAugment(warp_frames=warp, time_width=20, feature_width=3)
    features = 1 + torch.rand(2, frames + more, size)
    made = []
    for batch, valid in ((features, [frames, frames + more]), (features[:1, :frames], [frames])):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made.append(augment(batch, torch.tensor(valid), settings)[0, :frames])
    torch.testing.assert_close(*made)
