"""Along its eigenvectors a quadratic loss moves in independent directions, each in closed form."""

import pytest
import torch
from torch import float64
from torch.testing import assert_close

from lowland.dynamics.eigen_displacement import eigen_displacement, leading_directions
from lowland.dynamics.operators import Operator


def rotation(size, rng):
    return torch.linalg.qr(torch.randn(size, size, dtype=float64, generator=rng))[0]


def test_each_direction_of_a_quadratic(rng):
    """Section 7.1 (v), for four curvatures in a random basis, over 4000 replicas."""
    rate, variance, wait, lag, replicas = 0.1, 0.5, 12, 9, 4000
    curvature = torch.tensor([0.0, 0.3, 2.0, 9.0], dtype=float64)
    begin = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=float64)
    basis = rotation(4, rng)  # eigenvectors as columns
    hessian = basis * curvature @ basis.T
    w = (basis @ begin).repeat(replicas, 1)
    states = [w]
    for _ in range(wait + lag):
        noise = variance**0.5 * torch.randn(replicas, 4, dtype=float64, generator=rng)
        states.append(states[-1] - rate * (states[-1] @ hessian + noise @ basis.T))
    found = eigen_displacement(basis.T, states[wait], states[-1]).mean(0)

    a = 1 - rate * curvature
    kicks = rate**2 * variance

    def summed(n):  # (1 - a^2n) / (1 - a^2), n where a = 1
        return torch.stack([a ** (2 * k) for k in range(n)]).sum(0)

    at_wait = a ** (2 * wait) * begin**2 + kicks * summed(wait)
    expected = (a**lag - 1) ** 2 * at_wait + kicks * summed(lag)
    assert_close(found, expected, rtol=4 * (2 / replicas) ** 0.5, atol=0.0)


def test_a_whole_basis_is_the_displacement(rng):
    """Its sum is M Delta, whatever the basis; a part of it is less."""
    start, end = torch.randn(2, 30, dtype=float64, generator=rng)
    basis = rotation(30, rng)
    total = (end - start).square().sum()
    assert_close(eigen_displacement(basis, start, end).sum(), total)
    assert eigen_displacement(basis[:9], start, end).sum() < total


def test_models_and_several_times(rng):
    """Flat vectors, a model in the order of its parameters, and a stack of times."""
    model = torch.nn.Linear(3, 2, dtype=float64)
    copies = [torch.cat([p.detach().flatten() for p in model.parameters()])]
    with torch.no_grad():
        model.weight[1, 2] += 2
    copies.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    unit = torch.eye(8, dtype=float64)
    moved = eigen_displacement(unit, copies[0], model)
    assert_close(moved, torch.tensor([0, 0, 0, 0, 0, 4, 0, 0], dtype=float64))
    both = eigen_displacement(unit, copies[0], torch.stack(copies))
    assert_close(both, torch.stack([0 * moved, moved]))


def test_leading_directions(rng):
    """The largest eigenvalues of a known matrix, with their vectors, largest first."""
    values = torch.cat([torch.tensor([9.0, 7.0, -6.0]), torch.linspace(-1, 1, 97)]).double()
    basis = rotation(100, rng)
    operator = Operator(lambda rows: rows @ (basis * values @ basis.T), 100, float64)
    found = leading_directions(operator, 2, steps=40)
    assert_close(found.values, torch.tensor([9.0, 7.0], dtype=float64))
    assert_close(
        (found.vectors @ basis[:, :2]).abs(), torch.eye(2, dtype=float64), atol=1e-8, rtol=0
    )
    assert found.residuals.max() < 1e-6
    # the bound on the residual is its size
    coarse = leading_directions(operator, 2, steps=8)
    error = (operator.rows(coarse.vectors) - coarse.values[:, None] * coarse.vectors).norm(dim=1)
    assert_close(coarse.residuals, error, rtol=1e-6, atol=1e-10)


def test_an_exhausted_space(rng):
    """Two distinct eigenvalues give two directions, however many are asked for."""
    operator = Operator(lambda rows: rows * torch.tensor([1.0, 1, 1, 0]), 4, torch.float32)
    with pytest.warns(UserWarning, match="only 2 of 3 directions"):
        found = leading_directions(operator, 3, steps=4)
    assert_close(found.values, torch.tensor([1.0, 0.0], dtype=float64), atol=1e-6, rtol=0)


def test_bad_input(rng):
    unit = torch.eye(4, dtype=float64)
    with pytest.raises(ValueError, match="must have length 1; got one of length 2"):
        eigen_displacement(2 * unit, unit[0], unit[1])
    with pytest.raises(ValueError, match="must have 4 parameters, as the vectors have; got 3"):
        eigen_displacement(unit, unit[0, :3], unit[1, :3])
    operator = Operator(lambda rows: rows, 4, float64)
    with pytest.raises(ValueError, match="count must be at least 1 and at most steps, 2; got 3"):
        leading_directions(operator, 3, steps=2)
