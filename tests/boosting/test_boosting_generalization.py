"""Generalization: the calculator has the page's numbers, and projections are nearest points."""

from math import exp, sqrt

import pytest
import torch
from torch import float64, nn, tensor
from torch.testing import assert_close

from lowland.boosting.alphas import closed_alpha
from lowland.boosting.generalization import (
    generalization_bound,
    l1_norms,
    margin_factor,
    project_l1_,
    project_model_l1_,
)
from lowland.errors import UnsupportedModelError
from oracles.slow_boosting import slow_project_l1


def test_the_three_terms():
    """O11."""
    found = generalization_bound(examples=10_000, channels=64, norms=[0.5] * 4, theta=0.5)
    terms = (found.complexity, found.depth, found.confidence)
    assert terms == pytest.approx((0.498421, 0.047096, 0.129692), abs=5e-7)
    assert found.total == pytest.approx(0.675209, abs=1e-6)
    assert not found.vacuous


def test_at_sizes_of_practice_it_is_vacuous():
    """Section 2 of the page: the complexity doubles with every block, to 4.69e6 at 25."""
    found = generalization_bound(examples=50_000, channels=1024, norms=[1.0] * 25, theta=0.5)
    assert found.complexity == pytest.approx(4.69e6, rel=1e-3)
    assert found.vacuous


def test_a_share_of_margins_is_added():
    with_share = generalization_bound(
        examples=10_000, channels=64, norms=[0.5] * 4, theta=0.5, margin_share=0.4
    )
    assert with_share.total == pytest.approx(0.4 + 0.675209, abs=1e-6)
    assert with_share.vacuous


def test_what_scales_the_complexity():
    """It is linear in the norms of head, input and first module."""
    sizes = dict(examples=1000, channels=8, theta=0.8)
    one = generalization_bound(norms=[1, 0.5], **sizes)
    assert generalization_bound(norms=[2, 0.5], **sizes).complexity == pytest.approx(
        2 * one.complexity
    )
    scaled = generalization_bound(norms=[1, 0.5], head_norm=3, input_norm=5, **sizes)
    assert scaled.complexity == pytest.approx(15 * one.complexity)


def test_margin_identity():
    """O11: exp(theta alpha) sqrt(1 - gt^2) = 0.760155."""
    assert margin_factor(0.855, 0.3) == pytest.approx(0.760155, abs=5e-7)
    for edge in (0.0, 0.2, 0.855, 0.99):
        for theta in (-1, -0.2, 0, 0.3, 1):
            expected = exp(theta * closed_alpha(edge)) * sqrt(1 - edge**2)
            assert margin_factor(edge, theta) == pytest.approx(expected, rel=1e-13)
    # Another way to print it.
    assert margin_factor(0.855, 0.3) == pytest.approx(
        sqrt(1 - 0.855**2) * (1 + 2 / (1 / 0.855 - 1)) ** 0.15
    )


@pytest.mark.parametrize("radius", [0.01, 0.5, 1.0, 3.0])
def test_projection_is_that_of_bisection(radius, rng):
    weight = torch.randn(20, 7, generator=rng, dtype=float64)
    weight[3] = weight[3].sign()  # ties
    weight[4] = 0
    expected = [slow_project_l1(row, radius) for row in weight.tolist()]
    inside = weight.abs().sum(1) <= radius
    before = weight.clone()
    found = project_l1_(weight, radius)
    assert found is weight
    assert_close(weight, tensor(expected, dtype=float64), rtol=0, atol=1e-14)
    assert torch.equal(weight[inside], before[inside])


def test_projection_is_the_nearest_point(rng):
    """No point of the ball lies on the far side: <w - p, q - p> <= 0 for every q inside."""
    weight = torch.randn(1, 5, generator=rng, dtype=float64) * 3
    nearest = project_l1_(weight.clone(), 1.0)
    inside = torch.randn(2000, 5, generator=rng, dtype=float64)
    inside = inside / inside.abs().sum(1, keepdim=True)
    assert ((inside - nearest) @ (weight - nearest).T).max() <= 1e-12


class Layers(nn.Module):
    """One layer of each kind that has units."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.convolution = nn.Conv2d(4, 6, 3, groups=2)
        self.transposed = nn.ConvTranspose1d(4, 6, 3, groups=2)
        self.attention = nn.MultiheadAttention(4, 2)
        self.other = nn.MultiheadAttention(4, 2, kdim=3, vdim=5)
        self.norm = nn.BatchNorm2d(6)


def layers(seed=0):
    torch.manual_seed(seed)
    return Layers().double()


def test_every_unit_is_held():
    """Rows of linear and attention layers, filters of convolutions; nothing else moves."""
    model, radius = layers(), 0.7
    before = {name: value.clone() for name, value in model.state_dict().items()}
    project_model_l1_(model, radius)
    norms = l1_norms(model)
    assert set(norms) == {name for name, p in model.named_parameters() if p.ndim > 1}
    assert all(norm <= radius * (1 + 1e-12) for norm in norms.values())
    after = model.state_dict()
    assert_close(
        after["convolution.weight"].abs().sum((1, 2, 3)), torch.full((6,), radius).double()
    )
    for name in after.keys() - norms.keys():
        assert torch.equal(after[name], before[name])
    twice = {name: value.clone() for name, value in after.items()}
    project_model_l1_(model, radius * (1 + 1e-9))
    assert all(torch.equal(value, twice[name]) for name, value in model.state_dict().items())


def test_units_of_a_transposed_convolution():
    """An output channel hears the inputs of its group: one impulse response per input."""
    model = layers()
    weight = model.transposed.weight  # (in 4, out 3 per group, kernel 3)
    expected = max(
        sum(abs(weight[2 * group + i, unit, k].item()) for i in range(2) for k in range(3))
        for group in range(2)
        for unit in range(3)
    )
    assert l1_norms(model)["transposed.weight"] == pytest.approx(expected)


def test_a_unit_inside_of_the_ball_is_bounded(rng):
    """What the constraint is for: outputs stay below radius times the largest input."""
    model = nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))
    project_model_l1_(model, 0.5)
    x = torch.rand(100, 5, generator=rng) * 2 - 1
    assert model(x).abs().max() <= 0.25 * (1 + 1e-6)


def test_frozen_weights_stay():
    model = nn.Linear(4, 2).requires_grad_(False)
    before = model.weight.clone()
    project_model_l1_(model, 0.01)
    assert torch.equal(model.weight, before)


@pytest.mark.untyped
def test_bad_arguments():
    good = dict(examples=100, channels=4, norms=[1, 1], theta=0.5)
    for change, words in (
        ({"norms": [1]}, "two modules or more"),
        ({"theta": 0.0}, r"theta must lie in \(0, 1\]"),
        ({"delta": 1.0}, "delta in"),
        ({"margin_share": 2.0}, "margin_share in"),
        ({"examples": 0}, "must be positive"),
        ({"norms": [1, -1]}, "no norm negative"),
        ({"examples": 2}, r"above ln T; got 0\.5 and 0\.69.*larger theta"),
    ):
        with pytest.raises(ValueError, match=words):
            generalization_bound(**good | change)
    with pytest.raises(ValueError, match="edge must lie in"):
        margin_factor(1.5, 0.0)
    with pytest.raises(ValueError, match="radius must be positive; got 0"):
        project_l1_(torch.ones(2, 2), 0)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    with pytest.raises(UnsupportedModelError, match="weight is computed from others"):
        project_model_l1_(normed, 1.0)
