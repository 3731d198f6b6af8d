"""Where a matching begins, what it must not touch, and how good it is."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lowland.connectivity.matching import allowed, assign, match
from lowland.connectivity.permutations import Permutations, Symmetry, identity
from lowland.connectivity.weight_similarity import (
    WeightSimilarity,
    differences,
    sorted_products,
)
from lowland.training import generator, norm_layers, wide_type

__all__ = ["parameters", "score", "search"]


def parameters(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point parameters of a state, in float64 where the device has it."""
    return {
        name: state[name].to(wide_type(state[name].device))
        for name, value in model.named_parameters()
        if value.is_floating_point()
    }


def search(
    model: nn.Module,
    symmetry: Symmetry,
    states: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    objective: Any,
    *,
    passes: int,
    seed: int,
    on_pass: Callable[[], None],
) -> tuple[dict[int, Tensor], int, bool]:
    """Begin with the units in their places, or by sorted weights if that is better, and match."""
    one, other = (parameters(model, state) for state in states)
    weights = WeightSimilarity(symmetry, one, other)
    by_rank = WeightSimilarity(symmetry, one, other, sorted_products)
    shared = shared_values(model, *states)
    frozen = WeightSimilarity(symmetry, shared, shared, differences)
    roots, seen = symmetry.roots, getattr(objective, "roots", set(symmetry.roots))
    begin, ranked = identity(symmetry), identity(symmetry)
    for root in roots:
        pairs = allowed(by_rank.pairs(root, {}), frozen.pairs(root, {}))
        whole, inner = assign(pairs)
        ranked |= {root: whole, **inner}
    if objective.total(ranked, {*roots})[0] > objective.total(begin, {*roots})[0]:
        begin = ranked
    return match(
        symmetry,
        lambda root: objective if root in seen else weights,
        begin,
        lambda root: frozen.pairs(root, {}),
        passes=passes,
        generator=generator(seed, "order of groups"),
        on_pass=on_pass,
    )


def shared_values(
    model: nn.Module, one: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What does not move along a path and is equal at both ends, apart from statistics."""
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    norms = norm_layers(model)
    return {
        name: value.double()
        for name, value in one.items()
        if name not in trained
        and name.rpartition(".")[0] not in norms
        and torch.equal(value, other[name])
    }


def score(objective: Any, permutations: Permutations, symmetry: Symmetry) -> float:
    """The objective as a share of its bound."""
    found, bound = objective.total(permutations, set(symmetry.roots))
    return found / bound if bound else 0.0
