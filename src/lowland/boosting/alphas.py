"""The weight of a depth from its edge or by line search, and what one edge gains on another."""

from collections.abc import Callable
from math import atanh, copysign, expm1, inf, log1p, sqrt

from jaxtyping import Float, Integer
from torch import Tensor

from lowland.boosting.costs import NO_WEIGHT, example_weights, exponentials, margins

__all__ = [
    "LARGEST_ALPHA",
    "LARGEST_EDGE",
    "closed_alpha",
    "improvement",
    "line_search_alpha",
    "signed_root",
]

LARGEST_ALPHA = 12.0  # exp(24), the ratio of the extreme weights, still leaves float64 six digits
LARGEST_EDGE = 1 - 1e-12  # beyond it 1 - edge^2 is rounding


def closed_alpha(edge: float) -> float:
    r"""Weigh a depth by its edge.

    :math:`\alpha = \tfrac12 \ln\frac{1 + \tilde\gamma}{1 - \tilde\gamma}`.

    Args:
        edge: Of the *new* hypothesis (the paper's proof prints the old one).

    Returns:
        Between 0, for an edge that is not positive, and :data:`LARGEST_ALPHA`.

    Raises:
        ValueError: If the edge is not a number of ``[-1, 1]``.

    Source:
        Huang et al., ICML 2018, Algorithms 1 and 3.
    """
    return min(atanh(min(positive_edge(edge), LARGEST_EDGE)), LARGEST_ALPHA)


def positive_edge(edge: float) -> float:
    """An edge below 0 gets alpha 0, which is what an edge of 0 gets."""
    if not -1 <= edge <= 1:
        raise ValueError(f"an edge is a mean margin and must lie in [-1, 1]; got {edge}.")
    return max(edge, 0.0)


def improvement(edge: float, previous: float) -> float:
    r"""Compare two edges: :math:`\gamma_t^2`, signed.

    :math:`1 - \gamma_t^2 = (1 - \tilde\gamma_{t+1}^2) / (1 - \tilde\gamma_t^2)`. An edge that is
    not positive counts as 0, and both are held below :data:`LARGEST_EDGE`.

    Args:
        edge: Of the new hypothesis.
        previous: Of the one before it.

    Returns:
        A number below 1; negative where the edge fell.

    Raises:
        ValueError: If an edge is not a number of ``[-1, 1]``.

    Source:
        Huang et al., ICML 2018, Algorithm 1; with a sign: ours.
    """
    new, old = (min(positive_edge(value), LARGEST_EDGE) for value in (edge, previous))
    return -expm1(log1p(-new * new) - log1p(-old * old))


def signed_root(square: float) -> float:
    r"""Give :math:`\gamma` from a :math:`\gamma^2` that may be negative.

    Args:
        square: Of either sign.

    Returns:
        The root of its size, with its sign.
    """
    return copysign(sqrt(abs(square)), square)


def line_search_alpha(
    output: Float[Tensor, "batch classes"],
    target: Integer[Tensor, " batch"],
    weights: Float[Tensor, " batch"] | None = None,
) -> float:
    """Find the alpha with the smallest exponential loss; older rounds have no part in it.

    Args:
        output: Rows of a simplex.
        target: Class of each example.
        weights: Of the examples.

    Returns:
        Between 0, if the mean margin is not positive, and :data:`LARGEST_ALPHA`, where the loss
        would go on falling.

    Raises:
        ValueError: If the arguments do not fit, or all weights are zero.

    Source:
        Huang et al., ICML 2018, Eq. 6: the minimum over alpha there.
    """
    r = margins(output, target)
    w = example_weights(weights, r)[:, None]
    if not w.sum() > 0:
        raise ValueError(NO_WEIGHT)

    def moments(alpha: float) -> list[float]:
        q = w * exponentials(r, target, alpha)
        return [float((q * r**k).sum()) for k in range(3)]

    start = moments(0.0)
    return find_alpha(moments, start[1] / start[0])


def find_alpha(moments: Callable[[float], list[float]], mean: float) -> float:
    """Newton's method, kept between what is too little and what is too much.

    Args:
        moments: Sums of ``exp(-alpha r)`` times 1, r and r^2 at a given alpha.
        mean: Mean margin at alpha 0.

    Returns:
        Where the weighted mean margin is 0, or the end of the range it would pass.
    """
    if mean <= 0:
        return 0.0
    low, high, alpha = 0.0, inf, closed_alpha(min(mean, 1.0))
    for _ in range(100):
        total, first, second = moments(alpha)
        slope = first / total
        if slope == 0 or (slope > 0 and alpha == LARGEST_ALPHA):
            break
        low, high = (alpha, high) if slope > 0 else (low, alpha)
        curvature = second / total - slope * slope
        following = min(alpha + slope / curvature, LARGEST_ALPHA) if curvature > 0 else inf
        if abs(following - alpha) <= 1e-11:
            break
        if not low < following < high:
            following = (low + min(high, LARGEST_ALPHA)) / 2
        alpha = following
    return alpha
