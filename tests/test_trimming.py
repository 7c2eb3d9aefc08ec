"""Pauses that are taken out of recordings before they pass an upstream, and rows that are too short then."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from test_mixtures import MOOD, RATE, with_audio

from core.errors import ManifestError
from core.manifest import read_manifest
from tasks import _audio
from tasks._audio import AudioRecipe, Trim, sounding
from tasks._rows import read_rows, task_rows

TRIM = AudioRecipe(trim=Trim())


def wave(*parts: tuple[float, float]) -> np.ndarray:
    """Parts of so many seconds, each a tone of that amplitude."""
    tone = np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE)
    return np.concatenate([level * tone[: round(seconds * RATE)] for seconds, level in parts]).astype(np.float32)


def spans(wav: np.ndarray, trim: Trim = Trim()) -> list[tuple[float, float]]:
    return [(start / RATE, stop / RATE) for start, stop in sounding(torch.from_numpy(wav), trim)]


CASES = {
    "ends and a pause inside": (((0.3, 0), (0.5, 0.1), (0.2, 0), (0.4, 0.1), (0.3, 0)), [(0.3, 0.8), (1.0, 1.4)]),
    "a pause that is too short": (((0.5, 0.1), (0.07, 0), (0.4, 0.1)), [(0, 0.97)]),
    "a click between pauses": (((0.5, 0.1), (0.2, 0), (0.03, 0.1), (0.2, 0), (0.5, 0.1)), [(0, 0.5), (0.93, 1.43)]),
    "nothing but sound": (((0.5, 0.1),), [(0, 0.5)]),
    "below the level": (((0.5, 0.1), (0.2, 0.001), (0.5, 0.1)), [(0, 0.5), (0.7, 1.2)]),
    "above the level": (((0.5, 0.1), (0.2, 0.002), (0.5, 0.1)), [(0, 1.2)]),
    "silence alone": (((0.5, 0),), []),
}


@pytest.mark.parametrize("case", CASES)
def test_pauses(case):
    """A tone of amplitude a has the level a / sqrt(2); places are right to the half of 20 ms over which it is taken."""
    parts, expected = CASES[case]
    found = spans(wave(*parts))
    assert len(found) == len(expected)
    np.testing.assert_allclose(np.array(found).reshape(-1), np.array(expected).reshape(-1), atol=0.0101)


def corpus(folder, wavs: dict[str, np.ndarray]):
    rows = []
    for name, wav in wavs.items():
        soundfile.write(folder / f"{name}.wav", wav, RATE, subtype="FLOAT")
        rows.append({"file_name": f"{name}.wav", "split": name.split("_")[0], "mood": name.split("_")[1]})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_manifest(folder)


@pytest.fixture
def pauses(tmp_path):
    spoken = wave((0.3, 0), (0.5, 0.1), (0.2, 0), (0.4, 0.1), (0.3, 0))
    plain = wave((0.6, 0.1))
    return corpus(tmp_path, {f"{split}_{mood}": wav for split in ("train", "valid", "test")
                             for mood, wav in (("calm", spoken), ("glad", plain))})  # fmt: skip


def test_clips_are_the_recordings_without_their_pauses(pauses, tmp_path):
    rows = task_rows(pauses, with_audio(TRIM))
    plain = task_rows(pauses, MOOD)
    for split in ("train", "valid", "test"):
        spoken, whole = (row[0] for row in rows.clips[split])
        wav = plain.clips[split][0][0].read()
        expected = torch.cat([wav[start:stop] for start, stop in sounding(wav, Trim())])
        assert torch.equal(spoken.read(), expected)
        assert 0.88 * RATE < len(expected) == spoken.samples < 0.96 * RATE
        assert (whole.key, whole.samples) == (f"{plain.clips[split][1][0].key}[0:9600]", 9_600)
        assert spoken.key not in (clip.key for row in plain.clips[split] for clip in row)
    assert rows.digest == plain.digest, "the corpus is the same"
    again = read_rows(rows.kept_in(tmp_path / "rows").path)
    assert (again.clips, again.audio) == (rows.clips, TRIM)


def test_pauses_of_pieces_of_one_file_are_those_of_the_same_pieces_as_files(tmp_path):
    """Also where two of them begin at one place, and with a memory that another command fills."""
    spoken, plain = wave((0.3, 0), (0.5, 0.1), (0.2, 0), (0.4, 0.1), (0.3, 0)), wave((0.2, 0), (0.6, 0.1))
    both = np.concatenate([spoken, plain])
    ends = {"calm": (0, len(spoken)), "glad": (len(spoken), len(both)), "wild": (0, len(both))}
    made = []
    for name in ("files", "pieces"):
        (tmp_path / name).mkdir()
        rows = []
        for split in ("train", "valid", "test"):
            soundfile.write(tmp_path / name / f"{split}.wav", both, RATE, subtype="FLOAT")
            for mood, (start, stop) in ends.items():
                file, row = f"{split}.wav", {"id": f"{split}_{mood}", "split": split, "mood": mood}
                if name == "pieces":
                    row |= {"start_sample": start, "stop_sample": stop}
                else:
                    soundfile.write(tmp_path / name / (file := f"{row['id']}.wav"), both[start:stop], RATE, "FLOAT")
                rows.append({"file_name": file, **row})
        (tmp_path / name / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        manifest = replace(read_manifest(tmp_path / name), memory=tmp_path / "memory")
        for _ in range(2):
            clips = task_rows(manifest, with_audio(TRIM)).clips
            made.append([clip.read() for split in ("train", "valid", "test") for (clip,) in clips[split]])
    assert [len(wav) for wav in made[0]] == [len(wav) for wav in made[2]]
    for others in made[1:]:
        assert all(torch.equal(one, other) for one, other in zip(made[0], others, strict=True))


def test_crops_are_pieces_of_what_is_left(pauses):
    rows = task_rows(pauses, with_audio(AudioRecipe(trim=Trim(), crop_samples=12_000, crops=2)))
    whole = task_rows(pauses, with_audio(TRIM)).clips["train"][0][0].read()
    spoken, short = rows.clips["train"]
    assert [len(clip.read()) for clip in spoken] == [12_000, 12_000]
    for clip in spoken:
        assert torch.equal(clip.read(), whole[clip.start : clip.start + 12_000])
    assert [clip.samples for clip in short] == [9_600]


def test_rows_that_are_too_short_without_their_pauses_are_no_part_of_train(pauses):
    rows = task_rows(pauses, with_audio(AudioRecipe(trim=Trim(), min_samples=9_600)))
    assert {split: [row.id for row in part] for split, part in rows.examples.items()} == {
        "train": ["train_calm"], "valid": ["valid_calm", "valid_glad"], "test": ["test_calm", "test_glad"],
    }  # fmt: skip
    assert len(rows.recordings["train"]) == 1
    with pytest.raises(ManifestError, match="no recording of train has more than 99999 samples"):
        task_rows(pauses, with_audio(AudioRecipe(min_samples=99_999)))


def test_a_recording_without_sound_is_named(pauses, tmp_path):
    soundfile.write(tmp_path / "test_calm.wav", np.zeros(8_000, np.float32), RATE)
    with pytest.raises(ManifestError, match=r"1 recordings hold no 0\.1 s of sound above 0\.001 .*test_calm\.wav"):
        task_rows(pauses, with_audio(TRIM))


def test_each_recording_is_decoded_once_for_its_pauses(pauses, tmp_path, monkeypatch):
    remembering = replace(pauses, memory=tmp_path / "memory")
    read, paths = _audio.read_audio, []
    monkeypatch.setattr(_audio, "read_audio", lambda path, *piece: (paths.append(path), read(path, *piece))[1])
    first = task_rows(remembering, with_audio(TRIM))
    assert len(paths) == 2, "equal files are one recording"
    second = task_rows(remembering, with_audio(TRIM))
    assert len(paths) == 2
    assert first.clips == second.clips
    task_rows(remembering, with_audio(AudioRecipe(trim=Trim(seconds=0.25))))
    assert len(paths) == 4, "another trim has other pauses"
