"""Sharpness is the largest eigenvalue of the whole Hessian; of a quadratic loss it never moves."""

import pytest
import torch
from torch import float64, nn
from torch.testing import assert_close

from lowland.dynamics import Dynamics, exact_spectrum, find_sharpness, measure_dynamics
from lowland.results import Status
from small_networks import class_batches, losses, mlp, norm_mlp, same, seeded

OPTIONS = {"waits": [0, 3], "lags": [1, 2], "noise_batches": 0}


def squares(output, target):
    return (output - target).square().sum(1)


def regression(rng):
    """Batches of unequal size, and 2 X'X / P by hand."""
    x = torch.randn(50, 12, dtype=float64, generator=rng)
    batches = [(part, part.sum(1, keepdim=True)) for part in x.split(16)]
    return batches, 2 * x.T @ x / len(x)


def test_linear_regression(rng):
    batches, hessian = regression(rng)
    found = find_sharpness(nn.Linear(12, 1, bias=False).double(), squares, batches)
    assert found.value == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-3)
    assert found.steps <= 12


@pytest.mark.parametrize("network", [mlp, norm_mlp])
def test_it_is_the_last_of_all_eigenvalues(network):
    model, batches = seeded(network, 1).double(), class_batches(4, dtype=float64)
    exact = exact_spectrum(model, losses, batches).largest
    found = find_sharpness(model, losses, batches)
    assert exact * (1 - 1e-3) <= found.value <= exact * (1 + 1e-9)
    assert found.residual <= 1e-2 * found.value


def test_nothing_but_zeros():
    """A loss that is linear in the weights."""
    x = torch.ones(4, 3)
    found = find_sharpness(nn.Linear(3, 1), lambda output, _: output[:, 0], [(x, x)])
    assert (found.value, found.residual) == (0.0, 0.0)


def test_along_a_run(rng, tmp_path):
    batches, hessian = regression(rng)
    weights = []
    for times in ((), [0, 2, 6]):
        torch.manual_seed(0)
        model = nn.Linear(12, 1, bias=False).double()
        for most in (3, None):
            found = measure_dynamics(
                model, squares, batches, steps=6, sharpness_times=times, max_steps_now=most,
                optimizer=lambda params: torch.optim.SGD(params, lr=0.01),
                out=tmp_path / str(len(times)), **OPTIONS,
            )  # fmt: skip
        weights.append(dict(model.state_dict()))
        assert [row["step"] for row in found.sharpness] == list(times)
    assert same(*weights)
    largest = torch.linalg.eigvalsh(hessian)[-1]
    for row in found.sharpness:
        assert_close(torch.tensor(row["sharpness"]).double(), largest, rtol=1e-3, atol=0)
    assert Dynamics.load(tmp_path / "3").sharpness == found.sharpness


def test_second_derivatives_that_are_not_finite_end_no_run():
    """Measured on a batch that training does not read."""
    batches = class_batches(4)
    bad = [(inputs * float("nan"), target) for inputs, target in batches]
    with pytest.raises(ValueError, match="second derivatives must be finite"):
        find_sharpness(seeded(mlp, 1), losses, bad)
    found = measure_dynamics(
        seeded(mlp, 1), losses, batches, steps=4, loss_times=[], loss_batches=bad,
        sharpness_times=[2], **OPTIONS,
    )  # fmt: skip
    assert (found.status, found.steps, found.sharpness) == (Status.NOT_FINITE, 4, [])
    assert "second derivatives were not finite at update 2" in found.message


def test_times_beyond_the_run():
    with pytest.raises(ValueError, match="sharpness_times must be whole .* to 6, the last; got"):
        measure_dynamics(
            seeded(mlp, 1), losses, class_batches(4), steps=6, sharpness_times=[7], **OPTIONS
        )
