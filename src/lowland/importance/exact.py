"""Exact gradient norms of single examples: of the whole model, or of its last layer for free."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad, vmap

from lowland.errors import FallbackWarning, UnsupportedModelError
from lowland.importance.rows import count_rows, select
from lowland.params import call, call_at, trainable
from lowland.training import checked_losses, kept_mode, map_tensors
from lowland.training.floats import raised

__all__ = ["gradient_norms", "last_layer_scores"]


@torch.enable_grad()  # also where the user has switched gradients off
def gradient_norms(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    inputs: Any,
    target: Any,
    *,
    chunk: int | None = None,
) -> Float[Tensor, " batch"]:
    r"""Compute :math:`\lVert \nabla_\theta \ell_i \rVert_2` of every example.

    In evaluation mode, over the distinct parameters that require a gradient. One backward pass per
    example, batched by ``torch.func``; where that cannot treat the model, one by one, with a
    warning.

    Args:
        model: Left as it is.
        loss_fn: One loss per example.
        inputs: The batch.
        target: Its targets.
        chunk: Examples at once; memory is this many gradients. None chooses so many that they
            hold 2^26 numbers at most.

    Returns:
        Norms in the loss's unit per unit of parameter, detached.

    Raises:
        UnsupportedModelError: If the model has no parameter that requires a gradient.
        ValueError: If there is no row.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 3.1: the scores of least variance.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UnsupportedModelError("the model must have a parameter that requires a gradient.")
    layout = trainable(model)
    params = {
        name: value.detach() for name, value in model.named_parameters() if name in layout.names
    }
    count = count_rows((inputs, target))
    if not count:
        raise ValueError("the batch must hold at least one example; got none. Leave it out.")
    chunk = chunk or max(1, min(count, 2**26 // layout.size))

    batch = (inputs, target)
    axes = map_tensors(lambda tensor: 0 if tensor.ndim else None, batch)

    def norm(row: Any) -> Tensor:
        one = map_tensors(lambda t, axis: t if axis is None else t.unsqueeze(0), row, axes)

        def loss(params: dict[str, Tensor]) -> Tensor:
            return checked_losses(loss_fn, call_at(model, params, one[0]), one[1]).sum()

        return norm_of_parts(grad(loss)(params).values())

    with kept_mode(model):
        model.eval()
        try:
            with torch.no_grad():
                return vmap(norm, in_dims=(axes,), chunk_size=chunk, randomness="same")(batch)
        except (RuntimeError, ValueError, TypeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        rows = [select(batch, slice(i, i + 1)) for i in range(count)]
        found = torch.stack([one_norm(model, loss_fn, *row) for row in rows])
    warnings.warn(
        f"torch.func cannot batch this model ({reason}); gradient norms were computed one by one.",
        FallbackWarning,
        stacklevel=2,
    )
    return found


def norm_of_parts(parts: Iterable[Tensor]) -> Float[Tensor, ""]:
    """Norm of a vector given in parts."""
    return torch.stack([raised(part.detach()).square().sum() for part in parts]).sum().sqrt()


def one_norm(
    model: nn.Module, loss_fn: Callable[[Any, Any], Tensor], inputs: Any, target: Any
) -> Float[Tensor, ""]:
    """The gradient norm of one example, by ordinary differentiation."""
    params = [parameter for parameter in model.parameters() if parameter.requires_grad]
    loss = checked_losses(loss_fn, call(model, inputs), target).sum()
    return norm_of_parts(torch.autograd.grad(loss, params, materialize_grads=True))


def last_layer_scores(
    delta: Float[Tensor, "batch *time classes"],
    features: Float[Tensor, "batch *time inputs"],
    *,
    bias: bool = True,
) -> Float[Tensor, " batch"]:
    r"""Gradient norm of the last linear layer, from what the forward pass knows already.

    :math:`\lVert\delta_i\rVert \sqrt{1 + \lVert h_i\rVert^2}`, for sequences
    :math:`(\sum_{t,t'} \delta_t\!\cdot\!\delta_{t'}\,(h_t\!\cdot\!h_{t'} + 1))^{1/2}`.

    Args:
        delta: Gradient of each loss at the layer's output.
        features: The layer's input h.
        bias: Whether the layer has a bias (the 1 in the formulas).

    Returns:
        Scores; for a model of one layer the full gradient norm.

    Raises:
        ValueError: If there are no, or more than one, axes of time.

    Source:
        Ours.
    """
    delta, h = raised(delta.detach()), raised(features.detach())
    if delta.ndim == 2:
        return delta.norm(dim=1) * (h.square().sum(1) + float(bias)).sqrt()
    if delta.ndim != 3:
        raise ValueError(
            f"delta must be (batch, classes) or (batch, time, classes); got {tuple(delta.shape)}."
        )
    gram = h @ h.transpose(1, 2) + float(bias)
    return ((delta @ delta.transpose(1, 2)) * gram).sum((1, 2)).clamp(min=0).sqrt()
