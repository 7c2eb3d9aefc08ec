"""Masks, codes and contrasts by hand, in the places where a changed operator or number went unseen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_pretraining import small_sizes
from torch import nn

from upstreams._base import UPSTREAMS
from upstreams._pretraining.contract import TrainingBatch
from upstreams._pretraining.masks import mask_runs, mask_spans, mask_starts
from upstreams._pretraining.quantiser import GumbelQuantiser, RandomQuantiser, code_perplexity, perplexity
from upstreams.contrastive.vq_wav2vec import NearestCodes


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_sizes(monkeypatch)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str, size: str = "small", **changes):
    kind = UPSTREAMS.get(name)
    torch.manual_seed(0)
    upstream = kind.untrained(replace(kind.sizes[size], **changes))
    upstream.prepare(kind.recipes[size][-1], 10)
    return upstream


def batch_of(clips: int, samples: int = 8_000, step: int = 0) -> TrainingBatch:
    wavs = 0.1 * torch.randn(clips, samples, generator=seeded(3))
    return TrainingBatch(wavs, torch.full((clips,), samples), torch.arange(clips), step=step)


# Masks.


def test_runs_of_one_frame_are_as_many_as_the_proportion_says():
    frames, lengths = torch.ones(60, 12, 1), torch.tensor([10, 12] * 30)
    chosen, _ = mask_runs(frames, lengths, 0.34, 1, seeded())
    assert chosen.sum(dim=1).tolist() == [3, 4] * 30  # 3.4 and 4.08


def test_a_run_begins_anywhere_that_it_fits_and_short_utterances_are_chosen_whole():
    chosen, _ = mask_runs(torch.ones(400, 6, 1), torch.full((400,), 5), 0.1, 3, seeded())
    assert {tuple(row.nonzero().flatten().tolist()) for row in chosen} == {(0, 1, 2), (1, 2, 3), (2, 3, 4)}
    chosen, _ = mask_runs(torch.ones(9, 6, 1), torch.full((9,), 2), 0.1, 3, seeded())
    assert chosen.sum(dim=0).tolist() == [9, 9, 0, 0, 0, 0]


def test_frames_are_replaced_by_any_valid_one_of_their_own():
    frames = 1 + torch.arange(4.0).expand(4_000, 4)[:, :, None]
    _, altered = mask_runs(frames, torch.full((4_000,), 3), 0.1, 1, seeded())
    others = [int(new) for old, new in zip(frames.flatten(), altered.flatten(), strict=True) if new not in (0, old)]
    assert set(others) == {1, 2, 3}, "the fourth is padding"


@pytest.mark.parametrize(
    ("frames", "proportion", "span", "fewest", "most"),
    [(5, 0.5, 10, 0, 0), (10, 0.5, 10, 10, 10), (30, 0.0, 3, 3, 3), (12, 1.0, 5, 6, 10), (30, 0.2, 3, 4, 6)],
)
def test_spans_are_one_at_least_and_no_more_than_fit(frames, proportion, span, fewest, most):
    found = [
        int(count) for seed in range(200) for count in mask_spans(3, frames, proportion, span, seeded(seed)).sum(1)
    ]
    assert (min(found), max(found)) == (fewest, most)


def test_a_row_without_a_start_gets_one_run_that_begins_on_any_valid_frame():
    covered = mask_starts(torch.tensor([5] * 600 + [1] * 5), 7, 0.0, 2, seeded())
    runs = {tuple(row.nonzero().flatten().tolist()) for row in covered[:600]}
    assert runs == {(0, 1), (1, 2), (2, 3), (3, 4), (4,)}
    assert covered[600:].sum(dim=0).tolist() == [5, 0, 0, 0, 0, 0, 0]
    assert mask_starts(torch.tensor([5, 7]), 7, 1.0, 50, seeded()).sum(dim=1).tolist() == [5, 7]


# Codes.


def test_perplexity_is_the_number_of_codes_in_even_use():
    shares = torch.tensor([[0.25] * 4, [0.5, 0.5, 0, 0], [1.0, 0, 0, 0]])
    torch.testing.assert_close(perplexity(shares), torch.tensor([4.0, 2.0, 1.0]))
    torch.testing.assert_close(code_perplexity(torch.tensor([[0, 3], [3, 0]]), 9), torch.tensor(2.0))
    # half, a quarter, a quarter: 1.5 bits
    torch.testing.assert_close(code_perplexity(torch.tensor([2, 2, 0, 1]), 3), torch.tensor(2**1.5))
    assert float(code_perplexity(torch.tensor([], dtype=torch.int64), 3)) == 1


def test_each_group_of_codes_chooses_for_itself():
    quantiser = GumbelQuantiser(3, 2, 3, 4).eval()
    assert quantiser.code_vectors.shape == (2, 3, 2)
    assert not quantiser.logits.bias.any() and 0.4 < float(quantiser.logits.weight.detach().std()) < 1.7
    with torch.no_grad():
        quantiser.logits.weight.copy_(torch.cat([torch.eye(3), -torch.eye(3)]))
        found = quantiser(torch.tensor([[3.0, 1, 0], [0, 3, 1], [1, 3, 0], [0, 3, 2]]), 1.0)
    book = quantiser.code_vectors.detach()
    expected = [torch.cat([book[0, one], book[1, other]]) for one, other in ((0, 2), (1, 0), (1, 2), (1, 0))]
    torch.testing.assert_close(found.codes, torch.stack(expected))
    first = math.exp(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))
    assert float(found.perplexity) == pytest.approx(first + 2)


def test_in_training_the_use_of_codes_is_that_of_their_probabilities():
    quantiser = GumbelQuantiser(3, 2, 3, 4).train()
    frames = torch.randn(7, 3, generator=seeded())
    shares = quantiser.logits(frames).view(7, 2, 3).softmax(dim=2).mean(dim=0)
    expected = sum(math.exp(-sum(share * math.log(share) for share in row)) for row in shares.tolist())
    assert float(quantiser(frames, 1.0).perplexity.detach()) == pytest.approx(expected, rel=1e-5)


def test_outside_training_the_gradient_is_that_of_a_softmax_at_the_temperature():
    quantiser, frames = GumbelQuantiser(4, 1, 5, 6).plain_start().eval(), torch.randn(3, 4, requires_grad=True)
    (found,) = torch.autograd.grad(quantiser(frames, 0.5).codes.sum(), frames)
    soft = (quantiser.logits(frames) / 0.5).softmax(dim=1)
    (expected,) = torch.autograd.grad((soft @ quantiser.code_vectors[0]).sum(), frames)
    torch.testing.assert_close(found, expected)


def test_first_codes_of_a_plain_start_lie_within_the_root_of_their_number():
    codes = GumbelQuantiser(4, 2, 25, 200).plain_start().code_vectors.detach()
    assert codes.shape == (2, 25, 100)
    assert -0.2 <= float(codes.min()) < -0.19 and 0.19 < float(codes.max()) <= 0.2
    with pytest.raises(ValueError, match="a code_size of 5 can't be shared out among 2 codebooks"):
        GumbelQuantiser(4, 2, 25, 5)


def test_random_codes_have_one_length():
    torch.testing.assert_close(RandomQuantiser(4, 3, 6).codes.square().sum(dim=1), torch.ones(6))


def test_padding_brings_no_codes_and_frames_together():
    codes = NearestCodes(6, 2, 5, over_time=False, commitment=0.25)
    frames = torch.randn(1, 7, 6, generator=seeded())
    valid = torch.arange(7)[None] < 4
    alone = codes(frames[:, :4], valid[:, :4]).loss
    torch.testing.assert_close(codes(frames, valid).loss, alone)


# Frames to come.


@pytest.mark.parametrize(
    ("name", "size", "samples"),
    [("wav2vec", "base", 465 + 16 * 160), ("cpc", "base", 465 + 24 * 160), ("segment_gap", "base", 400 + 119 * 160)],
)
def test_the_shortest_crop_that_can_be_trained_on(name, size, samples):
    with torch.device("meta"):
        assert built(name, size).min_training_samples == samples


def test_accuracy_of_telling_apart_weighs_true_and_other_frames_alike():
    upstream = built("wav2vec", negatives=3, steps_ahead=2)
    frames, context = torch.randn(2, 9, 16, generator=seeded(1)), torch.randn(2, 9, 16, generator=seeded(2))
    away = torch.randint(1, 9, (2, 9, 3), generator=seeded(4))
    weight, bias = upstream.predictor.weight.detach(), upstream.predictor.bias.detach()
    right, wrong = [], []
    for step in range(2):
        for clip in range(2):
            for place in range(9 - 3 - step):
                predicted = context[clip, place] @ weight[:, :, 0, step] + bias
                target = place + 3 + step
                right.append(float(predicted @ frames[clip, target]) > 0)
                others = ((target + away[clip, target]) % 9).tolist()
                wrong += [float(predicted @ frames[clip, other]) < 0 for other in others]
    _, figures = upstream.distinguished(frames, context, seeded(4))
    expected = (sum(right) / len(right) + sum(wrong) / len(wrong)) / 2
    assert float(figures["balanced_accuracy"]) == pytest.approx(expected)


def test_the_first_and_the_last_step_of_cpc_are_watched():
    upstream = built("cpc", negatives=3, steps_ahead=2).eval()
    batch = batch_of(2)
    frames, context = upstream.encoder.encode(batch.wavs, batch.wav_lengths).layers
    generator, shares = seeded(4), []
    for step, predictor in enumerate(upstream.predictors, start=1):
        logits, _ = upstream._logits(predictor(context[:, :-2]), frames, step, generator)
        shares.append(float((logits.argmax(dim=1) == 0).float().mean()))
    figures = upstream.pretrain_loss(batch, seeded(4)).figures
    assert [float(figures[name]) for name in ("first_accuracy", "last_accuracy")] == pytest.approx(shares)
    assert shares[0] != shares[1]


@pytest.mark.parametrize(("step", "temperature"), [(0, 2.0), (3, 2 * 0.9**3), (100, 0.5)])
def test_the_temperature_falls_to_its_end(step, temperature, monkeypatch):
    upstream = built("vq_wav2vec", gumbel_start=2.0, gumbel_decay=0.9, gumbel_end=0.5)
    coded, seen = upstream.encoder.coded, []
    monkeypatch.setattr(upstream.encoder, "coded", lambda *given: seen.append(given[2]) or coded(*given))
    upstream.pretrain_loss(batch_of(2, step=step), seeded())
    assert seen == [pytest.approx(temperature)]


def test_the_codes_in_use_are_those_of_the_group_with_fewest_and_their_loss_counts(monkeypatch):
    upstream = built("vq_wav2vec", quantiser="kmeans", codebooks=2, codes=8)
    coded = upstream.encoder.coded

    def chosen(*given: torch.Tensor):
        found = coded(*given)
        numbers = torch.arange(found.chosen[:, :, 0].numel()).view(found.chosen.shape[:2])
        return found._replace(chosen=torch.stack([numbers % 8, numbers % 2], dim=2), loss=found.loss + 100)

    before = upstream.pretrain_loss(batch_of(2), seeded())
    monkeypatch.setattr(upstream.encoder, "coded", chosen)
    after = upstream.pretrain_loss(batch_of(2), seeded())
    assert float(after.figures["code_perplexity"]) == pytest.approx(2.0)
    assert float((after.loss - before.loss).detach()) == pytest.approx(100, abs=1e-3)


@pytest.mark.parametrize("name", ["wav2vec", "vq_wav2vec"])
def test_what_is_named_begins_at_nine_tenths_of_the_training(name):
    upstream = built(name)
    codes = getattr(upstream.config, "codes", 0)
    poor = {"balanced_accuracy": 0.54, "spread": 0.6, "rank": 9.0, "code_perplexity": 0.5 * codes}
    assert upstream.collapsed(poor, 0.899) is None and "54.0 %" in upstream.collapsed(poor, 0.9)
    assert upstream.collapsed({**poor, "balanced_accuracy": 0.55}, 1.0) is None
    if codes:
        assert upstream.collapsed({**poor, "balanced_accuracy": 0.7, "code_perplexity": 0.05 * codes}, 1.0) is None


# Pieces and their gap.


def test_pieces_reach_both_ends_of_the_shortest_clip():
    upstream = built("segment_gap", piece_frames=3, gap_bins=2, bin_frames=2)
    frames = 2 * 3 + 2 * 2
    assert upstream.min_training_samples == 400 + (frames - 1) * 160
    mel = torch.arange(float(frames))[None, :, None].expand(2_000, -1, 1)
    first, second, classes = upstream.pieces(mel, seeded())
    starts = torch.stack([first[:, 0, 0], second[:, 0, 0]]).long()
    for gap in range(4):
        places = starts.amin(dim=0)[(starts[0] - starts[1]).abs() - 3 == gap]
        assert set(places.tolist()) == set(range(frames - 6 - gap + 1))
    assert set(classes.tolist()) == {0, 1, 2, 3}
    assert (first[:, -1] - first[:, 0]).unique().tolist() == [2]


def test_the_loss_reads_both_pieces_and_their_difference():
    upstream = built("segment_gap", piece_frames=5, gap_bins=2, bin_frames=2).eval()
    batch = batch_of(9)
    mel = upstream.encoder.mel(batch.wavs, batch.wav_lengths).layers[0]
    first, second, targets = upstream.pieces(mel, seeded(6))
    one, other = upstream.pooled(first), upstream.pooled(second)
    logits = upstream.head(torch.cat([one, other, one - other], dim=1))
    found = upstream.pretrain_loss(batch, seeded(6))
    torch.testing.assert_close(found.loss, nn.functional.cross_entropy(logits, targets))
    right = (logits.argmax(dim=1) == targets).float().mean()
    assert float(found.figures["accuracy"]) == pytest.approx(float(right))
    assert float(found.figures["commonest"]) == pytest.approx(float(torch.bincount(targets).max()) / 9)
    answers = torch.bincount(logits.argmax(dim=1)).float() / 9
    assert float(found.figures["prediction_perplexity"]) == pytest.approx(float(perplexity(answers)), rel=1e-5)


def test_halves_of_a_piece_are_pooled_apart(monkeypatch):
    from upstreams.predictive import segment_gap

    upstream = built("segment_gap")
    frames = torch.randn(3, 5, 4)
    monkeypatch.setattr(segment_gap, "frames_by", lambda encoder, mel: frames)
    parts = [part for half in (frames[:, :2], frames[:, 2:]) for part in (half.mean(dim=1), half.amax(dim=1))]
    torch.testing.assert_close(upstream.pooled(frames), torch.cat(parts, dim=1))


def test_order_doubles_the_classes_and_is_left_out_where_it_is_not_asked():
    asked, unasked = built("segment_gap", gap_bins=3), built("segment_gap", gap_bins=3, order=False)
    assert (asked.classes, unasked.classes) == (6, 3)
    mel = torch.arange(200.0)[None, :, None].expand(500, -1, 1)
    first, second, classes = unasked.pieces(mel, seeded())
    assert (first[:, 0] < second[:, 0]).all() and int(classes.max()) == 2


def test_an_answer_is_better_than_the_commonest_by_a_fifth_or_named_late():
    upstream = built("segment_gap")
    figures = {"accuracy": 0.299, "commonest": 0.25, "prediction_perplexity": 6.0, "spread": 0.6, "rank": 9.0}
    assert upstream.collapsed(figures, 0.899) is None
    assert "29.9 % right, the commonest answer has 25.0 %" in upstream.collapsed(figures, 0.9)
    assert upstream.collapsed({**figures, "accuracy": 0.301}, 1.0) is None
    assert upstream.collapsed({**figures, "accuracy": 0.9, "prediction_perplexity": 2.0}, 1.0) is None
