"""Searches over discrete weights: beside all candidates, along sweeps, and layer by layer."""

from collections.abc import Mapping
from copy import deepcopy
from itertools import pairwise, product
from statistics import fmean, median
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, float64, nn
from torch.optim import Adam

from lowland.control import (
    DiscreteMSA,
    basic_msa,
    control_products,
    discrete_parameters,
    discretize,
    error_estimate,
    float_parameters,
    maximum_principle_residual,
    monotone_msa,
    squared_hinge,
    states_and_costates,
    values_of,
)
from lowland.control.choice import choose_values
from lowland.data import Batches, load
from lowland.models import build
from lowland.reproduce.li2018_settings import BINARY, Search
from lowland.results import plain
from lowland.training import generator

__all__ = ["METHODS", "measure_search", "squared"]

METHODS = {
    "start": "random weights, where all begin",
    "plain": "plain MSA, last sweep",
    "plain, best": "plain MSA, best sweep",
    "augmented": "augmented MSA (relative penalty), last sweep",
    "augmented, best": "augmented MSA, best sweep",
    "monotone": "monotone MSA",
    "monotone, 5 starts": "monotone MSA, best of 5 starts",
}

WIDTHS = (3, 2, 2, 1)  # 12 weights
STARTS = 5
RHO = 0.5  # the published penalty for two values
LOOKED_AT = 200  # images of the batch that residual and error estimate are measured on


def measure_search(search: Search) -> dict[str, Any]:
    """Search among all candidates, descend on digits, and look at the maximum principle.

    Args:
        search: How much of it.

    Returns:
        Plain values under ``"candidates"``, ``"descent"`` and ``"principle"``.
    """
    problems = [search_one(search, number) for number in range(search.problems)]
    rows = []
    for method in METHODS:
        found = [problem[method] for problem in problems]
        rows.append(
            {
                "method": method,
                "n": len(found),
                "loss": fmean(one["loss"] for one in found),
                "gap": fmean(one["gap"] for one in found),
                "largest_gap": max(one["gap"] for one in found),
                "optimal": sum(one["better"] == 0 for one in found),
                "better": median(one["better"] for one in found),
                "worst_better": max(one["better"] for one in found),
            }
        )
    images, labels = digits(search)
    return plain(
        {
            "candidates": rows,
            "optima": [problem["optimum"] for problem in problems],
            "descent": descend(search, images, labels),
            "principle": look_at_principle(search, images, labels),
        }
    )


# All candidates


