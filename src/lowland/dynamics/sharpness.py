"""Sharpness: the largest eigenvalue of the Hessian, by as few Lanczos steps as it takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lowland.dynamics.counts import measure_of
from lowland.dynamics.lanczos import Tridiagonal, lanczos
from lowland.dynamics.noise import NotFiniteError
from lowland.dynamics.probes import probe_vectors
from lowland.dynamics.products import hessian_product

__all__ = ["Sharpness", "find_sharpness"]

FEWEST_STEPS, MOST_STEPS = 10, 160
SETTLED = 1e-2  # residual over value; the error of the value is of second order in it


@dataclass(frozen=True)
class Sharpness:
    """The largest curvature of a loss.

    Attributes:
        value: Largest Ritz value; the largest eigenvalue, or less.
        residual: Its distance from an eigenvalue, at most.
        steps: Lanczos steps that were taken.
    """

    value: float
    residual: float
    steps: int


def find_sharpness(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    *,
    batch_norm: str = "eval",
    seed: int = 0,
) -> Sharpness:
    r"""Find the largest eigenvalue of the Hessian of a model's mean loss.

    Lanczos takes 10 steps, then 20, 40, 80, 160, until the residual is at most a hundredth of the
    value; one product over all batches each. Gradient descent at a rate :math:`\eta` is stable
    where it is below :math:`2 / \eta`.

    Args:
        model: Any module; left as it is.
        loss_fn: One loss per example.
        batches: Re-iterable of (inputs, target), not augmented.
        batch_norm: As for :func:`lowland.dynamics.hessian_product`.
        seed: Of the start vector.

    Returns:
        The value, with a bound that tells whether it has settled.

    Raises:
        NotFiniteError: If a product is not finite; a ``ValueError`` too.

    Source:
        Lanczos (1950); specification, section 9.
    """
    operator = hessian_product(model, loss_fn, batches, batch_norm=batch_norm)
    start = probe_vectors(operator, range(1), seed)
    if not operator.rows(start).isfinite().all():
        raise NotFiniteError(
            "second derivatives must be finite; these weights give others. Measure at earlier ones."
        )

    def is_settled(matrix: Tridiagonal) -> bool:
        found = measure_of(matrix)
        return bool(found.residuals[-1] <= SETTLED * found.nodes[-1].abs())

    (matrix,) = lanczos(operator, start, FEWEST_STEPS, max_steps=MOST_STEPS, until=is_settled)
    found = measure_of(matrix)
    return Sharpness(float(found.nodes[-1]), float(found.residuals[-1]), matrix.steps)
