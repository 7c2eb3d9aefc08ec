"""What a training hears: all of it every epoch, from anywhere in the middle, shared out without a gap."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from core.audio import read_audio
from core.errors import ManifestError, TrainingError
from core.manifest import Manifest, Utterance, read_manifest
from tasks.corpora._audio_folder import is_audio_folder, read_audio_folder
from upstreams._pretraining import data as data_module
from upstreams._pretraining.contract import PretrainRecipe
from upstreams._pretraining.data import Position, TrainingData, header_lengths

FRAME = 320


@pytest.fixture(scope="module")
def rows(corpus) -> tuple[Utterance, ...]:
    return corpus.split("train")


def data(rows, *, seconds=4.0, parts=1, crop=15.0, seed=0, equal=False, targets=None) -> TrainingData:
    recipe = PretrainRecipe(1, seconds, 1e-3, micro_batches=parts, crop_seconds=crop)
    return TrainingData(rows, recipe, seed, 400, FRAME, equal, targets)


def first(made: TrainingData, count: int, *where) -> list:
    return list(islice(made.updates(*(where or (1, Position()))), count))


def test_an_epoch_holds_every_recording_once_within_the_budget(rows):
    made = data(rows)
    batches = made._epoch(0)
    assert sorted(place for batch in batches for place in batch) == list(range(len(rows)))
    assert all(max(made._lengths[place] for place in batch) * len(batch) <= 4 * 16_000 for batch in batches)
    assert made._epoch(1) != batches
    assert data(rows)._epoch(0) == batches
    assert data(rows, seed=1)._epoch(0) != batches


@given(parts=st.integers(1, 7), count=st.integers(1, 60))
def test_updates_follow_each_other_without_gap_over_epochs(parts, count):
    made = TrainingData((), PretrainRecipe(1, 1.0, 1e-3, micro_batches=parts), 0, 400, FRAME)
    epochs = [[[1], [2], [3]], [[4], [5]], [[6], [7], [8], [9]]]
    object.__setattr__(made, "_planned", lambda epoch: epochs[epoch % 3])
    position, heard = Position(), []
    for _ in range(count):
        taken, position = made._next(position)
        assert len(taken) == parts
        heard += taken
    flat = [batch for _ in range(count * parts) for epoch in epochs for batch in epoch]
    assert heard == flat[: count * parts]


def test_from_the_middle_it_goes_on_as_it_would_have(rows):
    made = data(rows, parts=2, crop=0.3)
    straight = first(made, 9)
    broken = first(data(rows, parts=2, crop=0.3), 5, 5, straight[3].after)
    for one, other in zip(straight[4:], broken, strict=True):
        assert one.after == other.after
        assert list(one.batches) == list(other.batches) == [0, 1]
        for number, batch in one.batches.items():
            assert torch.equal(batch.wavs, other.batches[number].wavs)
            assert batch.step == other.batches[number].step


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_micro_batches_of_every_update(processes, rows):
    whole = first(data(rows, parts=4), 3)
    shares = [first(data(rows, parts=4), 3, 1, Position(), process, processes) for process in range(processes)]
    for number, update in enumerate(whole):
        parts = {}
        for share in shares:
            assert len(share[number].batches) == 4 // processes
            assert share[number].after == update.after
            parts |= share[number].batches
        assert sorted(parts) == [0, 1, 2, 3]
        assert all(torch.equal(parts[each].wavs, update.batches[each].wavs) for each in parts)
    assert sum(share[0].seconds for share in shares) == pytest.approx(whole[0].seconds)


@pytest.mark.parametrize("crop", [0.2, 15.0])
def test_crops_of_one_length_begin_at_frames_and_take_their_targets_along(crop, rows):
    """Each target tells which frame of which recording it is."""
    targets = {row.id: 1_000 * place + torch.arange(1_000, dtype=torch.int32) for place, row in enumerate(rows)}
    recordings = [read_audio(row.path) for row in rows]
    starts = set()
    for update in first(data(rows, crop=crop, equal=True, targets=targets), 6):
        batch = update.batches[0]
        assert len(set(batch.wav_lengths.tolist())) == 1
        assert int(batch.wav_lengths[0]) <= 16_000 * crop
        for wav, target in zip(batch.wavs, batch.targets, strict=True):
            place, frame = divmod(int(target[0]), 1_000)
            starts.add(frame)
            assert torch.equal(wav, recordings[place][frame * FRAME : frame * FRAME + len(wav)])
    assert len(starts) > 5


@pytest.mark.parametrize("equal", [False, True])
def test_each_micro_batch_of_each_update_and_seed_draws_crops_of_its_own(equal, rows):
    """Of one recording many times over, so that only chance tells the crops apart."""
    copies = [replace(rows[0], id=str(number)) for number in range(32)]
    targets = {row.id: torch.arange(1_000, dtype=torch.int32) for row in copies}
    drawn = []
    for seed in (0, 1):
        made = data(copies, seconds=3.2, parts=4, crop=0.1, seed=seed, equal=equal, targets=targets)
        for update in first(made, 3):
            drawn += [tuple(int(target[0]) for target in batch.targets) for batch in update.batches.values()]
    assert len(drawn) == 2 * 3 * 4
    assert all(len(set(starts)) > 1 for starts in drawn), "nor do recordings of one micro-batch share theirs"
    assert len(set(drawn)) == len(drawn)


def test_a_batch_says_which_recordings_it_holds(rows):
    for update in first(data(rows, parts=2), 6):
        for batch in update.batches.values():
            assert batch.rows.dtype == torch.int64
            for place, wav, length in zip(batch.rows.tolist(), batch.wavs, batch.wav_lengths.tolist(), strict=True):
                assert torch.equal(wav[:length], read_audio(rows[place].path))


@pytest.mark.parametrize("least", [1, 2, 5, 11])
def test_a_micro_batch_holds_as_many_as_the_loss_compares(least, rows):
    recipe = PretrainRecipe(1, 4.0, 1e-3, micro_batches=2)
    made = TrainingData(rows, recipe, 0, 400, FRAME, min_utterances=least)
    for epoch in range(3):
        batches = made._epoch(epoch)
        assert min(map(len, batches)) >= least
        assert sorted(place for batch in batches for place in batch) == list(range(len(rows)))
        over = [batch for batch in batches if max(made._lengths[place] for place in batch) * len(batch) > 2 * 16_000]
        assert len(over) <= (least > 1)  # the one that took in a small one


def test_targets_that_are_floats_stay_so(rows):
    targets = {row.id: torch.full((1_000, 3), float(place)) for place, row in enumerate(rows)}
    batch = first(data(rows, equal=True, targets=targets), 1)[0].batches[0]
    for place, target in zip(batch.rows.tolist(), batch.targets, strict=True):
        assert target.dtype == torch.float32
        assert target.shape[1:] == (3,)
        assert float(target[0, 0]) == place


def test_a_micro_batch_holds_no_more_than_its_seconds(rows):
    for update in first(data(rows, seconds=0.4, parts=2), 10):
        assert all(batch.wavs.numel() <= 0.2 * 16_000 for batch in update.batches.values())


def test_crops_that_the_loss_can_not_use_are_refused(rows):
    """Without end no batch would come: the clips of a micro-batch are cut so that enough of them fit in."""
    made = data(rows, seconds=0.8, parts=2)
    made = replace(made, min_utterances=20)
    with pytest.raises(TrainingError, match=r"crops of 0\.02 s are shorter than the 0\.03 s .* set batch"):
        first(made, 1)


def test_long_recordings_are_read_in_pieces_once_memory_is_full(tmp_path, monkeypatch):
    for number in range(3):
        wav = np.random.default_rng(number).normal(size=48_000) / 8
        soundfile.write(tmp_path / f"{number}.wav", wav, 16_000, subtype="FLOAT")
    rows = read_audio_folder(tmp_path).utterances
    kept = first(data(rows, crop=0.5), 6)
    monkeypatch.setattr("upstreams._pretraining.data.KEPT_SAMPLES", 0)
    asked = []
    read = data_module.read_audio
    monkeypatch.setattr(data_module, "read_audio", lambda *where: asked.append(where[1:]) or read(*where))
    for one, other in zip(kept, first(data(rows, crop=0.5), 6), strict=True):
        assert torch.equal(one.batches[0].wavs, other.batches[0].wavs)
    assert all(stop - start == 8_000 for start, stop in asked)


@given(st.integers(500, 3_000), st.sampled_from([8_000, 16_000, 44_100]))
@example(1_001, 16_000)
def test_lengths_are_foretold_to_the_sample(samples, rate):
    """1,001 / 16,000 seconds times 16,000 are 1,000.9999 samples."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        soundfile.write(path, np.zeros(samples), rate)
        whole, rest = (Utterance(str(start), path, "train", {}, 0, start) for start in (0, 17))
        length = len(read_audio(path))
        assert header_lengths([whole, rest]) == [length, length - 17]


