"""Generative methods: what is altered, what a prediction may see, codes, closed forms of losses, published sizes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_pretraining import SMALL, small_sizes
from torch import nn
from torch.nn import functional

from core.hidden_states import HiddenStates
from core.lengths import pad
from upstreams._base import UPSTREAMS
from upstreams._encoders import kaldi
from upstreams._pretraining.contract import PretrainRecipe, TrainingBatch
from upstreams._pretraining.masks import interpolated, mask_bins
from upstreams._pretraining.quantiser import GumbelQuantiser, SlicedLinear
from upstreams.generative.mockingjay import Mockingjay
from upstreams.generative.tera import Tera, TeraConfig
from upstreams.generative.vae import kl_from_normal

RECIPE = PretrainRecipe(1, 1.0, 1e-3)


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


def parameters_of(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_published_networks_have_the_published_sizes():
    with torch.device("meta"):
        tera, vq_apc, large, npc = (
            built("tera", "base"), built("vq_apc", "base"), built("vq_apc", "base", codes=512), built("npc", "base"),
        )  # fmt: skip
    assert parameters_of(tera.encoder) == 21_327_360
    assert parameters_of(tera.spec_head) == 653_648
    assert parameters_of(vq_apc.encoder, vq_apc.postnet) == 4_236_496
    assert parameters_of(large.encoder, large.postnet) == 4_630_096
    assert parameters_of(npc.encoder, npc.quantiser, npc.postnet) == 19_380_560


def test_masked_bins_are_one_run_of_every_width():
    runs = mask_bins(3_000, 20, 4, seeded())
    widths = runs.sum(dim=1)
    assert torch.bincount(widths, minlength=6).tolist() == pytest.approx([600] * 5 + [0], abs=80)
    assert (runs.int().diff(dim=1).clamp(min=0).sum(dim=1) + runs[:, 0].int() <= 1).all()
    starts = {int(row.nonzero()[0]) for row in runs if row.sum() == 4}
    assert starts == set(range(16))  # the authors' code leaves the last place out as well


@pytest.mark.parametrize("part", ["time", "channel", "noise"])
def test_teras_alterations_by_themselves(part):
    config = {"mask_proportion": 0.0, "mask_bins": 0, "noise_probability": 0.0}
    only = {"time": ("mask_proportion", 0.3), "channel": ("mask_bins", 16), "noise": ("noise_probability", 1.0)}
    config |= dict([only[part]])
    upstream = built("tera", **config)
    mel, lengths = torch.randn(40, 50, 80, generator=seeded()), torch.tensor([50, 30] * 20)
    given = mel.clone()
    cells, altered = upstream.alter(mel, lengths, seeded())
    assert torch.equal(mel, given)
    assert not cells[1::2, 30:].any(), "padding is nothing to reconstruct"
    if part == "time":
        assert torch.equal(cells, cells.all(dim=2, keepdim=True).expand_as(cells))
        assert cells.any()
    elif part == "channel":
        assert torch.equal(cells[::2], cells[::2].all(dim=1, keepdim=True).expand_as(cells[::2]))
        assert not altered[cells].any()
        assert torch.equal(altered[::2][~cells[::2]], mel[::2][~cells[::2]])
    else:
        assert not cells.any()
        assert float((altered - mel).std()) == pytest.approx(0.2, rel=0.02)


def test_tera_without_bins_and_noise_is_mockingjay_bit_for_bit():
    values = {name: value for name, value in vars(SMALL["mockingjay"]).items()}
    tera = Tera(TeraConfig(**values, mask_bins=0, noise_probability=0.0))
    mockingjay = Mockingjay(SMALL["mockingjay"])
    for each in (tera, mockingjay):
        each.prepare(RECIPE, 1)
        each.eval()
    tera.load_state_dict(mockingjay.state_dict())
    losses = [each.pretrain_loss(two(), seeded()).loss for each in (tera, mockingjay)]
    assert torch.equal(*losses)


def test_a_prediction_of_nothing_costs_the_mean_of_what_was_altered():
    upstream = built("tera")
    nn.init.zeros_(upstream.spec_head[-1].weight)
    nn.init.zeros_(upstream.spec_head[-1].bias)
    batch = two()
    mel = upstream.encoder.mel(batch.wavs, batch.wav_lengths)
    cells, _ = upstream.alter(mel.layers[0], mel.lengths, seeded())
    found = upstream.pretrain_loss(batch, seeded()).loss
    torch.testing.assert_close(found, mel.layers[0][cells].abs().mean())


def test_hidden_places_are_filled_along_a_line():
    line = torch.arange(10.0)[None, :, None] * torch.tensor([1.0, -2.0])
    hidden = torch.zeros(1, 10, dtype=torch.bool)
    hidden[0, [0, 3, 4, 5, 9]] = True
    expected = line.clone()
    expected[0, 0], expected[0, 9] = line[0, 1], line[0, 8]
    torch.testing.assert_close(interpolated(line, hidden), expected)
    assert not interpolated(line, torch.ones(1, 10, dtype=torch.bool)).any()


@pytest.mark.parametrize("name", ["mockingjay", "tera"])
def test_what_is_no_better_than_a_straight_line_is_named_at_the_end(name):
    upstream = built(name)
    assert upstream.collapsed({"interpolation": 1.6}, 0.5) is None
    assert upstream.collapsed({"interpolation": 1.2}, 1.0) is None
    assert upstream.collapsed({"interpolation": 1.6}, 1.0).startswith("worse than interpolating: the loss is 1.60")
    upstream.spec_head = Line()
    ramp = torch.linspace(-1, 1, 60)[None, :, None].expand(2, -1, 80)
    upstream.encoder.mel = lambda wavs, lengths: HiddenStates((ramp,), torch.tensor([60, 60]))
    found = upstream.pretrain_loss(two(), seeded()).figures["interpolation"]
    assert found > 10  # of a straight line in time; its own is 0 but for the ends


class Line(nn.Module):
    """Predicts zero everywhere."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return 0 * states[:, :, :1].expand(-1, -1, 80)


