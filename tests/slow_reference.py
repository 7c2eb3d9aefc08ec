"""Networks written out in numpy, without torch and without a line of Frostbench: what known numbers are made with.

`golden/make_known_numbers.py` compares them with s3prl's own outputs before it writes anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = Mapping[str, Array]


def noise(seed: int, *shape: int) -> Array:
    """Numbers from -1 to 1 with the same bits everywhere: Park and Miller's generator, in whole numbers."""
    values, state = [], seed
    for _ in range(int(np.prod(shape))):
        state = state * 48_271 % 2_147_483_647
        values.append(state % 2_001 - 1_000)
    return np.array(values, dtype=np.float64).reshape(shape) / 1_000


def sigmoid(value: Array) -> Array:
    return 1 / (1 + np.exp(-value))


def gru(frames: Array, weights: Weights, prefix: str) -> Array:
    """(frames, inputs) -> (frames, size); gates in torch's order: reset, update, new."""
    state = np.zeros(weights[f"{prefix}weight_hh_l0"].shape[1])
    outputs = []
    for frame in frames:
        given = weights[f"{prefix}weight_ih_l0"] @ frame + weights[f"{prefix}bias_ih_l0"]
        kept = weights[f"{prefix}weight_hh_l0"] @ state + weights[f"{prefix}bias_hh_l0"]
        (given_reset, given_update, given_new), (reset, update, new) = np.split(given, 3), np.split(kept, 3)
        share = sigmoid(given_update + update)
        state = (1 - share) * np.tanh(given_new + sigmoid(given_reset + reset) * new) + share * state
        outputs.append(state)
    return np.array(outputs)


def apc(mel: Array, weights: Weights) -> list[Array]:
    """Outputs of three GRUs on normalised mel frames; from the second on, a layer's input is added to its output."""
    layers = [gru(mel, weights, "rnn_layers.0.")]
    for layer in (1, 2):
        layers.append(gru(layers[-1], weights, f"rnn_layers.{layer}.") + layers[-1])
    return layers


def lstm(frames: Array, weights: Weights, prefix: str, suffix: str = "") -> Array:
    """(frames, inputs) -> (frames, size); gates in torch's order: input, forget, cell, output."""
    size = weights[f"{prefix}weight_hh_l0{suffix}"].shape[1]
    state, cell, outputs = np.zeros(size), np.zeros(size), []
    for frame in frames:
        gates = weights[f"{prefix}weight_ih_l0{suffix}"] @ frame + weights[f"{prefix}bias_ih_l0{suffix}"]
        gates = gates + weights[f"{prefix}weight_hh_l0{suffix}"] @ state + weights[f"{prefix}bias_hh_l0{suffix}"]
        entering, forgotten, new, shown = np.split(gates, 4)
        cell = sigmoid(forgotten) * cell + sigmoid(entering) * np.tanh(new)
        state = sigmoid(shown) * np.tanh(cell)
        outputs.append(state)
    return np.array(outputs)


def linear(values: Array, weights: Weights, prefix: str) -> Array:
    return values @ weights[f"{prefix}weight"].T + weights[f"{prefix}bias"]


def mean_classifier(frames: Array, weights: Weights) -> Array:
    """Logits of one utterance: linear, mean over time, linear."""
    return linear(linear(frames, weights, "projector.").mean(axis=0), weights, "classifier.")


def recogniser(frames: Array, weights: Weights, layers: int) -> Array:
    """Logits (frames, symbols) of one utterance: linear, LSTMs in both directions, linear."""
    hidden = linear(frames, weights, "projector.")
    for layer in range(layers):
        forth = lstm(hidden, weights, f"lstms.{layer}.forth.")
        back = lstm(hidden[::-1], weights, f"lstms.{layer}.back.")[::-1]
        hidden = np.concatenate([forth, back], axis=1)
    return linear(hidden, weights, "classifier.")


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def cross_entropy(logits: Array, target: int) -> float:
    return float(-log_softmax(logits)[target])


def ctc_loss(logits: Array, target: Sequence[int]) -> float:
    """Of one utterance, summed, blank is 0; zero where no path spells the target. Graves et al., 2006, equations 6 ff.

    Probabilities as they are, not as logarithms: utterances here are short.
    """
    probabilities = np.exp(log_softmax(logits))
    symbols = [0]
    for symbol in target:
        symbols += [symbol, 0]
    paths = np.zeros(len(symbols))
    paths[:2] = probabilities[0, symbols[:2]]
    for frame in probabilities[1:]:
        before, paths = paths, np.zeros(len(symbols))
        for place, symbol in enumerate(symbols):
            reached = before[place] + (before[place - 1] if place else 0)
            if place > 1 and symbol != 0 and symbol != symbols[place - 2]:
                reached += before[place - 2]
            paths[place] = reached * frame[symbol]
    likelihood = paths[-1] + paths[-2]
    return float(-np.log(likelihood)) if likelihood > 0 else 0.0
