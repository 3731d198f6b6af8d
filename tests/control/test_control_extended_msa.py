"""``lowland.control.extended_msa``: a closed form where H is quadratic, then the paper's toy."""

import json
from copy import deepcopy
from math import pi

import pytest
import torch
from torch import float64, nn
from torch.testing import assert_close

from lowland.control.extended import extended_msa, maximize_extended, weight_decay_cost
from lowland.control.hamiltonian import feasibility_hamiltonian, hamiltonian
from lowland.control.trajectory import states_and_costates
from lowland.results import Status
from small_networks import class_batches, conv_net, losses, norm_mlp, seeded


class Residual(nn.Module):
    """x + 0.25 tanh(W x + b): one layer of the control problem, at first zero."""

    is_layer = True

    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x):
        return x + 0.25 * self.inner(x).tanh()


class Sine(nn.Module):
    """The input on every node, residual layers, and the sum of the nodes."""

    def __init__(self, depth=20, width=5):
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(*(Residual(width) for _ in range(depth)))

    def forward(self, x):
        return self.layers(x.expand(-1, self.width)).sum(1)


def sine_batches(count=100):
    x = torch.linspace(-pi, pi, count, dtype=float64)[:, None]
    return [(x, x[:, 0].sin())]


def squares(output, target):
    return (output - target).square()


def quadratic_problem(decay):
    """Two linear layers; the trajectory at random weights."""
    draws = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)).double()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, dtype=float64, generator=draws)
    inputs = torch.randn(7, 3, dtype=float64, generator=draws)
    target = torch.randn(7, 2, dtype=float64, generator=draws)
    cost = weight_decay_cost(decay, 7)

    def loss_fn(output, target):
        return (output - target).square().sum(1)

    return states_and_costates(model, loss_fn, inputs, target, running_cost=cost)


@pytest.mark.parametrize("rho", [0.0, 0.1, 3.0])
def test_linear_layers_meet_the_closed_form(rho):
    """M - 2 d W = rho ((W - W0) X^T X + P^T P (W - W0)), solved as one linear system."""
    decay = 0.3
    trajectory = quadratic_problem(decay)
    found = maximize_extended(trajectory, rho, inner_steps=60)
    for t, name in enumerate(found):
        (x,), p, old = trajectory.states[t], trajectory.costates[t], trajectory.params[name]
        rows, columns = (torch.eye(size, dtype=float64) for size in old.shape)
        matrix = 2 * decay * torch.eye(old.numel(), dtype=float64)
        matrix += rho * (torch.kron(rows, x.T @ x) + torch.kron(p.T @ p, columns))
        right = p.T @ x - 2 * decay * old
        wanted = old + torch.linalg.solve(matrix, right.flatten()).view_as(old)
        assert_close(found[name], wanted, rtol=1e-5, atol=1e-6)
        if rho == 0:
            assert_close(wanted, p.T @ x / (2 * decay), rtol=1e-12, atol=1e-12)


def test_nothing_is_charged_at_the_trajectory():
    """The feasibility terms vanish there: the plain Hamiltonian, and the same slope."""
    trajectory = quadratic_problem(0.3)
    plain = hamiltonian(trajectory)
    for rho in (0.0, 1.0, 1e6):
        charged = feasibility_hamiltonian(trajectory, {}, rho)
        for name, value in plain.items():
            assert charged[name].item() == pytest.approx(value.item(), rel=1e-14)


def test_a_high_price_keeps_the_controls():
    trajectory = quadratic_problem(0.3)
    found = maximize_extended(trajectory, 1e9, inner_steps=50)
    for name, value in found.items():
        assert_close(value, trajectory.params[name], rtol=0, atol=1e-7)


def test_never_lower_than_the_old_controls(rng):
    """One inner step from a start far away does not help: the controls stay."""
    trajectory = quadratic_problem(0.3)
    best = maximize_extended(trajectory, 1.0, inner_steps=200)
    moved = maximize_extended(trajectory, 1.0, inner_steps=1, perturbation=50.0, draws=rng)
    heights = [
        sum(feasibility_hamiltonian(trajectory, params, 1.0).values()).item()
        for params in ({}, moved, best)
    ]
    assert heights[0] <= heights[1] < heights[2]


def test_layers_that_share_a_weight_are_maximized_together():
    """The sum of the Hamiltonians of both uses; alone they would pull apart."""
    inner = nn.Linear(2, 2, bias=False, dtype=float64)
    model = nn.Sequential(inner, nn.Tanh(), inner)
    inputs = torch.randn(5, 2, dtype=float64, generator=torch.Generator().manual_seed(0))
    trajectory = states_and_costates(
        model, lambda o, t: (o - t).square().sum(1), inputs, inputs,
        running_cost=weight_decay_cost(0.1, 5),
    )  # fmt: skip
    found = maximize_extended(trajectory, 0.5, inner_steps=100)
    assert list(found) == ["0.weight"]
    leaf = found["0.weight"].requires_grad_()
    height = sum(feasibility_hamiltonian(trajectory, {"0.weight": leaf}, 0.5).values())
    (slope,) = torch.autograd.grad(height, leaf)
    assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-5)


def test_the_toy_learns_in_a_few_steps():
    """Six layers, ten steps of the full batch: the loss falls to less than a fifth."""
    model = Sine(depth=6).double()
    result = extended_msa(
        model, squares, sine_batches(40), rho=1.0, steps=10, weight_decay=1e-3, inner_steps=5
    )
    heights = [row["loss"] for row in result.curve]
    assert result.status is Status.FINISHED
    assert len(heights) == 11
    assert heights[-1] < heights[0] / 5
    inputs, target = sine_batches(40)[0]
    price = sum(p.square().sum() for p in model.parameters()) * 1e-3
    end = squares(model(inputs), target).mean() + price
    assert heights[-1] == pytest.approx(end.item(), rel=1e-12)


