"""Curves by control points: Bernstein and hat functions, and gradients equal to autograd's."""

import numpy as np
import pytest
import torch
from torch import float64
from torch.testing import assert_close

from lowland.connectivity import curve_weights, points_between
from lowland.connectivity.bends import as_polyline, straight_control
from lowland.connectivity.fit import Descent, Fit, bend_gradients, fit_step
from lowland.params import call_at, trainable
from lowland.problems import linear_loss
from small_networks import class_batches, losses, mlp, seeded

KINDS = pytest.mark.parametrize("kind", ["bezier", "polychain"])
T = torch.linspace(0, 1, 31, dtype=float64)
DESCENT = {"bends": 2, "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0}


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=float64, generator=torch.Generator().manual_seed(seed))


@KINDS
@pytest.mark.parametrize("num_control", [2, 3, 5, 9])
def test_weights_are_shares(kind, num_control):
    """Not negative, sum 1; the ends belong to the first and the last alone; the order mirrors."""
    weights = curve_weights(kind, T, num_control)
    assert weights.min() >= 0
    assert_close(weights.sum(1), torch.ones_like(T), rtol=0, atol=1e-14)
    ends = torch.eye(num_control, dtype=float64)[[0, -1]]
    assert torch.equal(weights[[0, -1]], ends)
    mirrored = curve_weights(kind, 1 - T, num_control).flip(1)
    assert_close(weights, mirrored, rtol=0, atol=1e-14)
    positions = torch.arange(num_control, dtype=float64) / (num_control - 1)
    assert_close(weights @ positions, T, rtol=0, atol=1e-14)  # both reproduce a straight line


def test_a_chain_is_linear_interpolation():
    """As NumPy does it, in every coordinate."""
    control = draw(5, 3)
    found = curve_weights("polychain", T, 5) @ control
    for column, heights in zip(found.T, control.T, strict=True):
        assert_close(column.numpy(), np.interp(T, np.linspace(0, 1, 5), heights))


def test_a_bezier_curve_is_de_casteljau():
    """Repeated halving of the control polygon, one t at a time."""
    control = draw(5, 3)
    found = curve_weights("bezier", T, 5) @ control
    for t, point in zip(T, found, strict=True):
        rows = control
        while len(rows) > 1:
            rows = torch.lerp(rows[:-1], rows[1:], t)
        assert_close(point, rows[0], rtol=0, atol=1e-14)


def test_garipov_with_one_bend():
    """Eq. 4 and 5 of the paper, written out."""
    a, bend, b = draw(3, 4)
    t = T.unsqueeze(1)
    bezier = (1 - t) ** 2 * a + 2 * t * (1 - t) * bend + t**2 * b
    chain = torch.where(
        t <= 0.5, 2 * (t * bend + (0.5 - t) * a), 2 * ((t - 0.5) * b + (1 - t) * bend)
    )
    for kind, expected in (("bezier", bezier), ("polychain", chain)):
        found = curve_weights(kind, T, 3) @ torch.stack([a, bend, b])
        assert_close(found, expected, rtol=0, atol=1e-14)


@KINDS
def test_gradients_are_those_of_autograd(kind):
    """Of the loss at the interpolated weights plus weight decay on them, through the network."""
    model = seeded(mlp, 1).double()
    layout = trainable(model)
    control, (inputs, target) = draw(4, layout.size, seed=3), class_batches(4, dtype=float64)[0]

    def loss_at(point):
        return losses(call_at(model, layout.views(point), inputs), target).mean()

    def loss_and_grad(point):
        leaf = point.clone().requires_grad_()
        value = loss_at(leaf)
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    for shares in curve_weights(kind, torch.tensor([0.0, 0.1, 0.5, 0.9, 1], dtype=float64), 4):
        leaf = control.clone().requires_grad_()
        point = (shares.unsqueeze(1) * leaf).sum(0)
        plain = loss_at(point)
        (expected,) = torch.autograd.grad(plain + 0.3 / 2 * point.square().sum(), leaf)
        loss, grads = bend_gradients(control, shares, loss_and_grad, weight_decay=0.3)
        assert_close(loss, plain.detach(), rtol=0, atol=1e-12)
        assert_close(grads, expected[1:-1], rtol=0, atol=1e-12)


def potential(shift=0.0, scale=1.0):
    """A function of four coordinates with its gradient."""

    def loss_and_grad(point):
        leaf = point.clone().requires_grad_()
        value = scale * linear_loss(leaf) + shift
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    return loss_and_grad


def fitted(control, t, loss_and_grad, kind="bezier", **changes):
    descent = Descent(kind, steps=len(t), **DESCENT | changes)
    fit = Fit.begin(control)
    for shares in curve_weights(kind, t, len(control)):
        fit_step(fit, shares, loss_and_grad, descent)
    return fit


