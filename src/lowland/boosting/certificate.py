"""Certify one hypothesis from tensors that hold a whole training set."""

from jaxtyping import Float, Integer
from torch import Tensor

from lowland.boosting.bounds import Certificate
from lowland.boosting.statistics import measure

__all__ = ["Certificate", "certificate"]


def certificate(
    output: Float[Tensor, "batch classes"],
    target: Integer[Tensor, " batch"],
    *,
    previous: Float[Tensor, "batch classes"] | None = None,
    alpha_previous: float = 0.0,
    edge_previous: float = 0.0,
    alpha: str | float = "closed",
    weights: Float[Tensor, " batch"] | None = None,
) -> Certificate:
    r"""Say what the outputs of a classifier prove about its training error, and how much it gained.

    One call per depth: hand the outputs, ``alpha_closed`` and ``edge`` of one depth to the next as
    ``previous``, ``alpha_previous`` and ``edge_previous``. Everything is computed in float64.

    Args:
        output: Rows of a simplex, ``logits.double().softmax(1)``, over the whole training set.
        target: Class of each example.
        previous: The same rows at the depth before; None at first, where :math:`o_0 = 0`.
        alpha_previous: Closed-form alpha of the depth before.
        edge_previous: Edge of the depth before, from which gamma is measured.
        alpha: Weight of this depth for the loss and the scores: ``"closed"``, ``"line_search"``
            or a number up to :data:`LARGEST_ALPHA`.
        weights: Of the examples, in any scale: the start of the boosting distribution.

    Returns:
        The certificate: edge, gamma, alpha, loss, covariance, bounds.

    Raises:
        ValueError: If the arguments do not fit, or an output is not finite and bounded.

    Source:
        Huang et al., ICML 2018, Algorithms 1 and 3, Theorems 4.2 and F.3; the bounds B1 and B2 in
        the form given here: ours.

    Example:
        >>> import torch
        >>> output = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.2, 0.8]])
        >>> found = certificate(output, torch.tensor([0, 0, 1, 1]))
        >>> found.error, round(found.edge, 3), round(found.bounds["B2"], 3)
        (0.0, 0.45, 0.893)
    """
    return measure(
        lambda: [(output, previous, target, weights)],
        alpha_previous=alpha_previous,
        edge_previous=edge_previous,
        alpha=alpha,
    )
