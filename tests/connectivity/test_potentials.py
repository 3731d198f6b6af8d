"""``relax`` on surfaces with known saddles: section 7.1 and 7.2 to the printed digits."""

from math import pi, sqrt

import pytest
import torch
from torch import float64, full, linspace, randn
from torch.testing import assert_close

from lowland.connectivity import (
    from_potential,
    insert_equal,
    points_between,
    redistribute,
    relax,
    segment_lengths,
)
from lowland.errors import NoEffectWarning
from lowland.problems import (
    curvy_valley,
    double_wells,
    eggcarton,
    leps_harmonic,
    mueller_brown,
    six_hump_camel,
)
from oracles.slow_neb import mueller_brown_by_hand, slow_neb
from oracles.test_slow_neb import TABLE


def line(potential, start, end, interior):
    """A straight line between two minima, and equal weights."""
    ends = potential.minima[[start, end]]
    return insert_equal(ends, torch.ones(1, dtype=float64), interior)


def noisy(path, size, seed=0):
    """The same with noise on the interior pivots."""
    generator = torch.Generator().manual_seed(seed)
    path = path.clone()
    path[1:-1] += size * randn(path[1:-1].shape, dtype=float64, generator=generator)
    return path


def relaxed(potential, path, weights, steps, learning_rate, **settings):
    settings = {"momentum": 0.0} | settings
    return relax(
        path,
        weights,
        from_potential(potential.value),
        steps=steps,
        learning_rate=learning_rate,
        **settings,
    )


def dense_max(potential, path, per_segment=100):
    return potential.value(points_between(path, per_segment - 1)).max().item()


def check_row(interior, tangent, dense, pivot, length, steps, force):
    potential = mueller_brown()
    exact = potential.minimax[0, 1].item()
    path, weights = line(potential, 0, 1, interior)
    band = relaxed(potential, path, weights, steps, 1e-4, tangent=tangent)
    assert dense_max(potential, band.path) - exact == pytest.approx(dense, abs=5.1e-5)
    assert band.force.max() < force
    if pivot is not None:
        assert band.losses.max().item() - exact == pytest.approx(pivot, abs=5.1e-5)
        assert segment_lengths(band.path).sum().item() == pytest.approx(length, abs=5.1e-4)


@pytest.mark.parametrize("row", [TABLE[0], TABLE[2], TABLE[4], TABLE[7]], ids=str)
def test_mueller_brown_at_rest(row):
    """The band rests after 1,000 steps; with 61 pivots its top is within 1e-3 of the saddle."""
    check_row(*row, steps=1000, force=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE, ids=str)
def test_mueller_brown_table(row):
    check_row(*row, steps=6000, force=5e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"tangent": "paper"},
        {"tangent": "improved"},
        {"tangent": "official"},
        {"tangent": "paper", "momentum": 0.9},
        {"tangent": "improved", "momentum": 0.5, "weight_decay": 3.0},
        {"tangent": "improved", "spring_constant": 100.0},
        {"tangent": "paper", "spring_constant": 1000.0, "momentum": 0.9},
    ],
    ids=str,
)
def test_equals_the_slow_band_step_by_step(settings):
    """Forty steps of lists of numbers, with unequal weights, agree to 1e-10 after each step."""
    path, _ = line(mueller_brown(), 0, 1, 7)
    weights = torch.tensor([1, 2, 1, 1, 3, 1, 1, 2], dtype=float64) / 12
    after = slow_neb(
        path.tolist(),
        weights.tolist(),
        mueller_brown_by_hand,
        steps=40,
        learning_rate=5e-5,
        **settings,
    )
    for steps in (1, 2, 3, 5, 8, 13, 21, 40):
        band = relaxed(mueller_brown(), path, weights, steps, 5e-5, **settings)
        expected = torch.tensor(after[steps - 1], dtype=float64)
        assert_close(band.path, expected, rtol=0, atol=1e-10)


