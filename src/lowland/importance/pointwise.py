"""Scores of losses that compare number by number: squared, absolute, logistic."""

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.training.floats import raised

__all__ = [
    "binary_cross_entropy_scores",
    "huber_scores",
    "l1_scores",
    "sigmoid_squared_error_scores",
    "smooth_l1_scores",
    "squared_error_scores",
]


def norm_of(delta: Tensor, reduction: str) -> Tensor:
    """Norm over all axes but the first, of a sum, mean or half sum over them."""
    scale = {"sum": 1.0, "mean": 1 / max(1, delta[:1].numel()), "half": 0.5}
    if reduction not in scale:
        raise ValueError(f"reduction must be one of {', '.join(scale)}; got {reduction!r}.")
    norm = delta.flatten(1).norm(dim=1) if delta.ndim > 1 else delta.abs()
    return norm * scale[reduction]


@torch.no_grad()
def squared_error_scores(
    output: Float[Tensor, "batch ..."],
    target: Float[Tensor, "batch ..."],
    *,
    reduction: str = "mean",
) -> Float[Tensor, " batch"]:
    """Norm of ``2 (z - y)``, by the loss's reduction over an example's outputs.

    Args:
        output: Predictions ``z``.
        target: ``y``, the same shape.
        reduction: ``"mean"``, ``"sum"`` or ``"half"`` of the sum.

    Returns:
        Scores, in the loss's unit per unit of output, in float32 or wider.

    Raises:
        ValueError: If the two shapes differ, or the reduction is unknown.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 3.2 (v3, Eq. 20), for this loss.
    """
    return norm_of(2 * residual(output, target), reduction)


@torch.no_grad()
def sigmoid_squared_error_scores(
    logits: Float[Tensor, "batch ..."],
    target: Float[Tensor, "batch ..."],
    *,
    reduction: str = "mean",
) -> Float[Tensor, " batch"]:
    """Norm of ``2 (S - y) S (1 - S)`` for a squared error behind a sigmoid ``S``.

    Args:
        logits: What the sigmoid is applied to.
        target: ``y``, the same shape.
        reduction: As for :func:`squared_error_scores`.

    Returns:
        Scores, in the loss's unit per unit of output, in float32 or wider.

    Raises:
        ValueError: If the two shapes differ, or the reduction is unknown.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 3.2 (v3, Eq. 20), for this loss.
    """
    s = raised(logits).sigmoid()
    return norm_of(2 * residual(s, target) * s * (1 - s), reduction)


@torch.no_grad()
def binary_cross_entropy_scores(
    logits: Float[Tensor, "batch ..."],
    target: Float[Tensor, "batch ..."],
    *,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: str = "sum",
) -> Float[Tensor, " batch"]:
    """Norm of ``S (1 - y + u y) - u y``, with the sigmoid ``S`` and the positive weight ``u``.

    Args:
        logits: One per label.
        target: Probabilities ``y``, the same shape.
        weight: Factor of each label.
        pos_weight: ``u``, 1 by default.
        reduction: ``"sum"`` or ``"mean"`` over labels.

    Returns:
        Scores, in the loss's unit per unit of output, in float32 or wider.

    Raises:
        ValueError: If the two shapes differ, or the reduction is unknown.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 3.2 (v3, Eq. 20), for this loss.
    """
    z, y = raised(logits), raised(target)
    residual(z, y)
    u = 1.0 if pos_weight is None else pos_weight.to(z.dtype)
    delta = z.sigmoid() * (1 - y) - u * y * (-z).sigmoid()  # the same, without cancellation
    return norm_of(delta if weight is None else delta * weight.to(z.dtype), reduction)


@torch.no_grad()
def huber_scores(
    output: Float[Tensor, "batch ..."],
    target: Float[Tensor, "batch ..."],
    *,
    delta: float = 1.0,
    reduction: str = "mean",
) -> Float[Tensor, " batch"]:
    """Norm of the residual, clipped at ``delta``.

    Args:
        output: Predictions.
        target: The same shape.
        delta: Where the loss becomes linear.
        reduction: As for :func:`squared_error_scores`.

    Returns:
        Scores, in the loss's unit per unit of output, in float32 or wider.

    Raises:
        ValueError: If the two shapes differ, or the reduction is unknown.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 3.2 (v3, Eq. 20), for this loss.
    """
    return norm_of(residual(output, target).clamp(-delta, delta), reduction)


@torch.no_grad()
def smooth_l1_scores(
    output: Float[Tensor, "batch ..."],
    target: Float[Tensor, "batch ..."],
    *,
    beta: float = 1.0,
    reduction: str = "mean",
) -> Float[Tensor, " batch"]:
    """Norm of the residual over ``beta``, clipped at 1.

    Args:
        output: Predictions.
        target: The same shape.
        beta: Where the loss becomes linear; 0 is :func:`l1_scores`.
        reduction: As for :func:`squared_error_scores`.

    Returns:
        Scores, in the loss's unit per unit of output, in float32 or wider.

    Raises:
        ValueError: If the two shapes differ, or the reduction is unknown.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 3.2 (v3, Eq. 20), for this loss.
    """
    if beta == 0:
        return l1_scores(output, target, reduction=reduction)
    return norm_of((residual(output, target) / beta).clamp(-1, 1), reduction)


@torch.no_grad()
def l1_scores(
    output: Float[Tensor, "batch ..."],
    target: Float[Tensor, "batch ..."],
    *,
    reduction: str = "mean",
) -> Float[Tensor, " batch"]:
    """Norm of the sign of the residual: the same for all examples, so sampling never pays.

    Args:
        output: Predictions.
        target: The same shape.
        reduction: As for :func:`squared_error_scores`.

    Returns:
        Scores, in the loss's unit per unit of output, in float32 or wider.

    Raises:
        ValueError: If the two shapes differ, or the reduction is unknown.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 3.2 (v3, Eq. 20), for this loss.
    """
    return norm_of(residual(output, target).sign(), reduction)


def residual(output: Tensor, target: Tensor) -> Tensor:
    """Difference of two tensors of one shape, in float32 or wider."""
    if output.shape != target.shape:
        raise ValueError(
            f"output and target must have one shape; got {tuple(output.shape)} and "
            f"{tuple(target.shape)}, which would broadcast."
        )
    return raised(output) - raised(target)
