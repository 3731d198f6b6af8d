"""The band of a real network: one batch per step for all pivots, and the fastest way to run it."""

import warnings
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.checks import refuse_unknown
from lowland.connectivity.quiet import quiet_vmap
from lowland.connectivity.stack import Stack, losses_and_grads, per_example
from lowland.errors import FallbackWarning, UnsupportedModelError
from lowland.training import (
    all_sum,
    as_pair,
    autocast,
    batch_count,
    broadcast,
    check_not_empty,
    isolated_rng,
    mode,
    rank_and_world,
    tensors_in,
    to_device,
)

__all__ = ["band_of", "chosen_backend", "endless", "faster_backend", "usable_backend"]

BACKENDS = ("auto", "vmap", "loop")


def endless(batches: Any, device: torch.device) -> Iterator[tuple[Any, Any]]:
    """Go through batches again and again, without the smaller one at the end of a pass.

    Args:
        batches: Re-iterable of inputs and targets.
        device: Where to.

    Yields:
        Batches on the device, none smaller than one before it unless it opens a pass.

    Raises:
        ValueError: If a pass is empty.
    """
    full = 0
    while True:
        seen = 0
        for batch in batches:
            inputs, target = to_device(as_pair(batch), device)
            seen += 1
            full = max(full, batch_count(target))
            if batch_count(target) == full or seen == 1:
                yield inputs, target
        check_not_empty(seen)