@pytest.mark.parametrize("name", ["apc", "vq_apc"])
def test_what_is_no_better_than_a_copy_is_named(name):
    upstream = built(name)
    healthy = {"copying": 0.8, "code_perplexity": 6.0}
    assert upstream.collapsed(healthy, 1.0) is None
    assert upstream.collapsed({**healthy, "copying": 1.1}, 0.4) is None
    found = upstream.collapsed({**healthy, "copying": 1.1}, 0.6)
    assert found.startswith("no better than copying: the loss is 1.10 times")
    batch, ahead = two()._replace(wav_lengths=torch.tensor([9_000, 9_000])), upstream.config.steps_ahead
    upstream.read = lambda mel, lengths, batch: (mel, {})
    upstream.postnet = nn.Identity()
    found = upstream.pretrain_loss(batch, seeded())
    assert float(found.figures["copying"]) == pytest.approx(1)
    mel = upstream.encoder.mel(batch.wavs, batch.wav_lengths).layers[0]
    torch.testing.assert_close(found.loss, (mel[:, :-ahead] - mel[:, ahead:]).abs().mean())


def test_vq_apc_hands_on_codes_of_its_book_and_its_hidden_states_are_none():
    upstream = built("vq_apc")
    mel = torch.randn(2, 30, 80)
    layers, handed_on, chosen = upstream.encoder.layers_and_codes(mel, 1.0)
    book = upstream.encoder.quantiser.code_vectors[0]
    assert len(layers) == 2
    for state, code in zip(handed_on.flatten(0, 1), chosen.flatten(), strict=True):
        torch.testing.assert_close(state, book[code])
    assert not torch.allclose(layers[-1], handed_on)
    torch.testing.assert_close(upstream.encoder.layers(mel, torch.tensor([30, 30]))[-1], layers[-1])


def test_layers_behind_the_codes_of_vq_apc_read_nothing_else():
    upstream = built("vq_apc", quantised_layer=1)
    mel = torch.randn(1, 30, 80)
    layers, _, chosen = upstream.encoder.layers_and_codes(mel, 1.0)
    codes = upstream.encoder.quantiser.code_vectors[0][chosen]
    torch.testing.assert_close(layers[1], upstream.encoder.rnn_layers[1](codes)[0] + codes)


