"""The Hamiltonian of every layer, plain and augmented, as a function of the controls."""

from collections.abc import Collection, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from lowland.control.layer import Layer
from lowland.control.layers import check_controls
from lowland.control.trajectory import Trajectory, check_names, cost_of, slopes_at
from lowland.errors import UnsupportedModelError
from lowland.training import tensors_in

__all__ = [
    "feasibility_hamiltonian",
    "hamiltonian",
    "hamiltonian_gradients",
    "proximal_hamiltonian",
]


def hamiltonian(
    trajectory: Trajectory,
    params: Mapping[str, Tensor] | None = None,
    *,
    layers: Collection[str] | None = None,
    per_example: bool = False,
) -> dict[str, Float[Tensor, ""] | Float[Tensor, " batch"]]:
    r"""Evaluate :math:`\sum_s H_t(x_{s,t}, p_{s,t+1}, \theta_t)` of every layer.

    .. math:: H_t(x, p, \theta) = p \cdot f_t(x, \theta) - \tfrac1S L_t(x, \theta)

    at the states and costates of the trajectory and at any controls. Differentiable in these:
    at the trajectory's own, the gradient is minus that of J. Random layers keep their draws.

    Args:
        trajectory: States and costates.
        params: Controls by qualified name; those left out stay as in the trajectory.
        layers: Names of the layers that are wanted; None for all.
        per_example: One number per example, for layers that map each example by itself.

    Returns:
        Name of the layer to the sum over the examples, or to shape ``(batch,)``; in the unit of
        the loss.

    Raises:
        UnsupportedModelError: If ``per_example`` is asked of a layer that couples the examples,
            such as batch norm in training mode.
        ValueError: If a name is unknown, or a control has another shape.

    Source:
        Li & Hao, ICML 2018, the Hamiltonian and the maximum principle.
    """
    params = merged(trajectory, params)
    found = {}
    for t, layer in chosen(trajectory, layers):
        if per_example:
            check_rows(trajectory, t, params)
        outputs = layer(trajectory.states[t], params)
        found[layer.name] = value_of(trajectory, t, outputs, params, per_example=per_example)
    return found


def hamiltonian_gradients(
    trajectory: Trajectory, names: Collection[str] | None = None
) -> dict[str, Tensor]:
    r"""Differentiate the Hamiltonians in the controls: :math:`\sum_t \sum_s \nabla_\theta H_t`.

    This is minus the gradient of J, summed over the layers that use a control; it needs float
    controls, but no layer that is linear in them. See
    :func:`lowland.control.trajectory.control_products` for the way without a derivative.

    Args:
        trajectory: States and costates.
        names: Qualified names of the controls; None for all.

    Returns:
        Slopes by qualified name, each in the shape of its control.

    Raises:
        ValueError: If a name is unknown.

    Source:
        Specification section 2, "Relation with SGD".
    """  # noqa: DOC502
    names = list(trajectory.params) if names is None else list(names)
    check_names(trajectory, names)
    slopes = {name: torch.zeros_like(trajectory.params[name]) for name in names}
    for _, layer in chosen(trajectory, None):
        own = [name for name in layer.parameters if name in slopes]
        if not own:
            continue
        leaves = {name: trajectory.params[name].clone().requires_grad_() for name in own}
        with torch.enable_grad():
            value = hamiltonian(trajectory, leaves, layers=(layer.name,))[layer.name]
        if value.requires_grad:
            found = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
            for name, slope in zip(own, found, strict=True):
                slopes[name] = slopes[name] + slope
    return slopes


