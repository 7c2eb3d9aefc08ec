"""What methods are composed of: views, heads, teachers, stores, contrast and figures of health, in closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from core.lengths import pad
from upstreams._encoders import kaldi
from upstreams._encoders.mel_conv import MelConv, strided
from upstreams._pretraining import contrast, heads, health, views
from upstreams._pretraining.contract import PretrainRecipe
from upstreams._pretraining.stores import Bank, Queue
from upstreams._pretraining.teacher import Teacher, cosine_to_one, linear_to
from upstreams._pretraining.views import ViewsConfig


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mel(clips: int = 6, frames: int = 40, bins: int = 80) -> torch.Tensor:
    return torch.randn(clips, frames, bins, generator=seeded(9)) - 5


def test_the_size_of_the_small_encoder_and_its_frames_follow_from_arithmetic():
    encoder = MelConv(192)
    stem, block, norm = 80 * 192 * 5 + 192 + 384, 384 + 192 * 192 * 3 + 192 + 192 * 192 + 192, 384
    assert sum(parameter.numel() for parameter in encoder.parameters()) == stem + 5 * block + norm == 818_880
    samples = torch.arange(400, 4_000, 37)
    assert torch.equal(encoder.frame_lengths(samples), (samples - 400) // 320 + 1)  # HuBERT's and wav2vec 2.0's count


@pytest.mark.parametrize("causal", [False, True])
def test_what_a_frame_of_the_small_encoder_sees(causal):
    torch.manual_seed(0)
    encoder = MelConv(8, (1, 2), num_mel_bins=4, causal=causal).eval()
    frames = torch.randn(1, 60, 4, requires_grad=True)
    last = encoder.layers(frames, torch.tensor([60]))[-1]
    (gradient,) = torch.autograd.grad(last[0, 15].square().sum(), frames)
    seen = gradient[0].abs().sum(dim=1).nonzero().flatten().tolist()
    reach = 1 + 2  # of the blocks, in frames of the stem
    earliest, latest = (30 - 4 * reach - 4, 30) if causal else (30 - 2 * reach - 2, 30 + 2 * reach + 2)
    assert (min(seen), max(seen)) == (earliest, latest)


def test_one_level_for_all_bins_keeps_the_mean_spectrum_and_silence_is_zero():
    spectrum = torch.randn(50, 80) * 3 + torch.linspace(-8, 2, 80)
    found = kaldi.level(spectrum)
    assert float(found.mean()) == pytest.approx(0, abs=1e-5)
    assert float(found.std()) == pytest.approx(1, abs=1e-5)
    correlation = torch.corrcoef(torch.stack([found.mean(dim=0), spectrum.mean(dim=0)]))[0, 1]
    assert correlation > 0.999
    assert not kaldi.level(torch.full((50, 80), -15.942385)).any()


def test_views_of_strength_zero_are_pieces_at_a_common_level_and_nothing_else():
    spectrum = mel()
    given = spectrum.clone()
    config = ViewsConfig(piece_frames=40, strength=0.0, shift_bins=4, fade=1.0)
    for found in config.view(spectrum, kaldi.level, seeded()):
        torch.testing.assert_close(found, torch.stack([kaldi.level(clip) for clip in spectrum]))
    config = ViewsConfig(piece_frames=40, strength=0.0, resize=True)
    altered, clean = config.view(spectrum, kaldi.level, seeded())
    assert altered.shape == spectrum.shape
    assert torch.equal(altered, clean)  # cut and stretched alike
    assert torch.equal(spectrum, given)


@pytest.mark.parametrize("resize", [False, True])
def test_views_differ_between_clips_and_not_between_runs(resize):
    same = mel(1).expand(6, -1, -1)
    config = ViewsConfig(piece_frames=20, shift_bins=3, fade=0.5, resize=resize)
    first, again, other = (config.view(same, kaldi.level, seeded(seed))[0] for seed in (0, 0, 1))
    assert first.shape == (6, 20, 80)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(not torch.equal(first[0], clip) for clip in first[1:])
    assert torch.isfinite(config.view(torch.full((2, 20, 80), -15.942385), kaldi.level, seeded())[0]).all()


def test_a_piece_is_a_part_of_its_clip():
    spectrum = mel()
    versions = torch.stack([spectrum, 2 * spectrum], dim=1)
    for clip, pieces in zip(spectrum, views.another_piece(versions, 7, seeded()), strict=True):
        assert any(torch.equal(pieces[0], clip[start : start + 7]) for start in range(34))
        assert torch.equal(pieces[1], 2 * pieces[0])


def test_an_equaliser_is_a_smooth_curve_of_its_deviation_constant_in_time():
    spectrum = torch.zeros(4_000, 2, 80)
    found = views.equaliser(spectrum, 6.0, seeded())
    assert torch.equal(found[:, 0], found[:, 1])
    assert float(found.square().mean().sqrt()) == pytest.approx(6 * math.log(10) / 10, rel=0.03)
    assert (found[:, 0].diff(dim=1).abs().max(dim=1).values <= 0.35 * found[:, 0].abs().max(dim=1).values + 1e-6).all()


def test_a_gain_is_one_number_a_clip():
    moved = views.gain(torch.zeros(2_000, 3, 5), 6.0, seeded())
    assert torch.equal(moved, moved[:, :1, :1].expand(-1, 3, 5))
    most = 6 * math.log(10) / 10
    assert_uniform(moved[:, 0, 0], -most, most)
    assert not views.gain(torch.zeros(4, 3, 5), 0.0, seeded()).any()


def assert_uniform(found: torch.Tensor, low: float, high: float) -> None:
    """Some thousand draws lie evenly between two ends."""
    shares = (found - low) / (high - low)
    assert 0 <= float(shares.min()) < 0.02 and 0.98 < float(shares.max()) <= 1 + 1e-6
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.std()) == pytest.approx(12**-0.5, abs=0.02)


def test_a_fade_is_a_straight_line_from_nothing():
    found = views.fade(torch.zeros(2_000, 11, 3), 0.5, seeded())
    assert torch.equal(found, found[:, :, :1].expand(-1, -1, 3))
    assert_uniform(found[:, -1, 0], -0.5, 0.5)
    torch.testing.assert_close(found[:, :, 0], found[:, -1:, 0] * torch.linspace(0, 1, 11))


def test_mixing_adds_energies():
    """By hand: ln((1 - l) e^x + l e^y); energies that are equal stay, and no clip is its own partner."""
    spectrum = torch.stack([torch.zeros(3, 4), torch.full((3, 4), 2.0)])
    found = views.mixup(spectrum, 0.2, seeded(3))
    share = torch.rand(2, generator=seeded(3)) * 0.2
    for clip, own, other, part in zip(found, (0.0, 2.0), (2.0, 0.0), share.tolist(), strict=True):
        expected = math.log((1 - part) * math.exp(own) + part * math.exp(other))
        torch.testing.assert_close(clip, torch.full((3, 4), expected))
    torch.testing.assert_close(views.mixup(torch.ones(5, 3, 4), 0.4, seeded()), torch.ones(5, 3, 4))
    assert torch.equal(views.mixup(mel(1), 0.4, seeded()), mel(1))


def test_noise_reaches_half_of_the_clips_and_only_adds():
    spectrum = mel(200)
    found = views.noise(spectrum, 1.0, seeded())
    assert (found >= spectrum - 1e-5).all()
    touched = (found - spectrum).abs().amax(dim=(1, 2)) > 1e-3
    assert 0.4 < float(touched.float().mean()) < 0.6


def added_noise(spectrum: torch.Tensor, strength: float) -> torch.Tensor:
    """Log energies of what is added to the clips that get noise, (clips, frames, bins)."""
    added = (views.noise(spectrum, strength, seeded()).exp() - spectrum.exp()).log()
    return added[torch.isfinite(added).flatten(1).all(dim=1)]


def test_noise_is_stationary_of_a_smooth_spectrum_and_up_to_20_db_fainter():
    spectrum = torch.full((1_500, 20, 80), -3.0, dtype=torch.float64)
    added = added_noise(spectrum, 1.0)
    assert float((added - added.mean(dim=1, keepdim=True)).square().mean().sqrt()) == pytest.approx(0.5, rel=0.05)
    curve = added.mean(dim=1)
    assert float(curve.std(dim=1, correction=0).square().mean().sqrt()) == pytest.approx(6 * math.log(10) / 10, rel=0.1)
    assert_uniform((-3.0 - curve.mean(dim=1)) * 10 / math.log(10), -0.2, 20.2)  # a little roughness is left
    torch.testing.assert_close(added_noise(spectrum, 0.25), added + math.log(0.25))
    torch.testing.assert_close(added_noise(spectrum + 2, 1.0), added + 2)


def test_mixup_of_no_proportion_is_nothing():
    spectrum = mel(50)
    assert torch.equal(views.mixup(spectrum, 0.0, seeded()), spectrum)


@pytest.mark.parametrize(("strength", "least", "most"), [(1.0, 0.6, 1.5), (0.5, 0.8, 1.25), (10.0, 0.1, 1.6)])
def test_pieces_are_stretched_by_the_factors_of_the_strength_in_time_and_in_bins(strength, least, most):
    """A ramp stays one where it is stretched, so its steps say by how much; pieces within the clip count."""
    time, pitch = torch.arange(100.0)[:, None] + 1_000, 10_000 * torch.arange(60.0)
    ramps = torch.stack([(time + 0 * pitch).expand(100, 60), (0 * time + pitch + 1).expand(100, 60)])
    found = views.resize(ramps.expand(800, 2, 100, 60), 40, strength, seeded())
    inside = (found > 0.5).flatten(1).all(dim=1)
    assert inside.float().mean() > 0.1
    middle = found[inside][:, :, 15:25, 20:40]
    in_time = middle[:, 0].diff(dim=1).mean(dim=(1, 2)) * 39 + 1  # frames of the piece
    in_bins = middle[:, 1].diff(dim=2).mean(dim=(1, 2)) / 10_000 * 59 + 1
    for size, whole, limit in ((in_time, 40, 100), (in_bins, 60, 60)):
        assert round(least * whole) - 0.1 <= float(size.min()) < (least + 0.1) * whole
        assert min(0.93 * most * whole, limit - 2) < float(size.max()) <= limit + 0.1
        assert strength > 1 or float(size.max()) <= most * whole + 0.6


@pytest.mark.parametrize("resize", [False, True])
def test_a_view_is_stretched_where_it_is_asked_for(resize):
    config = ViewsConfig(piece_frames=20, resize=resize)
    bins = torch.arange(40.0).expand(30, 60, 40)
    steps = config.view(bins, lambda clip: clip, seeded())[1][:, 5:15, 15:25].diff(dim=2).mean(dim=(1, 2))
    assert bool((steps - 1).abs().max() < 1e-4) is not resize


def test_masks_are_one_run_of_frames_and_one_of_bins():
    covered = views.mask(torch.ones(500, 30, 40), 6, 9, seeded()) == 0
    frames, bins = covered.all(dim=2), covered.all(dim=1)
    assert set(frames.sum(dim=1).tolist()) == set(range(7))
    assert set(bins.sum(dim=1).tolist()) == set(range(10))
    for run in (frames, bins):
        assert (run.int().diff(dim=1).clamp(min=0).sum(dim=1) + run[:, 0].int() <= 1).all()  # begins once at most
    assert torch.equal(covered, frames[:, :, None] | bins[:, None])
    assert frames.any(dim=0).all() and bins.any(dim=0).all(), "a run may lie anywhere, at both ends as well"
    assert set(views.mask(torch.ones(200, 3, 5), 9, 0, seeded()).sum(dim=(1, 2)).tolist()) == {0, 5, 10, 15}


def test_the_spectrum_moves_by_whole_bins():
    spectrum = torch.arange(10.0).expand(200, 2, 10)
    found = views.shift_bins(spectrum, 3, seeded())
    moves = 5 - found[:, 0, 5]
    assert set(moves.tolist()) == set(range(-3, 4))
    for clip, move in zip(found, moves.tolist(), strict=True):
        assert torch.equal(clip[0], (torch.arange(10.0) - move).clamp(0, 9))


def test_a_batch_norm_has_the_statistics_of_the_batch_in_evaluation_too():
    norm, rows = heads.BatchNorm(4), torch.randn(32, 4) * 3 + 1
    expected = (rows - rows.mean(dim=0)) / (rows.var(dim=0, correction=0) + norm.eps).sqrt()
    torch.testing.assert_close(norm.eval()(rows), expected)
    assert not list(norm.buffers())


def test_a_projection_has_a_norm_and_relu_between_its_layers_and_biases_as_asked():
    kinds = [type(each) for each in heads.mlp([5, 4, 3, 2])]
    assert kinds == [nn.Linear, heads.BatchNorm, nn.ReLU] * 2 + [nn.Linear]
    assert [type(each) for each in heads.mlp([5, 4, 2], batch_norm=False)] == [nn.Linear, nn.ReLU, nn.Linear]
    for asked, expected in (
        ({}, [True, True, True]),
        ({"last_bias": False}, [True, True, False]),
        ({"hidden_bias": False}, [False, False, True]),
    ):
        layers = [each for each in heads.mlp([5, 4, 3, 2], **asked) if isinstance(each, nn.Linear)]
        assert [(each.in_features, each.out_features) for each in layers] == [(5, 4), (4, 3), (3, 2)]
        assert [each.bias is not None for each in layers] == expected
    normed = heads.mlp([5, 4, 2], last_norm=True)
    assert (type(normed[-1]), normed[-1].affine, normed[1].affine) == (heads.BatchNorm, False, True)
    assert normed(torch.randn(9, 5)).shape == (9, 2)


def test_means_and_maxima_leave_padding_out():
    clips = [torch.randn(5, 3) - 10, torch.randn(9, 3) - 10]
    padded, lengths = pad(clips)
    expected = torch.stack([torch.cat([clip.mean(dim=0), clip.amax(dim=0)]) for clip in clips])
    torch.testing.assert_close(heads.mean_and_max(padded, lengths), expected)
    torch.testing.assert_close(heads.mean_and_max(clips[0][None]), expected[:1])


def test_a_teacher_is_the_exponential_average_over_updates():
    torch.manual_seed(0)
    student = nn.ModuleList([nn.Linear(3, 2), heads.BatchNorm(2)])
    teacher = Teacher(student)
    average = student[0].weight.detach().clone()
    assert torch.equal(teacher.network[0].weight, average)
    for done in (0.0, 0.25, 0.5):
        with torch.no_grad():
            student[0].weight.normal_()
        momentum = cosine_to_one(0.9, done)
        teacher.follow(student, momentum)
        average = momentum * average + (1 - momentum) * student[0].weight.detach()
        torch.testing.assert_close(teacher.network[0].weight, average)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.train().training
    other = Teacher(student)
    other.load_state_dict(teacher.state_dict())
    for each in (teacher, other):
        each.follow(student, 0.5)
    assert torch.equal(other.network[0].weight, teacher.network[0].weight)


def test_momenta_at_their_ends_and_in_the_middle():
    assert [cosine_to_one(0.9, done) for done in (0, 0.5, 1)] == pytest.approx([0.9, 0.95, 1.0])
    assert [linear_to(0.99, 0.999, 0.5, done) for done in (0, 0.25, 0.5, 1)] == pytest.approx(
        [0.99, 0.9945, 0.999, 0.999]
    )
    assert linear_to(0.99, 0.999, 0.0, 0.0) == 0.999


def test_a_queue_keeps_the_latest_in_the_places_of_the_oldest():
    queue = Queue(7, 2)
    torch.testing.assert_close(queue.rows.norm(dim=1), torch.ones(7))

    def numbered(first: int, count: int) -> torch.Tensor:
        return torch.arange(first, first + count).float()[:, None].expand(-1, 2)

    begun = queue.rows[:, 0].tolist()
    queue.push(numbered(1, 3))
    assert queue.rows[:, 0].tolist() == [1, 2, 3, *begun[3:]]
    queue.push(numbered(4, 2))
    queue.push(numbered(6, 4))
    assert queue.rows[:, 0].tolist() == [8, 9, 3, 4, 5, 6, 7]
    assert int(queue.place) == 2
    queue.push(numbered(10, 10))  # more than it holds: the last seven of them
    assert sorted(queue.rows[:, 0].tolist()) == [13, 14, 15, 16, 17, 18, 19]
    assert queue.rows[int(queue.place), 0] == 13, "the next takes the place of the oldest"
    queue.push(torch.zeros(0, 2))
    assert queue.rows[int(queue.place), 0] == 13


def test_a_bank_moves_the_rows_it_is_given_and_no_others():
    bank = Bank(5, 3, momentum=0.5)
    bank.met[4] = True
    before = bank.rows.clone()
    vectors = functional.normalize(torch.randn(2, 3), dim=1)
    bank.move(torch.tensor([4, 4]), vectors)  # one recording twice: one after the other
    expected = before[4]
    for vector in vectors:
        expected = functional.normalize(0.5 * expected + 0.5 * vector, dim=0)
    torch.testing.assert_close(bank.rows[4], expected)
    assert torch.equal(bank.rows[:4], before[:4])
    torch.testing.assert_close(bank.rows.norm(dim=1), torch.ones(5))
    bank.move(torch.tensor([1]), vectors[:1])
    assert torch.equal(bank.rows[1], vectors[0]), "the first time there is nothing to mix with"
    assert bank.met.tolist() == [False, True, False, False, True]


def test_recordings_that_were_not_met_take_no_part_in_a_banks_contrast():
    bank = Bank(5, 3, momentum=0.5)
    vectors = functional.normalize(torch.randn(3, 3), dim=1).requires_grad_()
    nothing = bank.contrast(vectors, torch.tensor([0, 1, 2]), 0.1)
    (gradient,) = torch.autograd.grad(nothing.loss, vectors)
    assert not gradient.any()
    bank.met[[0, 2, 4]] = True
    found = bank.contrast(vectors, torch.tensor([0, 1, 2]), 0.1)
    logits = vectors[[0, 2]] @ bank.rows[[0, 2, 4]].T / 0.1
    torch.testing.assert_close(found.loss, functional.cross_entropy(logits, torch.tensor([0, 1])))
    assert float(found.chance) == pytest.approx(1 / 3)


def test_contrasts_of_orthonormal_vectors():
    """N pairs, each orthogonal to all others: ln(1 + (2N - 2) exp(-1/tau)); all alike: ln(2N - 1)."""
    clips, temperature = 32, 0.2
    unit = torch.eye(clips)
    found = contrast.nt_xent(unit, 3 * unit, temperature)
    assert float(found.loss) == pytest.approx(math.log(1 + (2 * clips - 2) * math.exp(-1 / temperature)), abs=1e-5)
    assert float(found.loss) == pytest.approx(0.3491, abs=1e-4)
    assert (float(found.accuracy), float(found.chance)) == (1.0, pytest.approx(1 / 63))
    alike = torch.ones(clips, 4)
    assert float(contrast.nt_xent(alike, alike, temperature).loss) == pytest.approx(math.log(2 * clips - 1), abs=1e-5)
    queue = torch.zeros(100, clips)
    found = contrast.info_nce(unit, unit, queue, temperature)
    assert float(found.loss) == pytest.approx(math.log(1 + 100 * math.exp(-1 / temperature)), abs=1e-5)
    assert float(found.chance) == pytest.approx(1 / 101)
    found = contrast.batch_contrast(unit, unit, temperature)
    assert float(found.loss) == pytest.approx(math.log(1 + 31 * math.exp(-1 / temperature)), abs=1e-5)


def test_nt_xent_against_loops_and_its_gradient_has_no_part_along_the_vectors():
    torch.manual_seed(0)
    first, second = torch.randn(4, 3, dtype=torch.float64, requires_grad=True), torch.randn(4, 3, dtype=torch.float64)
    both = [each / each.norm() for each in (*first, *second)]
    total = 0.0
    for place, vector in enumerate(both):
        terms = {other: torch.exp(vector @ both[other] / 0.5) for other in range(8) if other != place}
        total = total - torch.log(terms[(place + 4) % 8] / sum(terms.values()))
    found = contrast.nt_xent(first, second, 0.5)
    torch.testing.assert_close(found.loss, total / 8)
    (gradient,) = torch.autograd.grad(found.loss, first)
    torch.testing.assert_close((gradient * first).sum(dim=1), torch.zeros(4, dtype=torch.float64))


def test_spread_and_rank_of_known_vectors():
    torch.manual_seed(0)
    even = torch.randn(4_000, 16)
    assert float(health.spread(even)) == pytest.approx(1, abs=0.02)
    assert float(health.rank(even)) == pytest.approx(16, rel=0.02)
    point = torch.ones(50, 16) + 1e-3 * torch.randn(50, 16)
    assert health.spread(point) < 0.01
    line = torch.ones(50, 16) + torch.linspace(-1, 1, 50)[:, None] * torch.randn(16)
    assert float(health.rank(line)) == pytest.approx(1, abs=0.01)
    assert torch.isfinite(health.rank(torch.ones(5, 3)))
    assert health.alike({"spread": 0.5, "rank": 9.0}) is None
    assert health.alike({"spread": 0.05, "rank": 9.0}).startswith("recordings all alike: the spread")
    assert health.alike({"spread": 0.5, "rank": 1.5}).startswith("one direction: ")


def test_a_contrast_may_be_too_easy_early_and_too_hard_late():
    easy, hard = {"contrast_accuracy": 0.995, "chance": 0.02}, {"contrast_accuracy": 0.03, "chance": 0.02}
    assert health.contrast_problem(easy, 0.2).startswith("too easy: 99.5 % of the true ones")
    assert health.contrast_problem(easy, 0.5) is None
    assert health.contrast_problem(hard, 0.2) is None
    assert health.contrast_problem(hard, 1.0).startswith("too hard: 3 % of the true ones are found, by chance 2 %")


def test_strided_lengths_are_those_of_the_stem():
    encoder = MelConv(4, (1,), num_mel_bins=2)
    for frames in range(1, 9):
        found = encoder.layers(torch.randn(1, frames, 2), torch.tensor([frames]))[0]
        assert found.shape[1] == int(strided(torch.tensor(frames)))


def test_recipes_of_all_methods_can_be():
    from upstreams._base import UPSTREAMS
    from upstreams._pretraining.contract import trainable

    for entry in UPSTREAMS:
        if trainable(entry):
            recipes: list[PretrainRecipe] = [recipe for size in entry.recipes.values() for recipe in size]
            assert [recipe.problem() for recipe in recipes] == [None] * len(recipes)
            assert set(entry.recipes) == set(entry.sizes) == {"base", "tiny"}
