"""Section 7.3: linear networks, whose best paths are known, as functions and as modules."""

import warnings
from math import cos, pi, sin

import pytest
import torch
from torch import float64, randn
from torch.autograd.functional import hessian
from torch.testing import assert_close

from lowland.connectivity import (
    Cycle,
    Schedule,
    find_path,
    from_potential,
    insert_equal,
    linear_path,
    points_between,
    relax,
    segment_lengths,
)
from lowland.errors import NoEffectWarning
from lowland.problems import linear_loss, rescaled_pair, sign_flipped_pair

SCHEDULE = Schedule((Cycle(300, 0.05, insert="equal", count=15),), weight_decay=0.0)


def line(pair, interior):
    return insert_equal(pair.vectors(), torch.ones(1, dtype=float64), interior)


def relaxed(path, weights, steps=1000):
    loss_and_grad = from_potential(linear_loss)
    return relax(path, weights, loss_and_grad, steps=steps, learning_rate=0.05, momentum=0.0)


def noisy(path, size, columns=slice(None)):
    generator = torch.Generator().manual_seed(1)
    path = path.clone()
    path[1:-1, columns] += size * randn(len(path) - 2, 1, dtype=float64, generator=generator)
    return path


def dense_max(path):
    return linear_loss(points_between(path, 99)).max().item()


@pytest.mark.parametrize("interior", [3, 15])
def test_one_unit_must_cross_one(interior):
    """From (1, 1) to (-1, -1) the product must vanish somewhere: no path is below 1."""
    path, weights = line(sign_flipped_pair(), interior)
    band = relaxed(noisy(path, 0.3, [0]), weights, 300)
    assert dense_max(band.path) == pytest.approx(1, abs=1e-12)


def test_one_unit_can_be_rescaled():
    """From (1/2, 2) to (2, 1/2): the line reaches 0.31640625, the hyperbola stays at 0."""
    path, weights = line(rescaled_pair(), 15)
    assert dense_max(path) == pytest.approx(0.31640625, abs=1e-15)
    band = relaxed(path, weights)
    assert band.losses.max() < 1e-29
    assert dense_max(band.path) < 1e-5


def test_the_rescaling_direction_is_flat():
    """The Hessian at (1, 1) has eigenvalues 0 and 4; the 0 belongs to the direction (1, -1)."""
    at_one = hessian(linear_loss, torch.ones(2, dtype=float64))
    assert_close(torch.linalg.eigvalsh(at_one), torch.tensor([0.0, 4], dtype=float64))
    assert_close(at_one @ torch.tensor([1.0, -1], dtype=float64), torch.zeros(2, dtype=float64))


def test_two_units_start_in_a_trap():
    """The line through the origin stays a line, with saddle 1."""
    path, weights = line(sign_flipped_pair(2), 15)
    with pytest.warns(NoEffectWarning, match="symmetric"):
        band = relaxed(path, weights, 100)
    assert band.trapped
    assert dense_max(band.path) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("interior", [3, 7, 15])
def test_two_units_walk_a_half_circle(interior):
    r"""With the same noise in :math:`u_2` and :math:`v_2` the pivots end on the unit circle.

    Its chords are lowest in their middle, at radius :math:`\cos(\pi / 2(N+1))`.
    """
    path, weights = line(sign_flipped_pair(2), interior)
    band = relaxed(noisy(path, 0.1, [1, 3]), weights)
    assert linear_loss(band.path).max() < 1e-29
    angle = pi / (2 * (interior + 1))
    assert dense_max(band.path) == pytest.approx((cos(angle) ** 2 - 1) ** 2, rel=1e-9)
    assert dense_max(band.path) == pytest.approx(sin(angle) ** 4, rel=1e-9)
    ratio = segment_lengths(band.path).sum() / segment_lengths(path).sum()
    assert ratio.item() == pytest.approx((interior + 1) * sin(angle), rel=1e-9)
    if interior == 15:
        assert dense_max(band.path) == pytest.approx(9.2301e-5, abs=5.1e-10)
        assert ratio.item() == pytest.approx(1.5683, abs=5.1e-5)


@pytest.mark.parametrize("pair", [sign_flipped_pair(1), sign_flipped_pair(2), rescaled_pair()])
def test_the_network_is_the_function(pair):
    """``linear_path`` on the module gives the loss of the plain function, to the bit nearly."""
    result = linear_path(
        pair.model, pair.loss_fn, pair.batches, pair.start, pair.end, samples=99, backend="loop"
    )
    points = points_between(pair.vectors(), 99)
    assert_close(result.profile.train_loss, linear_loss(points), rtol=0, atol=1e-15)
    assert result.saddle == pytest.approx(pair.line_max, abs=1e-15)
    assert result.barrier_max == pytest.approx(pair.line_max, abs=1e-15)


@pytest.mark.parametrize(("backend", "interior"), [("loop", 5), ("vmap", 15)])
def test_find_path_leaves_the_trap(backend, interior):
    """``find_path`` notices the symmetric start, adds noise, and finds the half circle."""
    pair = sign_flipped_pair(2)
    schedule = Schedule((Cycle(300, 0.05, "equal", interior),), weight_decay=0.0)
    result = find_path(
        pair.model,
        pair.loss_fn,
        pair.batches,
        pair.start,
        pair.end,
        schedule=schedule,
        backend=backend,
    )
    angle = pi / (2 * (interior + 1))
    assert result.cycles[1].perturbed
    assert pair.minimax <= result.saddle < 1.1 * sin(angle) ** 4
    assert result.length_ratio == pytest.approx((interior + 1) * sin(angle), rel=5e-3)


def test_find_path_does_not_go_below_the_minimax_value():
    """One unit: whatever it tries, the saddle is 1, and it says that the line was no worse."""
    pair = sign_flipped_pair(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoEffectWarning)
        result = find_path(
            pair.model,
            pair.loss_fn,
            pair.batches,
            pair.start,
            pair.end,
            schedule=SCHEDULE,
            backend="vmap",
        )
    assert result.saddle == pytest.approx(1, abs=1e-6)
    assert result.barrier_max == pytest.approx(pair.minimax, abs=1e-6)


def test_find_path_follows_the_hyperbola():
    pair = rescaled_pair()
    result = find_path(
        pair.model,
        pair.loss_fn,
        pair.batches,
        pair.start,
        pair.end,
        schedule=SCHEDULE,
        backend="vmap",
    )
    assert pair.minimax <= result.saddle < 1e-5