def test_no_layer_of_vq_apc_sees_what_comes():
    upstream = built("vq_apc", quantised_layer=1)
    mel = torch.randn(1, 30, 80, requires_grad=True)
    for layer in upstream.encoder.train().layers(mel, torch.tensor([30])):
        (gradient,) = torch.autograd.grad(layer[0, 12].sum(), mel, retain_graph=True)
        assert gradient[0, :13].any()
        assert not gradient[0, 13:].any()


def test_the_gradient_passes_the_choice_of_a_code_as_it_would_a_softmax():
    quantiser = GumbelQuantiser(4, 1, 5, 6).plain_start().train()
    frames = torch.randn(3, 4, requires_grad=True)
    torch.manual_seed(5)
    (found,) = torch.autograd.grad(quantiser(frames, 0.7).codes.sum(), frames)
    torch.manual_seed(5)
    logits = quantiser.logits(frames).view(3, 1, 5)
    noise = -torch.empty_like(logits).exponential_().log()
    soft = ((logits + noise) / 0.7).softmax(dim=2)
    (expected,) = torch.autograd.grad((soft[:, 0] @ quantiser.code_vectors[0]).sum(), frames)
    torch.testing.assert_close(found, expected)


def test_slices_of_a_frame_have_linear_layers_of_their_own():
    layer = SlicedLinear(6, 8, 2)
    frames = torch.randn(5, 6)
    expected = torch.cat(
        [functional.linear(frames[:, :3], layer.weight[:4]), functional.linear(frames[:, 3:], layer.weight[4:])], dim=1
    )
    torch.testing.assert_close(layer(frames), expected + layer.bias)


@pytest.mark.parametrize(("size", "reach"), [("tiny", 10), ("base", 11)])
def test_npcs_prediction_never_sees_the_frame_and_two_to_each_side(size, reach):
    upstream = built("npc", size, hidden_size=16, dropout=0.0)
    mel = torch.randn(1, 40, 80, requires_grad=True)
    masked = upstream.encoder.layers(mel, torch.tensor([40]))[-1]
    (gradient,) = torch.autograd.grad(masked[0, 20].square().sum(), mel)
    seen = gradient[0].abs().sum(dim=1).nonzero().flatten() - 20
    assert set(seen.tolist()) == {*range(-reach, -2), *range(3, reach + 1)}


def test_npc_of_a_network_that_sees_nothing_is_the_distance_from_its_bias():
    upstream = built("npc", hidden_frames=15, codebooks=0, num_blocks=1)
    for masked in upstream.encoder.masked:
        masked.first, masked.last = 0, 15
    batch = two()
    mel = upstream.encoder.mel(batch.wavs, batch.wav_lengths)
    rows = torch.cat([mel.layers[0][0], mel.layers[0][1, : mel.lengths[1]]])
    constant = torch.tanh(upstream.encoder.masked[0].linear(upstream.encoder.masked[0].convolution.bias))
    expected = (upstream.postnet(constant) - rows).abs().mean()
    torch.testing.assert_close(upstream.pretrain_loss(batch, seeded()).loss, expected)


@pytest.mark.parametrize("name", ["vq_apc", "npc"])
def test_a_dead_codebook_is_named_and_an_untrained_one_is_not(name):
    upstream = built(name, codes=64).train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        figures = {key: float(each) for key, each in upstream.pretrain_loss(two(), seeded()).figures.items()}
    assert upstream.collapsed(figures, 0.5) is None
    quantiser = upstream.quantiser if name == "npc" else upstream.encoder.quantiser
    with torch.no_grad():
        quantiser.logits.weight.zero_()
        quantiser.logits.bias.view(quantiser.groups, -1)[:, 0] = 50
    figures = {key: float(each) for key, each in upstream.pretrain_loss(two(), seeded()).figures.items()}
    assert upstream.collapsed(figures, 0.5).startswith("dead codebook: ")


