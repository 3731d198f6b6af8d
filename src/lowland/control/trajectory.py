"""States forward, costates backward: the first two equations of the maximum principle."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.control.layers import Layer, Recording, record
from lowland.control.products import has_products, layer_products
from lowland.errors import UnsupportedModelError
from lowland.training import checked_losses, tensors_in

__all__ = ["RunningCost", "Trajectory", "control_products", "states_and_costates"]

RunningCost = Callable[[str, Any, Mapping[str, Tensor]], Tensor | None]


@dataclass(frozen=True, eq=False)
class Trajectory:
    r"""States and costates of a batch at fixed controls.

    Signs and factors are the paper's: :math:`p_T = -\nabla\Phi / S`, so that a costate is minus
    the slope of J at a state, and sums over examples are means of the batch.

    Attributes:
        layers: The layers, in the order of the forward pass.
        states: What enters each layer, x_t; one tensor for each value it reads.
        outputs: What each layer returns, f_t(x_t); a tuple for layers that return several tensors.
        costates: p_{t+1}: minus the slope of J at the outputs, nested as these.
        initial_costates: p_0 of the tensors in the inputs; None for integers.
        pulls: The layer's own part of the costates of its states, :math:`\nabla_x H_t`; None for
            integers. Where a state is read once, this is p_t.
        params: Copies of the controls, by qualified name.
        loss: J, mean terminal cost plus mean running costs, in nats (or the unit of ``loss_fn``).
        count: S, the number of examples.
        running_cost: As given.
    """

    layers: tuple[Layer, ...]
    states: tuple[tuple[Tensor, ...], ...]
    outputs: tuple[Tensor | tuple[Tensor, ...], ...]
    costates: tuple[Tensor | tuple[Tensor, ...], ...]
    initial_costates: tuple[Tensor | None, ...]
    pulls: tuple[tuple[Tensor | None, ...], ...] = field(repr=False)
    params: dict[str, Tensor] = field(repr=False)
    loss: Float[Tensor, ""]
    count: int
    running_cost: RunningCost | None = None


@torch.enable_grad()  # also where the user has switched gradients off
def states_and_costates(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    inputs: Any,
    target: Any,
    *,
    running_cost: RunningCost | None = None,
    params: Mapping[str, Tensor] | None = None,
    update_statistics: bool = False,
) -> Trajectory:
    r"""Propagate the states of a batch forward and the costates backward, layer by layer.

    .. math:: x_{t+1} = f_t(x_t, \theta_t), \qquad p_t = \nabla_x H_t(x_t, p_{t+1}, \theta_t),
        \qquad p_T = -\tfrac1S \nabla\Phi(x_T).

    No derivative with respect to a control is taken: the weights may be frozen. In the mode in
    which the model is; one forward pass serves states and costates, dropout included.

    Args:
        model: Any module; left as it is, except for ``update_statistics``.
        loss_fn: Terminal cost Phi: one loss per example.
        inputs: A batch, as the model takes it.
        target: Its targets.
        running_cost: L_t: called with the layer's name, its state (a tuple where it reads several)
            and its controls by qualified name; returns one number per example, or None for a layer
            that costs nothing.
        params: Other controls by qualified name, in the place of the model's.
        update_statistics: Let this count as a forward pass of training: batch norms in training
            mode update their running statistics, and the global generators move on. Otherwise
            both are put back.

    Returns:
        The trajectory, without any graph.

    Raises:
        UnsupportedModelError: If a part of the forward pass cannot be seen, the loss does not
            depend on a layer, or a state or a control is complex.
        TypeError: If the model does not take such inputs.
        ValueError: If ``loss_fn`` or ``running_cost`` does not return one number per example, or
            ``params`` does not fit the model.
        FloatingPointError: If a state or a costate is not finite; the layer is named.

    Source:
        Li & Hao, ICML 2018, the discrete maximum principle; Li et al., JMLR 2018.
    """
    recording = record(model, inputs, params=params, update_statistics=update_statistics)
    check_real(recording)
    losses = checked_losses(loss_fn, recording.output, target)
    ends = list({id(t): t for t in tensors_in(recording.output) if t.requires_grad}.values())
    is_seen = losses.requires_grad and ends
    value = losses.sum() / len(losses)
    found = torch.autograd.grad(value, ends, allow_unused=True) if is_seen else ()
    if all(slope is None for slope in found):
        raise UnsupportedModelError(
            "the loss must be differentiable in the model's output; it does not depend on a layer. "
            "Return scores, not classes, and do not detach them."
        )
    numbers = {id(value): number for number, value in enumerate(recording.values)}
    costates = {
        numbers[id(end)]: -slope
        for end, slope in zip(ends, found, strict=True)
        if slope is not None
    }
    controls = {name: value.clone() for name, value in recording.params.items()}
    costs = [
        cost_of(running_cost, layer, states_of(recording, layer), controls, len(losses))
        for layer in recording.layers
    ]
    pulls = pull_back(recording, costates, costs)
    loss = sum((cost.detach().sum() for cost in costs if cost is not None), losses.detach().mean())
    layers = tuple(recording.layers)
    trajectory = Trajectory(
        layers=layers,
        states=tuple(
            tuple(value.detach() for value in states_of(recording, layer)) for layer in layers
        ),
        outputs=tuple(
            alone([recording.values[number].detach() for number in layer.writes])
            for layer in layers
        ),
        costates=tuple(alone([costates[number] for number in layer.writes]) for layer in layers),
        initial_costates=tuple(
            costate_of(costates, recording.values, number) for number in range(recording.num_inputs)
        ),
        pulls=pulls,
        params=controls,
        loss=loss,
        count=len(losses),
        running_cost=running_cost,
    )
    check_finite(trajectory)
    return trajectory


def control_products(
    trajectory: Trajectory, names: Collection[str] | None = None
) -> dict[str, Tensor]:
    r"""Compute :math:`M = \sum_s p_{s,t+1} x_{s,t}^T` of every weight, without a derivative in it.

    By the explicit formula of each kind of layer: outer products for linear layers, patches
    (``unfold``) for convolutions and transposed convolutions, rows for embeddings, sums of
    costates for biases and of costate times normalized state for the scale of a norm. A weight
    that is used several times gets the sum over its uses. M is minus the gradient of the terminal
    cost in the weight; what a running cost adds is not in it.

    Args:
        trajectory: States and costates.
        names: Qualified names of the weights that are wanted; None for all that have a formula.

    Returns:
        M by qualified name, each in the shape of its weight.

    Raises:
        UnsupportedModelError: If a name is asked for that has no formula.
        ValueError: If a name is no parameter of the model.

    Source:
        Li & Hao, ICML 2018.
    """
    uses: dict[str, list[int]] = {}
    for t, layer in enumerate(trajectory.layers):
        for name in layer.parameters:
            uses.setdefault(name, []).append(t)
    without = {
        name: trajectory.layers[t]
        for name, found in uses.items()
        for t in found
        if not has_products(trajectory.layers[t])
    }
    check_names(trajectory, names or ())
    for name in names or ():
        if name in without:
            kind = getattr(
                without[name].function, "__name__", type(without[name].function).__name__
            )
            raise UnsupportedModelError(
                f"M needs a layer that is linear in its weight; {name!r} is used by the layer "
                f"{without[name].name!r} ({kind}). Use hamiltonian_gradients for it."
            )
    wanted = {n for n in trajectory.params if n not in without and (names is None or n in names)}
    products = {name: torch.zeros_like(trajectory.params[name]) for name in wanted - set(uses)}
    for t in sorted({t for name in wanted for t in uses.get(name, ())}):
        costate = trajectory.costates[t]
        assert isinstance(costate, Tensor)
        found = layer_products(
            trajectory.layers[t], trajectory.states[t], costate, trajectory.params
        )
        for name in wanted & set(found):
            products[name] = products[name] + found[name] if name in products else found[name]
    return {name: products[name] for name in trajectory.params if name in products}


def check_names(trajectory: Trajectory, names: Iterable[str]) -> None:
    """Refuse the name of a control that the model does not have."""
    for name in names:
        if name not in trajectory.params:
            raise ValueError(
                f"names must be parameters of the model; got {name!r}. "
                f"There are {sorted(trajectory.params)}."
            )


def check_real(recording: Recording) -> None:
    """Refuse complex controls and states, for which M and the Hamiltonian are not defined."""
    named = [(f"the control {name!r}", value) for name, value in recording.params.items()]
    named += [("an input", value) for value in recording.values[: recording.num_inputs]]
    named += [
        (f"the output of layer {layer.name!r}", recording.values[number])
        for layer in recording.layers
        for number in layer.writes
    ]
    for what, value in named:
        if value.is_complex():
            raise UnsupportedModelError(
                f"states and controls must be real; {what} is {value.dtype}. Keep complex controls "
                "as pairs of real ones, and complex steps between real states in a module whose "
                "class says is_layer = True."
            )


def states_of(recording: Recording, layer: Layer) -> tuple[Tensor, ...]:
    """The values that a layer reads."""
    return tuple(recording.values[number] for number in layer.reads)


def alone(tensors: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """One tensor as it is, several as a tuple."""
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def cost_of(
    running_cost: RunningCost | None,
    layer: Layer,
    states: tuple[Tensor, ...],
    params: Mapping[str, Tensor],
    count: int,
) -> Float[Tensor, " batch"] | None:
    """A layer's running cost of each example, divided by S, if it has one."""
    if running_cost is None:
        return None
    own = {name: params[name] for name in layer.parameters}
    cost = running_cost(layer.name, alone(list(states)), own)
    if cost is None:
        return None
    if not isinstance(cost, Tensor) or cost.shape != (count,):
        got = f"shape {tuple(cost.shape)}" if isinstance(cost, Tensor) else type(cost).__name__
        raise ValueError(
            f"running_cost must return one number per example, shape ({count},), or None; got "
            f"{got} for the layer {layer.name!r}. Expand a cost of the controls alone."
        )
    return cost / count


