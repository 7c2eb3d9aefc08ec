"""Libri2Mix mixed while it is read: equal to the files that LibriMix's formulae give, which are written out here."""

from __future__ import annotations

import csv
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from core.audio import num_samples, read_audio
from core.errors import AudioError, ManifestError
from core.manifest import Manifest, validate
from core.mixtures import Mixture, Source, mixture_digest, mixture_from_json, mixture_to_json, read_mixture
from downstreams.labels._base import LabelContext
from downstreams.labels.waveforms import WaveformLabels
from run_benchmark import app
from tasks._base import TASKS
from tasks._rows import task_rows
from tasks.corpora import libri2mix, libri2mix_separation

RATE = 16_000
SUBSETS = {"train": "train-clean-100", "valid": "dev-clean", "test": "test-clean"}
NOISES = {"train": "tr", "valid": "cv", "test": "tt"}
# Rounding to 16 bits, and libsndfile's full scale of 32,767 for 32,768.
ROUNDING = 1.6 / 32_768
LENGTHS = ((21_000, 40_000, 18_000), (33_000, 20_000, 50_000))  # sources and noise, which is repeated twice, or cut


def signal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.05, shape).astype(np.float32)


def make_parts(root: Path) -> Path:
    """LibriSpeech, WHAM's noise in two channels and the lists: two mixtures a split, of three speakers."""
    for place, (split, subset) in enumerate(SUBSETS.items(), start=1):
        mixtures, turns = [], []
        for number, lengths in enumerate(LENGTHS):
            row: dict[str, object] = {}
            names = []
            for source, length in enumerate(lengths[:2], start=1):
                speaker, chapter = f"{place}{source + number}", f"7{number}{source}"
                names.append(f"{speaker}-{chapter}-000{number}")
                path = Path(subset) / speaker / chapter / f"{names[-1]}.flac"
                (root / "LibriSpeech" / path).parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(root / "LibriSpeech" / path, signal(100 * place + 10 * number + source, length), RATE)
                row |= {f"source_{source}_path": path.as_posix(), f"source_{source}_gain": 0.3 + source + number / 7}
                turns += [
                    f"SPEAKER {chapter}-000{number} 1   {begin:.3f}   0.370 <NA> <NA> {speaker} <NA> <NA>\n"
                    for begin in (0.1 * source, 0.7)
                ]
            noise = f"{NOISES[split]}/noise {number}.wav"
            (root / "wham_noise" / noise).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(root / "wham_noise" / noise, signal(1000 * place + number, lengths[2], 2), RATE)
            mixtures.append(
                {"mixture_ID": "_".join(names), **row, "noise_path": noise, "noise_gain": 0.61 + 2 * number}
            )
        path = root / "metadata" / "Libri2Mix" / f"libri2mix_{subset}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(mixtures[0]))
            table.writeheader()
            table.writerows(mixtures)
        spoken = root / "metadata" / "LibriSpeech" / f"{subset.replace('-', '_')}.rttm"
        spoken.parent.mkdir(parents=True, exist_ok=True)
        spoken.write_text("".join(turns))
    return root


def mixed_by_librimix(root: Path, row: dict[str, str]) -> list[np.ndarray]:
    """Both sources and the noise of a list's row as LibriMix has them: amplified, noise as long as the longer one."""
    sources = [soundfile.read(root / "LibriSpeech" / row[f"source_{n}_path"], dtype="float32")[0] for n in (1, 2)]
    longest = max(map(len, sources))
    first = soundfile.read(root / "wham_noise" / row["noise_path"], dtype="float32")[0][:, 0]
    window = np.hanning(RATE + 1)
    half = RATE // 2 + 1
    rise, fall = window[:half], window[half - 1 :]
    noise = first
    while len(noise) < longest:
        joint = noise[-half:] * fall + first[:half] * rise
        noise = np.concatenate([noise[:-half], joint, first[half:]])
    gains = [float(row[f"{name}_gain"]) for name in ("source_1", "source_2", "noise")]
    return [part * gain for part, gain in zip((*sources, noise[:longest]), gains, strict=True)]


