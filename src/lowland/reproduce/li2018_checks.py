"""Claims C1 to C4 of the recipe: identities against autograd, closed forms against sweeps."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, float64, nn
from torch.optim import Adam

from lowland.control import (
    DiscreteMSA,
    Trajectory,
    basic_msa,
    control_products,
    discrete_parameters,
    discretize,
    error_estimate,
    explicit_step,
    float_parameters,
    states_and_costates,
    values_of,
)
from lowland.problems.linear_quadratic import (
    LinearQuadratic,
    double_integrator,
    one_step_regulator,
)
from lowland.reproduce.images import losses as cross_entropy
from lowland.reproduce.li2018_search import squared
from lowland.reproduce.li2018_settings import BINARY, TERNARY, Checks
from lowland.results import Status, plain
from lowland.training import generator

__all__ = ["measure_checks"]

BATCH = 12


def measure_checks(checks: Checks) -> dict[str, Any]:
    """Measure everything that C1 to C4 are judged by.

    Args:
        checks: How much of it.

    Returns:
        Plain values under ``"identities"``, ``"explicit"``, ``"remainder"`` and ``"sweeps"``.
    """
    found = {
        "identities": [compare_with_autograd(name, *make()) for name, make in NETWORKS.items()],
        "explicit": [
            compare_with_optimizer(name, values, checks.steps)
            for name in ("fully connected", "convolutional")
            for values in (BINARY, TERNARY)
        ],
        "remainder": [remainder(distance) for distance in checks.distances],
        "sweeps": [measure_sweeps(problem, rho, checks) for problem, rho in SWEEPS],
    }
    return plain(found)


# C1


def fully_connected() -> tuple[nn.Sequential, tuple[int, ...]]:
    """Linear, with and without bias, batch norm in training mode, PReLU."""
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8, bias=False),
        nn.BatchNorm1d(8), nn.PReLU(8), nn.Linear(8, 3, bias=False), nn.BatchNorm1d(3),
    )  # fmt: skip
    return model, (6,)


def convolutional() -> tuple[nn.Sequential, tuple[int, ...]]:
    """Convolutions with padding, max-pooling before batch norm."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 3, bias=False), nn.BatchNorm1d(3),
    )  # fmt: skip
    return model, (2, 8, 8)


def strided() -> tuple[nn.Sequential, tuple[int, ...]]:
    """Groups, strides, dilations, reflected and circular padding, average pooling."""
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=(1, 2), groups=2), nn.Tanh(),
        nn.Conv2d(8, 4, 3, dilation=2, padding=2, padding_mode="reflect"), nn.Softplus(),
        nn.Conv2d(4, 4, (1, 3), padding=(0, 1), padding_mode="circular", groups=4),
        nn.AvgPool2d(2), nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip
    return model, (4, 9, 9)


def transposed() -> tuple[nn.Sequential, tuple[int, ...]]:
    """Transposed convolutions, group norm, adaptive pooling."""
    model = nn.Sequential(
        nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1), nn.GroupNorm(2, 4),
        nn.Sigmoid(), nn.ConvTranspose2d(4, 4, 3, dilation=2, groups=2), nn.GELU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 3),
    )  # fmt: skip
    return model, (2, 4, 4)


