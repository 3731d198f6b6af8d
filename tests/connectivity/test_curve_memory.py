"""Memory of a curve in vectors, counted by hand: what is held, and no copies beyond it."""

import pytest
import torch
from torch import nn

from allocated import most_bytes
from lowland.connectivity import fit_curve, linear_path, path, points_between, profile
from lowland.connectivity.path import segment_lengths
from small_networks import losses, seeded

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")

WIDTH = 200
BATCH = [(torch.randn(4, WIDTH), torch.arange(4))]


def wide():
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 10))


def vectors_of(driver, monkeypatch, **options):
    """Most vectors of the network's size, points being evaluated one by one as if it were huge."""
    monkeypatch.setattr(profile, "COORDINATES_AT_ONCE", 1)
    monkeypatch.setattr(path, "DIFFERENCES_AT_ONCE", 1)
    model, other = seeded(wide, 1), seeded(wide, 2)
    size = sum(value.numel() for value in model.parameters())
    options = {"backend": "loop"} | options
    found = most_bytes(lambda: driver(model, losses, BATCH, model, other, **options))
    return found / (4 * size)


@pytest.mark.parametrize(("kind", "held"), [("polychain", 13), ("bezier", 33)])
def test_a_curve(kind, held, monkeypatch):
    """At rest 10: two ends, three control points, three of the last good curve, momentum, a point.

    A gradient, while it is written over by the next, makes 13 of them at a check; and the 21 points
    of a Bezier curve 31, with the two between which a point is evaluated.
    """
    found = vectors_of(fit_curve, monkeypatch, kind=kind, bends=1, steps=3, points=3)
    assert held - 1 < found < held + 0.5


def test_a_straight_line(monkeypatch):
    """Two ends, the line between them, and two of which a point is made."""
    assert vectors_of(linear_path, monkeypatch, samples=3) < 6.5


@pytest.mark.parametrize("at_once", [1, 3 * 41, 2**26])
def test_lengths_in_groups_of_rows(at_once, rng, monkeypatch):
    """By hand, to the bit of all rows together."""
    pivots = torch.randn(8, 41, generator=rng)
    whole = torch.linalg.vector_norm(pivots[1:] - pivots[:-1], dim=1).double()
    monkeypatch.setattr(path, "DIFFERENCES_AT_ONCE", at_once)
    assert torch.equal(segment_lengths(pivots), whole)


def test_points_are_those_of_lerp(rng):
    """To the bit, and the pivots are left as they are."""
    pivots = torch.randn(3, 50, generator=rng)
    before = pivots.clone()
    points = points_between(pivots, 3)
    assert torch.equal(pivots, before)
    assert torch.equal(points[5], torch.lerp(pivots[1], pivots[2], 0.25))
