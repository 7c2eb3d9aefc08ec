"""CPC and its kin: closed forms, where negatives come from, what a context may see, published sizes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_pretraining import small_sizes
from torch import nn

from core.errors import ContractError
from upstreams._base import UPSTREAMS
from upstreams._pretraining.contract import TrainingBatch


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_sizes(monkeypatch)


def built(name: str, size: str = "small", **changes):
    kind = UPSTREAMS.get(name)
    torch.manual_seed(0)
    upstream = kind.untrained(replace(kind.sizes[size], **changes))
    upstream.prepare(kind.recipes[size][-1], 10)
    return upstream


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(clips: int, samples: int = 8_000) -> TrainingBatch:
    wavs = 0.1 * torch.randn(clips, samples, generator=seeded(3))
    return TrainingBatch(wavs, torch.full((clips,), samples), torch.arange(clips))


def test_the_released_network_has_its_size():
    with torch.device("meta"):
        upstream = built("cpc", "base")
    assert sum(parameter.numel() for parameter in upstream.encoder.parameters()) == 1_843_456


@pytest.mark.parametrize(("negatives", "expected"), [(128, 4.8598), (7, math.log(8))])
def test_a_prediction_that_says_nothing_costs_the_logarithm_of_all_candidates(negatives, expected):
    upstream = built("cpc", negatives=negatives)
    for predictor in upstream.predictors:
        nn.init.zeros_(predictor.weight)
    found = upstream.pretrain_loss(batch_of(3), seeded())
    assert float(found.loss.detach()) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("source", ["same", "batch"])
def test_the_true_frame_is_the_one_so_many_steps_ahead_and_never_a_negative(source):
    """Each frame holds its own number, and predictions are ones, so that scores are numbers of frames."""
    upstream = built("cpc", negatives=1_000, source=source, scale=1.0)
    clips, length, steps = 3, 9, 2
    frames = torch.arange(float(clips * length)).reshape(clips, length, 1).expand(-1, -1, 4)
    predicted = torch.ones(clips, length - steps, 4)
    for step in (1, 2):
        logits, targets = upstream._logits(predicted, frames, step, seeded())
        numbers = logits.reshape(clips, length - steps, -1)
        assert not targets.any()
        for clip in range(clips):
            for position in range(length - steps):
                true, *others = numbers[clip, position].round().int().tolist()
                assert true == clip * length + position + step
                assert true not in others
                ranged = range(clip * length, (clip + 1) * length) if source == "same" else range(clips * length)
                assert set(others) == set(ranged) - {true}


def test_cpc_against_loops():
    upstream = built("cpc", negatives=3, steps_ahead=2).eval()
    batch = batch_of(2)
    frames, context = upstream.encoder.encode(batch.wavs, batch.wav_lengths).layers
    generator, total, count = seeded(4), 0.0, 0
    for step, predictor in enumerate(upstream.predictors, start=1):
        positions = frames.shape[1] - 2
        away = torch.randint(1, frames.shape[1], (2, positions, 3), generator=generator)
        for clip in range(2):
            for place in range(positions):
                predicted = predictor(context[clip, place])
                chosen = [place + step, *((place + step + away[clip, place]) % frames.shape[1]).tolist()]
                scores = torch.stack([predicted @ frames[clip, each] for each in chosen])
                scores = scores * upstream.config.scale / upstream.config.hidden_size
                total, count = total - scores.log_softmax(dim=0)[0], count + 1
    torch.testing.assert_close(upstream.pretrain_loss(batch, seeded(4)).loss, total / count)


def test_the_context_sees_nothing_that_comes():
    upstream = built("cpc")
    mel = torch.randn(1, 41, 80, requires_grad=True)
    frames = upstream.encoder.front.layers(mel, torch.tensor([41]))[-1]
    context = upstream.encoder.recurrent(frames)[0]
    for states in (frames, context):
        (gradient,) = torch.autograd.grad(states[0, 10].square().sum(), mel, retain_graph=True)
        assert gradient[0, 20].any()
        assert not gradient[0, 21:].any()


@pytest.mark.parametrize(("field", "value"), [("front_end", "mfcc"), ("recurrent", "rnn"), ("source", "elsewhere")])
def test_options_that_name_nothing_are_refused(field, value):
    with pytest.raises(ContractError, match=f"{field}={value}: must be "):
        built("cpc", **{field: value})


def test_chance_shortcuts_and_equal_frames_are_named():
    upstream = built("cpc", negatives=32)
    healthy = {"first_accuracy": 0.6, "last_accuracy": 0.2, "spread": 0.8, "rank": 20.0}
    assert upstream.collapsed(healthy, 0.5) is None
    assert upstream.collapsed(healthy, 1.0) is None
    assert upstream.collapsed({**healthy, "first_accuracy": 0.04}, 1.0).startswith("too hard: 4.0 %")
    assert upstream.collapsed({**healthy, "first_accuracy": 0.04}, 0.5) is None
    assert upstream.collapsed({**healthy, "last_accuracy": 0.995}, 0.2).startswith("too easy: 99.5 %")
    assert upstream.collapsed({**healthy, "spread": 0.01}, 0.5).startswith("frames all alike: ")


def test_the_waveform_front_end_of_cpc_is_exact_under_padding():
    upstream = built("cpc", front_end="waveform").eval()
    wavs = [0.1 * torch.randn(samples, generator=seeded(samples)) for samples in (3_000, 4_567)]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    states = upstream.extract(padded, torch.tensor([3_000, 4_567]))
    for row, wav in enumerate(wavs):
        alone = upstream.extract(wav[None], torch.tensor([len(wav)]))
        for one, many in zip(alone.layers, states.layers, strict=True):
            torch.testing.assert_close(one[0], many[row, : one.shape[1]], rtol=0, atol=1e-5)
