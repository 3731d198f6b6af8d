"""Gradients of a batch and of its examples, beside a training run and not in it."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lowland.dynamics.scatter import MAX_BYTES
from lowland.errors import UnsupportedModelError
from lowland.params import call, call_at, trainable
from lowland.training import (
    batch_count,
    checked_losses,
    device_of,
    map_tensors,
    to_device,
    wide_type,
)
from lowland.training.evaluate import LossFn

__all__ = ["batch_gradient", "example_gradients"]


def batch_gradient(
    model: nn.Module, loss_fn: LossFn, inputs: Any, target: Any
) -> tuple[float, Float[Tensor, " params"]]:
    """Compute the mean loss of a batch and its gradient, without touching ``.grad``.

    Args:
        model: The module.
        loss_fn: One loss per example.
        inputs: Of the batch.
        target: Of the batch.

    Returns:
        The loss, and the gradient in float64.

    Source:
        Ours.
    """
    device, named = device_of(model), dict(model.named_parameters())
    weights = [named[name] for name in trainable(model).names]
    inputs, target = to_device((inputs, target), device)
    with torch.enable_grad():
        losses = checked_losses(loss_fn, call(model, inputs), target)
        loss = losses.to(torch.promote_types(losses.dtype, torch.float32)).mean()
        parts = torch.autograd.grad(loss, weights, allow_unused=True)
    every = [
        torch.zeros_like(weight) if part is None else part
        for weight, part in zip(weights, parts, strict=True)
    ]
    return loss.item(), torch.cat([part.reshape(-1) for part in every]).to(wide_type(device))


def example_gradients(
    model: nn.Module, loss_fn: LossFn, inputs: Any, target: Any
) -> tuple[float, Float[Tensor, " params"], float]:
    """Compute the gradient of every example of a batch by ``torch.func``.

    Args:
        model: The module.
        loss_fn: One loss per example.
        inputs: Of the batch.
        target: Of the batch.

    Returns:
        Mean loss, sum of the gradients in float64, and sum of their squared norms.

    Raises:
        UnsupportedModelError: If the model cannot be run on single examples.

    Source:
        Ours.
    """
    device, layout = device_of(model), trainable(model)
    named = dict(model.named_parameters())
    weights = {name: named[name].detach() for name in layout.names}
    inputs, target = to_device((inputs, target), device)
    checked_losses(loss_fn, call(model, inputs), target)

    def loss_of(weights: dict[str, Tensor], x: Any, y: Any) -> Tensor:
        x, y = map_tensors(lambda tensor: tensor.unsqueeze(0), (x, y))
        return loss_fn(call_at(model, weights, x), y)[0]

    every = vmap(grad_and_value(loss_of), (None, 0, 0))
    count = batch_count(target, inputs)
    longest = max(1, MAX_BYTES // (8 * layout.size))
    loss, squares = 0.0, 0.0
    total = torch.zeros(layout.size, dtype=wide_type(device), device=device)
    for start in range(0, count, longest):
        some = slice(start, start + longest)
        x, y = map_tensors(lambda tensor, some=some: tensor[some], (inputs, target))
        try:
            with sdpa_kernel(SDPBackend.MATH):  # fused attention is run example by example
                gradients, losses = every(weights, x, y)
        except RuntimeError as error:
            raise UnsupportedModelError(
                "with per_sample every layer must take single examples under torch.func.vmap; "
                f"torch says: {str(error).splitlines()[0]} Pass per_sample=False."
            ) from error
        parts = [gradients[name].reshape(len(losses), -1) for name in layout.names]
        flat = torch.cat(parts, 1).to(wide_type(device))
        total += flat.sum(0)
        squares += flat.square().sum().item()
        loss += losses.sum().item()
    return loss / count, total, squares
