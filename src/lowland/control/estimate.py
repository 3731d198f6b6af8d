"""The error estimate: what a change of all controls does to J, and what bounds the surprise."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from lowland.control.hamiltonian import chosen, differentiable, maps_rows, merged
from lowland.control.trajectory import (
    RunningCost,
    Trajectory,
    cost_of,
    slopes_at,
    states_and_costates,
)
from lowland.training import tensors_in

__all__ = ["ErrorEstimate", "LayerEstimate", "error_estimate"]


@dataclass(frozen=True)
class LayerEstimate:
    r"""The terms of one layer, at the old states and costates.

    Attributes:
        gain: :math:`\sum_s [H_t(\varphi_t) - H_t(\theta_t)]`, in the unit of the loss.
        state_error: :math:`\frac1S \sum_s \lVert f_t(\varphi_t) - f_t(\theta_t) \rVert^2`.
        costate_error: :math:`\frac1S \sum_s \lVert \nabla_x f_t(\varphi_t)
            - \nabla_x f_t(\theta_t) \rVert_F^2`.
        running_cost_error: :math:`\frac1S \sum_s \lVert \nabla_x L_t(\varphi_t)
            - \nabla_x L_t(\theta_t) \rVert^2`.
    """

    gain: float
    state_error: float
    costate_error: float
    running_cost_error: float


@dataclass(frozen=True)
class ErrorEstimate:
    r"""Both sides of the estimate, without its constant C.

    :math:`J(\varphi) - J(\theta) \le -\text{gain} + C\,(\text{state\_error} +
    \text{costate\_error} + \text{running\_cost\_error})`, with one C for all controls.

    Attributes:
        change: :math:`J(\varphi) - J(\theta)`, in the unit of the loss.
        gain: Sum over the layers; to first order, minus the change.
        state_error: Sum over the layers.
        costate_error: Sum over the layers.
        running_cost_error: Sum over the layers.
        remainder: change + gain: what the first order does not explain.
        by_layer: The terms of every layer whose controls are given, by name.
    """

    change: float
    gain: float
    state_error: float
    costate_error: float
    running_cost_error: float
    remainder: float
    by_layer: dict[str, LayerEstimate]

    @property
    def constant(self) -> float:
        """The C that this pair of controls asks for: remainder over the sum of the errors."""
        errors = self.state_error + self.costate_error + self.running_cost_error
        return self.remainder / errors if errors else 0.0


def error_estimate(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    inputs: Any,
    target: Any,
    params: Mapping[str, Tensor],
    *,
    running_cost: RunningCost | None = None,
    probes: int | None = None,
    generator: Generator | None = None,
) -> ErrorEstimate:
    r"""Compare what new controls do to J with what the Hamiltonians promised.

    Args:
        model: At the old controls :math:`\theta`; left as it is.
        loss_fn: Terminal cost: one loss per example.
        inputs: A batch, as the model takes it.
        target: Its targets.
        params: The new controls :math:`\varphi` by qualified name; those left out stay.
        running_cost: As for :func:`lowland.control.states_and_costates`.
        probes: Estimate the Jacobian norms of the costate error from so many random directions
            (unbiased) instead of exactly, which takes two backward passes per number in a layer's
            output.
        generator: Source of the directions, on the CPU; needed with ``probes``.

    Returns:
        The terms, in all and by layer.

    Raises:
        ValueError: If ``probes`` is not positive or comes without a generator, a name is unknown
            or a control has another shape.

    Source:
        Li & Hao, ICML 2018, the error estimate; the factor C is left out.
    """
    if probes is not None and (probes < 1 or generator is None):
        raise ValueError(
            f"probes must be at least 1 and come with a generator; got {probes}, {generator}."
        )
    old = states_and_costates(model, loss_fn, inputs, target, running_cost=running_cost)
    new = states_and_costates(
        model, loss_fn, inputs, target, running_cost=running_cost, params=params
    )
    given = {name: value.detach() for name, value in merged(old, params).items()}
    by_layer = {
        layer.name: layer_terms(old, t, given, probes, generator)
        for t, layer in chosen(old, None)
        if set(layer.parameters) & set(params)
    }
    change = float(new.loss - old.loss)
    gain = sum(terms.gain for terms in by_layer.values())
    return ErrorEstimate(
        change=change,
        gain=gain,
        state_error=sum(terms.state_error for terms in by_layer.values()),
        costate_error=sum(terms.costate_error for terms in by_layer.values()),
        running_cost_error=sum(terms.running_cost_error for terms in by_layer.values()),
        remainder=change + gain,
        by_layer=by_layer,
    )


@torch.enable_grad()
def layer_terms(
    old: Trajectory,
    t: int,
    given: Mapping[str, Tensor],
    probes: int | None,
    generator: Generator | None,
) -> LayerEstimate:
    """The terms of layer t."""
    layer, count = old.layers[t], old.count
    states = tuple(differentiable(state) for state in old.states[t])
    before, after = layer(states, old.params), layer(states, given)
    moves = [new - f for f, new in zip(before, after, strict=True)]
    pairs = zip(tensors_in(old.costates[t]), moves, strict=True)
    gain = sum(float((p * move.detach()).sum()) for p, move in pairs)
    costs = [
        cost_of(old.running_cost, layer, states, params, count) for params in (old.params, given)
    ]
    slopes = [torch.zeros_like(state) for state in states]
    if costs[0] is not None and costs[1] is not None:
        move = costs[1] - costs[0]
        gain -= float(move.detach().sum())
        if move.requires_grad:
            slopes = slopes_at(states, [(move, torch.ones_like(move))])
    return LayerEstimate(
        gain=gain,
        state_error=squares(moves) / count,
        costate_error=jacobian_squares(states, moves, directions(old, t, moves, probes, generator))
        / count,
        running_cost_error=squares(slopes) * count,  # each slope holds a factor 1/S
    )


def squares(tensors: Iterable[Tensor | None]) -> float:
    """Sum of the squares of all entries."""
    return sum(float(t.detach().square().sum()) for t in tensors if t is not None)


def jacobian_squares(
    states: tuple[Tensor, ...],
    moves: list[Tensor],
    directions: Iterator[tuple[float, list[Tensor]]],
) -> float:
    """Squared Frobenius norm of the Jacobian of the moves in the states, row by row."""
    if not any(move.requires_grad for move in moves):
        return 0.0
    total = 0.0
    for weight, rows in directions:
        heads = [(m, row) for m, row in zip(moves, rows, strict=True) if m.requires_grad]
        total += weight * squares(slopes_at(states, heads, retain_graph=True))
    return total


def directions(
    old: Trajectory,
    t: int,
    moves: list[Tensor],
    probes: int | None,
    generator: Generator | None,
) -> Iterator[tuple[float, list[Tensor]]]:
    """Weights and directions in the output, so that the weighted squares add up to the norm.

    One for each number in a layer's output; examples that do not meet share theirs.
    """
    if probes is not None:
        for _ in range(probes):
            signs = [torch.randint(0, 2, move.shape, generator=generator) * 2 - 1 for move in moves]
            yield 1 / probes, [sign.to(move) for sign, move in zip(signs, moves, strict=True)]
        return
    by_row = maps_rows(old, t, old.params)
    for k, move in enumerate(moves):
        for number in range(move[0].numel() if by_row else move.numel()):
            rows = [torch.zeros(move.shape, dtype=move.dtype, device=move.device) for move in moves]
            if by_row:
                rows[k].view(len(move), -1)[:, number] = 1
            else:
                rows[k].view(-1)[number] = 1
            yield 1.0, rows
