"""Losses per example, and their mean over a data set: sums and counts, never means of means."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.params import call
from lowland.training.device import autocast
from lowland.training.floats import wide_type
from lowland.training.nested import batch_count, to_device
from lowland.training.seeds import isolated_rng

__all__ = [
    "Evaluation",
    "LossFn",
    "as_pair",
    "checked_losses",
    "device_of",
    "evaluate",
    "kept_buffers",
    "kept_mode",
    "mistakes",
]

LossFn = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a data set.

    Attributes:
        loss: Mean loss per example, in the unit of the loss function.
        error: Share of examples whose largest output is not the target class; None unless
            outputs have shape ``(batch, classes)`` and targets are class indices.
        count: Number of examples.
    """

    loss: float
    error: float | None
    count: int


def evaluate(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    limit: int | None = None,
    *,
    precision: str = "float32",
) -> Evaluation:
    """Measure the mean loss and the classification error of a model in eval mode.

    The model, the global generators and the batches are left as they were; batches that shuffle
    or augment do it in the same way each time.

    Args:
        model: Any module; the batches are moved to where its parameters are.
        loss_fn: ``loss_fn(output, target)`` returns one loss per example.
        batches: Re-iterable of ``(inputs, target)``.
        limit: Stop after the batch that brings the number of examples to this.
        precision: See :func:`lowland.training.autocast`.

    Returns:
        The evaluation.

    Raises:
        ValueError: If there is no batch, or ``loss_fn`` does not return a loss per example.
    """
    device = device_of(model)
    losses, wrong, count = [], [], 0
    with (
        kept_mode(model),
        isolated_rng(0, "evaluate", batches=batches),
        torch.no_grad(),
        autocast(device, precision),
    ):
        model.eval()
        for batch in batches:
            inputs, target = to_device(as_pair(batch), device)
            output = call(model, inputs)
            values = checked_losses(loss_fn, output, target)
            losses.append(total(values))
            missed = mistakes(output, target)
            wrong.append(None if missed is None else missed.sum())
            count += len(values)
            if limit is not None and count >= limit:
                break
    if count == 0:
        raise ValueError("batches must yield at least one example; got none. Is the loader empty?")
    has_error = all(number is not None for number in wrong)
    error = float(torch.stack(wrong).sum()) / count if has_error else None
    return Evaluation(float(torch.stack(losses).sum()) / count, error, count)


def total(values: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Sum in float64 where the device has it, without waiting for the device."""
    return values.sum(dtype=wide_type(values.device))


def mistakes(output: Any, target: Any) -> Tensor | None:
    """Tell which examples are given a wrong class.

    Args:
        output: What the model returned.
        target: What the batch asks for.

    Returns:
        Truth values, shape ``(batch,)``; None unless outputs have shape ``(batch, classes)`` and
        targets are class indices.
    """
    if not (isinstance(output, Tensor) and isinstance(target, Tensor)):
        return None
    if output.ndim != 2 or output.shape[1] < 2 or target.shape != output.shape[:1]:
        return None
    if target.is_floating_point() or target.is_complex():
        return None
    return output.argmax(dim=1) != target


def checked_losses(loss_fn: LossFn, output: Any, target: Any) -> Float[Tensor, " batch"]:
    """Compute the loss of each example, and refuse anything else.

    Args:
        loss_fn: The user's loss function.
        output: What the model returned.
        target: What the batch asks for.

    Returns:
        One loss per example.

    Raises:
        ValueError: If the loss function does not return shape ``(batch,)``.
    """
    losses = loss_fn(output, target)
    count = batch_count(target, output)
    if isinstance(losses, Tensor) and losses.shape == (count,):
        return losses
    if not isinstance(losses, Tensor):
        got, advice = f"a {type(losses).__name__}", "Return a tensor."
    elif losses.ndim == 0:
        got, advice = "a scalar", 'Pass reduction="none".'
    else:
        got, advice = f"shape {tuple(losses.shape)}", "Average each example over its other axes."
    raise ValueError(
        f"loss_fn must return one loss per example, shape ({count},); got {got}. {advice}"
    )


def as_pair(batch: Any) -> tuple[Any, Any]:
    """Take a batch apart.

    Args:
        batch: What ``batches`` yields.

    Returns:
        Inputs and target.

    Raises:
        ValueError: If the batch is not a pair.
    """
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    size = f" of {len(batch)}" if hasattr(batch, "__len__") else ""
    raise ValueError(
        f"batches must yield pairs (inputs, target); got a {type(batch).__name__}{size}. "
        "Several inputs go into one tuple or mapping: ((a, b), target)."
    )


def device_of(model: nn.Module) -> torch.device:
    """Find where a model computes.

    Args:
        model: Any module.

    Returns:
        The device of its first parameter or buffer, the CPU if it has none.
    """
    for tensor in chain(model.parameters(), model.buffers()):  # asked in every step: no list
        return tensor.device
    return torch.device("cpu")


@contextmanager
def kept_mode(model: nn.Module) -> Iterator[None]:
    """Put every module back into the train or eval mode it had.

    Args:
        model: Any module.

    Yields:
        Nothing.
    """
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def kept_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put the buffers of modules back, their identity and their bits.

    Args:
        modules: Such as ``model.modules()``.

    Yields:
        Nothing.
    """
    before = [(module, dict(module._buffers)) for module in modules]
    values = [(b, b.clone()) for _, buffers in before for b in buffers.values() if b is not None]
    try:
        yield
    finally:
        for module, buffers in before:
            module._buffers.update(buffers)
        for buffer, value in values:
            if not torch.equal(buffer, value):
                buffer.detach().copy_(value)