def make_folders(parts: Path, root: Path) -> Path:
    """What LibriMix and s3prl's script make of the parts, in min mode without noise and in max mode with it."""
    for name, subset in zip(("train", "dev", "test"), SUBSETS.values(), strict=True):
        spoken = list(
            map(str.split, (parts / f"metadata/LibriSpeech/{subset.replace('-', '_')}.rttm").read_text().splitlines())
        )
        files: dict[str, list[str]] = {"wav.scp": [], "segments": [], "utt2spk": []}
        with (parts / f"metadata/Libri2Mix/libri2mix_{subset}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            signals, mixture = mixed_by_librimix(parts, row), row["mixture_ID"]
            shortest, longest = min(map(len, signals[:2])), max(map(len, signals))
            both = sum(np.pad(each, (0, longest - len(each))) for each in signals)
            short = [each[:shortest] for each in signals[:2]]
            home = root / "Libri2Mix/wav16k/min" / name.replace("train", "train-100")
            for folder, wav in (
                (root / "wav16k/max" / name, both),
                (home / "mix_clean", short[0] + short[1]),
                (home / "s1", short[0]),
                (home / "s2", short[1]),
            ):
                folder.mkdir(parents=True, exist_ok=True)
                soundfile.write(folder / f"{mixture}.wav", wav, RATE)
            files["wav.scp"].append(f"{mixture} {(root / 'wav16k/max' / name / mixture).resolve()}.wav\n")
            for source in mixture.split("_"):
                for turn in spoken:
                    if turn[1] == source.partition("-")[2]:
                        start, stop = float(turn[3]), float(turn[3]) + float(turn[4])
                        files["segments"].append(f"{source}-{start} {mixture} {start} {stop}\n")
                        files["utt2spk"].append(f"{source}-{start} {turn[7]}\n")
        (root / "data" / name).mkdir(parents=True)
        for file, lines in files.items():
            (root / "data" / name / file).write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def homes(tmp_path_factory) -> tuple[Path, Path]:
    """The parts, and what is made of them."""
    parts = make_parts(tmp_path_factory.mktemp("parts"))
    return parts, make_folders(parts, tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("corpus", [libri2mix, libri2mix_separation])
def test_mixed_and_written_out_are_equal(homes, corpus):
    mixed, written = map(corpus.load, homes)
    assert mixed.notes == written.notes and not mixed.missing and len(mixed.utterances) == 6
    assert [(row.id, row.split) for row in mixed.utterances] == [(row.id, row.split) for row in written.utterances]
    for made, kept in zip(mixed.utterances, written.utterances, strict=True):
        assert made.labels["voice"] == kept.labels["voice"]
        assert made.labels.get("turns") == kept.labels.get("turns")
        wav, expected = read_mixture(made.mixture), read_audio(kept.path)
        assert wav.shape == expected.shape and made.mixture.samples() == num_samples(kept.path) == len(wav)
        torch.testing.assert_close(wav, expected, atol=ROUNDING, rtol=0)
    validate(mixed)


def test_both_voices_are_equal_to_their_files(homes):
    mixed, written = (task_rows(libri2mix_separation.load(home), TASKS.get("ss")) for home in homes)
    for split in ("train", "valid", "test"):
        for made, kept in zip(mixed.examples[split], written.examples[split], strict=True):
            assert made.speaker == kept.speaker
            wavs, expected = (WaveformLabels(2).encode(each.label, LabelContext(99, 160)) for each in (made, kept))
            assert wavs.shape == expected.shape and len(wavs) == 3
            torch.testing.assert_close(wavs, expected, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("name", ["libri2mix", "libri2mix_separation"])
def test_it_is_prepared_from_its_parts(homes, name):
    result = CliRunner().invoke(app, ["prepare", name, "--root", str(homes[0])])
    assert result.exit_code == 0, result.output
    assert "incomplete: " not in result.output


def without(load, parts: Path, root: Path, *gone: str) -> Manifest:
    """The manifest of a copy of the parts that lacks some."""
    shutil.copytree(parts, root)
    for name in gone:
        shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()
    return load(root)


def test_missing_parts_are_named(homes, tmp_path):
    gone = ["metadata/LibriSpeech/dev_clean.rttm", "LibriSpeech/train-clean-100", "wham_noise/tr"]
    manifest = without(libri2mix.load, homes[0], tmp_path / "sd", *gone)
    (speech, noise, turns) = manifest.missing
    assert turns.startswith(f"split valid: {tmp_path / 'sd' / gone[0]} is missing: take it from s3prl's fork")
    assert speech.startswith(f"split train: {tmp_path / 'sd' / gone[1]} is missing: unpack train-clean-100.tar.gz of")
    assert noise.startswith(f"split train: {tmp_path / 'sd' / gone[2]} is missing: unpack wham_noise.zip into")
    one = "metadata/Libri2Mix/libri2mix_test-clean.csv"
    manifest = without(libri2mix_separation.load, homes[0], tmp_path / "ss", *gone[::2], one)  # needs neither of them
    (listed,) = manifest.missing
    assert listed.startswith(f"split test: {tmp_path / 'ss' / one} is missing: take it from LibriMix's repository")


def test_missing_recordings_are_counted(homes, tmp_path):
    lost = sorted((homes[0] / "LibriSpeech/train-clean-100").rglob("*.flac"))[-1].relative_to(homes[0])
    manifest = without(libri2mix.load, homes[0], tmp_path / "sd", str(lost), "wham_noise/tt/noise 0.wav")
    assert (
        f"1 recordings named in LibriMix's lists are not there, such as {tmp_path / 'sd' / lost}" in manifest.notes[0]
    )
    assert f"1 recordings named in LibriMix's lists are not there, such as {tmp_path}" in manifest.notes[2]
    assert len(manifest.utterances) == 4
    assert len(without(libri2mix_separation.load, homes[0], tmp_path / "ss", str(lost)).utterances) == 5


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("Libri2Mix/libri2mix_dev-clean.csv", ("source_2_gain", "gain"), "has no column 'source_2_gain'"),
        ("Libri2Mix/libri2mix_dev-clean.csv", (",0.61\n", ",\n"), "line 2: has an empty or missing column"),
        ("Libri2Mix/libri2mix_dev-clean.csv", (",2.61\n", ",-1\n"), "line 3: noise_gain is '-1', must be above 0"),
        ("Libri2Mix/libri2mix_dev-clean.csv", (",2.61\n", ",loud\n"), "line 3: noise_gain is 'loud'"),
        ("LibriSpeech/test_clean.rttm", ("0.370 <NA>", "short <NA>"), "line 1: 'SPEAKER 701-0000 1   0.100   short"),
        ("LibriSpeech/test_clean.rttm", (" 701-0000 ", " 9-9 "), "has no turn of '701-0000', a source of mixture '31-"),
    ],
)
def test_damaged_lists_are_refused(homes, tmp_path, file, change, said):
    shutil.copytree(homes[0], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "metadata" / file
    text = path.read_bytes().decode().replace("\r\n", "\n")
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(ManifestError) as refused:
        libri2mix.load(tmp_path)
    assert said in str(refused.value) and str(path) in str(refused.value)


def test_where_nothing_lies_the_parts_are_named_as_well(tmp_path):
    for corpus in (libri2mix, libri2mix_separation):
        with pytest.raises(ManifestError, match=r"or name a folder with LibriSpeech/.* mixed while it is read"):
            corpus.load(tmp_path)


def test_folders_come_before_parts(homes, tmp_path):
    shutil.copytree(homes[0], tmp_path / "home")
    shutil.copytree(homes[1], tmp_path / "home", dirs_exist_ok=True)
    assert all(row.mixture is None for row in libri2mix.load(tmp_path / "home").utterances)
    assert all(row.mixture is None for row in libri2mix_separation.load(tmp_path / "home").utterances)


def test_a_source_that_fills_has_no_say_in_the_length(homes):
    speech = sorted(homes[0].rglob("*.flac"))[0]
    noise = homes[0] / "wham_noise/tr/noise 0.wav"
    behind = Source(noise, channel=0, fills=True)
    samples = num_samples(speech)
    for length in ("max", "min"):
        mixture = Mixture((Source(speech, offset=70), behind), length)
        assert mixture.samples() == len(read_mixture(mixture)) == samples + 70
        assert len(read_mixture(mixture, 48_000)) == 3 * (samples + 70)
    others = (Source(noise, channel=1, fills=True), Source(noise, fills=True), Source(noise, channel=0))
    alike = [mixture_from_json(mixture_to_json(Mixture((Source(speech), each)))) for each in (behind, *others)]
    assert alike[0].sources[1] == behind
    digests = [mixture_digest(each, {speech: "a", noise: "b"}) for each in alike]
    assert len(set(digests)) == 4
    wavs = [read_mixture(each)[:samples] for each in alike]
    assert all(not torch.equal(one, other) for one, other in pairwise(wavs[:3]))


def test_noise_that_can_not_be_used_is_refused(homes, tmp_path):
    speech = sorted(homes[0].rglob("*.flac"))[0]
    soundfile.write(tmp_path / "short.wav", signal(1, 9_000), RATE)
    with pytest.raises(AudioError, match=r"short\.wav: is shorter than a second"):
        read_mixture(Mixture((Source(speech), Source(tmp_path / "short.wav", fills=True))))
    with pytest.raises(AudioError, match=r"short\.wav: has 1 channels, none with number 1"):
        read_audio(tmp_path / "short.wav", channel=1)