@pytest.mark.slow
def test_the_toy_of_the_paper_beside_its_baselines():
    """20 layers, 100 samples, rho = 1: per step ahead of SGD and Adam at the published rates."""
    ends = {}
    model = Sine().double()
    result = extended_msa(model, squares, sine_batches(), rho=1.0, steps=40, weight_decay=1e-3)
    ends["E-MSA"] = result.curve[-1]["loss"]
    ((inputs, target),) = sine_batches()
    for name, make in {
        "SGD": lambda params: torch.optim.SGD(params, lr=0.01),
        "Adam": lambda params: torch.optim.Adam(params, lr=1e-3),
    }.items():
        peer = Sine().double()
        draws = torch.Generator().manual_seed(0)
        for parameter in peer.parameters():
            noise = torch.rand(parameter.shape, dtype=float64, generator=draws)
            parameter.data = 0.005 * (2 * noise - 1)
        optimizer = make(peer.parameters())
        for _ in range(40):
            optimizer.zero_grad()
            squares(peer(inputs), target).mean().backward()
            optimizer.step()
        ends[name] = squares(peer(inputs), target).mean().item()
    assert ends["E-MSA"] < 0.1 * result.curve[0]["loss"]
    assert ends["E-MSA"] < min(ends["SGD"], ends["Adam"])


def test_without_a_perturbation_zero_weights_are_a_saddle():
    """All nodes stay alike: the symmetry is not broken."""
    model = Sine(depth=3).double()
    options = {"rho": 1.0, "steps": 3, "inner_steps": 5}
    extended_msa(model, squares, sine_batches(20), perturbation=0.0, **options)
    for layer in model.layers:
        assert_close(layer.inner.weight, layer.inner.weight[:1, :1].expand(5, 5))
    model = Sine(depth=3).double()
    extended_msa(model, squares, sine_batches(20), **options)
    assert model.layers[0].inner.weight.std() > 1e-4


@pytest.mark.parametrize(("make", "shape"), [(norm_mlp, (4,)), (conv_net, (1, 4, 4))])
def test_networks_of_every_kind_on_small_batches(make, shape):
    """Batch norm, convolution and pooling; the same seed gives the same, another one another."""
    batches = class_batches(*shape, sizes=(16, 16, 16), dtype=float64)
    ends = []
    for seed in (0, 0, 1):
        model = seeded(make, 1).double()
        result = extended_msa(model, losses, batches, rho=0.03, steps=6, inner_steps=3, seed=seed)
        assert result.status is Status.FINISHED
        assert result.curve[-1]["loss"] < result.curve[0]["loss"]
        ends.append(result.curve)
    assert ends[0] == ends[1] != ends[2]


def test_frozen_and_discrete_parameters_stay():
    model = seeded(norm_mlp, 1).double()
    model[3].requires_grad_(requires_grad=False)
    before = deepcopy(model.state_dict())
    extended_msa(model, losses, class_batches(4, dtype=float64), rho=0.1, steps=2, inner_steps=2)
    assert torch.equal(model[3].weight, before["3.weight"])
    assert not torch.equal(model[0].weight, before["0.weight"])
    assert not model.training or all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_running_away_ends_with_a_status(tmp_path):
    """Without a price the Hamiltonian of a linear layer has no maximum: float32 soon overflows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(6)))
    batches = [(x.float(), y.float()) for x, y in sine_batches(10)]

    def loss_fn(output, target):
        return (output[:, 0] - target).square()

    result = extended_msa(model, loss_fn, batches, rho=0.0, steps=30, out=tmp_path)
    assert result.status is Status.NOT_FINITE
    assert "must be finite" in result.message
    assert "weights are" in result.message
    assert all(p.isfinite().all() for p in model.parameters())
    saved = json.loads((tmp_path / "result.json").read_text())
    assert saved["status"] == "not_finite"


BAD = [
    ({"rho": -1.0}, "rho must be finite and at least 0; got -1.0"),
    ({"rho": float("inf")}, "rho must be finite and at least 0; got inf"),
    ({"weight_decay": -1.0}, "weight_decay must be finite and at least 0"),
    ({"inner_steps": 0}, "inner_steps must be a whole number, at least 1; got 0"),
    ({"inner_steps": 1.5}, "inner_steps must be a whole number"),
    ({"perturbation": -1.0}, "perturbation must be finite and at least 0"),
    ({"steps": 0}, "steps must be a whole number, at least 1; got 0"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_input(options, words):
    with pytest.raises(ValueError, match=words):
        extended_msa(
            Sine(2).double(), squares, sine_batches(5), **{"rho": 1.0, "steps": 1} | options
        )


def test_bad_data_and_models():
    model = Sine(2).double()
    with pytest.raises(ValueError, match="at least one batch; got none"):
        extended_msa(model, squares, [], rho=1.0, steps=1)
    with pytest.raises(ValueError, match="iterable more than once"):
        extended_msa(model, squares, iter(sine_batches(5)), rho=1.0, steps=1)
    frozen = Sine(2).requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="must have float parameters that require a gradient"):
        extended_msa(frozen, squares, sine_batches(5), rho=1.0, steps=1)
    with pytest.raises(ValueError, match="a perturbation needs draws"):
        maximize_extended(quadratic_problem(0.1), 1.0, perturbation=0.1)
