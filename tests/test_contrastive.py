"""Contrastive losses on recordings in closed forms, what their gradients reach, and what their stores hold."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_pretraining import small_sizes
from torch import nn
from torch.nn import functional

from core.errors import ContractError
from upstreams._base import UPSTREAMS
from upstreams._pretraining.contract import TrainingBatch
from upstreams._pretraining.teacher import Teacher
from upstreams.contrastive.inva_spread import taken_for
from upstreams.contrastive.simclr import Bilinear


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_sizes(monkeypatch)


def built(name: str, size: str = "small", recordings: int = 10, **changes):
    kind = UPSTREAMS.get(name)
    torch.manual_seed(0)
    upstream = kind.untrained(replace(kind.sizes[size], **changes))
    upstream.prepare(kind.recipes[size][-1], recordings)
    return upstream


def batch_of(rows: list[int]) -> TrainingBatch:
    return TrainingBatch(torch.zeros(len(rows), 1), torch.ones(len(rows)), torch.tensor(rows))


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_heads_have_the_published_sizes():
    with torch.device("meta"):
        first, second = built("moco", "base", mlp=False), built("moco", "base")
    assert parameters_of(first.head) == 262_272
    assert parameters_of(second.head) == 4_458_624


def test_simclr_of_orthonormal_pairs_and_of_equal_ones():
    upstream = built("simclr", temperature=0.2)
    upstream.projector = nn.Identity()
    unit = torch.eye(32)
    found = upstream.loss_of([unit, 5 * unit], [], batch_of(list(range(32))))
    assert float(found.loss) == pytest.approx(math.log(1 + 62 * math.exp(-5)), abs=1e-5)
    alike = torch.ones(32, 4)
    found = upstream.loss_of([alike, alike], [], batch_of(list(range(32))))
    assert float(found.loss) == pytest.approx(math.log(63), abs=1e-5)


def test_a_bilinear_form_of_a_scaled_identity_is_the_cosine_over_a_temperature():
    torch.manual_seed(0)
    bilinear = Bilinear(4)
    bilinear.norm = nn.Identity()
    with torch.no_grad():
        bilinear.matrix.weight.copy_(torch.eye(4) / 0.2)
    first, second = torch.randn(3, 4), torch.randn(3, 4)
    queries, keys = bilinear(first, second)
    torch.testing.assert_close(queries @ keys.T, torch.tanh(first) @ torch.tanh(second).T / 0.2)


def test_colas_loss_looks_one_way_and_another_similarity_is_refused():
    upstream = built("simclr", similarity="bilinear")
    first, second = torch.randn(8, 32), torch.randn(8, 32)
    found = [upstream.loss_of(each, [], batch_of(list(range(8)))) for each in ([first, second], [second, first])]
    forth, back = (float(each.loss.detach()) for each in found)
    assert abs(forth - back) > 1e-4
    with pytest.raises(ContractError, match="similarity=dot: must be one of cosine, bilinear"):
        built("simclr", similarity="dot")


def test_speech_simclr_reconstructs_the_frames_before_they_were_altered():
    upstream = built("simclr", reconstruction=2.0)
    clean = torch.randn(3, 7, 80)  # the last frame has no partner
    nn.init.zeros_(upstream.frame_head.weight)
    nn.init.zeros_(upstream.frame_head.bias)
    found = upstream.frame_loss(torch.randn(3, 4, 16), clean)
    torch.testing.assert_close(found.loss, 2 * clean[:, :6].abs().mean())
    frames = torch.arange(160.0).expand(3, 4, 160)
    upstream.frame_head = nn.Identity()
    wanted = torch.cat([torch.arange(80.0), torch.arange(80.0) + 80]).reshape(1, 2, 80).repeat(3, 3, 1)
    assert float(upstream.frame_loss(frames, wanted).loss) == pytest.approx(0, abs=1e-6)
    assert built("simclr").frame_loss(frames, clean) is None


def test_mocos_negatives_are_the_queue_and_the_clips_own_keys_join_it_afterwards():
    upstream = built("moco", temperature=0.2)
    upstream.queue.rows.zero_()
    upstream.head = nn.Identity()
    upstream.teacher = Teacher(upstream._student())
    unit = torch.eye(8, 16)
    upstream._keys = lambda view: unit
    found = upstream.loss_of([unit], [None, None], batch_of(list(range(8))))
    assert float(found.loss) == pytest.approx(math.log(1 + 50 * math.exp(-1 / 0.2)), abs=1e-5)
    assert not upstream.queue.rows.any()
    upstream.after_update(found.kept, 0.0)
    assert torch.equal(upstream.queue.rows[:8], unit)
    assert not upstream.queue.rows[8:].any()


def test_mocos_key_network_moves_by_its_momentum_and_gets_no_gradient():
    upstream = built("moco", momentum=0.75)
    average = [each.detach().clone() for each in upstream._student().parameters()]
    for _ in range(3):
        for parameter in upstream._student().parameters():
            nn.init.normal_(parameter)
        upstream.after_update({"keys": torch.zeros(2, 16)}, 0.0)
        average = [
            0.75 * old + 0.25 * new.detach() for old, new in zip(average, upstream._student().parameters(), strict=True)
        ]
    for found, expected in zip(upstream.teacher.network.parameters(), average, strict=True):
        torch.testing.assert_close(found, expected)
    views = [torch.randn(8, 16, 80) for _ in range(2)]
    upstream.loss_of([upstream.pooled(views[0])], views, batch_of(list(range(8)))).loss.backward()
    assert all(parameter.grad is None for parameter in upstream.teacher.parameters())
    assert all(parameter.grad is not None for parameter in upstream.encoder.parameters())


def test_inva_spread_of_equal_vectors_and_of_two_clips_written_out():
    upstream = built("inva_spread", temperature=0.5)
    upstream.head = nn.Identity()
    clips, others = 6, 11
    alike = torch.ones(clips, 4)
    expected = math.log(others) - (others - 1) * math.log(1 - 1 / others)
    assert float(upstream.loss_of([alike, alike], [], batch_of(list(range(6)))).loss) == pytest.approx(
        expected, abs=1e-5
    )
    torch.manual_seed(0)
    first, second = torch.randn(2, 3), torch.randn(2, 3)
    vectors = [each / each.norm() for each in (*first, *second)]
    total = 0.0
    for place in range(4):
        terms = {other: math.exp(float(vectors[place] @ vectors[other]) / 0.5) for other in range(4) if other != place}
        shares = {other: term / sum(terms.values()) for other, term in terms.items()}
        partner = (place + 2) % 4
        total -= math.log(shares[partner]) + sum(math.log(1 - shares[other]) for other in shares if other != partner)
    assert float(upstream.loss_of([first, second], [], batch_of([0, 1])).loss) == pytest.approx(total / 4, abs=1e-5)


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_inva_spread_compares_with_what_is_given(stop_gradient):
    """Moving the keys alone, as finite differences do, changes the loss; the gradient knows of it or does not."""
    upstream = built("inva_spread", stop_gradient=stop_gradient, temperature=0.5)
    upstream.head = nn.Identity()
    first, second = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3)

    def loss(vectors):
        return upstream.loss_of([vectors, second], [], batch_of([0, 1])).loss

    (gradient,) = torch.autograd.grad(loss(first), first)
    step = torch.zeros(2, 3)
    step[0, 0] = 1e-2
    numeric = float((loss(first.detach() + step) - loss(first.detach() - step)) / 2e-2)
    assert (abs(numeric - float(gradient[0, 0])) < 1e-3) != stop_gradient


def test_nothing_is_taken_for_itself():
    shares = taken_for(torch.randn(5, 5))
    assert not shares.diagonal().any()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(5))


def test_inst_disc_is_a_softmax_over_all_recordings_and_moves_the_rows_it_met():
    upstream = built("inst_disc", temperature=0.3)
    upstream.bank.met.fill_(True)
    pooled = torch.randn(8, 32)
    rows = [3, 1, 4, 0, 5, 9, 2, 6]
    found = upstream.loss_of([pooled], [], batch_of(rows))
    vectors = functional.normalize(upstream.head(pooled), dim=1)
    expected = functional.cross_entropy(vectors @ upstream.bank.rows.T / 0.3, torch.tensor(rows))
    torch.testing.assert_close(found.loss, expected)
    before = upstream.bank.rows.clone()
    upstream.after_update(found.kept, 0.0)
    assert torch.equal(upstream.bank.rows[[7, 8]], before[[7, 8]])
    moved = functional.normalize(0.5 * before[rows] + 0.5 * vectors.detach(), dim=1)
    torch.testing.assert_close(upstream.bank.rows[rows], moved)


def test_cmc_looks_both_ways_and_each_network_sees_its_own_bins():
    upstream = built("cmc", low_bins=30)
    mel = torch.randn(8, 16, 80, requires_grad=True)
    pooled = upstream.pooled(mel)
    low = torch.cat([pooled[:, :8], pooled[:, 16:24]], dim=1)
    (gradient,) = torch.autograd.grad(low.sum(), mel, retain_graph=True)
    assert gradient[:, :, :30].any()
    assert not gradient[:, :, 30:].any()
    high = torch.cat([pooled[:, 8:16], pooled[:, 24:]], dim=1)
    vectors = [functional.normalize(head(half), dim=1) for head, half in zip(upstream.heads, (low, high), strict=True)]
    logits = vectors[0] @ vectors[1].T / upstream.config.temperature
    places = torch.arange(8)
    expected = functional.cross_entropy(logits, places) + functional.cross_entropy(logits.T, places)
    torch.testing.assert_close(upstream.loss_of([pooled], [], batch_of(list(range(8)))).loss, expected)


def test_cmcs_banks_hold_the_other_view():
    upstream = built("cmc", bank=True, temperature=0.3)
    for bank in (upstream.low_bank, upstream.high_bank):
        bank.met.fill_(True)
    pooled = upstream.pooled(torch.randn(8, 16, 80))
    rows = [3, 1, 4, 0, 5, 9, 2, 6]
    found = upstream.loss_of([pooled], [], batch_of(rows))
    low, high = found.kept["low"], found.kept["high"]
    expected = sum(
        functional.cross_entropy(own @ bank.rows.T / 0.3, torch.tensor(rows))
        for own, bank in ((low, upstream.high_bank), (high, upstream.low_bank))
    )
    torch.testing.assert_close(found.loss, expected)
    before = [bank.rows[rows].clone() for bank in (upstream.low_bank, upstream.high_bank)]
    upstream.after_update(found.kept, 0.0)
    for bank, old, new in zip((upstream.low_bank, upstream.high_bank), before, (low, high), strict=True):
        torch.testing.assert_close(bank.rows[rows], functional.normalize(0.5 * old + 0.5 * new, dim=1))
