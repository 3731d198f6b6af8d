"""The two minima of a path: read, compared, and laid out as vectors."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.connectivity.checks import refuse_unknown
from lowland.connectivity.schedule import BATCH_NORMS
from lowland.connectivity.stack import Stack
from lowland.params import Layout, trainable
from lowland.training import Source, match_state, norm_layers, read_state

__all__ = ["make_stack", "read_ends"]


def read_ends(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    start: Source,
    end: Source,
    *,
    batch_norm: str,
) -> tuple[Stack, Float[Tensor, " params"], Float[Tensor, " params"]]:
    """Read both minima and check that a path can join them.

    Args:
        model: The architecture; stays as it is.
        loss_fn: From output and target to one loss per example.
        start: A state dict, a module, or a checkpoint file.
        end: Likewise.
        batch_norm: ``"recalibrate"`` or ``"interpolate"``.

    Returns:
        What the networks of the path have in common, and the vectors of both ends.

    Raises:
        ValueError: If a frozen parameter or a buffer differs between the ends, a parameter is not
            finite, or ``batch_norm`` is unknown.
    """
    states = [
        match_state(model, read_state(source), what)
        for source, what in ((start, "start"), (end, "end"))
    ]
    stack = make_stack(model, loss_fn, states[0], batch_norm=batch_norm)
    refuse_differences(stack, *states)
    norms = {name: states[1][name] for name in stack.saved if name in stack.norm_buffers}
    stack = replace(stack, saved_end={n: value.to(stack.saved[n]) for n, value in norms.items()})
    wide = torch.promote_types(stack.dtype, torch.float32)  # segment differences cancel
    vectors = [stack.layout.flatten(state).to(stack.device, wide) for state in states]
    for vector, what in zip(vectors, ("start", "end"), strict=True):
        views = stack.layout.views(vector).items()
        bad = [name for name, view in views if not torch.isfinite(view).all()]
        if bad:
            raise ValueError(f"{what} must hold finite parameters; {bad[0]} does not.")
    return stack, vectors[0], vectors[1]


def make_stack(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    state: Mapping[str, Tensor],
    *,
    batch_norm: str,
) -> Stack:
    """Describe what all networks on a path share.

    Args:
        model: The architecture.
        loss_fn: From output and target to one loss per example.
        state: A full state dict of the model; gives frozen parameters and buffers.
        batch_norm: ``"recalibrate"`` or ``"interpolate"``.

    Returns:
        The stack, with copies of the tensors that do not move.

    Raises:
        ValueError: If ``batch_norm`` is unknown.
    """
    refuse_unknown(BATCH_NORMS, batch_norm=batch_norm)
    params = trainable(model)
    moving = {*params.names, *(name for name, _ in params.aliases)}
    current = dict(model.named_parameters()) | dict(model.named_buffers())
    fixed = {
        name: state.get(name, value).detach().to(value.device, value.dtype, copy=True)
        for name, value in current.items()
        if name not in moving
    }
    every = dict(model.named_parameters(remove_duplicate=False))
    every |= dict(model.named_buffers(remove_duplicate=False))
    first = {id(value): name for name, value in current.items()}
    owners = norm_layers(model)
    norm_buffers = frozenset(name for name in fixed if name.rpartition(".")[0] in owners)
    moments = [n for n in fixed if n in norm_buffers and n.endswith(("_mean", "_var"))]
    kept = {name: first[id(value)] for name, value in every.items()}
    shapes = tuple(tuple(fixed[name].shape) for name in moments)
    aliases = tuple((name, k) for name, k in kept.items() if k in moments and name != k)
    buffers = frozenset(dict(model.named_buffers()))
    return Stack(
        model,
        loss_fn,
        params,
        statistics=Layout(tuple(moments), shapes, aliases),
        norm_buffers=norm_buffers & buffers,
        other_buffers=buffers - norm_buffers,
        fixed=fixed,
        saved={name: fixed[k] for name, k in kept.items() if k in fixed and name in state},
        dtype=next(p for p in model.parameters() if p.requires_grad).dtype,
        statistics_move=batch_norm == "interpolate" and bool(moments),
    )


def refuse_differences(
    stack: Stack, start: Mapping[str, Tensor], end: Mapping[str, Tensor]
) -> None:
    """Refuse ends that differ in something that does not move along the path."""
    names = [name for name in stack.fixed if name not in stack.norm_buffers and name in start]
    differ = [
        name
        for name in names
        if not torch.equal(start[name].cpu(), end[name].cpu()) and not is_counter(start[name])
    ]
    if differ:
        more = f" and {len(differ) - 5} more" if len(differ) > 5 else ""
        raise ValueError(
            "frozen parameters and buffers must be equal at both ends, because they do not move "
            f"along the path; these differ: {', '.join(differ[:5])}{more}. Call "
            "requires_grad_(True) on the parameters that should move, or copy the values of one "
            "end to the other."
        )


def is_counter(value: Tensor) -> bool:
    """Whether a buffer is a single integer, as counters of steps are; the start's is taken."""
    return value.numel() == 1 and not value.is_floating_point()
