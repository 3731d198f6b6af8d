"""``lowland.control.basic_msa`` on float controls: O3 and O4 by Riccati, O6 against SGD."""

import json
from copy import deepcopy

import pytest
import torch
from torch import float64
from torch.testing import assert_close

from lowland.control.hamiltonian import hamiltonian_gradients
from lowland.control.msa import basic_msa, gradient_step
from lowland.problems.linear_quadratic import double_integrator, one_step_regulator
from lowland.results import Status
from small_networks import class_batches, conv_net, losses, norm_mlp, seeded


def quadratic(problem, rho):
    """The argmax in closed form, from the costates of a trajectory: no derivative by u."""
    weight = problem.control_cost + 2 * rho * torch.eye(problem.push.shape[1], dtype=float64)

    def argmax(trajectory):
        new = {}
        for layer, costate in zip(trajectory.layers, trajectory.costates, strict=True):
            (name,) = layer.parameters
            wanted = costate.sum(0) @ problem.push + 2 * rho * trajectory.params[name]
            new[name] = torch.linalg.solve(weight, wanted)
        return new

    return argmax


def regulate(problem, rho, steps):
    model = problem.network()
    return model, basic_msa(
        model,
        problem.loss_fn,
        problem.batches(),
        steps=steps,
        argmax=quadratic(problem, rho),
        running_cost=problem.running_cost(),
    )


def controls_of(model):
    return torch.stack([p.detach() for p in model.parameters()])


@pytest.mark.parametrize("penalty", [0.0, 1.5, 2.0, 4.0])
def test_one_step_regulator(penalty):
    """O3: the printed sequences, in the losses too; penalty 4 is exact in one step."""
    problem, controls = one_step_regulator(), []
    for steps in (1, 2, 3):
        model, result = regulate(problem, penalty / 2, steps)
        controls.append(controls_of(model).item())
        assert result.curve[-1]["loss"] == pytest.approx(
            problem.cost(controls_of(model)).item(), rel=1e-14
        )
    wanted = {
        0.0: [-4, 12, -52],
        1.5: [-1.6, 0, -1.6],
        2.0: [-4 / 3, -4 / 9, -28 / 27],
        4.0: [-0.8, -0.8, -0.8],
    }
    assert controls == pytest.approx(wanted[penalty], abs=1e-14)


@pytest.mark.parametrize(
    "problem", [double_integrator(), one_step_regulator()], ids=lambda p: p.name
)
def test_sweeps_are_those_of_the_problem(problem):
    """O4: the same controls as the sweeps by hand, which problems/ holds to Riccati and 3e-15."""
    for rho in (0.0, 0.025):
        wanted = problem.no_controls()
        for _ in range(40):
            wanted = problem.sweep(wanted, rho)
        model, _ = regulate(problem, rho, 40)
        assert_close(controls_of(model), wanted, rtol=1e-11, atol=1e-12)


def test_the_regulator_converges_with_a_penalty_and_diverges_without():
    """C4, O4: at 2 rho = 0.05 the loss falls at every sweep to Riccati's cost."""
    problem = double_integrator()
    model, result = regulate(problem, 0.025, 150)
    costs = [row["loss"] for row in result.curve]
    assert all(after <= before + 1e-14 for before, after in zip(costs, costs[1:], strict=False))
    assert costs[-1] == pytest.approx(4.025491054668388, abs=1e-9)
    assert_close(controls_of(model), problem.optimal_controls(), rtol=0, atol=1e-3)
    _, result = regulate(problem, 0.0, 20)
    assert result.curve[-1]["loss"] > 1e6 * result.curve[0]["loss"]
    assert "uphill" in result.message


def test_weights_that_run_away_end_with_a_status():
    """Up to the largest number there is, and back to the last weights with a finite loss."""
    problem = double_integrator()
    model, result = regulate(problem, 0.0, 1000)
    assert result.status is Status.NOT_FINITE
    assert all(value < float("inf") for value in (row["loss"] for row in result.curve))
    assert torch.isfinite(controls_of(model)).all()
    assert problem.cost(controls_of(model)).item() == pytest.approx(result.curve[-1]["loss"])
    assert f"step {result.steps}" in result.message
    with pytest.raises(RuntimeError, match="must be finite"):
        result.raise_for_status()
    json.dumps(result.record(), allow_nan=False)


NETS = {"batch norm": (norm_mlp, (4,)), "convolutions": (conv_net, (1, 4, 4))}


@pytest.mark.parametrize("name", NETS)
def test_steps_along_the_slope_of_h_are_sgd(name):
    """O6: the same bits as torch.optim.SGD, batch norm and convolution included."""
    make, shape = NETS[name]
    model = seeded(make, 1).double()
    peer = deepcopy(model).train()
    [batch] = class_batches(*shape, sizes=(16,), dtype=float64)
    result = basic_msa(model, losses, [batch], steps=20, argmax=gradient_step(0.1))
    optimizer = torch.optim.SGD(peer.parameters(), lr=0.1)
    for step in range(20):
        optimizer.zero_grad()
        loss = losses(peer(batch[0]), batch[1]).mean()
        assert result.curve[step]["loss"] == loss.item()
        loss.backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), peer.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_slopes_know_running_costs():
    """Sum over s of grad_theta H is minus the gradient of the whole cost."""
    problem = double_integrator()
    controls = problem.optimal_controls().add(1.0).requires_grad_()
    (slope,) = torch.autograd.grad(problem.cost(controls), controls)
    found = {}

    def look(trajectory):
        found.update(hamiltonian_gradients(trajectory))
        return {}

    model = problem.network()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), controls, strict=True):
            parameter.copy_(value)
    options = {"steps": 1, "argmax": look, "running_cost": problem.running_cost()}
    result = basic_msa(model, problem.loss_fn, problem.batches(), **options)
    assert result.status is Status.CONVERGED
    assert result.curve[0]["loss"] == pytest.approx(problem.cost(controls).item(), rel=1e-14)
    assert_close(torch.stack([*found.values()]), -slope, rtol=1e-12, atol=1e-12)
