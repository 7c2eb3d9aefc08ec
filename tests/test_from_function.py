"""An upstream of one function: its contract, what enters its digest, and what is refused."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tiny_tasks
import torch
from torch import nn

import frostbench as fb

WIDTH = 4


def energy(wavs):
    """Log energy of 10 ms blocks."""
    blocks = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160))
    return (blocks.square().mean(dim=2, keepdim=True) + 1e-6).log()


def as_arrays(wavs):
    states = energy(wavs)[0].numpy()
    return [states, 2 * states]


def centred(wavs):
    return torch.stft(wavs, 400, 320, return_complex=True, window=torch.hann_window(400)).abs().transpose(1, 2)


def convolution() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv1d(1, WIDTH, 400, 320)


class Model:
    """Holds a module, as models of other people do."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def encode(self, wavs):
        return self.module(wavs[:, None]).transpose(1, 2)

    def __call__(self, wavs):
        return self.encode(wavs)


def of_module(module, wavs):
    return module(wavs[:, None]).transpose(1, 2)


def closure(module):
    def encode(wavs):
        return module(wavs[:, None]).transpose(1, 2)

    return encode


FUNCTIONS = {
    "tensor": (energy, 160, 1),
    "arrays of layers": (as_arrays, 160, 2),
    "centred frames": (centred, 320, 1),
    "closure": (closure(convolution()), 320, 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_contract_holds(name):
    function, downsample_rate, layers = FUNCTIONS[name]
    upstream = fb.from_function(function, downsample_rate)
    assert upstream.num_layers == layers
    assert len(fb.check(upstream)) == 12


@pytest.mark.parametrize("wrap", [closure, Model, lambda m: Model(m).encode, lambda m: functools.partial(of_module, m)])
def test_modules_behind_it_are_part_of_it(wrap):
    module = convolution().train()
    upstream = fb.from_function(wrap(module), 320, name="convolution")
    assert upstream.num_params() == sum(parameter.numel() for parameter in module.parameters())
    assert not module.training
    before = upstream.digest()
    assert fb.from_function(wrap(module), 320, name="convolution").digest() == before
    with torch.no_grad():
        module.weight[0, 0, 0] += 1
    assert upstream.digest() != before


def test_code_and_hidden_content_are_in_the_digest():
    hidden = {"factor": 1.0}

    def scaled(wavs):
        return hidden["factor"] * energy(wavs)

    def shifted(wavs):
        return energy(wavs) + 0

    def shifted_twice(wavs):
        return energy(wavs) + 0 + 0

    before = fb.from_function(scaled, 160).digest()
    hidden["factor"] = 2.0
    assert fb.from_function(scaled, 160).digest() != before, "an ONNX session would be hidden like this"
    both = [fb.from_function(function, 160, name="shifted").digest() for function in (shifted, shifted_twice)]
    assert both[0] != both[1]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda wavs: (np.zeros((1, 5, 3)), np.zeros((1, 5))),
            r"ed \[ndarray \(1, 5, 3\), ndarray \(1, 5\)\]. Of",
        ),
        (lambda wavs: "states", "it returned str"),
        (lambda wavs: [], r"it returned \[\]"),
        (lambda wavs: wavs.nothing, "fails on an utterance of 32000 samples .AttributeError"),
        (
            lambda wavs: energy(wavs)[:, ::2],
            "100 frames of 32000 samples and 125 of 40000, which does not fit",
        ),
    ],
)
def test_what_it_returns_is_checked(function, message):
    with pytest.raises(fb.ContractError, match=message):
        fb.from_function(function, 160, name="odd")


def test_a_lambda_wants_a_name():
    with pytest.raises(fb.ContractError, match="a lambda has no name: give from_function a name="):
        fb.from_function(lambda wavs: energy(wavs), 160)


def test_frames_that_follow_no_formula_are_refused_when_they_come():
    upstream = fb.from_function(
        lambda wavs: energy(wavs)[:, : 150 if wavs.shape[1] < 25_000 else None], 160, name="odd"
    )
    with pytest.raises(fb.ContractError, match=r"150 frames of 24800 samples, .* let expect 155: write a class"):
        upstream.extract(*fb.pad([torch.zeros(24_800)]))


def test_it_is_evaluated_like_any_other(corpus_folder, tmp_path):
    upstream = fb.from_function(energy, 160, name="energy", title="Log energy")
    folders = {"output": tmp_path / "results", "cache": tmp_path / "cache"}
    results = fb.evaluate([upstream], [tiny_tasks.KS], corpus=corpus_folder, **folders)
    assert results.cells()["upstream"].tolist() == ["energy"]
    again = fb.evaluate(fb.from_function(energy, 160, name="energy"), [tiny_tasks.KS], corpus=corpus_folder, **folders)
    assert (again.computed, again.skipped) == (0, 1)