@KINDS
def test_a_step_is_that_of_sgd(kind):
    """``torch.optim.SGD`` on the composite function, with the same points and rates."""
    control, t = draw(4, 4), torch.rand(40, dtype=float64, generator=torch.Generator())
    inner = control[1:-1].clone().requires_grad_()
    optimizer = torch.optim.SGD([inner], lr=0.05, momentum=0.9)
    descent = Descent(kind, steps=40, **DESCENT | {"weight_decay": 0.1})
    for step, shares in enumerate(curve_weights(kind, t, 4)):
        optimizer.param_groups[0]["lr"] = descent.rate(step)
        point = shares @ torch.cat([control[:1], inner, control[-1:]])
        optimizer.zero_grad()
        (linear_loss(point) + 0.1 / 2 * point.square().sum()).backward()
        optimizer.step()
    found = fitted(control, t, potential(), kind, weight_decay=0.1)
    assert_close(found.control[1:-1], inner.detach(), rtol=0, atol=1e-12)
    assert torch.equal(found.control[[0, -1]], control[[0, -1]])


@KINDS
def test_walked_the_other_way(kind):
    """The same points, seen from the other end, give the mirrored bends."""
    control, t = draw(4, 4), torch.rand(40, dtype=float64, generator=torch.Generator())
    there = fitted(control, t, potential(), kind)
    back = fitted(control.flip(0), 1 - t, potential(), kind)
    assert_close(back.control.flip(0), there.control, rtol=0, atol=1e-12)


def test_constants_and_units_of_the_loss():
    """Adding a constant changes nothing; nor does another unit, if the rate has its inverse."""
    control, t = draw(4, 4), torch.rand(40, dtype=float64, generator=torch.Generator())
    plain = fitted(control, t, potential())
    shifted = fitted(control, t, potential(shift=7.0))
    scaled = fitted(control, t, potential(scale=4.0), learning_rate=0.05 / 4)
    assert torch.equal(shifted.control, plain.control)
    assert_close(scaled.control, plain.control, rtol=0, atol=1e-12)


def test_the_rate_falls():
    """Whole for half of the steps, a hundredth after nine tenths, a line between."""
    descent = Descent("bezier", steps=100, **DESCENT)
    found = [descent.rate(step) / 0.05 for step in (0, 50, 70, 90, 99)]
    assert found == pytest.approx([1, 1, 0.505, 0.01, 0.01])


@KINDS
@pytest.mark.parametrize("bends", [1, 3])
def test_bends_begin_on_the_line(kind, bends):
    """Evenly; the curve of either kind is then the line, and its polyline as well."""
    a, b = draw(2, 5)
    control = straight_control(a, b, bends)
    assert torch.equal(control[[0, -1]], torch.stack([a, b]))
    line = torch.lerp(a, b, T.unsqueeze(1))
    assert_close(curve_weights(kind, T, bends + 2) @ control, line, rtol=0, atol=1e-14)
    pivots, shares = as_polyline(kind, control)
    t = torch.linspace(0, 1, len(pivots), dtype=float64).unsqueeze(1)
    assert_close(pivots, torch.lerp(a, b, t), rtol=0, atol=1e-14)
    assert_close(shares, torch.full_like(shares, 1 / len(shares)))


def test_polyline_of_a_chain():
    """It is its control points, with the shares of the pieces in its length."""
    control = draw(4, 3)
    pivots, shares = as_polyline("polychain", control)
    assert torch.equal(pivots, control)
    lengths = (control[1:] - control[:-1]).norm(dim=1)
    assert_close(shares, lengths / lengths.sum())


def test_polyline_of_a_bezier_curve():
    """Ends bit for bit; the middle of each piece lies |c0 - 2 c1 + c2| / (4 * 20^2) off a parabola.

    That is 1/400 of the largest distance between parabola and chord, |c0 - 2 c1 + c2| / 4.
    """
    control = draw(3, 6)
    pivots, shares = as_polyline("bezier", control)
    assert len(pivots) == 21
    assert torch.equal(pivots[[0, -1]], control[[0, -1]])
    assert shares.sum().item() == pytest.approx(1)
    middles = points_between(pivots, 1)[1::2]
    t = (torch.arange(20, dtype=float64) + 0.5) / 20
    off = (curve_weights("bezier", t, 3) @ control - middles).norm(dim=1)
    second = (control[0] - 2 * control[1] + control[2]).norm()
    assert_close(off, (second / 1600).expand(20), rtol=1e-9, atol=0)


def test_coinciding_control_points():
    """A curve that stands still at first has positive shares, and nothing is divided by zero."""
    control = torch.stack([torch.zeros(3), torch.zeros(3), torch.ones(3)]).double()
    for kind in ("bezier", "polychain"):
        pivots, shares = as_polyline(kind, control)
        assert shares.min() > 0
        assert shares.sum().item() == pytest.approx(1)
        assert pivots.isfinite().all()
    _, shares = as_polyline("polychain", torch.zeros(3, 2))
    assert shares.tolist() == [0.5, 0.5]


def test_unknown_kinds_and_too_few_points():
    with pytest.raises(ValueError, match="kind must be 'bezier' or 'polychain'; got 'spline'"):
        curve_weights("spline", T, 3)
    with pytest.raises(ValueError, match="at least its two ends; got 1 control points"):
        curve_weights("bezier", T, 1)


def test_bernstein_moments():
    """The mean of every Bernstein polynomial over t is 1 / (n + 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    t = torch.from_numpy((nodes + 1) / 2)
    means = torch.from_numpy(weights / 2) @ curve_weights("bezier", t, 6)
    assert_close(means, torch.full((6,), 1 / 6, dtype=float64))