def test_the_divergence_from_a_normal():
    """By hand: a mean of 1 costs half a nat, a deviation of e costs (e^2 - 3) / 2; torch's own says the same."""
    zero, one = torch.zeros(3), torch.ones(3)
    torch.testing.assert_close(kl_from_normal(one, zero), 0.5 * one)
    torch.testing.assert_close(kl_from_normal(zero, 2 * one), one * (math.exp(2) - 3) / 2)
    means, log_variances = torch.randn(50), torch.randn(50)
    normal = torch.distributions.Normal(torch.zeros(50), torch.ones(50))
    other = torch.distributions.Normal(means, (log_variances / 2).exp())
    torch.testing.assert_close(kl_from_normal(means, log_variances), torch.distributions.kl_divergence(other, normal))


def test_a_vae_without_weight_of_the_divergence_is_an_autoencoder_without_noise():
    plain, noisy = built("vae", kl_weight=0.0), built("vae", kl_weight=1.0)
    noisy.load_state_dict(plain.state_dict())
    losses = {name: [each.pretrain_loss(two(), seeded(seed)).loss for seed in (0, 1)]
              for name, each in (("plain", plain), ("noisy", noisy))}  # fmt: skip
    assert torch.equal(*losses["plain"])
    assert not torch.equal(*losses["noisy"])
    batch = two()
    mel = plain.encoder.mel(batch.wavs, batch.wav_lengths)
    means, _ = plain.encoder.gaussians(mel.layers[0], mel.lengths)
    decoded = plain.decoded(means, (mel.lengths + 1) // 2)
    errors = [(decoded[row, :length] - mel.layers[0][row, :length]).abs() for row, length in enumerate(mel.lengths)]
    torch.testing.assert_close(losses["plain"][0], torch.cat(errors).mean())


def test_the_divergence_weighs_as_much_as_it_is_told_and_rises_over_a_third():
    upstream = built("vae", kl_weight=0.5, free_nats=0.0)
    found = [upstream.pretrain_loss(two()._replace(done=done), seeded()) for done in (0.0, 1 / 6, 1 / 3, 0.9)]
    for each, weight in zip(found, (0.0, 0.25, 0.5, 0.5), strict=True):
        torch.testing.assert_close(each.loss.detach(), each.figures["error"] + weight * each.figures["kl"])
    free = built("vae", kl_weight=0.5, free_nats=100.0).pretrain_loss(two()._replace(done=1.0), seeded())
    torch.testing.assert_close(free.loss.detach(), free.figures["error"] + 0.5 * 100 * 8)


@pytest.mark.parametrize("name", ["apc", "vq_apc", "npc", "vae"])
def test_a_loss_is_the_mean_over_valid_frames_whatever_they_are_batched_with(name):
    """Behind the shorter recording of two stand frames of padding, which count for nothing; so for the divergence."""
    upstream = built(name, **({"kl_weight": 0.0} if name == "vae" else {}))
    batch = two()
    alone = [
        TrainingBatch(wav[None, : int(length)], length[None], torch.tensor([0]))
        for wav, length in zip(batch.wavs, batch.wav_lengths, strict=True)
    ]
    together, *each = (upstream.pretrain_loss(one, seeded()) for one in (batch, *alone))
    frames = kaldi.frame_lengths(batch.wav_lengths) - getattr(upstream.config, "steps_ahead", 0)
    losses = torch.stack([one.loss for one in each])
    torch.testing.assert_close(together.loss, (losses * frames).sum() / frames.sum())
    if name == "vae":
        frames = upstream.frame_lengths(batch.wav_lengths)
        divergences = torch.stack([one.figures["kl"] for one in each])
        torch.testing.assert_close(together.figures["kl"], (divergences * frames).sum() / frames.sum())


def test_a_posterior_that_says_nothing_is_named_and_an_untrained_one_is_not():
    for weight in (0.0, 1.0):
        upstream = built("vae", kl_weight=weight)
        figures = {key: float(each) for key, each in upstream.pretrain_loss(two(), seeded()).figures.items()}
        assert upstream.collapsed(figures, 0.5) is None
        nn.init.zeros_(upstream.encoder.to_latents.weight)
        nn.init.zeros_(upstream.encoder.to_latents.bias)
        figures = {key: float(each) for key, each in upstream.pretrain_loss(two(), seeded()).figures.items()}
        assert upstream.collapsed(figures, 0.5).startswith("posterior collapse: ")