def test_the_string_method_equals_the_slow_one():
    path, weights = line(mueller_brown(), 0, 1, 7)
    after = slow_neb(
        path.tolist(),
        weights.tolist(),
        mueller_brown_by_hand,
        steps=20,
        learning_rate=5e-5,
        project=False,
    )
    band = relaxed(mueller_brown(), path, weights, 20, 5e-5, project_gradient=False)
    assert_close(band.path, torch.tensor(after[-1], dtype=float64), rtol=0, atol=1e-10)


def test_the_official_tangent_does_not_come_to_rest():
    """With five pivots the published weights leave a force of 66 where the others reach 1e-12."""
    path, weights = line(mueller_brown(), 0, 1, 5)
    band = relaxed(mueller_brown(), path, weights, 1000, 1e-4, tangent="official")
    assert band.force.max().item() == pytest.approx(66.4, abs=0.1)


def test_springs_hold_the_pivots_apart():
    """With k = 100 the band comes to rest with equal lengths, without redistribution."""
    path, weights = line(mueller_brown(), 0, 1, 9)
    settings = {"momentum": 0.9, "tangent": "improved", "spring_constant": 100.0}
    band = relaxed(mueller_brown(), path, weights, 2000, 1e-4, **settings)
    lengths = segment_lengths(band.path)
    assert band.force.max() < 1e-5
    assert_close(lengths, lengths.mean().expand(10), rtol=1e-6, atol=0)


@pytest.mark.parametrize("interior", [5, 9, 15])
def test_the_diagonal_of_the_wells_is_a_trap(interior):
    """An exact diagonal stays at 2 for ever; a little noise gives 1 and the length sqrt 2."""
    wells = double_wells(2)
    path, weights = line(wells, 0, 3, interior)
    with pytest.warns(NoEffectWarning, match="symmetric"):
        stuck = relaxed(wells, path, weights, 100, 0.02)
    assert stuck.trapped
    assert dense_max(wells, stuck.path) == pytest.approx(2, abs=1e-12)
    free = relaxed(wells, noisy(path, 0.01), weights, 1000, 0.02)
    assert not free.trapped
    assert dense_max(wells, free.path) == pytest.approx(1, abs=5e-8)
    ratio = segment_lengths(free.path).sum() / segment_lengths(path).sum()
    assert ratio.item() == pytest.approx(sqrt(2), abs=5e-6)


def test_more_wells():
    """The diagonal of the cube costs 3; the relaxed path turns one coordinate after another."""
    wells = double_wells(3)
    path, weights = line(wells, 0, 7, 15)
    assert dense_max(wells, path) == pytest.approx(3, abs=1e-12)
    free = relaxed(wells, noisy(path, 0.05), weights, 1500, 0.02)
    assert dense_max(wells, free.path) == pytest.approx(1, abs=1e-3)


def test_six_hump_camel():
    """The saddle is the origin, value 0; the barrier 1.0316284535."""
    camel = six_hump_camel()
    path, weights = line(camel, 0, 1, 15)
    band = relaxed(camel, noisy(path, 0.01), weights, 500, 0.01)
    assert dense_max(camel, band.path) == pytest.approx(0, abs=1e-12)
    barrier = dense_max(camel, band.path) - camel.value(path[0]).item()
    assert barrier == pytest.approx(1.0316284535, abs=5.1e-11)


def test_curvy_valley():
    """The line reaches 2.976668; the band finds the pass of height 1."""
    valley = curvy_valley()
    path, weights = line(valley, 0, 1, 15)
    assert dense_max(valley, path, 20000) == pytest.approx(2.976668, abs=5.1e-7)
    band = relaxed(valley, path, weights, 1000, 0.05)
    assert dense_max(valley, band.path) == pytest.approx(1, abs=1e-6)
    ratio = segment_lengths(band.path).sum() / segment_lengths(path).sum()
    assert 1 < ratio < 1.206268