def small_network() -> nn.Sequential:
    """Linear layers of 12 weights with tanh between them, in float64."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(WIDTHS):
        layers += [nn.Linear(wide, narrow, bias=False, dtype=float64), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def squared(output: Tensor, target: Tensor) -> Tensor:
    """Squared distance of each example."""
    return (output - target).square().sum(1)


def search_one(search: Search, number: int) -> dict[str, Any]:
    """Search for the weights that fit a random float network, and rank what is found.

    Args:
        search: How much of it.
        number: Of the problem; the seed of everything in it.

    Returns:
        For every method its loss, its gap to the best candidate and the percentage of candidates
        that are better; ``"optimum"``: the loss of the best one.
    """
    draws = generator(number, "li2018", "candidates")
    inputs = torch.randn(search.examples, WIDTHS[0], dtype=float64, generator=draws)
    teacher = small_network()
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.copy_(torch.randn(weight.shape, dtype=float64, generator=draws))
        clean = teacher(inputs)
    noise = torch.randn(clean.shape, dtype=float64, generator=draws)
    batches = [(inputs, clean + search.noise * noise)]
    every = all_losses(*batches[0])
    finals: dict[str, float] = {}
    for start in range(STARTS):
        model = small_network()
        with torch.no_grad():
            for weight in model.parameters():
                drawn = torch.randint(2, weight.shape, generator=draws)
                weight.copy_(2.0 * drawn - 1)
        model_losses = descend_from(model, batches, search, is_first=start == 0)
        for name, value in model_losses.items():
            finals.setdefault(name, value)
        best = min(finals.get("monotone, 5 starts", float("inf")), model_losses["monotone"])
        finals["monotone, 5 starts"] = best
    optimum = every.min().item()
    ranked = {
        name: {
            "loss": value,
            "gap": max(0.0, value - optimum),
            "better": 100 * (every < value - 1e-9).double().mean().item(),
        }
        for name, value in finals.items()
    }
    return ranked | {"optimum": optimum}


def descend_from(
    model: nn.Module, batches: Any, search: Search, *, is_first: bool
) -> dict[str, float]:
    """Run the methods from copies of a model; from the first start all of them."""
    steady = monotone_msa(deepcopy(model), squared, batches, values=BINARY)
    found = {"monotone": steady.curve[-1]["loss"]}
    if not is_first:
        return found
    found["start"] = steady.curve[0]["loss"]
    for name, rho in (("plain", 0.0), ("augmented", RHO)):
        result = basic_msa(
            deepcopy(model),
            squared,
            batches,
            steps=search.sweeps,
            values=BINARY,
            rho=rho,
            threshold="relative",
        )
        losses = [row["loss"] for row in result.curve]
        found |= {name: losses[-1], f"{name}, best": min(losses)}
    return found


def all_losses(
    inputs: Float[Tensor, "examples inputs"], target: Float[Tensor, "examples outputs"]
) -> Float[Tensor, " candidates"]:
    """Compute the mean loss of every candidate, without any layer or costate.

    Args:
        inputs: Of all examples.
        target: Theirs.

    Returns:
        One loss for each of the 4,096 settings of 12 binary weights.
    """
    sizes = [wide * narrow for wide, narrow in pairwise(WIDTHS)]
    every = torch.tensor([*product(BINARY, repeat=sum(sizes))], dtype=inputs.dtype)
    state = inputs.expand(len(every), *inputs.shape)
    parts = every.split(sizes, dim=1)
    for number, part in enumerate(parts):
        weight = part.reshape(len(every), WIDTHS[number + 1], WIDTHS[number])
        state = state @ weight.mT
        state = state.tanh() if number < len(parts) - 1 else state
    return (state - target).square().sum(2).mean(1)


# Sweeps


def digits(search: Search) -> tuple[Tensor, Tensor]:
    """The first training digits."""
    found = load("digits")
    return found.images[: search.images], found.labels[: search.images]


def binary_network(search: Search) -> nn.Module:
    """The network of the whole-batch runs, with random binary weights."""
    return discretize(build(search.model, in_shape=(1, 8, 8)), BINARY, seed=0)


def descend(search: Search, images: Tensor, labels: Tensor) -> dict[str, list[dict[str, Any]]]:
    """Follow J along plain, augmented and monotone sweeps from the same weights."""
    batches = [*Batches(images, labels, len(labels), shuffle=False)]
    steps = search.descent
    runs = {
        "plain": basic_msa(binary_network(search), squared_hinge, batches, steps=steps),
        "augmented": basic_msa(
            binary_network(search),
            squared_hinge,
            batches,
            steps=steps,
            rho=RHO,
            threshold="relative",
        ),
        "monotone": monotone_msa(binary_network(search), squared_hinge, batches, steps=steps),
    }
    keys = ("step", "loss", "changed", "trials")
    return {
        name: [{key: row[key] for key in keys if key in row} for row in result.curve]
        for name, result in runs.items()
    }


# The maximum principle


def look_at_principle(search: Search, images: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """Train by mini-batches, and look now and then how far every layer is from its own argmax.

    Args:
        search: When to look.
        images: What is trained on; the first 200 are looked at.
        labels: Its classes.

    Returns:
        For every look the residual of the layers with discrete weights, and what the error
        estimate says of jumping to the argmax of all layers, without and with penalty.
    """
    model = binary_network(search)
    rule = DiscreteMSA(discrete_parameters(model))
    floats = Adam(float_parameters(model), 0.01)
    batches = Batches(images, labels, 50)
    some = slice(0, LOOKED_AT)
    inputs, target = next(iter(Batches(images[some], labels[some], LOOKED_AT, shuffle=False)))
    looks, step = [], 0
    while True:
        for batch, classes in batches:
            if step in search.looks:
                looks.append({"step": step} | measure_principle(model, inputs, target))
            if step >= max(search.looks):
                return looks
            rule.zero_grad()
            floats.zero_grad()
            squared_hinge(model(batch), classes).mean().backward()
            rule.step()
            floats.step()
            step += 1


def measure_principle(model: nn.Module, inputs: Tensor, target: Tensor) -> dict[str, Any]:
    """Measure residual and error estimate at the present weights."""
    trajectory = states_and_costates(model, squared_hinge, inputs, target)
    sets = values_of(model)
    residual = maximum_principle_residual(trajectory, values=sets)
    products = control_products(trajectory, list(sets))
    jumps = {}
    for name, rho in (("plain", 0.0), ("augmented", RHO)):
        new = {
            key: choose_values(
                trajectory.params[key], products[key], sets[key], rho=rho, threshold="relative"
            )
            for key in sets
        }
        found = error_estimate(
            model, squared_hinge, inputs, target, new, probes=1, generator=generator(0, "probes")
        )
        jumps[name] = {
            "moved": moved(trajectory.params, new),
            "change": found.change,
            "gain": found.gain,
            "state_error": found.state_error,
            "costate_error": found.costate_error,
            "remainder": found.remainder,
            "constant": found.constant,
        }
    layers = [
        {"layer": name, "gap": one.gap, "changes": one.changes, "entries": one.entries}
        for name, one in residual.items()
        if one.gap is not None
    ]
    return {"loss": trajectory.loss.item(), "layers": layers, "jumps": jumps}


def moved(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> float:
    """Share of the discrete weights that a jump changes."""
    changed = sum(int((old[name] != value).sum()) for name, value in new.items())
    return changed / sum(value.numel() for value in new.values())
