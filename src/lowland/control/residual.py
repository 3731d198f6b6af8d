"""How far each layer is from satisfying the maximum principle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lowland.control.checks import check_choice, check_values
from lowland.control.full_batch import products_of
from lowland.control.hamiltonian import hamiltonian_gradients, owners
from lowland.control.products import is_linear_in
from lowland.control.trajectory import Trajectory, cost_of
from lowland.errors import UnsupportedModelError

__all__ = ["Residual", "maximum_principle_residual"]

Values = Sequence[float]


@dataclass(frozen=True)
class Residual:
    r"""What the third equation of the maximum principle leaves open in one layer.

    Attributes:
        gap: :math:`\max_\varphi \sum_s H_t(\varphi) - \sum_s H_t(\theta) \ge 0` over the layer's
            discrete weights, in the unit of the loss; None if it has none.
        gain: The largest part of the gap that one entry alone has, in the unit of the loss.
        changes: Share of the discrete entries that are not their own argmax; None if there is none.
        gradient: Euclidean norm of :math:`\sum_s \nabla_\theta H_t` in the layer's other controls;
            0 is the maximum principle's first-order condition for these.
        entries: Number of discrete entries.
    """

    gap: float | None
    gain: float | None
    changes: float | None
    gradient: float
    entries: int


def maximum_principle_residual(
    trajectory: Trajectory,
    *,
    values: Values | Mapping[str, Values] | None = None,
    lam: float = 0.0,
) -> dict[str, Residual]:
    r"""Measure for every layer how much its Hamiltonian could still grow.

    In a layer that is linear in its weight W, with the running cost
    :math:`\lambda \lVert W \rVert^2`, the maximum over a finite set V is taken entry by entry:

    .. math:: \sum_{ij} \max_{v \in V} [M_{ij} v - \lambda v^2]
        - [M_{ij} W_{ij} - \lambda W_{ij}^2].

    A gap of zero in every layer is the maximum principle. For sets that are not convex it is
    neither necessary nor sufficient for a minimum of J.

    Args:
        trajectory: States and costates.
        values: The set of each discrete weight by qualified name; or one set for all weights of at
            least two axes whose entries lie in it. None if all controls are floats.
        lam: :math:`\lambda \ge 0`, in the unit of the loss.

    Returns:
        A residual for every layer that has controls, by name. A control that several layers use
        counts in the first of them, with the sum over its uses.

    Raises:
        ValueError: If a set is empty or not finite, a weight is not in its set or unknown, lam is
            negative, or the trajectory has a running cost of the discrete weights.
        UnsupportedModelError: If a layer is not linear in a discrete weight.

    Source:
        Li & Hao, ICML 2018; the measure is ours.
    """
    check_choice(lam, 0.0)
    sets = sets_of(trajectory, values)
    check_costs(trajectory, sets)
    products = products_of(trajectory, list(sets)) if sets else {}
    floats = {name for layer in trajectory.layers for name in layer.parameters} - set(sets)
    slopes = hamiltonian_gradients(trajectory, sorted(floats))
    found = {}
    owned = owners(trajectory)
    for layer in trajectory.layers:
        if not owned[layer.name]:
            continue
        gains = [
            gains_of(trajectory.params[name], products[name], sets[name], lam).flatten()
            for name in owned[layer.name]
            if name in sets
        ]
        squares = sum(
            float(slopes[name].double().square().sum())
            for name in owned[layer.name]
            if name in slopes
        )
        joined = torch.cat(gains) if gains else None
        found[layer.name] = Residual(
            gap=None if joined is None else float(joined.sum()),
            gain=None if joined is None else float(joined.max()),
            changes=None if joined is None else float((joined > 0).double().mean()),
            gradient=squares**0.5,
            entries=0 if joined is None else joined.numel(),
        )
    return found


def gains_of(weight: Tensor, product: Tensor, values: Values, lam: float) -> Tensor:
    """What each entry would add to the Hamiltonian at its own argmax; 0 where it is there."""
    allowed = torch.tensor([*map(float, values)], dtype=weight.dtype, device=weight.device)
    best = torch.stack([product * v - lam * v.square() for v in allowed]).amax(0)
    return (best - (product * weight - lam * weight.square())).clamp(min=0)


def sets_of(
    trajectory: Trajectory, values: Values | Mapping[str, Values] | None
) -> dict[str, Values]:
    """Say which weights are discrete, and check that they are in their sets."""
    if values is None:
        return {}
    for allowed in values.values() if isinstance(values, Mapping) else [values]:
        check_values(allowed)
    params = trajectory.params
    if not isinstance(values, Mapping):
        used = {name for layer in trajectory.layers for name in layer.parameters}
        return {
            name: values
            for name, weight in params.items()
            if name in used and weight.ndim > 1 and lies_in(weight, values)
        }
    for name, allowed in values.items():
        if name not in params:
            raise ValueError(
                f"values must name parameters of the model; got {name!r}. "
                f"There are {sorted(params)}."
            )
        if not lies_in(params[name], allowed):
            raise ValueError(
                f"every entry of {name!r} must lie in {tuple(allowed)}; it does not. Move the "
                "weight into its set first, or leave it out."
            )
    return dict(values)


def lies_in(weight: Tensor, values: Values) -> bool:
    """Whether every entry is one of the values."""
    allowed = torch.tensor([*map(float, values)], dtype=weight.dtype, device=weight.device)
    return bool(torch.isin(weight, allowed).all())


def check_costs(trajectory: Trajectory, sets: Mapping[str, Values]) -> None:
    """Refuse a running cost that would make the argmax another than the one entry by entry."""
    for t, layer in enumerate(trajectory.layers):
        own = [name for name in layer.parameters if name in sets]
        for name in own:
            if is_linear_in(layer, name):
                continue
            raise UnsupportedModelError(
                f"a layer must be linear in its discrete weight; {layer.name!r} is not in "
                f"{name!r}. Leave this weight out of values."
            )
        if not own or trajectory.running_cost is None:
            continue
        params = {name: trajectory.params[name] for name in layer.parameters}
        for name in own:
            params[name] = params[name].clone().requires_grad_()
        with torch.enable_grad():
            cost = cost_of(
                trajectory.running_cost, layer, trajectory.states[t], params, trajectory.count
            )
        if cost is not None and cost.requires_grad:
            raise ValueError(
                f"the running cost must not depend on the discrete weight {own[0]!r}; it does. "
                "Give lam for the cost lam times its squared norm."
            )