def band_of(
    stack: Stack,
    stream: Iterator[tuple[Any, Any]],
    *,
    weight_decay: float = 0.0,
    shared_batch: bool = True,
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Make the ``loss_and_grad`` of :func:`lowland.connectivity.relax` for a network.

    With several processes each runs every so many pivots, all on the same batches.

    Args:
        stack: What the pivots have in common. Its model must be in the mode for training.
        stream: Batches without end.
        weight_decay: Adds ``weight_decay`` times the parameters to the gradients, not to those of
            batch-norm statistics that move along.
        shared_batch: Whether all pivots see the same batch, so that the noise of a comparison
            between neighbors cancels. If not, every pivot draws its own and the ends are run in
            evaluation mode, as in the published code.

    Returns:
        A function from pivots to the losses of all and the gradients of the interior ones.
    """
    kept: list[Tensor] = []  # fresh memory for every step would cost as much as the arithmetic

    def room(rows: Tensor) -> Tensor:
        if not kept or kept[0].shape != rows.shape:
            kept[:] = [torch.zeros_like(rows, pin_memory=rows.is_pinned())]
        return kept[0]

    def together(path: Float[Tensor, "pivots params"]) -> tuple[Tensor, Tensor]:
        inputs, target = next(stream)
        if stack.backend == "vmap" and not stack.statistics_move:  # two more rows cost less
            everything = room(path)  # than a pass apart
            losses, grads = sharded(stack, path, inputs, target, everything, weight_decay)
            return losses, grads[1:-1]
        inner = path[1:-1]
        losses, grads = sharded(stack, inner, inputs, target, room(inner), weight_decay)
        with autocast(stack.device, stack.precision):
            ends = per_example(stack, path[:: len(path) - 1], inputs, target)[0]
        ends = ends.to(losses.dtype).mean(1).to(losses.device)
        return torch.cat([ends[:1], losses, ends[1:]]), grads

    def apart(path: Float[Tensor, "pivots params"]) -> tuple[Tensor, Tensor]:
        losses, grads = path.new_empty(len(path)), torch.empty_like(path[1:-1])
        for row in range(len(path)):
            inputs, target = next(stream)
            if row in (0, len(path) - 1):
                with mode(stack.model, norm_trains=False), autocast(stack.device, stack.precision):
                    end = per_example(stack, path[[row]], inputs, target)[0]
                losses[row] = end.to(losses.dtype).mean()
            else:
                one = slice(row, row + 1)
                losses[one], grads[row - 1 : row] = losses_and_grads(
                    stack, path[one], inputs, target, weight_decay=weight_decay
                )
        return losses, grads

    return together if shared_batch else apart


def sharded(
    stack: Stack,
    inner: Tensor,
    inputs: Any,
    target: Any,
    out: Tensor | None = None,
    weight_decay: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Share the pivots out over the processes, and give every process all results."""
    rank, world = rank_and_world()
    if world == 1:
        return losses_and_grads(stack, inner, inputs, target, out, weight_decay)
    mine = slice(rank, None, world)
    own = inner[mine].clone()
    losses, grads = inner.new_zeros(len(inner)), torch.zeros_like(inner)
    if len(own):
        losses[mine], grads[mine] = losses_and_grads(
            stack, own, inputs, target, weight_decay=weight_decay
        )
    if stack.statistics_move:  # each process has moved those of its own pivots
        moved = torch.zeros_like(inner)
        moved[mine] = own
        inner.copy_(summed(stack, moved))
    return all_sum(losses, stack.device), summed(stack, grads)


def summed(stack: Stack, rows: Tensor) -> Tensor:
    """Add up over the processes; what lies on the host meets in parts where the network is."""
    if not stack.streams:
        return all_sum(rows, stack.device)
    for part in rows.split(stack.rows_at_once or len(rows)):
        part.copy_(all_sum(part, stack.device))
    return rows


def usable_backend(
    backend: str, stack: Stack, vector: Float[Tensor, " params"], batch: tuple[Any, Any]
) -> str:
    """Check that the model can be run as asked.

    Args:
        backend: ``"auto"``, ``"vmap"`` or ``"loop"``.
        stack: What the pivots have in common.
        vector: A parameter vector to try.
        batch: Inputs and target of one step.

    Returns:
        The backend; ``"loop"`` for ``"auto"`` if the model cannot be batched.

    Raises:
        UnsupportedModelError: If ``"vmap"`` was asked for and the model cannot be batched.
        ValueError: If the name is unknown, or the model does not run on the batch at all.

    Warns:
        FallbackWarning: If ``"auto"`` has to take the loop.
    """
    known_backend(backend)
    refuse_trouble(stack, vector, batch)
    if backend == "loop":
        return backend
    with isolated_rng(0, "backend"), mode(stack.model, norm_trains=True):
        trouble = why_not_vmap(stack, vector.unsqueeze(0), batch)
    if trouble is None:
        return backend
    if backend == "vmap":
        raise UnsupportedModelError(
            f"backend='vmap' needs a model that torch.func.vmap can batch; {trouble} "
            "Use backend='loop', or backend='auto'."
        )
    warnings.warn(
        f"the pivots are run one by one, because the model cannot be batched: {trouble}",
        FallbackWarning,
        stacklevel=3,
    )
    return "loop"


def refuse_trouble(stack: Stack, vector: Tensor, batch: tuple[Any, Any]) -> None:
    """Run the model once, plainly, so that its own trouble with the data is told as such."""
    try:
        with isolated_rng(0, "first batch"), mode(stack.model, norm_trains=False):
            per_example(stack.with_backend("loop"), vector.unsqueeze(0), *batch)
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        kinds = [
            " and ".join(f"{t.dtype} {tuple(t.shape)}" for t in tensors_in(part)) or "no tensor"
            for part in batch
        ]
        raise ValueError(
            "model and loss_fn must run on the batches; the first one has inputs of "
            f"{kinds[0]} and a target of {kinds[1]}, the parameters are {stack.dtype}. "
            f"torch says: {str(error).strip().splitlines()[0]}"
        ) from error


def known_backend(backend: str) -> str:
    """Refuse a name that is none."""
    refuse_unknown(BACKENDS, backend=backend)
    return backend


@quiet_vmap()
def faster_backend(
    stack: Stack, inner: Float[Tensor, "interior params"], batch: tuple[Any, Any]
) -> str:
    """Time two steps of each way to run the pivots.

    Args:
        stack: What the pivots have in common.
        inner: Interior pivots.
        batch: Inputs and target of one step.

    Returns:
        ``"vmap"`` or ``"loop"``, the same on every process; ``"loop"`` if memory is too short for
        the other.
    """
    with isolated_rng(0, "backend"), mode(stack.model, norm_trains=True):
        try:
            vmap = seconds_of(stack.with_backend("vmap"), inner, batch)
        except torch.OutOfMemoryError:
            vmap = float("inf")
        loop = seconds_of(stack.with_backend("loop"), inner, batch)
    return broadcast("vmap" if vmap < loop else "loop")


def chosen_backend(
    backend: str, stack: Stack, rows: Float[Tensor, "rows params"], batch: tuple[Any, Any]
) -> str:
    """Check that the model can be run as asked, and let two timed steps decide on ``"auto"``.

    Args:
        backend: ``"auto"``, ``"vmap"`` or ``"loop"``.
        stack: What the rows have in common.
        rows: Parameter vectors to try.
        batch: Inputs and target of one step.

    Returns:
        ``"vmap"`` or ``"loop"``.
    """
    backend = usable_backend(backend, stack, rows[0], batch)
    return faster_backend(stack, rows, batch) if backend == "auto" else backend


def seconds_of(stack: Stack, inner: Tensor, batch: tuple[Any, Any]) -> float:
    """Time the faster of two steps."""
    times = []
    for _ in range(2):
        began = perf_counter()
        losses_and_grads(stack, inner.clone(), *batch)[0].sum().item()  # waits for the device
        times.append(perf_counter() - began)
    return min(times)


@quiet_vmap()
def why_not_vmap(stack: Stack, rows: Tensor, batch: tuple[Any, Any]) -> str | None:
    """Try one batched step; name the layer that refused and its reason."""
    entered: list[str] = []
    hooks = []
    for name, module in stack.model.named_modules():
        label = f"{name or 'the model'} ({type(module).__name__})"
        enter = lambda *_, label=label: entered.append(label)  # noqa: E731
        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(lambda *_: entered.pop() and None))
    try:
        losses_and_grads(stack.with_backend("vmap"), rows.clone(), *batch)
    except Exception as error:  # vmap refuses with many kinds, a model may raise any other
        if isinstance(error, ValueError) and "loss_fn" in str(error):
            raise
        reason = str(error).strip() or type(error).__name__
        return f"{entered[-1] if entered else 'loss_fn'}: {reason.splitlines()[0].rstrip('. ')}."
    finally:
        for hook in hooks:
            hook.remove()
    return None
