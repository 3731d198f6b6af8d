"""Many copies of one network, each at its own parameters, on one batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lowland.connectivity.memory import Room, in_chunks
from lowland.params import Layout, with_ties
from lowland.training import (
    autocast,
    batch_count,
    checked_losses,
    device_of,
    mistakes,
    mode,
)

__all__ = [
    "Stack",
    "losses_and_grads",
    "per_example",
    "recalibrated",
]

# Rows times examples that vmap runs at once. More brings no speed on a CPU and costs memory.
EXAMPLES_IN_FLIGHT = 2**16


@dataclass(frozen=True)
class Stack:
    """One architecture, and what its copies have in common.

    Attributes:
        model: The network; its own parameters and buffers are never written.
        loss_fn: From output and target to one loss per example.
        params: Coordinates that move by their gradient: the distinct trainable parameters.
        statistics: Batch-norm running means and variances.
        norm_buffers: Names of all buffers of batch-norm layers, counters included.
        other_buffers: Names of all other buffers.
        fixed: Values of everything that is no parameter of ``params``: frozen parameters and
            buffers, copies of the user's.
        saved: Those of them that a state dict holds, a shared one under all of its names.
        saved_end: Buffers of batch norms at the end of the path; ``saved`` has the start's.
        dtype: Of the network; vectors may be wider.
        statistics_move: Whether the statistics are further coordinates of every vector, behind
            the parameters (``batch_norm="interpolate"``).
        backend: ``"vmap"`` runs the copies as one batched network, ``"loop"`` one by one.
        examples_in_flight: Rows times examples that ``"vmap"`` runs at once.
        room: What was learned about the memory; shared by all that is made from this stack.
        precision: Of the passes with a gradient, see :func:`lowland.training.autocast`; vectors,
            losses and everything evaluated stay as they are.
        streams: Whether vectors lie on the host and are copied to the network a few at a time.
        rows_at_once: Most vectors that are run together, as far as memory goes; None for any.
    """

    model: nn.Module
    loss_fn: Callable[[Any, Any], Tensor]
    params: Layout
    statistics: Layout = Layout((), ())
    norm_buffers: frozenset[str] = frozenset()
    other_buffers: frozenset[str] = frozenset()
    fixed: Mapping[str, Tensor] = field(default_factory=dict)
    saved: Mapping[str, Tensor] = field(default_factory=dict)
    saved_end: Mapping[str, Tensor] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    statistics_move: bool = False
    backend: str = "loop"
    examples_in_flight: int = EXAMPLES_IN_FLIGHT
    room: Room = field(default_factory=Room)
    precision: str = "float32"
    streams: bool = False
    rows_at_once: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return device_of(self.model)

    @property
    def layout(self) -> Layout:
        """What each coordinate of a vector is."""
        return self.params + self.statistics if self.statistics_move else self.params

    @cached_property
    def sources(self) -> dict[str, str]:
        """Under which name of ``params`` or ``fixed`` each tensor of the model is given."""
        marks = {name: torch.empty(0) for name in (*self.params.names, *self.fixed)}
        names = {id(mark): name for name, mark in marks.items()}
        return {name: names[id(mark)] for name, mark in with_ties(self.model, marks).items()}

    def output(self, named: Mapping[str, Tensor], inputs: Any) -> Any:
        """Run the network, as :func:`lowland.params.call_at` does, with ties looked up once."""
        given = {name: named[source] for name, source in self.sources.items()}
        if isinstance(inputs, Mapping):
            return functional_call(self.model, given, (), dict(inputs), tie_weights=False)
        arguments = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        return functional_call(self.model, given, arguments, tie_weights=False)

    def with_backend(self, backend: str) -> "Stack":
        """The same copies, run another way."""
        return replace(self, backend=backend)

    def fetch(self, rows: Float[Tensor, "*rows params"]) -> Float[Tensor, "*rows params"]:
        """Bring vectors to where the network computes, if they lie on the host."""
        return rows.to(self.device, non_blocking=True, copy=True) if self.streams else rows


@torch.enable_grad()  # also where the user has switched gradients off
def losses_and_grads(
    stack: Stack,
    vectors: Float[Tensor, "rows params"],
    inputs: Any,
    target: Any,
    out: Float[Tensor, "rows params"] | None = None,
    weight_decay: float = 0.0,
) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows params"]]:
    """Mean loss of every copy on one batch, and its gradient.

    The caller sets the mode. Where batch-norm statistics are coordinates, their running average
    is written into ``vectors``, and their gradient is zero.

    Args:
        stack: What the copies have in common.
        vectors: One parameter vector per copy.
        inputs: The batch, the same for all copies.
        target: Its targets.
        out: Is given the gradients; zero where nothing has a gradient.
        weight_decay: Adds ``weight_decay`` times the parameters to the gradients; the losses and
            statistics that are coordinates leave it out.

    Returns:
        Losses and gradients.
    """

    def loss(params: dict, norms: dict, fixed: dict) -> tuple[Tensor]:
        with autocast(stack.device, stack.precision):
            output = stack.output(params | norms | fixed, inputs)
            each = checked_losses(stack.loss_fn, output, target)
        return (each.to(torch.promote_types(each.dtype, torch.float32)).mean(),)

    losses = vectors.new_empty(len(vectors))
    grads = torch.zeros_like(vectors) if out is None else out
    moving = slice(None, stack.params.size)

    def some(rows: slice | int) -> None:
        here = stack.fetch(vectors[rows])
        there = torch.zeros_like(here) if stack.streams else grads[rows]
        params, norms, fixed = named_rows(stack, here)
        leaves = {name: view.detach().requires_grad_() for name, view in params.items()}
        (each,) = run_rows(stack, loss, leaves, norms, fixed)
        parts = torch.autograd.grad(each.sum(), list(leaves.values()), materialize_grads=True)
        place, point = there[..., moving], here[..., moving]
        if stack.backend == "vmap":  # parts are transposed: each is read once, not twice
            spread(stack, parts, point, weight_decay, place)
        else:
            torch.cat([part.reshape(-1) for part in parts], out=place)
            if weight_decay:
                place.add_(point, alpha=weight_decay)
        if stack.streams:
            grads[rows] = there
        losses[rows] = each.detach().to(losses.dtype)
        if stack.statistics_move:
            moved = [norms[name].reshape((*each.shape, -1)) for name in stack.statistics.names]
            vectors[rows, stack.params.size :] = torch.cat(moved, dim=-1)

    over_rows(stack, len(vectors), target, some)
    return losses, grads


@torch.no_grad()
def spread(
    stack: Stack,
    parts: Sequence[Tensor],
    points: Float[Tensor, "rows params"],
    weight_decay: float,
    out: Float[Tensor, "rows params"],
) -> None:
    """Write the gradient of each tensor to its place, weight decay included."""
    views = stack.params.views(out).values(), stack.params.views(points).values()
    for place, point, part in zip(*views, parts, strict=True):
        if weight_decay:
            torch.add(part, point, alpha=weight_decay, out=place)
        else:
            place.copy_(part)


def per_example(
    stack: Stack,
    vectors: Float[Tensor, "rows params"],
    inputs: Any,
    target: Any,
    statistics: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """Loss and top-1 mistake of every copy on every example, without gradients.

    The caller sets the mode.

    Args:
        stack: What the copies have in common.
        vectors: One parameter vector per copy.
        inputs: The batch.
        target: Its targets.
        statistics: Batch-norm statistics of every copy, stacked; those of the vectors, or of the
            model, by default.

    Returns:
        Losses ``(rows, batch)`` and, for outputs that are scores of classes, mistakes as 0 or 1
        ``(rows, batch)``.
    """

    def run(params: dict, norms: dict, fixed: dict) -> tuple[Tensor, ...]:
        output = stack.output(params | norms | fixed, inputs)
        losses = checked_losses(stack.loss_fn, output, target)
        wrong = mistakes(output, target)
        return (losses,) if wrong is None else (losses, wrong)

    return forward_rows(stack, run, vectors, target, statistics)


def recalibrated(
    stack: Stack, vectors: Float[Tensor, "rows params"], batches: Sequence[tuple[Any, Any]]
) -> dict[str, Tensor]:
    """Batch-norm statistics of every copy, as the average over some batches, by their size.

    Args:
        stack: What the copies have in common.
        vectors: One parameter vector per copy.
        batches: What to average over.

    Returns:
        Running means and variances by name, stacked over the copies; empty without batch norm.
    """
    fresh = {
        name: torch.zeros(len(vectors), *shape, dtype=stack.fixed[name].dtype, device=stack.device)
        for name, shape in zip(stack.statistics.names, stack.statistics.shapes, strict=True)
    }

    seen = 0
    for batch in batches if fresh else ():
        seen += batch_count(batch[1])

        def run(params: dict, norms: dict, fixed: dict, inputs: Any = batch[0]) -> tuple[Tensor]:
            stack.output(params | norms | fixed, inputs)
            return (torch.zeros(()),)

        with mode(stack.model, norm_trains=True, momentum=batch_count(batch[1]) / seen):
            forward_rows(stack, run, vectors, batch[1], fresh)
    return fresh


@torch.no_grad()
def forward_rows(
    stack: Stack,
    run: Callable[[dict, dict, dict], tuple[Tensor, ...]],
    vectors: Tensor,
    target: Any,
    statistics: Mapping[str, Tensor] | None,
) -> tuple[Tensor, ...]:
    """Collect what ``run`` returns at every row; it may write into ``statistics``."""
    found = []

    def some(rows: slice | int) -> None:
        given = {name: value[rows].clone() for name, value in (statistics or {}).items()}
        params, norms, fixed = named_rows(stack, stack.fetch(vectors[rows]), given)
        found.append(run_rows(stack, run, params, norms, fixed))
        for name, value in (statistics or {}).items():  # not after a run that lacked memory
            value[rows] = norms[name]

    over_rows(stack, len(vectors), target, some)
    join = torch.cat if stack.backend == "vmap" else torch.stack
    return tuple(join(parts) for parts in zip(*found, strict=True))


def run_rows(
    stack: Stack, run: Callable[..., tuple[Tensor, ...]], params: dict, norms: dict, fixed: dict
) -> tuple[Tensor, ...]:
    """Run some rows as one batched network, or a single row, without its axis, as it is."""
    if stack.backend == "vmap":
        work = partial(run, fixed=fixed)
        return vmap(work, randomness="same")(params, norms)
    return run(params, norms, fixed)


def over_rows(stack: Stack, rows: int, target: Any, run: Callable[[slice | int], None]) -> None:
    """Run the rows of vmap together, as many as fit, and those of the loop one by one."""
    if stack.backend == "vmap":
        examples, most = batch_count(target), stack.examples_in_flight
        if stack.rows_at_once is not None:
            most = min(most, stack.rows_at_once * examples)
        in_chunks(rows, examples, most, stack.room, run)
        return
    for row in range(rows):
        run(row)


def named_rows(
    stack: Stack, vectors: Tensor, statistics: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Name what some rows, or one, consist of: parameters, batch-norm buffers, and the rest."""
    named = stack.layout.views(vectors)
    params = {name: named[name].to(stack.dtype) for name in stack.params.names}
    norms, fixed = dict(statistics or {}), {}  # norms: copies that a forward pass may write
    for name, value in stack.fixed.items():
        if name in norms:
            continue
        if name in named:
            norms[name] = named[name].to(value.dtype, copy=True)
            if name.endswith("running_var"):  # a step may carry it below zero
                norms[name].clamp_min_(0)
        elif name in stack.norm_buffers:
            norms[name] = value.expand(vectors.shape[:-1] + value.shape).clone()
        else:  # a forward pass may write into any buffer, and no other pivot is to see it
            fixed[name] = value.clone() if name in stack.other_buffers else value
    return params, norms, fixed