def test_eggcarton():
    """Neighbors are joined over 0 exactly; the diagonal over the top, 2, is a trap."""
    egg = eggcarton()
    path, weights = line(egg, 0, 1, 9)
    assert dense_max(egg, path) + 2 == pytest.approx(2, abs=1e-12)
    path, weights = line(egg, 0, 3, 9)
    with pytest.warns(NoEffectWarning, match="symmetric"):
        stuck = relaxed(egg, path, weights, 50, 0.002)
    assert dense_max(egg, stuck.path) == pytest.approx(2, abs=1e-12)
    free = relaxed(egg, noisy(path, 0.01), weights, 1000, 0.002)
    assert dense_max(egg, free.path) == pytest.approx(0, abs=1e-8)


def test_leps():
    """All stationary points lie on one line, so that the line is a best path already."""
    leps = leps_harmonic()
    path, weights = line(leps, 0, 1, 15)
    assert dense_max(leps, path, 20000) == pytest.approx(-0.875225, abs=5.1e-7)
    band = relaxed(leps, path, weights, 1000, 0.005)
    assert -0.875226 < dense_max(leps, band.path) < -0.875


@pytest.mark.parametrize("tangent", ["paper", "improved"])
def test_a_reversed_start_gives_the_reversed_path(tangent):
    path, _ = line(mueller_brown(), 0, 1, 7)
    weights = torch.tensor([1, 2, 1, 1, 3, 1, 1, 2], dtype=float64) / 12
    there = relaxed(mueller_brown(), path, weights, 200, 1e-4, tangent=tangent)
    back = relaxed(mueller_brown(), path.flip(0), weights.flip(0), 200, 1e-4, tangent=tangent)
    assert_close(back.path.flip(0), there.path, rtol=0, atol=1e-9)


@pytest.mark.parametrize("tangent", ["paper", "improved"])
def test_units_of_the_loss_do_not_matter(tangent):
    """A constant added changes nothing; nor does a loss times 8 at a learning rate over 8."""
    path, weights = line(mueller_brown(), 0, 1, 7)
    value = mueller_brown().value
    settings = {"steps": 50, "momentum": 0.9, "tangent": tangent}
    plain = relax(path, weights, from_potential(value), learning_rate=1e-4, **settings)
    raised = from_potential(lambda points: value(points) + 1000)
    scaled = from_potential(lambda points: 8 * value(points))
    same = relax(path, weights, raised, learning_rate=1e-4, **settings)
    assert_close(same.path, plain.path, rtol=0, atol=1e-9)
    assert_close(same.losses, plain.losses + 1000, rtol=1e-12, atol=0)
    same = relax(path, weights, scaled, learning_rate=1e-4 / 8, **settings)
    assert torch.equal(same.path, plain.path)  # a power of two: not even rounding differs


def test_ends_stay_bit_for_bit_and_the_start_is_left_alone():
    path, weights = line(mueller_brown(), 0, 1, 7)
    before = path.clone()
    band = relaxed(mueller_brown(), path, weights, 50, 1e-4, momentum=0.9, weight_decay=0.1)
    assert torch.equal(path, before)
    assert torch.equal(band.path[[0, -1]], before[[0, -1]])


@pytest.mark.parametrize("seed", range(5))
def test_no_path_is_lower_than_the_minimax_value(seed):
    """Whatever the path, its dense maximum is above; that over its pivots need not be."""
    potential = mueller_brown()
    path, weights = line(potential, 0, 1, 9)
    exact = potential.minimax[0, 1].item()
    path = noisy(path, 0.3, seed)
    assert dense_max(potential, path) >= exact
    band = relaxed(potential, path, weights, 300, 1e-4)
    assert dense_max(potential, band.path, 1000) >= exact - 1e-6
    assert potential.value(redistribute(band.path, full((4,), 0.25))).max() < exact


def test_line_goes_evenly():
    """What the other tests start from: evenly spaced pivots, equal weights."""
    path, weights = line(curvy_valley(), 0, 1, 3)
    assert_close(path[:, 0], linspace(-5 * pi / 2, 5 * pi / 2, 5, dtype=float64))
    assert_close(weights, full((4,), 0.25, dtype=float64))
