"""What a block is trained on: one loss per example, whose mean the trainer takes."""

from collections.abc import Callable
from math import exp

from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import cross_entropy

from lowland.training.floats import raised

__all__ = [
    "OBJECTIVES",
    "cross_entropy_losses",
    "exponential_losses",
    "objective",
    "released_losses",
    "transport",
]

LARGEST_CROSS_ENTROPY = 20.0  # exp(20) = 4.9e8: sums of it keep digits in float32


def cross_entropy_losses(
    logits: Float[Tensor, "batch classes"],
    target: Integer[Tensor, " batch"],
    weights: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, " batch"]:
    """Cross-entropy: the logarithm of one plus the exponential loss, example by example.

    Args:
        logits: Of the auxiliary head.
        target: Class of each example.
        weights: Factors of the examples, with mean 1 over the data set.

    Returns:
        One loss per example, in nats; in float32 for logits of half precision.

    Raises:
        ValueError: If the shapes do not fit.

    Source:
        Ours: the logarithm makes the paper's objective robust to labels that are wrong.
    """
    check(logits, target, weights)
    return weighted(entropies(logits, target), weights)


def exponential_losses(
    logits: Float[Tensor, "batch classes"],
    target: Integer[Tensor, " batch"],
    weights: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, " batch"]:
    r"""Give the paper's objective, :math:`\sum_{l \ne y} \exp(z_l - z_y)`.

    It is computed as :math:`e^{CE} - 1`. Beyond a cross-entropy of 20 it goes on as a straight line
    with the same slope, so that no example is without a gradient and none drowns all others.

    Args:
        logits: Of the auxiliary head: alpha times the paper's linear classifier.
        target: Class of each example.
        weights: Factors of the examples, with mean 1 over the data set.

    Returns:
        One loss per example, without unit; in float32 for logits of half precision.

    Raises:
        ValueError: If the shapes do not fit.

    Source:
        Huang et al., ICML 2018, Eqs. 6, 64 and 65 and Algorithm 4; the line: ours.
    """
    check(logits, target, weights)
    entropy = entropies(logits, target)
    excess = (entropy - LARGEST_CROSS_ENTROPY).clamp(min=0)
    losses = entropy.clamp(max=LARGEST_CROSS_ENTROPY).expm1()
    return weighted(losses + exp(LARGEST_CROSS_ENTROPY) * excess, weights)


def released_losses(
    logits: Float[Tensor, "batch classes"],
    target: Integer[Tensor, " batch"],
    weights: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, " batch"]:
    """Give the objective of the released code, for comparison only: it depends on the batch.

    The exponential of the mean cross-entropy of what a softmax *over the batch* leaves; a second
    softmax is inside the cross-entropy.

    Args:
        logits: Of the auxiliary head.
        target: Class of each example.
        weights: Factors of the examples.

    Returns:
        The value of the batch, once per example, so that the mean over the batch is that value.

    Raises:
        ValueError: If the shapes do not fit.

    Source:
        Huang et al., ICML 2018, released code (JordanAsh/boostresnet).
    """
    check(logits, target, weights)
    over_batch = entropies(raised(logits).softmax(0), target)
    return weighted(over_batch, weights).mean().exp().expand(len(target))


LossFn = Callable[..., Tensor]
OBJECTIVES: dict[str, LossFn] = {
    "ce": cross_entropy_losses,
    "exp": exponential_losses,
    "released": released_losses,
}


def objective(name: str) -> LossFn:
    """Find an objective by its name.

    Args:
        name: ``"ce"``, ``"exp"`` or ``"released"``.

    Returns:
        ``loss_fn(logits, target, weights=None)``, one loss per example.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"objective must be one of {sorted(OBJECTIVES)}; got {name!r}.")
    return OBJECTIVES[name]


def transport(change: Float[Tensor, "batch ..."], tau: float) -> Float[Tensor, " batch"]:
    r"""Charge a block for how far it moves its input: :math:`\|f_t(g_t)\|^2 / (2\tau)`.

    Args:
        change: What the block adds to its input.
        tau: Step size of the scheme; a small one lets a block do little.

    Returns:
        One number per example, in the unit of the objective; in float32 for half precision.

    Raises:
        ValueError: If tau is not positive.

    Source:
        Karkar et al., 2023 (TRGL, arXiv 2309.17357).
    """
    if not tau > 0:
        raise ValueError(f"tau must be positive; got {tau}. Leave transport out for none.")
    return raised(change).flatten(1).square().sum(1) / (2 * tau)


def entropies(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each example."""
    return cross_entropy(raised(logits), target.long(), reduction="none")


def weighted(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Multiply, if there is something to multiply with."""
    return losses if weights is None else losses * weights.to(losses)


def check(logits: Tensor, target: Tensor, weights: Tensor | None) -> None:
    """Refuse shapes that torch would broadcast or take for probabilities."""
    if logits.ndim != 2 or target.shape != logits.shape[:1] or target.is_floating_point():
        raise ValueError(
            "logits must have shape (batch, classes) and target shape (batch,) with integer "
            f"classes; got {tuple(logits.shape)} and {tuple(target.shape)} of {target.dtype}."
        )
    if weights is not None and weights.shape != target.shape:
        raise ValueError(
            f"weights must hold one number per example, shape ({len(target)},); got "
            f"{tuple(weights.shape)}."
        )
