"""Recordings are what they are, whatever their headers say: cut-off, streamed and mislabelled files, odd rates."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.audio import SAMPLE_RATE, at_rate, num_samples, read_audio, resample, resampled_length
from core.errors import AudioError

SAMPLES = 24_000


def encoded(container: str, subtype: str | None = None, rate: int = SAMPLE_RATE, channels: int = 1, **more) -> bytes:
    rng = np.random.default_rng(0)
    wav = 0.3 * np.sin(np.arange(SAMPLES) / 9) * np.linspace(0, 1, SAMPLES) + 0.01 * rng.standard_normal(SAMPLES)
    with io.BytesIO() as file:
        soundfile.write(file, np.stack([wav] * channels, axis=1), rate, format=container, subtype=subtype, **more)
        return file.getvalue()


def written(folder: Path, content: bytes, name: str) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def data_size(wav: bytes, size: int) -> bytes:
    place = wav.index(b"data") + 4
    return wav[:place] + struct.pack("<I", size) + wav[place + 4 :]


WAV, FLAC = encoded("WAV"), encoded("FLAC")
VBR = encoded("MP3", bitrate_mode="VARIABLE")
FILES = {"wav": WAV, "flac": FLAC, "mp3": VBR, "opus": encoded("OGG", "OPUS"), "aiff": encoded("AIFF")}


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF024], ids=hex)
def test_a_wav_that_was_written_to_a_pipe_is_read_to_its_end(size, tmp_path):
    path = written(tmp_path, data_size(WAV, size), "a.wav")
    assert torch.equal(read_audio(path), read_audio(written(tmp_path, WAV, "b.wav")))
    assert num_samples(path) == SAMPLES


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path):
    head = bytearray(FLAC[:26])
    head[21] &= 0xF0
    head[22:26] = bytes(4)
    path = written(tmp_path, bytes(head) + FLAC[26:], "a.flac")
    assert torch.equal(read_audio(path), read_audio(written(tmp_path, FLAC, "b.flac")))
    assert num_samples(path) == SAMPLES
    assert len(read_audio(path, 100, 300)) == 200


@pytest.mark.parametrize("sizes", [(0, 0), (0xFFFF, 0xFFFF), (4_096, 16), (16, 1_000), (15, 5_000)])
def test_a_flac_whose_header_has_other_blocks_is_refused(sizes, tmp_path):
    """By wrong sizes libFLAC looks for pieces in the wrong places, or gives zeros."""
    path = written(tmp_path, FLAC[:8] + struct.pack(">HH", *sizes) + FLAC[12:], "a.flac")
    for read in (read_audio, num_samples):
        with pytest.raises(AudioError, match=r"a\.flac: is damaged: its header speaks of blocks"):
            read(path)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rate", [8_000, 16_000, 96_000])
def test_any_flac_that_is_whole_is_read(rate, level, tmp_path):
    path = written(tmp_path, encoded("FLAC", "PCM_24", rate, 2, compression_level=level), "a.flac")
    assert len(read_audio(path)) == num_samples(path) > 0


def test_a_piece_of_a_flac_that_can_be_decoded_but_not_sought_is_read(tmp_path):
    noise = np.random.default_rng(0).integers(-2_000, 2_000, 24_000).astype(np.int16)
    content = io.BytesIO()
    soundfile.write(content, noise, 16_000, format="FLAC")
    damaged = bytearray(content.getvalue())
    damaged[11:15] = bytes([1, 0, 0, 0])  # sizes of frames in its header
    path = tmp_path / "a.flac"
    path.write_bytes(damaged)
    whole = read_audio(path)
    assert len(whole) == num_samples(path) == 24_000
    for start, stop in ((1, None), (2_051, None), (12_345, 12_355), (23_999, 24_000)):
        assert read_audio(path, start, stop).equal(whole[start:stop])


@pytest.mark.parametrize("samples", [1, 16, 192, 256, 576, 1_000, 1_152, 2_048, 4_096, 4_097, 4_608])
def test_a_flac_of_one_block_is_read(samples, tmp_path):
    """Its header speaks of the blocks of a longer one."""
    soundfile.write(tmp_path / "a.flac", np.linspace(-0.5, 0.5, samples), SAMPLE_RATE)
    assert len(read_audio(tmp_path / "a.flac")) == num_samples(tmp_path / "a.flac") == samples


@pytest.mark.parametrize("part", [0.1, 0.5, 0.98])
@pytest.mark.parametrize("container", ["WAV", "WAVEX", "AIFF", "AU", "W64", "RF64", "CAF", "FLAC"])
def test_a_file_that_was_cut_off_is_named(container, part, tmp_path):
    content = encoded(container, "PCM_16")
    path = written(tmp_path, content[: int(len(content) * part)], f"a.{container.lower()}")
    with pytest.raises(AudioError, match=r"a\.\w+: (is cut off|not readable as audio)"):
        read_audio(path)
    assert len(read_audio(written(tmp_path, content, f"b.{container.lower()}"))) == SAMPLES


def place_of_count(mp3: bytes) -> int:
    return max(mp3.find(b"Xing"), mp3.find(b"Info")) + 8


@pytest.mark.parametrize("factor", [0, 0.25, 4])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_an_mp3_has_the_frames_it_has_whatever_its_header_counts(rate, mode, factor, tmp_path):
    content = encoded("MP3", rate=rate, bitrate_mode=mode)
    place = place_of_count(content)
    count = int.from_bytes(content[place : place + 4], "big")
    wrong = content[:place] + int(count * factor).to_bytes(4, "big") + content[place + 4 :]
    path = written(tmp_path, wrong, "a.mp3")
    assert torch.equal(read_audio(path), read_audio(written(tmp_path, content, "b.mp3")))
    assert num_samples(path) == len(read_audio(path)) == resampled_length(SAMPLES, rate)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_mp3_without_a_count_is_read_whole(channels, mode, tmp_path):
    """libsndfile takes the first frame's bitrate for all: of this one, at a variable rate, it reads a third."""
    content = encoded("MP3", channels=channels, bitrate_mode=mode)
    first = content.index(b"\xff", 200)
    while content[first + 1] != content[1] or content[first + 2] >> 2 & 3 != content[2] >> 2 & 3:
        first = content.index(b"\xff", first + 1)
    for name, bare in (("a.mp3", content[first:]), ("tagged.mp3", b"ID3\3\0\0\0\0\2\0" + bytes(256) + content[first:])):
        path = written(tmp_path, bare, name)
        assert SAMPLES <= num_samples(path) < SAMPLES + 2_400, "and the encoder's delay"
        assert len(read_audio(path)) == num_samples(path)


