"""BEST-RQ, mixing and the gap of segments: random codes, masks, powers, classes and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_pretraining import small_sizes
from torch import nn

from core.digest import digest_of
from core.errors import ContractError
from core.lengths import pad
from upstreams._base import UPSTREAMS
from upstreams._encoders.mel_transformer import MelTransformer
from upstreams._pretraining.contract import TrainingBatch
from upstreams._pretraining.masks import mask_starts
from upstreams._pretraining.mixing import mixed
from upstreams._pretraining.plan import planned
from upstreams._pretraining.quantiser import RandomQuantiser


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
    return upstream.eval()


def two() -> TrainingBatch:
    wavs, lengths = pad([0.1 * torch.randn(9_000, generator=seeded(1)), 0.1 * torch.randn(5_000, generator=seeded(2))])
    return TrainingBatch(wavs, lengths, torch.arange(2))


def test_stacked_frames_lie_side_by_side_and_the_rest_is_cut():
    encoder = MelTransformer(1, 8, 2, 16, num_mel_bins=4, stack=3).eval()
    assert (encoder.downsample_rate, encoder.min_samples) == (480, 720)
    wavs, lengths = two().wavs, torch.tensor([9_000, 5_000])
    mel = encoder.mel(wavs, lengths)
    stacks = encoder.stacked(mel)
    assert stacks.lengths.tolist() == [54 // 3, 29 // 3] == encoder.frame_lengths(lengths).tolist()
    assert torch.equal(stacks.layers[0][1, 2], mel.layers[0][1, 6:9].flatten())


def test_random_codes_are_the_nearest_in_angle_and_in_distance():
    torch.manual_seed(0)
    quantiser, frames = RandomQuantiser(6, 3, 20), torch.randn(50, 6)
    codes = quantiser(frames)
    projected = nn.functional.normalize(frames @ quantiser.projection, dim=1)
    assert torch.equal(codes, torch.cdist(projected, quantiser.codes).argmin(dim=1))
    assert torch.equal(codes, quantiser(7 * frames))
    assert not list(quantiser.parameters())


def test_masked_runs_begin_anywhere_and_keep_off_padding():
    lengths = torch.tensor([100, 40, 3] * 500)
    covered = mask_starts(lengths, 100, 0.04, 10, seeded())
    assert not covered[1::3, 40:].any()
    assert covered.any(dim=1).all()
    expected = 1 - (1 - 0.04) ** 10
    assert float(covered[::3, 10:].float().mean()) == pytest.approx(expected, abs=0.02)
    none = mask_starts(lengths, 100, 0.0, 10, seeded())
    assert none.any(dim=1).all(), "at least one run"


def test_codes_are_those_of_the_recording_alone_and_of_no_padding():
    upstream = built("best_rq")
    batch = two()
    codes = upstream.quantiser(upstream.encoder.stacked(upstream.encoder.mel(batch.wavs, batch.wav_lengths)).layers[0])
    for row, length in enumerate(batch.wav_lengths.tolist()):
        alone = upstream.encoder.stacked(
            upstream.encoder.mel(batch.wavs[row : row + 1, :length], torch.tensor([length]))
        )
        assert torch.equal(codes[row, : alone.layers[0].shape[1]], upstream.quantiser(alone.layers[0])[0])


def test_an_answer_that_says_nothing_costs_the_logarithm_of_the_codes_and_unmasked_frames_count_by_their_weight():
    upstream = built("best_rq", codes=64, unmasked_weight=0.0)
    nn.init.zeros_(upstream.head.weight)
    nn.init.zeros_(upstream.head.bias)
    assert float(upstream.pretrain_loss(two(), seeded()).loss.detach()) == pytest.approx(math.log(64), abs=1e-4)
    upstream.config = replace(upstream.config, unmasked_weight=0.5)
    assert float(upstream.pretrain_loss(two(), seeded()).loss.detach()) == pytest.approx(1.5 * math.log(64), abs=1e-4)


def test_masked_frames_are_noise_to_the_network():
    upstream = built("best_rq", unmasked_weight=0.0)
    read = []
    whole = upstream.encoder.layers
    upstream.encoder.layers = lambda mel, lengths: read.append(mel) or whole(mel, lengths)
    upstream.pretrain_loss(two(), seeded())
    clean = upstream.encoder.stacked(upstream.encoder.mel(two().wavs, two().wav_lengths)).layers[0]
    masked = mask_starts(torch.tensor([27, 14]), 27, upstream.config.mask_start, upstream.config.mask_frames, seeded())
    assert torch.equal((read[0] == clean).all(dim=2) | masked, torch.ones(2, 27, dtype=torch.bool))
    assert float(read[0][masked].std()) == pytest.approx(0.1, rel=0.05)


def test_mixing_leaves_codes_and_everything_else_as_they_were():
    plain, mixing = built("best_rq"), built("best_rq", mix_proportion=1.0)
    mixing.load_state_dict(plain.state_dict())
    seen = []
    whole = mixing.quantiser.forward
    mixing.quantiser.forward = lambda frames: seen.append(frames) or whole(frames)
    mixing.pretrain_loss(two(), seeded())
    clean = plain.encoder.stacked(plain.encoder.mel(two().wavs, two().wav_lengths)).layers[0]
    assert torch.equal(seen[0], clean)


def test_a_mixed_piece_has_the_drawn_level_and_covers_at_most_half():
    wavs = torch.randn(6, 4_000, generator=seeded(5)) * torch.arange(1, 7)[:, None]
    lengths = torch.full((6,), 4_000)
    found = mixed(wavs, lengths, 1.0, seeded())
    for row in range(6):
        added = found[row] - wavs[row]
        places = added.nonzero().flatten()
        assert len(places) <= 2_000
        if len(places) > 1_000:
            level = 10 * math.log10(float(wavs[row].square().mean() / added[places].square().mean()))
            assert -5.5 < level < 5.5
    assert torch.equal(mixed(wavs, lengths, 0.0, seeded()), wavs)
    assert torch.equal(mixed(wavs[:1], lengths[:1], 1.0, seeded()), wavs[:1])
    share = sum(bool((mixed(wavs, lengths, 0.3, seeded(seed)) != wavs).any(dim=1)[0]) for seed in range(300)) / 300
    assert share == pytest.approx(0.3, abs=0.08)


def test_mixing_heeds_neither_padding_nor_what_others_are_padded_with():
    signs = torch.randn(4, 4_000, generator=seeded(5)).sign()  # so that each piece has the power of its whole
    lengths = torch.tensor([4_000, 3_000, 2_200, 1_500])
    wavs = signs * torch.tensor([0.1, 0.2, 0.4, 0.8])[:, None] * (torch.arange(4_000) < lengths[:, None])
    levels = []
    for seed in range(60):
        found = mixed(wavs, lengths, 1.0, seeded(seed))
        longer = mixed(nn.functional.pad(wavs, (0, 3_000)), lengths, 1.0, seeded(seed))
        torch.testing.assert_close(longer, nn.functional.pad(found, (0, 3_000)))
        for row, length in enumerate(lengths.tolist()):
            added = (found - wavs)[row]
            assert not added[length:].any()
            if added.any():
                power = added[added != 0].square().mean()
                levels.append(10 * math.log10(float(wavs[row, :length].square().mean() / power)))
    assert -5.01 < min(levels) < -4.5 and 4.5 < max(levels) < 5.01
    assert sum(levels) / len(levels) == pytest.approx(0, abs=0.6)


def test_few_targets_and_one_answer_are_named():
    upstream = built("best_rq", codes=100)
    healthy = {"target_perplexity": 40.0, "prediction_perplexity": 9.0}
    assert upstream.collapsed(healthy, 0.5) is None
    assert upstream.collapsed({**healthy, "target_perplexity": 4.0}, 0.5).startswith("few targets: 4.0 of 100")
    assert upstream.collapsed({**healthy, "prediction_perplexity": 1.5}, 0.3) is None
    found = upstream.collapsed({**healthy, "prediction_perplexity": 1.5}, 0.5)
    assert found.startswith("one answer for all frames: 1.5")


def test_gaps_follow_from_the_two_pieces_and_turning_them_turns_the_order_alone():
    upstream = built("segment_gap", piece_frames=3, gap_bins=4, bin_frames=2)
    mel = torch.arange(40.0)[None, :, None].expand(4_000, -1, 80)  # frames that hold their own number
    first, second, classes = upstream.pieces(mel, seeded())
    starts = [piece[:, 0, 0].long() for piece in (first, second)]
    turned = starts[0] > starts[1]
    gaps = (starts[0] - starts[1]).abs() - 3
    assert torch.equal(classes, gaps // 2 + 4 * turned)
    counts = torch.bincount(classes, minlength=8).float()
    assert counts.tolist() == pytest.approx([500] * 8, abs=90)
    chi_square = float(((counts - 500).square() / 500).sum())
    assert chi_square < 24.3  # one in a thousand for 7 degrees of freedom
    _, _, unordered = built("segment_gap", order=False).pieces(
        mel[:, :, :].expand(-1, 40, -1).repeat(1, 3, 1), seeded()
    )
    assert int(unordered.max()) < 5


def test_a_head_that_says_nothing_costs_the_logarithm_of_the_classes():
    upstream = built("segment_gap", piece_frames=4, gap_bins=5, bin_frames=2)
    nn.init.zeros_(upstream.head[-1].weight)
    nn.init.zeros_(upstream.head[-1].bias)
    wavs = 0.1 * torch.randn(8, 8_000, generator=seeded())
    batch = TrainingBatch(wavs, torch.full((8,), 8_000), torch.arange(8))
    found = upstream.pretrain_loss(batch, seeded())
    assert float(found.loss.detach()) == pytest.approx(math.log(10), abs=1e-4)


def test_a_gap_that_is_not_predicted_is_named_at_the_end():
    upstream = built("segment_gap")
    healthy = {"accuracy": 0.3, "commonest": 0.15, "prediction_perplexity": 6.0, "spread": 0.6, "rank": 9.0}
    assert upstream.collapsed(healthy, 1.0) is None
    assert upstream.collapsed({**healthy, "accuracy": 0.17}, 0.5) is None
    assert upstream.collapsed({**healthy, "accuracy": 0.17}, 1.0).startswith("gap not predicted: 17.0 % right")
    assert upstream.collapsed({**healthy, "prediction_perplexity": 1.1}, 0.5).startswith("one answer for all pairs")
    assert upstream.collapsed({**healthy, "spread": 0.01}, 0.5).startswith("recordings all alike")


def hubert(**changes):
    kind = UPSTREAMS.get("hubert")
    torch.manual_seed(0)
    upstream = kind.untrained(replace(kind.sizes["small"], **changes))
    upstream.prepare(kind.recipes["small"][0], 10)
    wavs = 0.1 * torch.randn(3, 8_000, generator=seeded(7))
    targets = [torch.arange(24) % 10 for _ in range(3)]
    return upstream.eval(), TrainingBatch(wavs, torch.full((3,), 8_000), torch.arange(3), targets)


def test_hubert_with_inner_predictions_takes_the_mean_and_a_gradient_ends_at_its_layer():
    plain, batch = hubert()
    inner, _ = hubert(predict_layers=(1,))
    last = plain.pretrain_loss(batch, seeded()).loss
    inner.load_state_dict(plain.state_dict(), strict=False)
    mask = inner.mask(3, 24, seeded())
    states = inner.encoder.model(batch.wavs, mask_time_indices=mask, output_hidden_states=True).hidden_states[1]
    first = inner._predicted(states, inner.inner_proj[0], inner.inner_embeddings[0], torch.stack(batch.targets), mask)
    torch.testing.assert_close(inner.pretrain_loss(batch, seeded()).loss, (last + first.loss) / 2)
    blocks = inner.encoder.model.encoder.layers
    gradients = [torch.autograd.grad(first.loss, list(block.parameters()), allow_unused=True, retain_graph=True)
                 for block in blocks]  # fmt: skip
    assert all(each is not None for each in gradients[0])
    assert all(each is None for each in gradients[1])
    with pytest.raises(ContractError, match="predict_layers=2: must be 0, or a block from 1 to the last but one"):
        hubert(predict_layers=(2,))


def test_hubert_may_read_mixtures_for_clusters_of_the_recording_alone():
    plain, batch = hubert()
    mixing, _ = hubert(mix_proportion=1.0)
    losses = [each.pretrain_loss(batch, seeded()).loss for each in (plain, mixing)]
    assert not torch.equal(*losses)
    alone = batch._replace(wavs=batch.wavs[:1], wav_lengths=batch.wav_lengths[:1], targets=batch.targets[:1])
    losses = [each.pretrain_loss(alone, seeded()).loss for each in (plain, mixing)]
    assert torch.equal(*losses), "a recording has nothing to be mixed with"


def test_options_that_came_later_make_no_other_training_while_they_are_off(corpus):
    plain = planned("hubert", "small")
    known = {
        name: value for name, value in vars(plain.config).items() if name not in {"predict_layers", "mix_proportion"}
    }
    before = {**vars(plain), "config": known}
    targets = [type(recipe.targets).__name__ for recipe in plain.recipes]
    content = {"pretraining": before, "targets": targets, "version": 2, "corpus": corpus.heard_digest}
    assert plain.digest(corpus) == digest_of(content)
    assert planned("hubert", "small", options={"mix_proportion": "0.2"}).digest(corpus) != plain.digest(corpus)
    assert planned("hubert", "small", options={"predict_layers": "1"}).digest(corpus) != plain.digest(corpus)