def pull_back(
    recording: Recording, costates: dict[int, Tensor], costs: list[Tensor | None]
) -> tuple[tuple[Tensor | None, ...], ...]:
    """Complete the costates from the last layer to the first; return each layer's own part."""
    pulls: list[tuple[Tensor | None, ...]] = []
    for layer, graph, cost in zip(
        reversed(recording.layers), reversed(recording.graphs), reversed(costs), strict=True
    ):
        for number in layer.writes:
            costates.setdefault(number, torch.zeros_like(recording.values[number]))
        states = states_of(recording, layer)
        heads = [
            (f, costates[number])
            for f, number in zip(graph, layer.writes, strict=True)
            if f.requires_grad
        ]
        if cost is not None and cost.requires_grad:
            heads.append((-cost, torch.ones_like(cost)))
        own = slopes_at(states, heads)
        for number, pull in zip(layer.reads, own, strict=True):
            if pull is not None:
                costates[number] = costates[number] + pull if number in costates else pull
        pulls.append(own)
    return tuple(reversed(pulls))


def slopes_at(
    states: tuple[Tensor, ...],
    heads: list[tuple[Tensor, Tensor]],
    *,
    create_graph: bool = False,
    retain_graph: bool = False,
) -> tuple[Tensor | None, ...]:
    """Slope of a weighted sum at each state; None where a state is of integers."""
    leaves = [state for state in states if state.requires_grad]
    if not leaves:
        return (None,) * len(states)
    if not heads:
        return tuple(torch.zeros_like(s) if s.requires_grad else None for s in states)
    # A sum, and not grad_outputs: with these torch imports sympy, which takes seconds.
    value = torch.stack([(head * weight).sum() for head, weight in heads]).sum()
    found = iter(
        torch.autograd.grad(
            value,
            leaves,
            create_graph=create_graph,
            retain_graph=retain_graph or create_graph,
            materialize_grads=True,
        )
    )
    return tuple(next(found) if state.requires_grad else None for state in states)


def costate_of(costates: Mapping[int, Tensor], values: list[Tensor], number: int) -> Tensor | None:
    """The costate of a value: zero if nothing reads it, None if it is of integers."""
    if not values[number].requires_grad:
        return None
    return costates.get(number, torch.zeros_like(values[number]))


def check_finite(trajectory: Trajectory) -> None:
    """Refuse a trajectory with a number that is not finite, and say where it begins."""
    kinds = [
        ("state", trajectory.outputs, trajectory.layers),
        ("costate", reversed(trajectory.costates), trajectory.layers[::-1]),
    ]
    found = [trajectory.loss, *tensors_in(trajectory.outputs), *tensors_in(trajectory.costates)]
    if torch.stack([tensor.isfinite().all() for tensor in found]).all():
        return
    for kind, values, layers in kinds:
        for value, layer in zip(values, layers, strict=True):
            if not all(tensor.isfinite().all() for tensor in tensors_in(value)):
                raise FloatingPointError(
                    f"states and costates must be finite; the {kind} of the output of layer "
                    f"{layer.name!r} is not. Take smaller steps, or look at its input."
                )
    raise FloatingPointError(f"the loss must be finite; got {float(trajectory.loss)}.")
