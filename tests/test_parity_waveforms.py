"""Parity with s3prl 0.4.18 on enhancement and separation: masks, spectra, losses, waveforms and scores.

Sizes are those of the oracles' files, whatever they are.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import skip_without_extra

from core._waveforms import best_order, intelligibility, si_sdr, si_sdr_improvement, speech_quality
from core.lengths import pad
from downstreams import spectral_masks
from downstreams._base import FeatureShape
from downstreams.labels.waveforms import WaveformLabels
from downstreams.spectral_masks import SpectralMasks, SpectralMasksOptions

ORACLES = Path(os.environ.get("FROSTBENCH_ORACLES") or Path(__file__).parents[2] / "shared" / "oracles") / "tasks"
CLOSE = 2e-5
TASKS = ("se", "ss")


@functools.cache
def oracle(name: str) -> dict[str, torch.Tensor]:
    if not (ORACLES / f"{name}.npz").is_file():
        pytest.skip(f"no {name}.npz in {ORACLES}: name the folder above it with FROSTBENCH_ORACLES to prove parity")
    with np.load(ORACLES / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@functools.cache
def meta(name: str) -> Any:
    oracle(name)
    return json.loads((ORACLES / "meta.json").read_text())["separation"][name]


def count_of(name: str, prefix: str) -> int:
    return sum(key.startswith(prefix) and key[len(prefix) :].isdigit() for key in oracle(name))


def head_of(name: str) -> SpectralMasks:
    """Ours with the oracle's weights; every one of its parameters is given."""
    known, sources = oracle(name), count_of(name, "mask0_")
    layers = sum(key.startswith("model.rnn.weight_ih") and not key.endswith("reverse") for key in known)
    size = known["model.rnn.weight_hh_l0"].shape[1]
    shape = FeatureShape(known["x0"].shape[1], meta(name)["hop"])
    options = SpectralMasksOptions(lstm_size=size, lstm_layers=layers, window_samples=meta(name)["n_fft"])
    weights = {}
    for layer in range(layers):
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            for ours, theirs in (("forth", ""), ("back", "_reverse")):
                weights[f"lstms.{layer}.{ours}.{kind}_l0"] = known[f"model.rnn.{kind}_l{layer}{theirs}"]
    for kind in ("weight", "bias"):
        weights[f"classifier.{kind}"] = torch.cat([known[f"model.linear.{n}.{kind}"] for n in range(sources)])
    head = SpectralMasks(shape, WaveformLabels(sources), options)
    head.load_state_dict(weights)
    return head.eval().requires_grad_(False)


def signals_of(name: str) -> list[torch.Tensor]:
    """What is heard and its targets, of each recording."""
    known, sources = oracle(name), count_of(name, "mask0_")
    return [
        torch.stack([known[f"mixture{row}"], *(known[f"reference{row}_{source}"] for source in range(sources))])
        for row in range(count_of(name, "mixture"))
    ]


def masks_of(name: str) -> tuple[SpectralMasks, torch.Tensor, torch.Tensor]:
    """The head, its masks of the padded batch, and valid frames of the features."""
    head, signals = head_of(name), signals_of(name)
    features, lengths = pad([oracle(name)[f"x{row}"] for row in range(len(signals))])
    return head, head(features, lengths, [each[0] for each in signals]), lengths


