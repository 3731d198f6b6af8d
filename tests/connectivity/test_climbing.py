"""The climbing image: the highest pivot of a band with springs stands on the saddle itself."""

import pytest
import torch
from torch import float64, ones

from lowland.connectivity import from_potential, insert_equal, relax
from lowland.problems import mueller_brown


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
    """Specification 7.1: an error of at most 1e-8 after 3,000 steps; without climbing it misses."""
    problem, climbed = springy(3000, climb=True)
    saddle = problem.value(problem.saddles).max()
    assert climbed.losses.max() - saddle == pytest.approx(0, abs=1e-8)
    _, resting = springy(3000)
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
