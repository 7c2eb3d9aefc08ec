"""Numbers of s3prl 0.4.18 that lie in this repository: spectra, APC, two heads and error rates, without its oracles.

`golden/known_numbers.json` says where each comes from, and `golden/make_known_numbers.py` makes it from a folder of the
oracles. With that folder, named by the environment variable FROSTBENCH_ORACLES, `test_parity_*.py` compare far more.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slow_reference
import torch

from core.metrics import get_metric
from downstreams._base import HEADS, FeatureShape, Head
from downstreams.labels.slots import SlotLabels
from downstreams.labels.text import TextLabels
from upstreams._encoders import kaldi
from upstreams._encoders.mel_gru import MelGRU
from upstreams.spectral.fbank import Fbank
from upstreams.spectral.fbank_cmvn import FbankCMVN
from upstreams.spectral.mfcc import MFCC

KNOWN = json.loads((Path(__file__).parent / "golden" / "known_numbers.json").read_text())
CLOSE = 1e-5  # six digits are stored
SPECTRA = {
    "fbank_no_cmvn": Fbank().features,
    "fbank": FbankCMVN().features,
    "mfcc": lambda wav: kaldi.cmvn(MFCC().features(wav)),
}
SPECTRAL_TOLERANCE = 2e-3  # the waveform is stored in 16 bits, which changes them by up to 5e-4; they vary by about 1


def wav() -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(KNOWN["wav"]), "<i2").astype(np.float32) / 32_768)


def made(seed: int, module: torch.nn.Module, scale: float = 1.0) -> None:
    """Gives a module the weights that the known numbers were computed with."""
    state = module.state_dict()
    for number, name in enumerate(sorted(state)):
        state[name] = torch.from_numpy(slow_reference.noise(seed + number, *state[name].shape) * scale).float()
    module.load_state_dict(state)
    module.eval().requires_grad_(False)


def test_there_are_enough_of_them():
    def count(value: Any) -> int:
        return sum(map(count, value)) if isinstance(value, list) else isinstance(value, float)

    spectra = sum(count(each["values"]) for each in KNOWN["spectra"].values())
    heads = sum(count(KNOWN[name][kind]) for name in ("utterance_linear", "ctc") for kind in ("logits", "losses"))
    assert spectra + heads + count(KNOWN["apc"]["values"]) + 2 * len(KNOWN["metrics"]["pairs"]) >= 200


@pytest.mark.parametrize("name", SPECTRA)
def test_spectra(name):
    """Static columns, deltas and double deltas, at the edges as well."""
    known = KNOWN["spectra"][name]
    found = SPECTRA[name](wav()).numpy()[np.ix_(known["frames"], known["columns"])]
    assert found == pytest.approx(np.array(known["values"]), abs=SPECTRAL_TOLERANCE)


def test_apc():
    known, network = KNOWN["apc"], MelGRU(3, 4)
    made(known["seed"], network, known["scale"])
    states = network.encode(wav()[None], torch.tensor([len(wav())]))
    found = np.stack([layer[0, known["frames"]].numpy() for layer in states.layers])
    assert found == pytest.approx(np.array(known["values"]), abs=SPECTRAL_TOLERANCE)


def head_of(name: str, head: Head) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
    """What is known of it, padded features and lengths; noise stands on the padding."""
    known = KNOWN[name]
    made(known["seed"], head)
    return (
        known,
        torch.from_numpy(slow_reference.noise(known["features"], 4, 9, 6)).float(),
        torch.tensor(known["lengths"]),
    )


def losses(head: Head, logits: torch.Tensor, lengths: torch.Tensor, targets: list[list[int]]) -> list[float]:
    rows = range(len(targets))
    return [
        head.loss(logits[[row]], lengths[[row]], [torch.tensor(targets[row])]).item() * len(targets[row])
        for row in rows
    ]


def test_the_linear_head():
    labels = SlotLabels((("label", tuple("abcdefg")),))
    head = HEADS.get("utterance_linear")(FeatureShape(6, 160), labels, HEADS.get("utterance_linear").options_type(5))
    known, features, lengths = head_of("utterance_linear", head)
    logits = head(features, lengths)
    assert logits.numpy() == pytest.approx(np.array(known["logits"]), abs=CLOSE)
    targets = [[target] for target in known["targets"]]
    assert losses(head, logits, lengths, targets) == pytest.approx(known["losses"], rel=CLOSE)
    together = head.loss(logits, lengths, [torch.tensor(target) for target in targets]).item()
    assert together == pytest.approx(np.mean(known["losses"]), rel=CLOSE)


def test_the_ctc_head():
    """Its loss divides each utterance's by the target's length."""
    options = HEADS.get("ctc").options_type(projector_size=5, lstm_size=3)
    head = HEADS.get("ctc")(FeatureShape(6, 160), TextLabels(tuple("abc")), options)
    known, features, lengths = head_of("ctc", head)
    logits = head(features, lengths)
    found = [[row[0].tolist(), row[length - 1].tolist()] for row, length in zip(logits, lengths.tolist(), strict=True)]
    assert np.array(found) == pytest.approx(np.array(known["logits"]), abs=CLOSE)
    assert losses(head, logits, lengths, known["targets"]) == pytest.approx(known["losses"], rel=CLOSE)


@pytest.mark.parametrize(("name", "compute"), [(name, get_metric(name).compute) for name in ("wer", "cer")])
def test_error_rates(name, compute):
    pairs = KNOWN["metrics"]["pairs"]
    assert [compute([pair["hyp"]], [pair["ref"]]) for pair in pairs] == pytest.approx(
        [100 * pair[name] for pair in pairs]
    )
