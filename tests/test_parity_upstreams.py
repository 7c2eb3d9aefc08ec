"""Parity with s3prl 0.4.18: spectral features, hidden states of checkpoints, the featurizer.

Each oracle was computed by s3prl; its folder's README says what it holds. Where Frostbench departs on purpose, both are
pinned: equality on a waveform alone, and how far s3prl moves away from that in a batch.

Tolerances: s3prl's numbers come from another machine, and rounding alone moves them. The oracles store how far one
rounding step of the input moves each (`sensitivity`); ten times that is allowed, and 1e-5 at least. For one column of a
spectrum it comes from three draws and can be far too small: there the least is 5e-5, seen is 1.8e-5. Columns that the
oracles mark as unstable are left out.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from core.lengths import pad
from downstreams._featurizer import Featurizer
from upstreams._base import Upstream
from upstreams._encoders import kaldi
from upstreams._resolve import build_upstream
from upstreams.pretrained._preprocessor import KaldiFrontEnd, StftFrontEnd
from upstreams.spectral.fbank import Fbank
from upstreams.spectral.fbank_cmvn import FbankCMVN
from upstreams.spectral.mfcc import MFCC

ORACLES = Path(os.environ.get("FROSTBENCH_ORACLES") or Path(__file__).parents[2] / "shared" / "oracles")
if not (ORACLES / "wavs.npz").is_file():
    pytest.skip(
        f"no oracles in {ORACLES}: name their folder with FROSTBENCH_ORACLES to prove parity with s3prl",
        allow_module_level=True,
    )

SPECTRA = {
    "fbank": FbankCMVN().features,
    "fbank_no_cmvn": Fbank().features,
    "mfcc": lambda wav: kaldi.cmvn(MFCC().features(wav)),
    "mel": StftFrontEnd("mel"),
    "linear": StftFrontEnd("linear"),
    "spectrogram": KaldiFrontEnd("spectrogram", {"frame_length": 25.0, "frame_shift": 10.0}, (0, 5), True),
}
SPECS = {
    "apc": "s3prl-ckpt:{}/apc.ckpt",
    "vq_apc": "s3prl-ckpt:{}/vq_apc.ckpt",
    "mockingjay": "s3prl-ckpt:{}/mockingjay.ckpt",
    "mockingjay_mel": "s3prl-ckpt:{}/mockingjay_mel.ckpt",
    "tera": "s3prl-ckpt:{}/tera.ckpt",
    "hubert": "s3prl-ckpt:{}/hubert.pt",
    "hubert_ln": "s3prl-ckpt:{}/hubert_ln.pt",
    "wav2vec2": "s3prl-ckpt:{}/wav2vec2.pt",
    "wav2vec2_ln": "s3prl-ckpt:{}/wav2vec2_ln.pt",
    "hf_hubert_gn": "hf:{}/hf_hubert_gn",
    "hf_hubert_ln": "hf:{}/hf_hubert_ln",
    "hf_wav2vec2_gn": "hf:{}/hf_wav2vec2_gn",
}
FEATURIZED = tuple(name for name in SPECS if name.startswith("hf_"))
# What makes s3prl's hidden states depend on the batch. The others' do not.
DEPARTURES = {
    "mockingjay_mel": "the batch is padded before the STFT, and cut into chunks by its longest waveform",
    "tera": "the batch is padded before the STFT",
    "hubert": "group norm over padding",
    "hubert_ln": "one frame of padding more is attended to",
    "wav2vec2": "group norm over padding",
    "hf_hubert_gn": "group norm over padding",
    "hf_wav2vec2_gn": "group norm over padding",
}
SMALLEST_DEPARTURE = 0.2  # the oracles' README: 0.5 to 5.0
RATES = {"spectral": 160, "apc": 160, "vq_apc": 160, "mockingjay": 160, "mockingjay_mel": 160, "tera": 160}
S3PRL_ENTRIES = {"apc": "apc_local", "tera": "tera_local", "hubert": "hubert_local", "wav2vec2_ln": "wav2vec2_local"}


@functools.cache
def oracle(name: str) -> dict[str, np.ndarray]:
    with np.load(ORACLES / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


@functools.cache
def meta(name: str) -> dict:
    content = json.loads((ORACLES / "meta.json").read_text())
    return (content["checkpoints"] | content["hf"])[name]


@functools.cache
def upstream(name: str) -> Upstream:
    return build_upstream(SPECS[name].format(ORACLES))


def wavs() -> list[torch.Tensor]:
    return [torch.from_numpy(oracle("wavs")[f"wav{row}"]) for row in range(4)]


def samples() -> torch.Tensor:
    return torch.tensor([len(wav) for wav in wavs()])


@functools.cache
def alone(name: str, row: int) -> tuple[np.ndarray, ...]:
    wav = wavs()[row]
    states = upstream(name).extract(wav[None], torch.tensor([len(wav)]))
    return tuple(layer[0].numpy() for layer in states.layers)


@functools.cache
def batched(name: str) -> tuple[np.ndarray, ...]:
    return tuple(layer.numpy() for layer in upstream(name).extract(*pad(wavs())).layers)


def tolerance(name: str, row: int) -> float:
    return max(1e-5, 10 * meta(name)["rounding_sensitivity"][row])


def column_tolerance(stored: dict[str, np.ndarray], row: int) -> np.ndarray:
    return np.maximum(5e-5, 10 * stored[f"sensitivity{row}"])


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("name", SPECTRA)
def test_spectral_features_equal_s3prls(name, row):
    stored = oracle(f"spectral_{name}")
    features = SPECTRA[name](wavs()[row]).numpy()
    assert features.shape == stored[f"alone{row}"].shape
    assert len(features) == stored["alone_lens"][row]
    stable = ~stored[f"unstable{row}"]
    assert stable.mean() > 0.9
    excess = np.abs(features - stored[f"alone{row}"]).max(axis=0) / column_tolerance(stored, row)
    assert excess[stable].max() <= 1


def test_kaldi_features_of_a_batch_equal_s3prls():
    stored = oracle("spectral_fbank")
    states = FbankCMVN().freeze().extract(*pad(wavs()))
    assert states.lengths.tolist() == stored["alone_lens"].tolist()
    for row, length in enumerate(states.lengths.tolist()):
        stable = ~stored[f"unstable{row}"]
        differences = np.abs(states.layers[0][row].numpy() - stored["batch"][row])[:length].max(axis=0)
        assert (differences / column_tolerance(stored, row))[stable].max() <= 1


def test_s3prls_mel_features_depend_on_the_batch():
    """Why the STFT front end takes each waveform alone."""
    stored = oracle("spectral_mel")
    for row, length in enumerate(stored["alone_lens"][:3]):
        assert np.abs(stored["batch"][row, :length] - stored[f"alone{row}"]).max() > SMALLEST_DEPARTURE


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("name", SPECS)
def test_hidden_states_equal_s3prls(name, row):
    stored = oracle(name)
    layers = alone(name, row)
    assert len(layers) == meta(name)["layers"] == upstream(name).num_layers
    for index, layer in enumerate(layers):
        expected = stored[f"alone{row}_h{index}"]
        assert layer.shape == expected.shape
        difference = np.abs(layer - expected).max()
        assert difference <= tolerance(name, row), f"layer {index} differs by {difference:.2g}"


@pytest.mark.parametrize("name", SPECS)
def test_frame_counts_are_true_and_s3prls_rounded_ones_are_pinned(name):
    stored = oracle(name)
    rate = RATES.get(name, 320)
    assert upstream(name).downsample_rate == rate == stored["featurizer_rate"]
    assert upstream(name).frame_lengths(samples()).tolist() == stored["alone_lens"].tolist()
    rounded = [min(round(count / rate), len(stored["batch_h0"][0])) for count in samples().tolist()]
    assert stored["featurizer_lens"].tolist() == rounded
    assert stored["featurizer_lens"].tolist() != stored["alone_lens"].tolist(), "s3prl departs from the true counts"


@pytest.mark.parametrize("name", SPECTRA)
def test_s3prls_rounded_spectral_lengths_are_pinned(name):
    stored = oracle(f"spectral_{name}")
    rounded = [min(round(count / 160), stored["featurizer_lens"].max()) for count in samples().tolist()]
    assert stored["featurizer_lens"].tolist() == rounded
    assert stored["featurizer_lens"].tolist() != stored["alone_lens"].tolist()


@pytest.mark.parametrize("name", SPECS)
def test_a_batch_changes_nothing_here(name):
    for row in range(4):
        for index, layer in enumerate(alone(name, row)):
            difference = np.abs(batched(name)[index][row, : len(layer)] - layer).max()
            assert difference <= 2e-5, f"layer {index} of waveform {row} differs by {difference:.2g}"


@pytest.mark.parametrize("name", SPECS)
def test_size_of_s3prls_departure_in_a_batch(name):
    """With padding, s3prl moves away from its own states of a waveform alone, by as much as the oracles tell."""
    stored = oracle(name)
    departures = []
    for row, length in enumerate(stored["alone_lens"]):
        pairs = [(stored[f"batch_h{index}"][row, :length], stored[f"alone{row}_h{index}"]) for index in range(3)]
        departures.append(max(np.abs(batch - single).max() for batch, single in pairs))
    assert departures == pytest.approx(meta(name)["batch_vs_alone_max"], rel=1e-3, abs=1e-5)
    if name in DEPARTURES:
        assert max(departures) > SMALLEST_DEPARTURE
    else:
        assert max(departures) < 2e-5


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("name", FEATURIZED)
def test_featurizer_equals_s3prls_on_its_hidden_states(name, normalise):
    stored = oracle(name)
    kind = "wsum_norm" if normalise else "wsum"
    featurizer = featurizer_of(stored, normalise)
    for row, length in enumerate(stored["featurizer_lens"]):
        layers = np.stack([stored[f"batch_h{index}"][row, :length] for index in range(3)], axis=1)
        mixed = featurizer(torch.from_numpy(layers)).numpy()
        np.testing.assert_allclose(mixed, stored[f"{kind}_batch{row}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("name", FEATURIZED)
def test_upstream_and_featurizer_together_equal_s3prls(name, normalise):
    stored = oracle(name)
    kind = "wsum_norm" if normalise else "wsum"
    featurizer = featurizer_of(stored, normalise)
    for row in range(4):
        mixed = featurizer(torch.from_numpy(np.stack(alone(name, row), axis=1))).numpy()
        assert np.abs(mixed - stored[f"{kind}_alone{row}"]).max() <= tolerance(name, row)


def featurizer_of(stored: dict[str, np.ndarray], normalise: bool) -> Featurizer:
    featurizer = Featurizer(len(stored["weights"]), normalise).requires_grad_(False)
    featurizer.weights.copy_(torch.from_numpy(stored["weights"]))
    return featurizer


@pytest.mark.parametrize("name", S3PRL_ENTRIES)
def test_an_installed_s3prl_equals_the_oracles(name):
    pytest.importorskip("s3prl", reason="the extra [s3prl] is not installed")
    file = ORACLES / meta(name)["file"]
    installed = build_upstream(f"s3prl:{S3PRL_ENTRIES[name]}@{file}")
    for row, wav in enumerate(wavs()):
        states = installed.extract(wav[None], torch.tensor([len(wav)]))
        assert states.lengths.tolist() == [oracle(name)["alone_lens"][row]]
        for index, layer in enumerate(states.layers):
            difference = np.abs(layer[0].numpy() - oracle(name)[f"alone{row}_h{index}"]).max()
            assert difference <= tolerance(name, row)
