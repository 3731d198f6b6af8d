"""The Hamiltonian: its slopes are those of J, it is exact for one layer, second order for more."""

import pytest
import torch
from torch import float64, nn, tensor
from torch.testing import assert_close

from lowland.control.hamiltonian import (
    feasibility_hamiltonian,
    hamiltonian,
    hamiltonian_gradients,
    proximal_hamiltonian,
)
from lowland.control.trajectory import states_and_costates
from lowland.errors import UnsupportedModelError
from lowland.problems.linear_quadratic import double_integrator
from small_networks import class_batches, dropout, losses, mlp, norm_mlp, seeded

EXACT = {"atol": 1e-12, "rtol": 0}


def squared(output, target):
    return (output - target).square().sum(1)


def smooth(seed=0):
    """O5: tanh net 6-6-6-3, squared loss, 32 examples."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)
    ).double()
    return model, torch.randn(32, 6, dtype=float64), torch.randn(32, 3, dtype=float64)


def total(found):
    return sum(value for value in found.values())


def moved(model, scale, seed=1):
    """The controls a step along a random direction of length one per entry away."""
    draws = torch.Generator().manual_seed(seed)
    return {
        name: value.detach() + scale * torch.randn(value.shape, dtype=float64, generator=draws)
        for name, value in model.named_parameters()
    }


def loss_at(model, params, inputs, target, loss_fn=squared):
    output = torch.func.functional_call(model, params, (inputs,))
    return loss_fn(output, target).mean()


def test_the_products_are_those_of_the_definition():
    """H = p . f, example by example, from the states and costates themselves."""
    model, inputs, target = smooth()
    trajectory = states_and_costates(model, squared, inputs, target)
    rows = hamiltonian(trajectory, per_example=True)
    sums = hamiltonian(trajectory)
    assert list(rows) == list(sums) == ["0", "1", "2", "3", "4"]
    for t, name in enumerate(rows):
        expected = (trajectory.costates[t] * model[t](trajectory.states[t][0])).sum(1)
        assert_close(rows[name], expected, **EXACT)
        assert_close(sums[name], expected.sum(), **EXACT)


@pytest.mark.parametrize("make", [mlp, norm_mlp, dropout])
def test_slopes_in_given_controls(make):
    """sum_s grad H = -dJ/dtheta, by autograd through ``params``, in float64."""
    model = seeded(make, 0).double()
    inputs, target = class_batches(4, dtype=float64)[0]
    torch.manual_seed(2)
    loss = losses(model(inputs), target).mean()
    names, values = zip(*model.named_parameters(), strict=True)
    grads = torch.autograd.grad(loss, values)
    model = seeded(make, 0).double()
    torch.manual_seed(2)
    trajectory = states_and_costates(model, losses, inputs, target)
    params = {
        name: value.detach().requires_grad_() for name, value in zip(names, values, strict=True)
    }
    found = torch.autograd.grad(total(hamiltonian(trajectory, params)), [*params.values()])
    for slope, grad in zip(found, grads, strict=True):
        assert_close(slope, -grad, **EXACT)


def test_one_layer_is_exact(rng):
    """T=1, L=0: J(phi) - J(theta) = -dH + mean Bregman divergence of Phi, at any distance."""

    def entropies(output, target):
        return output.logsumexp(1) - (output * target).sum(1)

    model = nn.Linear(5, 4).double()
    inputs = torch.randn(9, 5, dtype=float64, generator=rng)
    target = torch.rand(9, 4, dtype=float64, generator=rng)
    trajectory = states_and_costates(model, entropies, inputs, target)
    params = moved(model, 3.0)
    new, old = torch.nn.functional.linear(inputs, *params.values()), trajectory.outputs[0]
    change = loss_at(model, params, inputs, target, entropies) - trajectory.loss
    gain = total(hamiltonian(trajectory, params)) - total(hamiltonian(trajectory))
    divergence = new.logsumexp(1) - old.logsumexp(1) - (old.softmax(1) * (new - old)).sum(1)
    assert change.abs() > 0.1
    assert_close(change, -gain + divergence.mean(), **EXACT)


def test_the_principle_is_not_necessary_for_two_values():
    """Section 2: at the optimum +1 of (theta - 0.2)^2, H(+1) = -1.6 < H(-1) = 1.6."""
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data.fill_(1)
    one = torch.ones(1, 1, dtype=float64)
    trajectory = states_and_costates(model, squared, one, 0.2 * one)
    assert_close(trajectory.loss, tensor(0.64, dtype=float64))
    assert_close(trajectory.costates[0], -1.6 * one)
    assert_close(hamiltonian(trajectory)["linear"], tensor(-1.6, dtype=float64))
    assert_close(hamiltonian(trajectory, {"weight": -one})["linear"], tensor(1.6, dtype=float64))


def test_the_remainder_is_of_second_order():
    """O5: (dJ + dH) / eps^2 tends to a constant, -dH / eps to the directional derivative."""
    model, inputs, target = smooth()
    trajectory = states_and_costates(model, squared, inputs, target)
    at_rest = total(hamiltonian(trajectory))
    params = moved(model, 0.0)
    direction = {name: value - params[name] for name, value in moved(model, 1.0).items()}
    _, slope = torch.func.jvp(lambda p: loss_at(model, p, inputs, target), (params,), (direction,))
    ratios, slopes = [], []
    for eps in (1e-1, 1e-2, 1e-3, 1e-4):
        new = moved(model, eps)
        gain = total(hamiltonian(trajectory, new)) - at_rest
        change = loss_at(model, new, inputs, target) - trajectory.loss
        ratios.append(float((change + gain) / eps**2))
        slopes.append(float(-gain / eps))
    assert ratios[-1] != 0
    assert ratios[-1] == pytest.approx(ratios[-2], rel=1e-2)
    assert abs(ratios[-2] - ratios[-1]) < abs(ratios[-3] - ratios[-1]) < abs(ratios[0] - ratios[-1])
    for found in slopes:  # linear in the controls, so exact at every distance
        assert found == pytest.approx(float(slope), rel=1e-9)


# Running costs


class Step(nn.Module):
    """x + B u as one layer."""

    is_layer = True

    def __init__(self, problem, control):
        super().__init__()
        self.problem = problem
        self.control = nn.Parameter(control.clone())

    def forward(self, x):
        return x @ self.problem.transition.T + self.problem.push @ self.control


def regulator(controls):
    """O4 as a network of five layers, its terminal and its running cost."""
    problem = double_integrator()
    model = nn.Sequential(*(Step(problem, control) for control in controls))

    def final(x, target):
        return ((x @ problem.final_cost) * x).sum(1) / 2

    def running(name, x, params):
        (u,) = params.values()
        return ((x @ problem.state_cost) * x).sum(1) / 2 + u @ problem.control_cost @ u / 2

    return problem, model, final, running


def test_a_cost_of_the_state(rng):
    """O4: J and costates of the linear regulator at any controls; p_t has the term -Q x_t."""
    controls = torch.randn(5, 1, dtype=float64, generator=rng)
    problem, model, final, running = regulator(controls)
    trajectory = states_and_costates(
        model, final, problem.start[None], torch.zeros(1), running_cost=running
    )
    assert_close(trajectory.loss, problem.cost(controls), **EXACT)
    assert_close(torch.cat(trajectory.costates), problem.costates(controls), **EXACT)
    for t, state in enumerate(problem.states(controls)[:-1]):
        assert_close(trajectory.states[t][0][0], state, **EXACT)
    leaf = controls.clone().requires_grad_()
    (slope,) = torch.autograd.grad(problem.cost(leaf), leaf)
    assert_close(torch.stack([*hamiltonian_gradients(trajectory).values()]), -slope, **EXACT)


def test_the_optimum_of_riccati():
    """O4: there the Hamiltonian of every step is largest: slope 0, and less to both sides."""
    controls = double_integrator().optimal_controls()
    problem, model, final, running = regulator(controls)
    trajectory = states_and_costates(
        model, final, problem.start[None], torch.zeros(1), running_cost=running
    )
    assert float(trajectory.loss) == pytest.approx(4.025491054668388, abs=1e-12)
    for slope in hamiltonian_gradients(trajectory).values():
        assert abs(float(slope)) < 1e-12
    best = hamiltonian(trajectory)
    for step in (-0.5, 0.5):
        other = {name: value + step for name, value in trajectory.params.items()}
        for name, value in hamiltonian(trajectory, other).items():
            assert_close(best[name] - value, 0.5 * problem.control_cost[0, 0] * step**2, **EXACT)


def test_costs_of_several_examples(rng):
    """Costs of states and of weights, as a penalty in J would be differentiated."""
    model, inputs, target = smooth()

    def running(name, x, params):
        if name == "1":
            return x.square().sum(1)
        if name == "2":
            return 0.1 * params["2.weight"].square().sum().expand(len(x)) + x.sin().sum(1)
        return None

    trajectory = states_and_costates(model, squared, inputs, target, running_cost=running)
    leaf = inputs.clone().requires_grad_()
    x1 = model[0](leaf)
    x2 = model[1](x1)
    costs = squared(model[2:](x2), target) + x1.square().sum(1) + x2.sin().sum(1)
    loss = costs.mean() + 0.1 * model[2].weight.square().sum()
    names, values = zip(*model.named_parameters(), strict=True)
    slope, *grads = torch.autograd.grad(loss, [leaf, *values])
    assert_close(trajectory.loss, loss.detach(), **EXACT)
    assert_close(trajectory.initial_costates[0], -slope, **EXACT)
    for name, grad in zip(names, grads, strict=True):
        assert_close(hamiltonian_gradients(trajectory, [name])[name], -grad, **EXACT)
    rows = hamiltonian(trajectory, per_example=True)
    for name, value in hamiltonian(trajectory).items():
        assert_close(rows[name].sum(), value, **EXACT)


# Augmented Hamiltonians


def test_the_penalty_on_moves():
    """It is rho |phi - theta|^2 without a half; per layer if asked; 0 where nothing moved."""
    model, inputs, target = smooth()
    trajectory = states_and_costates(model, squared, inputs, target)
    params = moved(model, 0.5)
    plain = hamiltonian(trajectory, params)
    for rho in (0.3, {"0": 0.3, "2": 0.0, "4": 2.0}):
        found = proximal_hamiltonian(trajectory, params, rho)
        for name in ("0", "2", "4"):
            weight = rho if isinstance(rho, float) else rho[name]
            move = sum(
                (params[f"{name}.{part}"] - trajectory.params[f"{name}.{part}"]).square().sum()
                for part in ("weight", "bias")
            )
            assert_close(found[name], plain[name] - weight * move, **EXACT)
        assert torch.equal(found["1"], plain["1"])
    rest = proximal_hamiltonian(trajectory, {}, 7.0)
    assert_close(total(rest), total(hamiltonian(trajectory)), **EXACT)


def test_the_penalty_on_infeasible_states_and_costates():
    """E-MSA, in numbers for a tanh layer whose Jacobian is known."""
    model, inputs, target = smooth()
    trajectory = states_and_costates(model, squared, inputs, target)
    params = moved(model, 0.5)
    found = feasibility_hamiltonian(trajectory, params, 0.7)
    plain = hamiltonian(trajectory, params)
    for t in (0, 2, 4):
        (x,), p = trajectory.states[t], trajectory.costates[t]
        w, b = params[f"{t}.weight"], params[f"{t}.bias"]
        before = trajectory.costates[t - 1] if t else trajectory.initial_costates[0]
        gap = (trajectory.outputs[t] - x @ w.T - b).square().sum() + (before - p @ w).square().sum()
        assert_close(found[str(t)], plain[str(t)] - 0.35 * gap, **EXACT)
    assert_close(found["1"], plain["1"], **EXACT)
    leaf = {name: value.requires_grad_() for name, value in moved(model, 0.0).items()}
    augmented = total(feasibility_hamiltonian(trajectory, leaf, 3.0))
    slopes = torch.autograd.grad(augmented, [*leaf.values()])
    expected = hamiltonian_gradients(trajectory)
    for slope, name in zip(slopes, leaf, strict=True):  # the penalty is flat at the old controls
        assert_close(slope, expected[name], **EXACT)


# Per example, and bad input


def test_batch_norm_has_no_hamiltonian_per_example():
    """Refused in words in training mode; in evaluation mode it maps each example by itself."""
    model = seeded(norm_mlp, 0).double()
    inputs, target = class_batches(4, dtype=float64)[0]
    trajectory = states_and_costates(model, losses, inputs, target)
    with pytest.raises(UnsupportedModelError, match=r"'1' \(BatchNorm1d\) couples the examples"):
        hamiltonian(trajectory, per_example=True)
    rows = hamiltonian(trajectory, layers=("0", "2"), per_example=True)
    assert_close(rows["0"].sum(), hamiltonian(trajectory)["0"], **EXACT)
    trajectory = states_and_costates(model.eval(), losses, inputs, target)
    assert len(hamiltonian(trajectory, per_example=True)) == 7


@pytest.mark.parametrize(
    "function", [lambda x: x - x.mean(0), lambda x: x.softmax(0), lambda x: x @ (x.T @ x)]
)
def test_other_layers_that_couple_examples(function):
    """Found from the layer itself, whatever it is called."""

    class Coupled(nn.Module):
        is_layer = True

        def forward(self, x):
            return function(x)

    inputs, target = class_batches(3, dtype=float64)[0]
    trajectory = states_and_costates(Coupled(), losses, inputs, target)
    with pytest.raises(UnsupportedModelError, match="'coupled' .Coupled. couples the examples"):
        hamiltonian(trajectory, per_example=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"0.weight": torch.zeros(2)},), r"'0.weight' must have shape \(6, 6\); got \(2,\)"),
        (({"w": torch.zeros(2)},), "params must name controls of the model; got 'w'"),
    ],
)
def test_controls_that_do_not_fit(arguments, message):
    model, inputs, target = smooth()
    trajectory = states_and_costates(model, squared, inputs, target)
    with pytest.raises(ValueError, match=message):
        hamiltonian(trajectory, *arguments)


def test_names_and_penalties_that_mean_nothing():
    model, inputs, target = smooth()
    trajectory = states_and_costates(model, squared, inputs, target)
    with pytest.raises(ValueError, match=r"names of layers; got 'fc'. There are \['0'"):
        hamiltonian(trajectory, layers=("fc",))
    with pytest.raises(ValueError, match="parameters of the model; got 'w'"):
        hamiltonian_gradients(trajectory, ["w"])
    with pytest.raises(ValueError, match="rho must be at least 0; got -1 for the layer '0'"):
        proximal_hamiltonian(trajectory, moved(model, 1.0), -1)