@pytest.mark.parametrize("name", TASKS)
def test_masks_equal_s3prls(name):
    """Of features that are a few frames longer or shorter than the spectrum: cut, or padded with zeros."""
    head, masks, _ = masks_of(name)
    known = oracle(name)
    assert known["stft_frames"].tolist() != known["feature_frames"].tolist()
    for row, frames in enumerate(known["stft_frames"].tolist()):
        for source, mask in enumerate(head._by_source(masks)[:, row, :frames]):
            torch.testing.assert_close(mask, known[f"mask{row}_{source}"], rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", TASKS)
def test_spectra_equal_librosas(name):
    head, known = head_of(name), oracle(name)
    for row, signals in enumerate(signals_of(name)):
        found = head._spectra(signals[:1])[0]
        torch.testing.assert_close(found.real, known[f"stft_real{row}"], rtol=0, atol=CLOSE)
        torch.testing.assert_close(found.imag, known[f"stft_imag{row}"], rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", TASKS)
def test_losses_equal_s3prls(name):
    """Of the batch, of each recording, and with the sources in another order."""
    head, masks, lengths = masks_of(name)
    signals, wanted = signals_of(name), meta(name)
    assert head.loss(masks, lengths, signals).item() == pytest.approx(wanted["losses"]["NPSM"], rel=CLOSE)
    turned = [each[[0, *range(len(each) - 1, 0, -1)]] for each in signals]
    assert head.loss(masks, lengths, turned).item() == pytest.approx(wanted["losses"]["NPSM"], rel=CLOSE)
    for row, frames in enumerate(oracle(name)["stft_frames"].tolist()):
        alone = head.loss(masks[[row], :frames], lengths[[row]], [signals[row]]).item()
        assert alone == pytest.approx(wanted["npsm_each"][row], rel=CLOSE)


@pytest.mark.parametrize("name", TASKS)
def test_estimates_equal_s3prls_up_to_the_last_window(name):
    """Ours has one more behind what are whole hops, where s3prl's inverse divides by a vanishing one: an impulse."""
    head, masks, lengths = masks_of(name)
    signals, known = signals_of(name), oracle(name)
    found = head.predict(masks, lengths, [each[0] for each in signals])
    for row, estimates in enumerate(found):
        assert estimates.shape == signals[row][1:].shape and estimates.dtype == np.float32
        reach = int(known["stft_frames"][row]) * meta(name)["hop"] - meta(name)["n_fft"] // 2
        for source, estimate in enumerate(estimates):
            theirs = known[f"estimate{row}_{source}_unprocessed"].numpy()
            np.testing.assert_allclose(estimate[:reach], theirs[:reach], rtol=0, atol=CLOSE)
        assert np.abs(estimates).max() < 2 * np.abs(estimates[:, :reach]).max(), "no impulse behind the last centre"


@pytest.mark.parametrize("name", TASKS)
def test_scores_equal_those_of_the_libraries(name):
    """SI-SDR of every pair by torchmetrics, STOI and PESQ by their own, in the order that they found."""
    known = oracle(name)
    for row, signals in enumerate(map(torch.Tensor.numpy, signals_of(name))):
        wanted = meta(name)["utterances"][row]
        estimates = np.stack([known[f"estimate{row}_{source}"].numpy() for source in range(len(signals) - 1)])
        pairs = [[si_sdr(estimate, target) for estimate in estimates] for target in signals[1:]]
        np.testing.assert_allclose(pairs, wanted["si_sdr"], atol=1e-4)
        assert best_order(estimates, signals[1:]) == tuple(wanted["assignment"])
        assert si_sdr_improvement(estimates, signals) == pytest.approx(wanted["si_sdr_improvement"], abs=1e-4)
        assert si_sdr_improvement(estimates[::-1], signals) == pytest.approx(wanted["si_sdr_improvement"], abs=1e-4)
        assert intelligibility(estimates, signals) == pytest.approx(np.mean(wanted["stoi"]), abs=1e-6)


@pytest.mark.parametrize("name", TASKS)
def test_quality_equals_pesqs(name):
    skip_without_extra("pesq")
    known = oracle(name)
    for row, signals in enumerate(map(torch.Tensor.numpy, signals_of(name))):
        estimates = np.stack([known[f"estimate{row}_{source}"].numpy() for source in range(len(signals) - 1)])
        wanted = np.mean(meta(name)["utterances"][row]["pesq_wb"])
        assert speech_quality(estimates, signals) == pytest.approx(wanted, abs=1e-4)


# Deviations that these tests are there to find: what is changed, and the test that sees it.


def reflected(wavs, *arguments, **options):
    return real_stft(wavs, *arguments, **{**options, "pad_mode": "reflect"})


real_stft = torch.stft
PLANTED = {
    "ends are reflected": (torch, "stft", reflected, test_spectra_equal_librosas),
    "masks may be negative": (torch.Tensor, "relu", lambda self: self, test_masks_equal_s3prls),
    "the phase is forgotten": (torch.Tensor, "conj", lambda self: self, test_losses_equal_s3prls),
    "frames are not cut": (spectral_masks, "padding_mask", lambda lengths, size: torch.zeros(len(lengths), size).bool(),
                           test_losses_equal_s3prls),
    "sources keep their order": (spectral_masks, "permutations", lambda places: [tuple(places)],
                                 test_losses_equal_s3prls),
    "another window": (torch, "hann_window", torch.hamming_window, test_estimates_equal_s3prls_up_to_the_last_window),
}  # fmt: skip


@pytest.mark.parametrize(("module", "attribute", "change", "test"), PLANTED.values(), ids=PLANTED)
def test_a_deviation_is_seen(module, attribute, change, test, monkeypatch):
    oracle("ss")
    test("ss")
    monkeypatch.setattr(module, attribute, change)
    with pytest.raises(AssertionError):
        test("ss")


def test_the_head_has_the_published_parameters():
    with torch.device("meta"):
        head = SpectralMasks(FeatureShape(768, 320), WaveformLabels(2), SpectralMasksOptions())
    assert sum(parameter.numel() for parameter in head.parameters()) == 51_427_330