def test_a_piece_does_not_hold_on_to_its_file(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(441_000), 44_100)
    piece = Utterance("piece", tmp_path / "long.wav", "train", {}, 0, 16_000, 32_000)
    memory = data_module._Recordings()
    assert memory.read(piece, 0, None).untyped_storage().nbytes() == 4 * 16_000


def test_pieces_of_a_file_are_read_as_pieces(tmp_path):
    wav = np.linspace(-1, 1, 32_000, dtype=np.float32)  # no two pieces are alike
    soundfile.write(tmp_path / "long.wav", wav, 16_000, subtype="FLOAT")
    rows = [{"file_name": "long.wav", "id": str(n), "split": "train", "start_sample": 8_000 * n,
             "stop_sample": 8_000 * n + 4_000} for n in range(3)]  # fmt: skip
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = data(read_manifest(tmp_path).split("train"))
    batch = first(made, 1)[0].batches[0]
    assert batch.wav_lengths.tolist() == [4_000] * 3
    expected = {tuple(wav[8_000 * n : 8_000 * n + 4_000].tolist()) for n in range(3)}
    assert len(expected) == 3
    assert {tuple(row.tolist()) for row in batch.wavs} == expected


def test_a_folder_of_recordings_needs_no_manifest(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.wav", "deep/a.flac", "c.ogg"):
        soundfile.write(tmp_path / name, np.zeros(8_000), 16_000)
    (tmp_path / "notes.txt").write_text("no recording")
    assert is_audio_folder(tmp_path)
    manifest = read_audio_folder(tmp_path)
    assert isinstance(manifest, Manifest)
    assert [row.id for row in manifest.split("train")] == ["b.wav", "c.ogg", "deep/a.flac"]
    (tmp_path / "metadata.jsonl").write_text("")
    assert not is_audio_folder(tmp_path)
    assert not is_audio_folder(tmp_path / "b.wav")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match=r"neither a metadata\.jsonl nor a recording there"):
        read_audio_folder(tmp_path / "empty")


def test_what_a_mac_leaves_in_a_folder_is_no_recording(tmp_path):
    for name in ("a.wav", "._a.wav", "__MACOSX/._a.wav", "__MACOSX/b.wav", ".hidden/c.wav", "sub/d.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [row.id for row in read_audio_folder(tmp_path).utterances] == ["a.wav", "sub/d.wav"]
