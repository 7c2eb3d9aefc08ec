"""Writes known_numbers.json: `python tests/golden/make_known_numbers.py FOLDER_OF_ORACLES`, from the repository's root.

The oracles are outputs of s3prl 0.4.18 (torch 2.8.0, torchaudio 2.8.0), made on other machines. Spectral numbers and
error rates are copied from them. Networks of the oracles are too large for a small file: `tests/slow_reference.py` is
held against the oracles of APC, of the linear head and of the ASR head, and then computes small ones from made weights.
Not a line of Frostbench takes part.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchaudio.compliance import kaldi

sys.path.insert(0, str(Path(__file__).parent.parent))
import slow_reference as slow

TARGET = Path(__file__).parent / "known_numbers.json"
FRAMES = (0, 1, 30, 59)  # the edges as well, where deltas repeat the first or last frame
COLUMNS = {"fbank_no_cmvn": range(0, 240, 12), "fbank": range(5, 240, 24), "mfcc": range(0, 39, 3)}
SCALE = 0.3  # of APC's weights: larger ones would push every gate to an end
DIGITS = 6  # significant ones
CLOSE = 2e-5  # float32 against float64


def main(oracles: Path) -> None:
    def oracle(name: str) -> dict[str, Any]:
        with np.load(oracles / f"{name}.npz") as file:
            return {key: file[key] for key in file.files}

    mel = hamming_mel(oracle("wavs")["wav2"])
    check_apc(oracle("apc"), torch.load(oracles / "apc.ckpt", weights_only=False)["model"], mel)
    inputs = oracle("head_input")
    check_linear(oracle("head_ks"), inputs)
    check_recogniser(oracle("head_asr"), inputs)
    known = {
        "origin": {
            "spectra": "s3prl 0.4.18, upstreams fbank, fbank_no_cmvn and mfcc, of wav2 of the oracles (white noise)",
            "apc, heads": "tests/slow_reference.py, after it agreed with s3prl 0.4.18 on apc, head_ks and head_asr",
            "metrics": "s3prl 0.4.18, s3prl.metric's wer and cer",
            "made by": "tests/golden/make_known_numbers.py",
        },
        "wav": wave(oracle("wavs")["wav2"]),
        "spectra": {name: spectrum(oracle(f"spectral_{name}")["alone2"], name) for name in COLUMNS},
        "apc": known_apc(mel),
        "utterance_linear": known_linear(),
        "ctc": known_recogniser(),
        "metrics": known_metrics(json.loads((oracles / "metrics.json").read_text())["text"]),
    }
    TARGET.write_text(json.dumps(known, indent=1) + "\n")


def wave(wav: Any) -> str:
    """As 16 bits in base64: which changes the numbers below by a quarter of the test's tolerance at most."""
    return base64.b64encode(np.round(wav * 32_768).astype("<i2").tobytes()).decode()


def rounded(values: Any) -> list[Any]:
    return [rounded(each) if np.ndim(each) else float(f"{each:.{DIGITS}g}") for each in values]


def spectrum(values: Any, name: str) -> dict[str, Any]:
    columns = list(COLUMNS[name])
    return {"frames": FRAMES, "columns": columns, "values": rounded(values[np.ix_(FRAMES, columns)])}


def require_close(found: Any, expected: Any, what: str) -> None:
    difference = float(np.abs(np.asarray(found) - expected).max())
    if difference > CLOSE * max(1.0, float(np.abs(expected).max())):
        raise SystemExit(f"{what}: the slow reference differs from s3prl by {difference:.2g}")


def hamming_mel(wav: Any) -> Any:
    """APC's input in s3prl, by torchaudio: normalised log mel energies with another window than FBANK's."""
    mel = kaldi.fbank(torch.from_numpy(wav)[None], num_mel_bins=80, window_type="hamming").double().numpy()
    return (mel - mel.mean(axis=0)) / mel.std(axis=0, ddof=1)


def check_apc(expected: dict[str, Any], weights: dict[str, torch.Tensor], mel: Any) -> None:
    found = slow.apc(mel, {name: tensor.double().numpy() for name, tensor in weights.items()})
    for layer, states in enumerate(found):
        require_close(states, expected[f"alone2_h{layer}"], f"APC, layer {layer}")