def test_an_mp3_that_was_cut_off_has_the_length_that_can_be_decoded(tmp_path):
    path = written(tmp_path, VBR[: len(VBR) // 2], "a.mp3")
    assert len(read_audio(path)) == num_samples(path) < SAMPLES


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 11_127, 22_254, 44_100, 48_000, 96_000, 191_999])
def test_any_rate_is_resampled_in_bounded_memory(rate, tmp_path):
    seconds = 2
    tone = np.sin(2 * np.pi * 440 * np.arange(rate * seconds) / rate).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", tone, rate, subtype="FLOAT")
    tracemalloc.start()
    wav = read_audio(tmp_path / "a.wav")
    assert tracemalloc.get_traced_memory()[1] < 20 * len(wav) * 4 + (1 << 20)
    tracemalloc.stop()
    assert len(wav) == num_samples(tmp_path / "a.wav") == SAMPLE_RATE * seconds
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(len(wav)) / SAMPLE_RATE)
    assert (wav - expected)[2_000:-2_000].abs().max() < 1e-3, "the same tone, in place"


@given(samples=st.integers(1, 70_000), rate=st.integers(1_000, 768_000))
@settings(max_examples=60, deadline=None)
def test_the_length_after_resampling_is_known_before(samples, rate):
    assert len(resample(torch.zeros(samples), rate)) == resampled_length(samples, rate)


def test_a_rate_that_no_recording_has_is_refused(tmp_path):
    place = WAV.index(b"fmt ") + 12
    path = written(tmp_path, WAV[:place] + struct.pack("<I", 3) + WAV[place + 4 :], "a.wav")
    with pytest.raises(AudioError, match="its header says 3 Hz"):
        read_audio(path)


def test_channels_in_opposite_phase_are_refused_instead_of_becoming_silence(tmp_path):
    tone = np.sin(np.arange(8_000) / 9)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, -tone], axis=1), SAMPLE_RATE)
    with pytest.raises(AudioError, match="channels cancel each other"):
        read_audio(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", np.stack([tone, 0 * tone], axis=1), SAMPLE_RATE)
    assert torch.allclose(read_audio(tmp_path / "b.wav"), torch.from_numpy(tone / 2).float(), atol=1e-4)
    soundfile.write(tmp_path / "silent.wav", np.zeros((100, 2)), SAMPLE_RATE)
    assert not read_audio(tmp_path / "silent.wav").any()


@given(samples=st.integers(0, 10**9), rate=st.integers(1_000, 768_000))
def test_places_at_another_rate_are_the_nearest(samples, rate):
    exact = samples * rate / SAMPLE_RATE
    assert abs(at_rate(samples, rate) - exact) <= 0.5
    assert at_rate(samples, SAMPLE_RATE) == samples


@pytest.mark.parametrize("keeps_time", [False, True])
def test_a_file_that_takes_the_place_of_another_has_its_own_length(keeps_time, tmp_path):
    """Also of the same size, and put there with the time of the first, as programs that synchronise folders do."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(2_000), SAMPLE_RATE, "PCM_16")
    first = path.stat()
    assert num_samples(path) == len(read_audio(path)) == 2_000
    new = tmp_path / "new.wav"
    soundfile.write(new, np.zeros(4_000), SAMPLE_RATE, "PCM_U8")
    assert new.stat().st_size == first.st_size
    os.utime(new, ns=(first.st_atime_ns, first.st_mtime_ns + (0 if keeps_time else 1)))
    new.replace(path)
    assert num_samples(path) == len(read_audio(path)) == 4_000
