"""Waveforms of the worst recordings: what is kept of them, and players and pictures on the page."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import zlib

import numpy as np
import pytest
import soundfile
from made_boards import board, leaderboard, with_waveforms

from core.errors import RecordError
from core.worst_waveforms import MOST_SAMPLES, read_waveforms, worst_places, write_waveforms
from leaderboard.exports import to_json
from leaderboard.page import page
from leaderboard.sounds import BANDS, log_mel, mp3, spectrogram

RATE = 16_000


def tone(hertz: float, samples: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)).astype(np.float32)


def test_the_worst_come_first_and_ids_decide_between_equals():
    values, ids = [2.0, -1.0, 2.0, 0.5, 9.0], ["d", "b", "c", "e", "a"]
    assert worst_places(values, ids, higher=True) == [1, 3, 2]
    assert worst_places(values, ids, higher=False) == [4, 2, 0]
    assert worst_places(values[:1], ids[:1], higher=True) == [0]


def test_what_was_written_is_read_again(tmp_path):
    path = tmp_path / "worst.safetensors"
    signals = {"b/2": np.stack([tone(200, 200_000)] * 3), "a": np.stack([2 * tone(300)] * 5)}
    write_waveforms(path, signals)
    kept = read_waveforms(path)
    assert list(kept) == ["a", "b/2"] and kept["b/2"].shape == (3, MOST_SAMPLES) and kept["a"].shape == (5, RATE)
    np.testing.assert_allclose(kept["a"], signals["a"], atol=5e-4)
    first = path.read_bytes()
    write_waveforms(path, signals)
    assert path.read_bytes() == first


@pytest.mark.parametrize("shape", [(4, 100), (1, 100), (100,)])
def test_what_holds_no_waveforms_is_refused(tmp_path, shape):
    path = tmp_path / "worst.safetensors"
    with pytest.raises(RecordError, match="no waveforms"):
        read_waveforms(path)
    path.write_bytes(b"nothing of that kind")
    with pytest.raises(RecordError, match="no waveforms"):
        read_waveforms(path)
    from safetensors.numpy import save_file

    for found in (np.zeros(shape, np.float16), np.full((3, 9), np.nan, np.float16), np.zeros((3, 9), np.float32)):
        save_file({"a": found}, path)
        with pytest.raises(RecordError, match="holds what are no waveforms"):
            read_waveforms(path)


def content(uri: str, kind: str) -> bytes:
    begin = f"data:{kind};base64,"
    assert uri.startswith(begin)
    return base64.b64decode(uri.removeprefix(begin))


def test_a_player_has_the_sound():
    wav, rate = soundfile.read(io.BytesIO(content(mp3(tone(440)), "audio/mpeg")), dtype="float32")
    assert rate == RATE and abs(len(wav) - RATE) < 3_000, "MP3 begins and ends with some silence"
    spectrum = np.abs(np.fft.rfft(wav[2_000:14_000]))
    assert np.argmax(spectrum) * RATE / 12_000 == pytest.approx(440, abs=2)
    assert np.abs(wav[2_000:14_000]).max() == pytest.approx(0.3, abs=0.03)
    assert len(content(mp3(np.random.default_rng(0).normal(0, 0.1, 6 * RATE)), "audio/mpeg")) < 60_000


def pixels(uri: str) -> np.ndarray:
    """Of a picture with 16 shades: (rows, columns)."""
    png = content(uri, "image/png")
    width, height, depth, kind = struct.unpack(">IIBB", png[16:26])
    assert (depth, kind) == (4, 0)
    data = zlib.decompress(png[png.index(b"IDAT") + 4 : -16])
    lines = np.frombuffer(data, np.uint8).reshape(height, -1)
    assert not lines[:, 0].any(), "no filter"
    return np.stack([lines[:, 1:] >> 4, lines[:, 1:] & 15], axis=2).reshape(height, -1)[:, :width]


@pytest.mark.parametrize("hertz", [150.0, 1_000.0, 7_000.0])
def test_a_picture_shows_which_bands_are_loud(hertz):
    wav = np.concatenate([np.zeros(RATE, np.float32), tone(hertz)])
    energies = log_mel(wav)
    picture = pixels(spectrogram(energies, energies.max()))
    assert picture.shape == energies.shape == (BANDS, 1 + 2 * RATE // 256)
    assert (picture[:, :60] == 15).all(), "silence is white"
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    expected = 2595 * np.log10(1 + hertz / 700) / top * (BANDS + 1) - 1
    assert BANDS - 1 - np.argmin(picture[:, 90]) == pytest.approx(expected, abs=1)
    assert picture.min() == 0
    louder = pixels(spectrogram(energies, energies.max() + 30))
    assert louder.min() > 0, "on a scale whose loudest is another signal"


def test_the_page_has_a_player_and_a_picture_of_each_signal():
    made = leaderboard(with_waveforms(board(2), "sid"))
    text = page(made)
    assert page(leaderboard(board(2))).count("<audio") == 0
    assert text.count("<audio controls") == text.count("<img src") == 2 * 3, "two rows"
    for kind in ("audio/mpeg", "image/png"):
        assert all(content(uri, kind) for uri in re.findall(rf'src="(data:{kind}[^"]*)"', text))
    assert "img-src data:; media-src data:" in text
    assert text == page(made), "the same results make the same page"
    assert re.findall(r"<figcaption>(Heard|Clean|Enhanced)</figcaption>", text) == ["Heard", "Clean", "Enhanced"] * 2


def test_exported_results_name_waveforms_by_digest():
    told = json.loads(to_json(leaderboard(with_waveforms(board(2), "sid"))))
    (wrong,) = told["boards"][0]["rows"][0]["cells"]["sid"]["worst_waveforms"]
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in wrong["signals"])
    assert len(wrong["signals"]) == len(wrong["names"]) == 3
