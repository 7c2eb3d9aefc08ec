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
from upstreams._encoders.wave_context import ValidNorm
from upstreams._pretraining.contract import TrainingBatch
from upstreams.contrastive.vq_wav2vec import NearestCodes


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
    assert upstream.collapsed({**healthy, "first_accuracy": 0.04}, 1.0).startswith("too hard: 4 %")
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


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_wav2vec_and_vq_wav2vec_have_their_published_sizes():
    with torch.device("meta"):
        wav2vec, gumbel = built("wav2vec", "base"), built("vq_wav2vec", "base")
        kmeans = built("vq_wav2vec", "base", quantiser="kmeans")
    assert parameters_of(wav2vec.predictor) == 3_146_240
    assert [parameters_of(each) for each in (wav2vec, gumbel, kmeans)] == [32_537_088, 34_145_408, 33_096_192]


def test_the_first_frame_that_is_predicted_shares_no_sample_with_the_context():
    upstream = built("wav2vec", "base", channels=4)
    assert (upstream.min_samples, upstream.downsample_rate, upstream.offset) == (465, 160, 3)
    wavs = torch.randn(1, 6_000, requires_grad=True)
    plain = built("wav2vec", "tiny", channels=4)
    frames, lengths = plain.encoder.frames(wavs, torch.tensor([6_000]))
    context = plain.encoder.contexts(frames, lengths)
    seen = [torch.autograd.grad(each.square().sum(), wavs, retain_graph=True)[0][0].nonzero().flatten()
            for each in (context[0, 10], frames[0, 10 + plain.offset], frames[0, 10 + plain.offset - 1])]  # fmt: skip
    assert int(seen[0].max()) < int(seen[1].min())
    assert int(seen[0].max()) >= int(seen[2].min())


@pytest.mark.parametrize("name", ["wav2vec", "vq_wav2vec"])
def test_telling_nothing_apart_costs_eleven_logarithms_of_two(name):
    upstream = built(name, negatives=10)
    nn.init.zeros_(upstream.predictor.weight)
    nn.init.zeros_(upstream.predictor.bias)
    found = upstream.pretrain_loss(batch_of(3), seeded())
    assert float(found.loss.detach()) == pytest.approx(11 * math.log(2), abs=1e-4)
    assert 11 * math.log(2) == pytest.approx(7.6246, abs=1e-4)


def test_wav2vec_against_loops():
    upstream = built("wav2vec", negatives=3, steps_ahead=2)
    frames, context = torch.randn(2, 9, 16), torch.randn(2, 9, 16)
    away = torch.randint(1, 9, (2, 9, 3), generator=seeded(4))
    total, count = 0.0, 0
    for step in range(2):
        matrix = upstream.predictor.weight[:, :, 0, step]
        for clip in range(2):
            for place in range(9 - 3 - step):
                target = place + 3 + step
                predicted = context[clip, place] @ matrix + upstream.predictor.bias
                total -= nn.functional.logsigmoid(predicted @ frames[clip, target])
                for other in ((target + away[clip, target]) % 9).tolist():
                    total -= nn.functional.logsigmoid(-(predicted @ frames[clip, other]))
                    assert other != target
                count += 1
    loss, _ = upstream.distinguished(frames, context, seeded(4))
    torch.testing.assert_close(loss, total / count)


def test_the_context_adds_what_it_sees_and_keeps_the_variance():
    upstream = built("wav2vec")
    frames = torch.randn(1, 12, 16)
    for norm in upstream.encoder.context_norms:
        nn.init.zeros_(norm.weight)
    torch.testing.assert_close(upstream.encoder.contexts(frames, torch.tensor([12])), frames * 0.5)  # twice sqrt(0.5)


def test_a_norm_over_time_is_torchs_and_leaves_padding_out():
    norm = ValidNorm(6, over_time=True, groups=2)
    frames = torch.randn(2, 6, 9)
    valid = torch.ones(2, 1, 9, dtype=torch.bool)
    torch.testing.assert_close(norm(frames, valid), nn.functional.group_norm(frames, 2))
    valid[1, :, 5:] = False
    torch.testing.assert_close(norm(frames, valid)[1:, :, :5], nn.functional.group_norm(frames[1:, :, :5], 2))
    each = ValidNorm(6, over_time=False)(frames, valid)
    torch.testing.assert_close(each, nn.functional.layer_norm(frames.transpose(1, 2), (6,)).transpose(1, 2))


