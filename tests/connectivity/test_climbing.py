"""The climbing image: the highest pivot of a band with springs stands on the saddle itself."""

from dataclasses import replace

import pytest
import torch
from torch import float64, nn, ones, zeros
from torch.testing import assert_close

from lowland.connectivity import Cycle, Schedule, find_path, from_potential, insert_equal, relax
from lowland.problems import mueller_brown
from small_networks import SHORT, squared

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")


def springy(steps, **options):
    """Nine pivots between the two outer minima of Mueller-Brown, springs of stiffness 100."""
    problem = mueller_brown()
    path, weights = insert_equal(problem.minima[:2], ones(1, dtype=float64), 9)
    return problem, relax(
        path,
        weights,
        from_potential(problem.value),
        steps=steps,
        learning_rate=1e-4,
        momentum=0.0,
        tangent="improved",
        spring_constant=100.0,
        **options,
    )


def test_the_highest_pivot_is_the_saddle():
    """Specification 7.1: at most 1e-8 off after 3,000 steps; without climbing it misses."""
    problem, climbed = springy(3000, climb=True)
    saddle = problem.value(problem.saddles).max()
    assert climbed.losses.max() - saddle == pytest.approx(0, abs=1e-8)
    _, resting = springy(1000)
    assert abs(resting.losses.max() - saddle) > 1e-3


def test_climbing_needs_springs():
    problem = mueller_brown()
    path, weights = insert_equal(problem.minima[:2], ones(1, dtype=float64), 3)
    with pytest.raises(ValueError, match="climb=True needs a spring_constant"):
        relax(path, weights, from_potential(problem.value), steps=1, learning_rate=1e-4, climb=True)


def test_nothing_is_written_into_the_gradients():
    """``loss_and_grad`` may hand out a tensor of its own."""
    problem = mueller_brown()
    path, weights = insert_equal(problem.minima[:2], ones(1, dtype=float64), 3)
    losses, grads = from_potential(problem.value)(path)
    kept = grads.clone()
    relax(
        path, weights, lambda _: (losses, grads), steps=2, learning_rate=1e-4, weight_decay=0.1,
        spring_constant=1.0, climb=True,
    )  # fmt: skip
    assert torch.equal(grads, kept)


CLIMBING = Schedule(
    (Cycle(50, 0.1, insert="equal", count=4), Cycle(200, 0.1, count=0)),
    momentum=0.5,
    weight_decay=0.0,
    tangent="improved",
    spring_constant=0.1,
    climb=True,
)


def product(a, b):
    """The network x -> a b x."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    for layer, weight in zip(model, (a, b), strict=True):
        layer.weight.data.fill_(weight)
    return model


def join(schedule, **options):
    """Paths from a b = 1 with both positive to both negative, on one example with target 1."""
    batches = [(ones(1, 1, dtype=float64), ones(1, dtype=float64))]
    ends = product(2.0, 0.5), product(-0.7, -1 / 0.7)
    return find_path(ends[0], squared, batches, *ends, schedule=schedule, backend="loop", **options)


def test_a_network_on_its_saddle(tmp_path):
    """Loss (a b - 1)^2: on every path it reaches 1, and its only saddle is a = b = 0."""
    climbed = join(CLIMBING, out=tmp_path)
    pivots = climbed.path.pivots
    height = (pivots.prod(1) - 1).square()
    top = int(height[1:-1].argmax()) + 1
    assert_close(pivots[top], zeros(2, dtype=float64), rtol=0, atol=1e-12)
    assert climbed.saddle == pytest.approx(1, abs=1e-12)
    slope = 2 * (pivots[top].prod() - 1) * pivots[top].flip(0)
    assert float(slope @ (pivots[top + 1] - pivots[top - 1])) == pytest.approx(0, abs=1e-12)
    assert climbed.best_cycle == 2
    again = join(CLIMBING, out=tmp_path)
    assert torch.equal(again.path.pivots, pivots)
    resting = join(replace(CLIMBING, climb=False)).path.pivots
    assert resting.norm(dim=1).min() > 1e-2


def test_the_climbing_cycle_is_the_result():
    """Whether an earlier one was lower or not; a search that stops before it takes the lowest."""
    lower = replace(CLIMBING, cycles=(CLIMBING.cycles[0], Cycle(1, 0.5, count=0)))
    assert join(lower).best_cycle == 2
    stopped = join(lower, until_cycle=1)
    assert stopped.best_cycle in (0, 1)
    assert stopped.best_cycle == min((0, 1), key=lambda k: stopped.cycles[k].profile.saddle())


def test_a_schedule_climbs_with_springs_only():
    with pytest.raises(ValueError, match="climb=True needs a spring_constant.*Pass spring_const"):
        replace(SHORT, climb=True)
