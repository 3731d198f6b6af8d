"""How much an example's gradient can be: the norm of its loss gradient at the model's output."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lowland.importance.losses import TokenCrossEntropy, as_sequences
from lowland.importance.pointwise import (
    binary_cross_entropy_scores,
    huber_scores,
    l1_scores,
    smooth_l1_scores,
    squared_error_scores,
)
from lowland.importance.softmax import cross_entropy_scores, token_scores
from lowland.training import checked_losses, map_tensors, tensors_in
from lowland.training.floats import raised

__all__ = ["head_gradient_scores", "head_gradients", "row_losses", "scores"]


def scores(
    loss_fn: Callable[[Any, Any], Tensor], output: Any, target: Any
) -> Float[Tensor, " batch"]:
    r"""Score examples by the upper bound on their gradient norm.

    :math:`s_i = \lVert \partial \ell_i / \partial z_i \rVert_2`, where :math:`z_i` is what the
    model puts out for example i. Up to a factor common to all examples it bounds the norm of
    their gradient. torch's own loss modules have closed forms; any other loss is differentiated
    with respect to the output only, never through the network.

    Args:
        loss_fn: ``loss_fn(output, target)`` returns one loss per example, and that of an example
            must depend on its own output alone.
        output: What the model returned, gradients or not; for a closed form a tensor, or an
            object with ``logits``.
        target: What the batch asks for.

    Returns:
        Scores in nats (or the loss's unit) per unit of output, detached, in float32 or wider.

    Raises:
        ValueError: If ``loss_fn`` does not return one loss per example, or the targets do not fit.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 3.2 (v3, Eq. 20).

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)
        >>> loss_fn = nn.CrossEntropyLoss(reduction="none")
        >>> round(scores(loss_fn, logits, torch.tensor([0])).item(), 9)
        0.198003723
    """
    formula = closed_form(loss_fn)
    if formula is None:
        return head_gradient_scores(loss_fn, output, target)
    return formula(logits_of(output), target)


def closed_form(loss_fn: Any) -> Callable[[Tensor, Any], Tensor] | None:
    """Find the closed form of a loss, None if there is none."""
    if isinstance(loss_fn, partial) and loss_fn.func is cross_entropy and not loss_fn.args:
        known = {"weight", "label_smoothing", "ignore_index", "reduction"}
        if not loss_fn.keywords.keys() <= known or loss_fn.keywords.get("reduction") != "none":
            return None
        options = {name: value for name, value in loss_fn.keywords.items() if name != "reduction"}
        return partial(cross_entropy_scores, **options)
    if getattr(loss_fn, "reduction", "none") != "none" and type(loss_fn) is not TokenCrossEntropy:
        return None
    match loss_fn:
        case nn.CrossEntropyLoss() if type(loss_fn) is nn.CrossEntropyLoss:
            return partial(
                cross_entropy_scores,
                weight=loss_fn.weight,
                label_smoothing=loss_fn.label_smoothing,
                ignore_index=loss_fn.ignore_index,
            )
        case TokenCrossEntropy():
            form = partial(
                token_scores,
                reduction=loss_fn.reduction,
                combine=loss_fn.combine,
                weight=loss_fn.weight,
                label_smoothing=loss_fn.label_smoothing,
                ignore_index=loss_fn.ignore_index,
            )
            return lambda output, target: form(*as_sequences(output, target))
        case _:
            return pointwise_form(loss_fn)


def pointwise_form(loss_fn: Any) -> Callable[[Tensor, Any], Tensor] | None:
    """Closed forms of losses of one number per example, as these modules give without reduction."""
    forms: dict[type, Callable[[Any], Callable[[Tensor, Any], Tensor]]] = {
        nn.MSELoss: lambda loss: squared_error_scores,
        nn.L1Loss: lambda loss: l1_scores,
        nn.HuberLoss: lambda loss: partial(huber_scores, delta=loss.delta),
        nn.SmoothL1Loss: lambda loss: partial(smooth_l1_scores, beta=loss.beta),
        nn.BCEWithLogitsLoss: lambda loss: partial(
            binary_cross_entropy_scores, weight=loss.weight, pos_weight=loss.pos_weight
        ),
    }
    make = forms.get(type(loss_fn))
    if make is None:
        return None

    def formula(output: Tensor, target: Tensor) -> Tensor:
        if output.ndim != 1:  # the loss then has more axes than one; tell the user in our words
            checked_losses(loss_fn, output, target)
        return make(loss_fn)(output, target)

    return formula


def logits_of(output: Any) -> Tensor:
    """The tensor that a loss module is to see."""
    output = output if isinstance(output, Tensor) else getattr(output, "logits", output)
    if not isinstance(output, Tensor):
        raise ValueError(
            "the output must be a tensor, or have .logits, for a loss module of torch; got a "
            f"{type(output).__name__}. Pass a loss_fn(output, target) that takes it apart."
        )
    return output.detach()


def head_gradient_scores(
    loss_fn: Callable[[Any, Any], Tensor], output: Any, target: Any
) -> Float[Tensor, " batch"]:
    """Score examples by automatic differentiation of the loss alone.

    Args:
        loss_fn: As for :func:`scores`.
        output: Any containers of tensors; the norm runs over all that the loss depends on.
        target: What the batch asks for.

    Returns:
        As of :func:`scores`.

    Raises:
        ValueError: If the loss does not depend on the output, or there is not one per example.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 3.2 (v3, Eq. 20).
    """
    squares = [
        grad.reshape(len(grad), -1).square().sum(1)
        for grad in head_gradients(loss_fn, output, target)
    ]
    return torch.stack(squares).sum(0).sqrt()


def head_gradients(loss_fn: Callable[[Any, Any], Tensor], output: Any, target: Any) -> list[Tensor]:
    """Differentiate each loss with respect to its own output.

    Args:
        loss_fn: As for :func:`scores`.
        output: Any containers of tensors.
        target: What the batch asks for.

    Returns:
        A gradient for each tensor that the loss depends on, example by example.

    Raises:
        ValueError: If the loss does not depend on the output, the output holds no tensor where we
            can see it, or there is not one loss per example.
    """
    with torch.enable_grad():
        leaves = map_tensors(leaf, output)
        losses = row_losses(loss_fn, leaves, target)
        inputs = [tensor for tensor in tensors_in(leaves) if tensor.requires_grad]
        if not inputs:
            raise ValueError(
                "the model's output must be a tensor of floats, or hold such tensors in tuples, "
                'lists and mappings, for score="bound" to differentiate by; got a '
                f"{type(output).__name__}. Return one of these, or take "
                'score="loss" or a score(output, target) of your own.'
            )
        if not losses.requires_grad:
            raise ValueError(
                "loss_fn must depend on the model's output through torch operations; its value "
                "has no gradient. Was the output detached or turned into numbers inside loss_fn?"
            )
        grads = torch.autograd.grad(losses.sum(), inputs, allow_unused=True)
    found = [grad for grad in grads if grad is not None]
    for grad in found:
        if grad.shape[:1] != losses.shape:
            raise ValueError(
                "the first axis of everything the loss depends on must count examples; got "
                f"{tuple(grad.shape)} for {len(losses)} losses."
            )
    return found


def row_losses(
    loss_fn: Callable[[Any, Any], Tensor], output: Any, target: Any
) -> Float[Tensor, " batch"]:
    """Compute the loss of each example, of the logits where a loss of torch cannot take more.

    Args:
        loss_fn: As for :func:`scores`.
        output: What the model returned.
        target: What the batch asks for.

    Returns:
        Losses, with their graph.

    Raises:
        ValueError: If there is not one loss per example, or output or classes do not suit the loss.
        IndexError: From the loss, if neither is the reason.
        RuntimeError: Likewise.

    Source:
        Ours.
    """
    if not isinstance(output, Tensor) and closed_form(loss_fn) is not None:
        logits = getattr(output, "logits", None)
        output = logits if isinstance(logits, Tensor) else output
    if isinstance(output, Tensor):
        check_column(loss_fn, output, target)
        try:
            return checked_losses(loss_fn, output, target)
        except (IndexError, RuntimeError):
            if isinstance(loss_fn, nn.CrossEntropyLoss | TokenCrossEntropy):
                scores(loss_fn, output, target)  # says it in words if it is the targets
            raise
    try:
        return checked_losses(loss_fn, output, target)
    except TypeError as error:
        raise ValueError(
            f"loss_fn must take what the model returns, a {type(output).__name__}; it does not "
            f"({str(error).splitlines()[0][:80]}). Pass one that takes it apart, for instance "
            "lambda output, target: loss_fn(output.logits, target), and give sampling.loss the "
            "model's whole output."
        ) from error


def check_column(loss_fn: Any, output: Tensor, target: Any) -> None:
    """Refuse a column of outputs against a row of targets, which makes a matrix of losses."""
    if not isinstance(loss_fn, nn.modules.loss._Loss) or not isinstance(target, Tensor):
        return
    is_of_classes = isinstance(loss_fn, nn.CrossEntropyLoss | nn.NLLLoss)
    if target.ndim == 1 and output.shape == (len(target), 1) and not is_of_classes:
        raise ValueError(
            f"output and target must have one shape; got {tuple(output.shape)} and "
            f"{tuple(target.shape)}. Let the model return output.squeeze(1)."
        )


def leaf(tensor: Tensor) -> Tensor:
    """Cut a tensor from its graph, and make it the start of a new one."""
    if not tensor.is_floating_point():
        return tensor.detach()
    return raised(tensor.detach()).requires_grad_()
