"""A step pivot by pivot is the step of all pivots together, which is the slow one of the oracle."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import float64
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.testing import assert_close

from lowland.connectivity import Cycle, find_path, insert_equal, relax, sweep
from oracles.slow_neb import slow_neb
from small_networks import SHORT, class_batches, losses, mlp, two

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")

WAYS = [
    {},
    {"tangent": "improved"},
    {"tangent": "official"},
    {"weight_decay": 0.3},
    {"spring_constant": 0.7},
    {"spring_constant": 0.7, "tangent": "improved", "climb": True},
    {"project_gradient": False},
]


def wavy_band():
    """Nine pivots in five dimensions, not on a line, and a potential without symmetry."""
    draws = torch.Generator().manual_seed(1)
    ends = torch.randn(2, 5, dtype=float64, generator=draws)
    path, weights = insert_equal(ends, torch.ones(1, dtype=float64), 9)
    path[1:-1] += 0.3 * torch.randn(9, 5, dtype=float64, generator=draws)
    wave = torch.tensor([1.0, 2.0, 0.5, 1.5, 3.0], dtype=float64)

    def loss_and_grad(path):
        phase = path * wave
        return phase.sin().sum(1), (wave * phase.cos())[1:-1]

    return path, weights, loss_and_grad


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way)) or "paper")
@pytest.mark.parametrize("together", [False, True])
def test_both_ways_are_the_slow_band(way, together, monkeypatch):
    """Fifty steps with momentum, to 1e-12; the climbing image against the other way alone."""
    path, weights, loss_and_grad = wavy_band()
    settings = {"steps": 50, "learning_rate": 0.01, "momentum": 0.5} | way
    monkeypatch.setattr(sweep, "NUMBERS_AT_ONCE", 10**9 if together else 0)
    band = relax(path, weights, loss_and_grad, **settings)
    if "climb" in way:
        monkeypatch.setattr(sweep, "NUMBERS_AT_ONCE", 0 if together else 10**9)
        other = relax(path, weights, loss_and_grad, **settings)
        assert_close(band.path, other.path, rtol=0, atol=1e-12)
        assert_close(band.force, other.force, rtol=0, atol=1e-12)
        return

    def value_and_grad(point):
        losses, grads = loss_and_grad(torch.tensor([point] * 3, dtype=float64))
        return losses[1].item(), grads[0].tolist()

    settings["project"] = settings.pop("project_gradient", True)
    slow = slow_neb(path.tolist(), weights.tolist(), value_and_grad, **settings)[-1]
    assert_close(band.path, torch.tensor(slow, dtype=float64), rtol=0, atol=1e-11)


@pytest.mark.parametrize("together", [False, True])
def test_pivots_that_coincide_stay_finite(together, monkeypatch):
    """Without a direction nothing is projected away."""
    monkeypatch.setattr(sweep, "NUMBERS_AT_ONCE", 10**9 if together else 0)
    same = torch.ones(4, 3, dtype=float64)
    slope = torch.full((2, 3), 0.5, dtype=float64)
    third = torch.full((3,), 1 / 3, dtype=float64)
    band = relax(
        same, third, lambda _: (torch.zeros(4, dtype=float64), slope), steps=1, learning_rate=1.0
    )
    assert torch.equal(band.path[1:-1], same[1:-1] - slope)
    assert_close(band.force, slope.norm(dim=1))


@pytest.mark.parametrize("together", [False, True])
def test_the_path_given_is_not_changed(together, monkeypatch):
    path, weights, loss_and_grad = wavy_band()
    kept = path.clone()
    monkeypatch.setattr(sweep, "NUMBERS_AT_ONCE", 10**9 if together else 0)
    for steps in (1, 51, 120):
        band = relax(path, weights, loss_and_grad, steps=steps, learning_rate=0.01)
        assert torch.equal(path, kept)
        assert torch.equal(band.path[[0, -1]], kept[[0, -1]])


def test_a_schedule_with_springs_redistributes_nothing():
    """One pivot, springs of no stiffness: five projected steps written out by hand, to 1e-12.

    Redistribution would put the pivot back to the middle of its path in every step.
    """
    start, end = two(mlp, float64)
    batches = class_batches(4, sizes=(24,), dtype=float64)
    cycles = (Cycle(5, 0.1, insert="equal", count=1),)
    settings = replace(SHORT, cycles=cycles, spring_constant=0.0, weight_decay=0.0)
    found = find_path(start, losses, batches, start, end, schedule=settings, backend="loop")
    vectors = [parameters_to_vector(model.parameters()).detach() for model in (start, end)]
    model, velocity = deepcopy(start), 0.0
    point = (vectors[0] + vectors[1]) / 2
    for _ in range(5):
        vector_to_parameters(point, model.parameters())
        loss = losses(model(batches[0][0]), batches[0][1]).mean()
        grad = parameters_to_vector(torch.autograd.grad(loss, [*model.parameters()]))
        with torch.no_grad():
            values = [losses(m(batches[0][0]), batches[0][1]).mean() for m in (start, end)]
        near = vectors[1] - point if values[1] > values[0] else point - vectors[0]
        along = near / near.norm()
        velocity = 0.9 * velocity + grad - (grad @ along) * along
        point = point - 0.1 * velocity
    assert_close(found.cycles[1].length_ratio, length_of(vectors, point), rtol=0, atol=1e-12)


def length_of(ends, point):
    """Length of the path over the point, in distances of its ends."""
    whole = (ends[1] - ends[0]).norm()
    return float(((point - ends[0]).norm() + (ends[1] - point).norm()) / whole)


def test_springs_that_push():
    with pytest.raises(
        ValueError, match="spring_constant must be a finite number, zero or more; got -1"
    ):
        replace(SHORT, spring_constant=-1.0)
