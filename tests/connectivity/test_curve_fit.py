"""``fit_curve`` on networks whose best curves are known, and its losses by loops over states."""

import warnings
from copy import deepcopy
from math import pi, sin

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import float64
from torch.testing import assert_close

from lowland.connectivity import Path, PathResult, curve_weights, fit_curve, linear_path
from lowland.errors import NoEffectWarning
from lowland.problems import linear_loss, rescaled_pair, sign_flipped_pair
from lowland.results import Status
from lowland.training import recalibrate
from oracles.slow_profile import state_dicts_along
from small_networks import Tied, class_batches, losses, norm_mlp, two

KINDS = pytest.mark.parametrize("kind", ["bezier", "polychain"])
NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)


def fit(pair, **options):
    options = {"weight_decay": 0.0, "learning_rate": 0.03, "backend": "vmap"} | options
    return fit_curve(pair.model, pair.loss_fn, pair.batches, pair.start, pair.end, **options)


def quadrature(pieces):
    """Points and weights of the mean over t, exact for polynomials on each piece."""
    t = np.concatenate([(k + (NODES + 1) / 2) / pieces for k in range(pieces)])
    return torch.from_numpy(t), torch.from_numpy(np.tile(WEIGHTS / 2 / pieces, pieces))


def mean_loss(kind, control):
    t, weights = quadrature(len(control) - 1)
    return weights @ linear_loss(curve_weights(kind, t, len(control)) @ control)


@pytest.mark.parametrize("bends", [1, 3])
def test_a_chain_leaves_the_trap_and_finds_the_half_circle(bends):
    r"""Width 2: at least as low in the mean as the chain inscribed in the circle without loss.

    On its chords :math:`|u|^2 = 1 - 4 s (1 - s) \sin^2 a`, with :math:`a = \pi / 2(N + 1)`, so that
    the mean loss is :math:`\tfrac{8}{15} \sin^4 a`. The straight line feels no force aside.
    """
    result = fit(sign_flipped_pair(2), kind="polychain", bends=bends)
    assert result.status is Status.FINISHED
    assert result.cycles[1].perturbed
    inscribed = 8 / 15 * sin(pi / (2 * (bends + 1))) ** 4
    assert mean_loss("polychain", result.path.pivots) < inscribed
    assert result.saddle < 0.3 if bends == 1 else 0.03
    assert result.length_ratio == pytest.approx(pi / 2, rel=0.03)


def test_a_bezier_curve_finds_it_as_well():
    """Three bends come as near to a half circle as 2e-4 of the hill on the line, 1."""
    result = fit(sign_flipped_pair(2), bends=3, learning_rate=0.1)
    assert 0 <= result.saddle < 5e-4
    assert result.length_ratio == pytest.approx(pi / 2, rel=5e-3)


@KINDS
def test_one_bend_is_where_the_mean_loss_is_least(kind, tmp_path):
    """Width 1, (1/2, 2) to (2, 1/2): SciPy on the exact mean over t finds the same bend."""
    pair = rescaled_pair()
    fit(pair, kind=kind, steps=1000, learning_rate=0.05, out=tmp_path)
    control = Path.load(tmp_path / "control.safetensors").pivots
    assert torch.equal(control[[0, 2]], pair.vectors())
    shares, weights = quadrature(2)
    shares = curve_weights(kind, shares, 3).numpy()

    def mean(bend):
        points = shares @ np.stack([control[0], bend, control[2]])
        return weights.numpy() @ (points.prod(1) - 1) ** 2

    best = minimize(mean, [1.25, 1.25], tol=1e-14)
    assert mean(control[1].numpy()) == pytest.approx(best.fun, rel=0.06)
    assert_close(control[1], torch.from_numpy(best.x), rtol=0, atol=0.03)