def check_linear(expected: dict[str, Any], inputs: dict[str, Any]) -> None:
    weights = {
        f"{ours}.{kind}": expected[f"{theirs}.{kind}"].astype(np.float64)
        for ours, theirs in (("projector", "projector"), ("classifier", "model.post_net.linear"))
        for kind in ("weight", "bias")
    }
    logits = [slow.mean_classifier(x[:length], weights) for x, length in zip(inputs["x"], inputs["lens"], strict=True)]
    require_close(logits, expected["logits"], "linear head")
    losses = [slow.cross_entropy(*pair) for pair in zip(logits, expected["labels"], strict=True)]
    require_close(np.mean(losses), expected["loss"], "cross-entropy")


def check_recogniser(expected: dict[str, Any], inputs: dict[str, Any]) -> None:
    weights = {f"projector.{kind}": expected[f"projector.{kind}"] for kind in ("weight", "bias")}
    weights |= {f"classifier.{kind}": expected[f"model.linear.{kind}"] for kind in ("weight", "bias")}
    for layer in range(2):
        for kind in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            weights[f"lstms.{layer}.forth.{kind}"] = expected[f"model.rnns.{layer}.layer.{kind}"]
            weights[f"lstms.{layer}.back.{kind}"] = expected[f"model.rnns.{layer}.layer.{kind}_reverse"]
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    for row, length in enumerate(inputs["lens"]):
        logits = slow.recogniser(inputs["x"][row, :length], weights, 2)
        require_close(logits, expected["logits"][row, :length], "ASR head")
        target = expected["targets"][row, : expected["target_lens"][row]]
        require_close(slow.ctc_loss(logits, target), expected["ctc_loss_each"][row], "CTC")


def made(seed: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Weights of each name; the test makes the same ones."""
    return {name: slow.noise(seed + number, *shape) for number, (name, shape) in enumerate(sorted(shapes.items()))}


def known_apc(mel: Any) -> dict[str, Any]:
    shapes = {}
    for layer, inputs in enumerate((80, 4, 4)):
        for kind, shape in (("ih", (12, inputs)), ("hh", (12, 4))):
            shapes |= {
                f"rnn_layers.{layer}.weight_{kind}_l0": shape,
                f"rnn_layers.{layer}.bias_{kind}_l0": shape[:1],
            }
    layers = slow.apc(mel, {name: value * SCALE for name, value in made(100, shapes).items()})
    return {
        "seed": 100,
        "scale": SCALE,
        "frames": FRAMES,
        "values": [rounded(layer[list(FRAMES)]) for layer in layers],
    }


def known_linear() -> dict[str, Any]:
    shapes = {"projector.weight": (5, 6), "projector.bias": (5,), "classifier.weight": (7, 5), "classifier.bias": (7,)}
    weights, features, lengths, targets = made(200, shapes), slow.noise(299, 4, 9, 6), [9, 6, 3, 1], [0, 3, 6, 2]
    logits = [slow.mean_classifier(x[:length], weights) for x, length in zip(features, lengths, strict=True)]
    losses = [slow.cross_entropy(*pair) for pair in zip(logits, targets, strict=True)]
    return {"seed": 200, "features": 299, "lengths": lengths, "targets": targets, "logits": rounded(logits),
            "losses": rounded(losses)}  # fmt: skip


def known_recogniser() -> dict[str, Any]:
    shapes = {"projector.weight": (5, 6), "projector.bias": (5,), "classifier.weight": (4, 6), "classifier.bias": (4,)}
    for layer, inputs in enumerate((5, 6)):
        for way in ("forth", "back"):
            lstm = f"lstms.{layer}.{way}"
            shapes |= {f"{lstm}.weight_ih_l0": (12, inputs), f"{lstm}.weight_hh_l0": (12, 3)}
            shapes |= {f"{lstm}.bias_ih_l0": (12,), f"{lstm}.bias_hh_l0": (12,)}
    weights, features, lengths = made(300, shapes), slow.noise(399, 4, 9, 6), [9, 6, 4, 1]
    targets = [[1, 1, 2], [3, 1], [2, 3, 2], [1, 2]]  # repeated symbols want a blank; the last is too long for a frame
    logits = [slow.recogniser(x[:length], weights, 2) for x, length in zip(features, lengths, strict=True)]
    losses = [slow.ctc_loss(*pair) for pair in zip(logits, targets, strict=True)]
    return {"seed": 300, "features": 399, "lengths": lengths, "targets": targets,
            "logits": [rounded(each[[0, -1]]) for each in logits], "losses": rounded(losses)}  # fmt: skip


def known_metrics(text: dict[str, Any]) -> dict[str, Any]:
    pairs = [{key: pair[key] for key in ("hyp", "ref", "wer", "cer")} for pair in text["pairs"] if pair["wer"] > 0]
    return {"pairs": pairs}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
