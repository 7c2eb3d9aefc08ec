"""Regularised losses in closed forms, their gradients against finite differences, and what collapses without a term."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_pretraining import plan, small_sizes
from torch import nn

from upstreams._base import UPSTREAMS
from upstreams._pretraining.contract import TrainingBatch
from upstreams._pretraining.plan import pretrain
from upstreams.regularised.barlow_twins import correlations
from upstreams.regularised.vicreg import vicreg_terms


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_sizes(monkeypatch)


def built(name: str, size: str = "small", **changes):
    kind = UPSTREAMS.get(name)
    torch.manual_seed(0)
    upstream = kind.untrained(replace(kind.sizes[size], **changes))
    upstream.prepare(kind.recipes[size][-1], 10)
    return upstream


def loss_of(upstream, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    batch = TrainingBatch(torch.zeros(len(first), 1), torch.ones(len(first)), torch.arange(len(first)))
    return upstream.loss_of([first, second], [], batch).loss


def white(rows: int, size: int) -> torch.Tensor:
    """Columns of mean 0 and biased deviation 1, orthogonal to each other."""
    centred = torch.randn(rows, size, dtype=torch.float64)
    basis = torch.linalg.qr(centred - centred.mean(dim=0))[0]
    return basis * rows**0.5


def test_published_expanders_have_the_published_sizes():
    with torch.device("meta"):
        vicreg, barlow = built("vicreg", "base"), built("barlow_twins", "base")
    assert sum(parameter.numel() for parameter in vicreg.expander.parameters()) == 151_044_096
    assert sum(parameter.numel() for parameter in barlow.projector.parameters()) == 151_027_712


def test_vicreg_of_a_constant_batch_is_its_variance_term():
    upstream = built("vicreg")
    upstream.expander = nn.Identity()
    constant = torch.ones(8, 4)
    assert float(loss_of(upstream, constant, constant)) == pytest.approx(24.75)  # 25 (1 - sqrt(0.0001))


def test_vicreg_of_equal_white_views_is_nothing():
    views = white(64, 5) * (64 / 63) ** -0.5 * 1.001  # unbiased deviation of a little above 1
    terms = vicreg_terms(views, views)
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(
        {"invariance": 0, "variance": 0, "covariance": 0}, abs=1e-6
    )


def test_vicreg_against_loops():
    torch.manual_seed(1)
    first, second = torch.randn(6, 3, dtype=torch.float64) / 2, torch.randn(6, 3, dtype=torch.float64) / 2
    terms = vicreg_terms(first, second)
    distance = sum(float((first[row, col] - second[row, col]) ** 2) for row in range(6) for col in range(3)) / 18
    variance, covariance = 0.0, 0.0
    for view in (first, second):
        means = [sum(float(view[row, col]) for row in range(6)) / 6 for col in range(3)]
        for one in range(3):
            for other in range(3):
                value = sum(
                    (float(view[row, one]) - means[one]) * (float(view[row, other]) - means[other]) for row in range(6)
                )
                if one == other:
                    variance += max(0.0, 1 - (value / 5 + 1e-4) ** 0.5) / 3 / 2
                else:
                    covariance += (value / 5) ** 2 / 3
    assert float(terms["invariance"]) == pytest.approx(distance)
    assert float(terms["variance"]) == pytest.approx(variance)
    assert float(terms["covariance"]) == pytest.approx(covariance)


def test_vicregs_gradient_is_that_of_finite_differences():
    torch.manual_seed(2)
    views = [(torch.randn(5, 3, dtype=torch.float64) / 2).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(lambda *both: tuple(vicreg_terms(*both).values()), views)


@pytest.mark.parametrize("left_out", ["invariance", "variance", "covariance"])
def test_each_term_of_vicreg_may_have_no_weight(left_out):
    torch.manual_seed(3)
    first, second = torch.randn(8, 4), torch.randn(8, 4)
    upstream = built("vicreg", **{left_out: 0.0})
    upstream.expander = nn.Identity()
    weights = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0, left_out: 0.0}
    expected = sum(weights[name] * term for name, term in vicreg_terms(first, second).items())
    torch.testing.assert_close(loss_of(upstream, first, second), expected)


def test_barlow_twins_of_equal_white_views_is_nothing_and_ignores_scale_and_shift():
    upstream = built("barlow_twins", scale=1.0)
    upstream.projector = nn.Identity()
    views = white(64, 5)
    assert float(loss_of(upstream, views, views)) == pytest.approx(0, abs=1e-6)
    moved = 3 * views + torch.arange(5)
    torch.testing.assert_close(
        correlations(views, moved).diagonal(), torch.ones(5, dtype=torch.float64), atol=1e-4, rtol=0
    )
    assert float(loss_of(upstream, views, -views)) == pytest.approx(5 * 4, rel=1e-3)  # (-1 - 1)^2 a dimension
    assert torch.isfinite(loss_of(upstream, torch.ones(8, 4), torch.ones(8, 4)))


def test_barlow_twins_of_independent_views_is_its_noise():
    """Two independent normal batches: squares off the diagonal sum to D (D - 1) / (N - 1) in the mean."""
    torch.manual_seed(0)
    rows, size = 64, 40
    sums = torch.tensor(
        [
            float((matrix - matrix.diagonal().diag()).square().sum())
            for matrix in (correlations(torch.randn(rows, size), torch.randn(rows, size)) for _ in range(40))
        ]
    )
    expected = size * (size - 1) / (rows - 1)
    assert abs(float(sums.mean()) - expected) < 3 * float(sums.std()) / 40**0.5


@pytest.mark.parametrize("left_out", ["invariance", "redundancy"])
def test_each_term_of_barlow_twins_may_have_no_weight(left_out):
    torch.manual_seed(3)
    first, second = torch.randn(8, 4), torch.randn(8, 4)
    upstream = built("barlow_twins", scale=0.5, redundancy=0.1)
    upstream.projector = nn.Identity()
    matrix = correlations(first, second)
    terms = {"invariance": (matrix.diagonal() - 1).square().sum()}
    terms["redundancy"] = 0.1 * (matrix.square().sum() - matrix.diagonal().square().sum())
    torch.testing.assert_close(loss_of(upstream, first, second), 0.5 * (terms["invariance"] + terms["redundancy"]))
    upstream.config = replace(upstream.config, **{left_out: 0.0})
    del terms[left_out]
    torch.testing.assert_close(loss_of(upstream, first, second), 0.5 * sum(terms.values()))


def test_vicreg_without_its_variance_term_is_named_and_with_it_is_not(corpus, tmp_path):
    for variance, warned in ((25.0, []), (0.0, ["recordings all alike"])):
        what = plan("vicreg", warmup=0.1)
        what = replace(what, config=replace(what.config, variance=variance))
        notes = pretrain(what, corpus, tmp_path / str(variance), device="cpu")
        assert [warning.split(":")[0] for warning in notes["warnings"]] == warned


def test_barlow_twins_views_that_do_not_correlate_are_named():
    upstream = built("barlow_twins")
    healthy = {"spread": 0.6, "rank": 9.0, "diagonal": 0.5}
    assert upstream.collapsed(healthy, 1.0) is None
    assert upstream.collapsed({**healthy, "diagonal": 0.1}, 0.5) is None  # it may come yet
    assert upstream.collapsed({**healthy, "diagonal": 0.1}, 1.0).startswith("views not alike: they correlate by 0.10")