def test_wav2vecs_published_norms_are_exact_under_padding():
    for name in ("wav2vec", "vq_wav2vec"):
        upstream = built(name, norm="group", **({"quantiser": "kmeans"} if name == "vq_wav2vec" else {})).eval()
        wavs = [0.1 * torch.randn(samples, generator=seeded(samples)) for samples in (3_000, 4_567)]
        states = upstream.extract(torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True), torch.tensor([3_000, 4_567]))
        for row, wav in enumerate(wavs):
            alone = upstream.extract(wav[None], torch.tensor([len(wav)]))
            for one, many in zip(alone.layers, states.layers, strict=True):
                torch.testing.assert_close(one[0], many[row, : one.shape[1]], rtol=0, atol=1e-4)


def test_the_nearest_codes_are_chosen_and_gradients_stop_where_they_must():
    codes = NearestCodes(6, 2, 5, over_time=False, commitment=0.25)
    with torch.no_grad():
        codes.code_vectors.normal_()
    frames, valid = torch.randn(1, 7, 6, requires_grad=True), torch.ones(1, 7, dtype=torch.bool)
    found = codes(frames, valid)
    projected = codes.norm(codes.projection(frames.transpose(1, 2)), valid[:, None]).transpose(1, 2)
    for place in range(7):
        for group in range(2):
            part = projected[0, place, 3 * group : 3 * group + 3]
            nearest = (part - codes.code_vectors[group]).square().sum(dim=1).argmin()
            assert found.chosen[0, place, group] == nearest
            torch.testing.assert_close(
                found.frames[0, place, 3 * group : 3 * group + 3], codes.code_vectors[group, nearest]
            )
    book = found.frames.detach()
    expected = (book - projected).square().mean()
    torch.testing.assert_close(found.loss, 1.25 * expected)
    to_codes, to_frames = torch.autograd.grad(found.loss, [codes.code_vectors, frames], retain_graph=True)
    (whole,) = torch.autograd.grad(0.25 * (projected - book).square().mean(), frames, retain_graph=True)
    torch.testing.assert_close(to_frames, whole)  # commitment alone
    assert to_codes.any()
    passed = torch.autograd.grad(found.frames.sum(), [codes.code_vectors, frames], allow_unused=True, retain_graph=True)
    (plain,) = torch.autograd.grad(projected.sum(), frames)
    assert passed[0] is None
    torch.testing.assert_close(passed[1], plain)


@pytest.mark.parametrize("quantiser", ["gumbel", "kmeans"])
def test_the_context_of_vq_wav2vec_reads_codes_alone(quantiser):
    upstream = built("vq_wav2vec", quantiser=quantiser).eval()
    batch = batch_of(2)
    frames, codes, context = upstream.encoder.encode(batch.wavs, batch.wav_lengths).layers
    book = upstream.encoder.quantiser.code_vectors
    chosen = upstream.encoder.coded(frames, torch.tensor([48, 48]), 1.0).chosen
    expected = torch.cat([book[group][chosen[:, :, group]] for group in range(len(book))], dim=2)
    torch.testing.assert_close(codes, expected)
    torch.testing.assert_close(context, upstream.encoder.contexts(expected, torch.tensor([48, 48])))


def test_what_is_not_distinguished_and_dead_codes_are_named():
    upstream = built("vq_wav2vec", codes=100)
    healthy = {"balanced_accuracy": 0.7, "spread": 0.6, "rank": 9.0, "code_perplexity": 40.0}
    assert upstream.collapsed(healthy, 1.0) is None
    assert upstream.collapsed({**healthy, "code_perplexity": 3.0}, 0.5).startswith("dead codebook: 3.0 of 100")
    assert upstream.collapsed({**healthy, "balanced_accuracy": 0.51}, 0.5) is None
    assert upstream.collapsed({**healthy, "balanced_accuracy": 0.51}, 1.0).startswith(
        "too hard: 51.0 % are distinguished"
    )
    assert upstream.collapsed({**healthy, "spread": 0.01}, 0.5).startswith("frames all alike: ")
    with pytest.raises(ContractError, match="quantiser=som: must be one of gumbel, kmeans"):
        built("vq_wav2vec", quantiser="som")
    with pytest.raises(ContractError, match="norm=batch, activation=relu: must be one of group, channel"):
        built("wav2vec", norm="batch")
