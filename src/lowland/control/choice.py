"""Choose discrete weights by their rule, tensor by tensor, and refuse what cannot be chosen."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.control.checks import check_inside, check_values
from lowland.control.discretize import LINEAR
from lowland.control.held import apply_rule, smallest_gap
from lowland.control.marks import values_of
from lowland.control.rules import largest_wrong

__all__ = ["choose_values", "discrete_weights", "drawn"]

Item = TypeVar("Item")


def choose_values(
    weight: Float[Tensor, "*shape"],
    product: Float[Tensor, "*shape"],
    values: Sequence[float],
    *,
    lam: float = 0.0,
    rho: float = 0.0,
    threshold: str = "absolute",
) -> Float[Tensor, "*shape"]:
    r"""Maximize :math:`M v - \lambda v^2 - \rho_k (v - w)^2` for every weight of a tensor.

    Args:
        weight: The present weights.
        product: M, or its moving average.
        values: The set, ascending.
        lam: Price of a squared weight.
        rho: Penalty on a squared move: rho_k, or relative :math:`\rho_k = \rho m / \Delta`.
        threshold: ``"absolute"`` or ``"relative"``.

    Returns:
        The new weights.

    Source:
        Specification section 2 and its settled points (i) to (iii).
    """
    found = tuple(values)
    penalty: float | Tensor = rho
    if threshold == "relative":
        penalty = rho * largest_wrong(weight, product, found, lam).item() / smallest_gap(found)
    return apply_rule(weight.to(product.dtype), product, found, penalty, lam).to(weight.dtype)


def discrete_weights(
    model: nn.Module, values: Sequence[float] | None
) -> dict[str, tuple[float, ...]]:
    """Find the discrete weights of a model, and the set of each.

    Args:
        model: Any module.
        values: The set; None for a model that went through :func:`lowland.control.discretize`.

    Returns:
        Sets by the weight's qualified name, ascending: those the model was discretized to, or else
        ``values`` for all weights of its linear, convolutional and embedding layers.

    Raises:
        ValueError: If there is none, the model has other sets, or a weight is not in its set.
    """
    wanted = None if values is None else check_values(values)
    found = values_of(model)
    if wanted is not None and any(own != wanted for own in found.values()):
        raise ValueError(
            "values must be those that the model was discretized to, or None; got "
            f"{wanted}, but the model has {sorted(set(found.values()))}."
        )
    if not found and wanted is None:
        raise ValueError(
            "the model must have discrete weights, or values must be given; "
            f"{type(model).__name__} has none. Call lowland.control.discretize(model, values) "
            "first."
        )
    if wanted is not None and not found:
        layers = [module for module in model.modules() if isinstance(module, LINEAR)]
        known = {id(layer.weight) for layer in layers}
        found = {name: wanted for name, p in model.named_parameters() if id(p) in known}
    if not found:
        raise ValueError(
            "the model must have a linear, convolutional or embedding layer, whose weights are "
            f"chosen from values; {type(model).__name__} has none."
        )
    for name, own in found.items():
        check_inside(model.get_parameter(name), own, name)
    return found


def drawn(items: Sequence[Item], count: int | None, draws: torch.Generator) -> list[Item]:
    """Draw some items, and leave them in their order.

    Args:
        items: All of them.
        count: How many; None for all.
        draws: Source of randomness; not used if all are taken.

    Returns:
        The items drawn.
    """
    if count is None or count >= len(items):
        return list(items)
    chosen: list[int] = torch.randperm(len(items), generator=draws)[:count].tolist()
    return [items[i] for i in sorted(chosen)]
