"""``lowland.problems.linear_quadratic``: Riccati's optimum, autograd, and printed digits."""

import pytest
import torch
from torch import float64, tensor
from torch.autograd import grad
from torch.autograd.functional import hessian
from torch.testing import assert_close

from lowland.params import call_at
from lowland.problems.linear_quadratic import (
    LinearQuadratic,
    double_integrator,
    one_step_regulator,
)


def random_problem(seed=0, state=3, control=2, steps=4):
    draws = torch.Generator().manual_seed(seed)
    a, b, c, d, e = (
        torch.randn(*shape, dtype=float64, generator=draws)
        for shape in [
            (state, state),
            (state, control),
            (state, state),
            (control,) * 2,
            (state,) * 2,
        ]
    )
    start = torch.randn(state, dtype=float64, generator=draws)
    eye = torch.eye(control, dtype=float64)
    return LinearQuadratic("random", a / 2, b, c @ c.T, d @ d.T + eye, e @ e.T, start, steps)


PROBLEMS = [double_integrator(), one_step_regulator(), random_problem()]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_the_optimum_is_where_autograd_finds_no_slope(problem):
    """Riccati's controls meet a zero gradient, and the cost is convex."""
    controls = problem.optimal_controls().requires_grad_()
    (slope,) = grad(problem.cost(controls), controls)
    assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-13)
    size = controls.numel()
    found = hessian(problem.cost, problem.no_controls()).reshape(size, size)
    assert_close(problem.hessian(), found, rtol=1e-13, atol=1e-13)
    assert torch.linalg.eigvalsh(found).min() > 0


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_costates_are_minus_the_slope_in_the_states(problem):
    """A small push on x_t changes the cost by -p_t."""
    controls = torch.randn(
        problem.no_controls().shape, dtype=float64, generator=torch.Generator().manual_seed(1)
    )
    pushes = torch.zeros(problem.steps, len(problem.start), dtype=float64, requires_grad=True)
    state, total = problem.start, 0.0
    for control, push in zip(controls, pushes, strict=True):
        total = total + state @ problem.state_cost @ state / 2
        total = total + control @ problem.control_cost @ control / 2
        state = problem.transition @ state + problem.push @ control + push
    total = total + state @ problem.final_cost @ state / 2
    assert_close(total, problem.cost(controls), rtol=1e-14, atol=0)
    assert_close(problem.costates(controls), -grad(total, pushes)[0], rtol=1e-13, atol=1e-13)


def test_digits_of_the_double_integrator():
    """O4: the printed optimum."""
    problem = double_integrator()
    controls = problem.optimal_controls()
    printed = tensor([-10.41503567, -4.87951954, -0.7156062, 2.63563143, 5.66104066], dtype=float64)
    assert_close(controls[:, 0], printed, rtol=0, atol=5e-9)
    assert problem.cost(controls).item() == pytest.approx(4.025491054668388, abs=1e-14)
    last = tensor([0.41048973, -0.77134893], dtype=float64)
    assert_close(problem.states(controls)[-1], last, rtol=0, atol=5e-9)
    largest = torch.linalg.eigvalsh(problem.hessian()).max().item()
    assert largest == pytest.approx(0.10538, abs=5e-6)
    assert largest / 2 - 0.01 == pytest.approx(0.04269, abs=5e-6)


def test_digits_of_one_step():
    """O3: the optimum, and the sequences of sweeps from u = 0 for four penalties."""
    problem = one_step_regulator()
    assert problem.optimal_controls().item() == pytest.approx(-0.8, abs=1e-15)
    assert problem.cost(problem.optimal_controls()).item() == pytest.approx(0.4, abs=1e-15)
    wanted = {
        0.0: [0, -4, 12, -52],
        1.5: [0, -1.6, 0, -1.6],
        2.0: [0, -4 / 3, -4 / 9, -28 / 27],
        4.0: [0, -0.8, -0.8, -0.8],
    }
    for penalty, sequence in wanted.items():
        controls, found = problem.no_controls(), []
        for _ in sequence:
            found.append(controls.item())
            controls = problem.sweep(controls, penalty / 2)
        assert found == pytest.approx(sequence, abs=1e-14)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_a_sweep_is_a_preconditioned_gradient_step(problem, rho):
    """The step is -(R + 2 rho)^-1 grad J; the optimum is its fixed point."""
    controls = problem.no_controls().add(0.3).requires_grad_()
    (slope,) = grad(problem.cost(controls), controls)
    eye = torch.eye(controls.shape[1], dtype=float64)
    step = torch.linalg.solve(problem.control_cost + 2 * rho * eye, slope.T).T
    assert_close(problem.sweep(controls, rho), controls - step, rtol=1e-12, atol=1e-12)
    best = problem.optimal_controls()
    assert_close(problem.sweep(best, rho), best, rtol=1e-10, atol=1e-12)


def test_sweeps_converge_above_the_printed_penalty_only():
    """O4: the limit is 0.04269; at 0.05 the cost falls at every sweep, to 3e-15 after 3000."""
    problem = double_integrator()
    best = problem.optimal_controls()

    def error(penalty, sweeps):
        controls, costs = problem.no_controls(), []
        for _ in range(sweeps):
            controls = problem.sweep(controls, penalty / 2)
            costs.append(problem.cost(controls).item())
        return (controls - best).abs().max().item(), costs

    assert error(0.0, 30)[0] > 1e6
    assert error(0.0426, 600)[0] > 2 * error(0.0426, 300)[0]
    assert error(0.0428, 600)[0] < error(0.0428, 300)[0] / 2
    distance, costs = error(0.05, 3000)
    assert distance < 1e-13
    assert all(b <= a + 4e-15 for a, b in zip(costs, costs[1:], strict=False))


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_the_network_is_the_dynamics(problem):
    """The same states and cost, with the running cost of every layer."""
    model = problem.network()
    controls = problem.optimal_controls()
    params = {f"{t}.control": control for t, control in enumerate(controls)}
    [(inputs, target)] = problem.batches()
    output = call_at(model, params, inputs)
    states = problem.states(controls)
    assert_close(output[0], states[-1], rtol=1e-14, atol=1e-14)
    total, cost = problem.loss_fn(output, target), problem.running_cost()
    for t in range(problem.steps):
        total = total + cost(str(t), states[t][None], {f"{t}.control": controls[t]})
    assert_close(total[0], problem.cost(controls), rtol=1e-14, atol=0)
    assert all(p.abs().sum() == 0 for p in model.parameters())