def proximal_hamiltonian(
    trajectory: Trajectory,
    params: Mapping[str, Tensor],
    rho: float | Mapping[str, float],
    *,
    layers: Collection[str] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    r"""Subtract the length of the move from each Hamiltonian.

    .. math:: \sum_s H_t(x_{s,t}, p_{s,t+1}, \varphi_t) - \rho_t \lVert\varphi_t - \theta_t\rVert^2

    Args:
        trajectory: States and costates at :math:`\theta`.
        params: :math:`\varphi` by qualified name; those left out stay.
        rho: :math:`\rho_t \ge 0`, one number or by the layer's name; without a factor 1/2.
        layers: Names of the layers that are wanted; None for all.

    Returns:
        Name of the layer to its augmented Hamiltonian. The move of a control that several layers
        use is charged to the first of them.

    Source:
        Li & Hao, ICML 2018 (read back from its update rules).
    """
    found = hamiltonian(trajectory, params, layers=layers)
    given = merged(trajectory, params)
    owned = owners(trajectory)
    for _, layer in chosen(trajectory, layers):
        for name in owned[layer.name]:
            move = (given[name] - trajectory.params[name]).square().sum()
            found[layer.name] = found[layer.name] - penalty(rho, layer.name) * move
    return found


@torch.enable_grad()
def feasibility_hamiltonian(
    trajectory: Trajectory,
    params: Mapping[str, Tensor],
    rho: float | Mapping[str, float],
    *,
    layers: Collection[str] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    r"""Subtract from each Hamiltonian how far states and costates leave their equations.

    .. math:: \sum_s H_t - \tfrac{\rho}{2} \sum_s \lVert x_{t+1} - f_t(x_t, \varphi)\rVert^2
        - \tfrac{\rho}{2} \sum_s \lVert p_t - \nabla_x H_t(x_t, p_{t+1}, \varphi)\rVert^2

    Where a state is read by several layers, p_t is the part of it that comes through this layer.

    Args:
        trajectory: States and costates at the old controls.
        params: :math:`\varphi` by qualified name; those left out stay.
        rho: :math:`\rho \ge 0`, one number or by the layer's name.
        layers: Names of the layers that are wanted; None for all.

    Returns:
        Name of the layer to its augmented Hamiltonian, differentiable in ``params``.

    Source:
        Li, Chen, Tai & E, JMLR 18:165, 2018 (E-MSA).
    """
    given = merged(trajectory, params)
    found = {}
    for t, layer in chosen(trajectory, layers):
        states = tuple(differentiable(state) for state in trajectory.states[t])
        outputs = layer(states, given)
        value = value_of(trajectory, t, outputs, given, states=states)
        heads = [(value, torch.ones_like(value))] if value.requires_grad else []
        pulls = slopes_at(states, heads, create_graph=True)
        gap = sum(
            (old - new).square().sum()
            for old, new in zip(tensors_in(trajectory.outputs[t]), outputs, strict=True)
        )
        for old, new in zip(trajectory.pulls[t], pulls, strict=True):
            if old is not None and new is not None:
                gap = gap + (old - new).square().sum()
        found[layer.name] = value - 0.5 * penalty(rho, layer.name) * gap
    return found


def differentiable(state: Tensor) -> Tensor:
    """A leaf of a new graph, where that is possible."""
    state = state.detach()
    return state.requires_grad_() if state.is_floating_point() else state


def value_of(
    trajectory: Trajectory,
    t: int,
    outputs: tuple[Tensor, ...],
    params: Mapping[str, Tensor],
    *,
    states: tuple[Tensor, ...] | None = None,
    per_example: bool = False,
) -> Tensor:
    """The Hamiltonian of layer t, given what the layer returned."""
    layer = trajectory.layers[t]
    products = [p * f for p, f in zip(tensors_in(trajectory.costates[t]), outputs, strict=True)]
    costs = cost_of(
        trajectory.running_cost, layer, states or trajectory.states[t], params, trajectory.count
    )
    if not per_example:
        value = torch.stack([product.sum() for product in products]).sum()
        return value if costs is None else value - costs.sum()
    value = torch.stack([product.flatten(1).sum(1) for product in products]).sum(0)
    return value if costs is None else value - costs


def check_rows(trajectory: Trajectory, t: int, params: Mapping[str, Tensor]) -> None:
    """Refuse to split the Hamiltonian of a layer that does not map each example by itself."""
    layer = trajectory.layers[t]
    if not maps_rows(trajectory, t, params):
        kind = type(layer.function).__name__ if isinstance(layer.function, Module) else "function"
        raise UnsupportedModelError(
            "a Hamiltonian per example exists only where a layer maps each example by itself; "
            f"the layer {layer.name!r} ({kind}) couples the examples of the batch. Take the sum "
            "(per_example=False), name other layers, or put batch norm into evaluation mode."
        )


@torch.enable_grad()
def maps_rows(trajectory: Trajectory, t: int, params: Mapping[str, Tensor]) -> bool:
    """Whether the first row of the output knows nothing of the other rows of the state."""
    layer = trajectory.layers[t]
    count = trajectory.count
    outputs = list(tensors_in(trajectory.outputs[t]))
    if layer.couples_examples or any(f.ndim == 0 or len(f) != count for f in outputs):
        return False
    states = tuple(differentiable(state) for state in trajectory.states[t])
    if any(state.requires_grad and (not state.ndim or len(state) != count) for state in states):
        return False
    given = {name: params[name].detach() for name in layer.parameters}
    heads = []
    for f in layer(states, given):
        weight = torch.zeros_like(f)
        weight[0] = torch.linspace(1, 2, f[0].numel(), dtype=f.dtype, device=f.device).view_as(f[0])
        heads += [(f, weight)] if f.requires_grad else []
    pulls = slopes_at(states, heads)
    return not any(bool(pull[1:].any()) for pull in pulls if pull is not None)


def merged(trajectory: Trajectory, params: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The trajectory's controls, with some of them replaced."""
    check_controls(trajectory.params, params or {})
    return trajectory.params | dict(params or {})


def chosen(trajectory: Trajectory, layers: Collection[str] | None) -> Iterator[tuple[int, Layer]]:
    """Go through the layers that are wanted, with their index."""
    names = [layer.name for layer in trajectory.layers]
    for name in layers or ():
        if name not in names:
            raise ValueError(f"layers must be names of layers; got {name!r}. There are {names}.")
    for t, layer in enumerate(trajectory.layers):
        if layers is None or layer.name in layers:
            yield t, layer


def owners(trajectory: Trajectory) -> dict[str, list[str]]:
    """Assign every control to the first layer that uses it."""
    owned: dict[str, list[str]] = {}
    seen: set[str] = set()
    for layer in trajectory.layers:
        owned[layer.name] = [name for name in layer.parameters if name not in seen]
        seen.update(layer.parameters)
    return owned


def penalty(rho: float | Mapping[str, float], name: str) -> float:
    """The weight of a layer's penalty."""
    value = rho.get(name, 0.0) if isinstance(rho, Mapping) else rho
    if not value >= 0:
        raise ValueError(f"rho must be at least 0; got {value} for the layer {name!r}.")
    return value