def one_dimensional() -> tuple[nn.Sequential, tuple[int, ...]]:
    """Convolutions along one axis, batch norm in evaluation mode, softmax inside."""
    model = nn.Sequential(
        nn.Conv1d(3, 5, 3, stride=2), nn.ELU(), nn.BatchNorm1d(5).eval(), nn.Conv1d(5, 4, 2),
        nn.Softmax(1), nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip
    return model, (3, 11)


def embedded() -> tuple[nn.Sequential, tuple[int, ...]]:
    """Embeddings of integers."""
    model = nn.Sequential(
        nn.Embedding(7, 4, padding_idx=0),
        nn.Flatten(),
        nn.Linear(20, 6),
        nn.SiLU(),
        nn.Linear(6, 3),
    )
    return model, (5,)


NETWORKS: dict[str, Callable[[], tuple[nn.Sequential, tuple[int, ...]]]] = {
    "fully connected": fully_connected,
    "convolutional": convolutional,
    "groups, strides, dilations": strided,
    "transposed convolutions": transposed,
    "one dimension": one_dimensional,
    "embedding": embedded,
}


def example_of(
    name: str, model: nn.Sequential, shape: tuple[int, ...]
) -> tuple[nn.Sequential, Tensor, Tensor]:
    """Draw weights, inputs and classes in float64."""
    draws = generator(0, "li2018", name)
    if isinstance(model[0], nn.Embedding):
        inputs = torch.randint(7, (BATCH, *shape), generator=draws)
    else:
        inputs = torch.randn(BATCH, *shape, dtype=float64, generator=draws)
    model.double()
    with torch.no_grad():
        model(inputs[:2])  # lazy layers learn their shapes
        for value in model.parameters():
            size = max(1, value[0].numel()) if value.ndim > 1 else 1
            value.copy_(torch.randn(value.shape, dtype=float64, generator=draws) / size**0.5)
    return model, inputs, torch.randint(3, (BATCH,), generator=draws)


def compare_with_autograd(name: str, made: nn.Sequential, shape: tuple[int, ...]) -> dict[str, Any]:
    """C1: the largest difference between costates and slopes, and between M and slopes."""
    model, inputs, target = example_of(name, made, shape)
    found = states_and_costates(model, cross_entropy, inputs, target)
    products = control_products(found)
    outputs, state = [], inputs
    for layer in model:
        state = layer(state)
        state.retain_grad()
        outputs.append(state)
    cross_entropy(state, target).mean().backward()
    costates = [
        largest(costate, -output.grad)
        for costate, output in zip(found.costates, outputs, strict=True)
        if isinstance(costate, Tensor) and output.grad is not None
    ]
    named = dict(model.named_parameters())
    weights = [largest(products[key], -p.grad) for key, p in named.items() if p.grad is not None]
    return {
        "network": name,
        "layers": ", ".join(dict.fromkeys(type(layer).__name__ for layer in model)),
        "costates": max(costates),
        "products": max(weights),
        "compared": len(costates) + len(weights),
        "missing": len(outputs) - len(costates) + len(named) - len(weights),
    }


def largest(one: Tensor, other: Tensor) -> float:
    """The largest absolute difference."""
    return (one - other).abs().max().item()


# C2


def compare_with_optimizer(name: str, values: tuple[float, ...], steps: int) -> dict[str, Any]:
    """C2: weights after some steps without any gradient in them, beside the optimizer's."""
    model, inputs, target = example_of(f"{name} {len(values)}", *NETWORKS[name]())
    discretize(model, values, seed=1)
    peer = deepcopy(model)
    model.requires_grad_(requires_grad=False)
    rho, lam = (0.5, 0.0) if values == BINARY else (0.25, 1e-3)
    rule = DiscreteMSA(discrete_parameters(peer), rho=rho, alpha=0.9, lam=lam)
    floats = {key: p for key, p in model.named_parameters() if key not in values_of(model)}
    ours, theirs = Adam(floats.values(), 1e-2), Adam(float_parameters(peer), 1e-2)
    averages, changed = None, 0
    for _ in range(steps):
        step = explicit_step(
            model, cross_entropy, inputs, target, averages, alpha=0.9, rho=rho, lam=lam
        )
        averages, changed = step.averages, changed + step.changed
        for key, value in floats.items():
            value.grad = -step.slopes[key]
        ours.step()
        peer.zero_grad()
        cross_entropy(peer(inputs), target).mean().backward()
        rule.step()
        theirs.step()
    pairs = [(model.get_parameter(key), peer.get_parameter(key)) for key in values_of(model)]
    return {
        "network": name,
        "values": values,
        "steps": steps,
        "changes": changed,
        "weights": sum(one.numel() for one, _ in pairs),
        "different": sum(int((one != other).sum()) for one, other in pairs),
    }


# C3


def remainder(distance: float) -> dict[str, Any]:
    """C3: what a move of all controls does to J beyond what the Hamiltonians promise."""
    model = nn.Sequential(
        nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)
    ).double()
    draws = generator(0, "li2018", "remainder")
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, dtype=float64, generator=draws) / 6**0.5)
    direction = {
        name: torch.randn(value.shape, dtype=float64, generator=draws)
        for name, value in model.named_parameters()
    }
    inputs = torch.randn(32, 6, dtype=float64, generator=draws)
    target = torch.randn(32, 3, dtype=float64, generator=draws)
    moved = {
        name: value.detach() + distance * direction[name]
        for name, value in model.named_parameters()
    }
    found = error_estimate(model, squared, inputs, target, moved)
    return {
        "distance": distance,
        "change": found.change,
        "gain": found.gain,
        "remainder": found.remainder,
        "ratio": found.remainder / distance**2,
        "constant": found.constant,
    }


# C4

# Oracles O3 and O4: problem and the penalty with a half, of the specification.
SWEEPS = (
    (one_step_regulator, 0.0), (one_step_regulator, 1.5), (one_step_regulator, 2.0),
    (one_step_regulator, 4.0), (double_integrator, 0.0), (double_integrator, 0.05),
)  # fmt: skip


@dataclass(frozen=True)
class Maximize:
    r"""The control that maximizes a quadratic Hamiltonian with the penalty on its move.

    Attributes:
        problem: Dynamics and costs.
        penalty: With a half: :math:`\tfrac12 \tilde\rho |u - u_k|^2`.
    """

    problem: LinearQuadratic
    penalty: float

    def __call__(self, trajectory: Trajectory) -> dict[str, Tensor]:
        r"""Solve :math:`(R + \tilde\rho) u = B^T p_{t+1} + \tilde\rho u_k` in every layer."""
        cost = self.problem.control_cost
        left = cost + self.penalty * torch.eye(len(cost), dtype=cost.dtype)
        new = {}
        for layer, costate in zip(trajectory.layers, trajectory.costates, strict=True):
            (name,) = layer.parameters
            assert isinstance(costate, Tensor)
            wanted = self.problem.push.T @ costate[0] + self.penalty * trajectory.params[name]
            new[name] = torch.linalg.solve(left, wanted)
        return new


def measure_sweeps(
    make: Callable[[], LinearQuadratic], penalty: float, checks: Checks
) -> dict[str, Any]:
    """C4: costs along the sweeps of the method, and how far the end is from Riccati's optimum."""
    problem = make()
    network = problem.network()
    result = basic_msa(
        network,
        problem.loss_fn,
        problem.batches(),
        steps=checks.sweeps if penalty else checks.plain_sweeps,
        argmax=Maximize(problem, penalty),
        running_cost=problem.running_cost(),
    )
    best = problem.optimal_controls()
    controls = torch.stack([value.detach() for value in network.parameters()])
    return {
        "problem": problem.name,
        "penalty": penalty,
        "costs": [row["loss"] for row in result.curve],
        "optimum": problem.cost(best).item(),
        "distance": largest(controls, best),
        "diverged": result.status is Status.NOT_FINITE
        or result.curve[-1]["loss"] > 10 * result.curve[0]["loss"],
    }