def test_no_curve_is_below_the_minimax_value():
    """Width 1, changed signs: the product must cross 0, where the loss is 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoEffectWarning)
        result = fit(sign_flipped_pair(1), steps=200, points=1001)
    assert result.saddle == pytest.approx(1, abs=1e-4)


@KINDS
def test_no_steps_are_the_straight_line(kind):
    """Its pivots and its losses, and a warning that nothing is lower."""
    model, end = two(norm_mlp, float64)
    batches = class_batches(4, dtype=float64)
    with pytest.warns(NoEffectWarning, match="not lower than the straight line"):
        curve = fit_curve(
            model, losses, batches, model, end, kind=kind, steps=0, backend="loop",
            test_batches=batches[:1],
        )  # fmt: skip
    line = linear_path(
        model, losses, batches, model, end, samples=59, backend="loop", test_batches=batches[:1]
    )
    assert len(curve.profile.t) == 61
    for name in ("t", "train_loss", "train_error", "test_loss", "test_error"):
        assert_close(getattr(curve.profile, name), getattr(line.profile, name), rtol=0, atol=1e-12)
    assert torch.equal(curve.path.pivots[[0, -1]], line.path.pivots)
    assert curve.length_ratio == pytest.approx(1, abs=1e-12)


@KINDS
@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_the_profile_is_that_of_a_loop(kind, backend):
    """State dict by state dict, statistics recomputed at each, one example after the other."""
    model, end = two(norm_mlp, float64, class_batches(4, dtype=float64))
    batches = class_batches(4, dtype=float64)
    before = [deepcopy(net.state_dict()) for net in (model, end)]
    result = fit_curve(
        model, losses, batches, model, end, kind=kind, steps=30, points=13, backend=backend
    )
    own, found = deepcopy(model).eval(), []
    for state in state_dicts_along(result.path, 0 if kind == "bezier" else 5):
        own.load_state_dict(state, strict=False)
        recalibrate(own, batches)
        with torch.no_grad():
            each = torch.cat([losses(own(inputs), target) for inputs, target in batches])
        found.append(each.mean())
    assert_close(result.profile.train_loss, torch.stack(found), rtol=0, atol=1e-12)
    for net, state, t in zip((model, end), before, (0, 1), strict=True):
        for name, value in result.state_dict(t).items():
            assert torch.equal(value, state[name])
            assert torch.equal(net.state_dict()[name], state[name])


@KINDS
def test_a_curve_is_lower_than_the_line(kind):
    """Two trained networks; tied and frozen weights, and a scalar, come along."""
    batches = class_batches(4)
    model, end = two(Tied, batches=batches)
    result = fit_curve(model, losses, batches, model, end, kind=kind, steps=300, backend="loop")
    straight, fitted = result.cycles
    assert fitted.profile.saddle() < straight.profile.saddle()
    assert (result.best_cycle, fitted.steps, fitted.learning_rate) == (1, 300, 0.1)
    assert result.length_ratio == pytest.approx(result.path.length() / result.distance)
    model.load_state_dict(result.state_dict(0.5))
    assert model.again.weight is model.inner.weight


@pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")
def test_the_smaller_batch_at_the_end_is_left_out():
    """It would weigh its examples more; two passes with and without it give the same bends."""
    model, end = two(norm_mlp, float64)
    batches = class_batches(4, sizes=(8, 8, 3), dtype=float64)
    results = [
        fit_curve(model, losses, data, model, end, steps=7, evaluation_batches=batches,
                  calibration=8, backend="loop")
        for data in (batches, batches[:2])
    ]  # fmt: skip
    assert torch.equal(results[0].path.pivots, results[1].path.pivots)


def test_equal_ends():
    """A point, no barrier, no step done, nothing divided by zero."""
    model, _ = two(norm_mlp)
    result = fit_curve(model, losses, class_batches(4), model, model, backend="loop")
    assert result.status is Status.FINISHED
    assert result.message == "the ends are equal, so the path is a point."
    assert (result.distance, result.length_ratio, len(result.cycles)) == (0.0, 1.0, 1)
    assert result.barrier_max == pytest.approx(0, abs=1e-6)
    assert isinstance(result, PathResult)
