"""The displacement along the eigenvectors of the Hessian: which directions move, and which rest."""

import warnings
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lowland.dynamics.lanczos import Space, grow
from lowland.dynamics.operators import Operator
from lowland.dynamics.probes import probe_vectors
from lowland.dynamics.weights import Source, Weights
from lowland.training import wide_type

__all__ = ["Directions", "eigen_displacement", "leading_directions"]


@dataclass(frozen=True)
class Directions:
    """Directions of largest curvature.

    Attributes:
        values: Ritz values, largest first, float64 on the CPU.
        vectors: Their vectors as rows, of length 1.
        residuals: Distance of each value from an eigenvalue, at most.
    """

    values: Float[Tensor, " directions"]
    vectors: Float[Tensor, "directions params"]
    residuals: Float[Tensor, " directions"]


def eigen_displacement(
    vectors: Float[Tensor, "directions params"],
    start: Source | Float[Tensor, "... params"],
    end: Source | Float[Tensor, "... params"],
) -> Float[Tensor, "... directions"]:
    r"""Project a displacement onto directions: :math:`(v_k \cdot (w' - w))^2`.

    Over a whole basis they add up to :math:`M \Delta`. In a quadratic well each direction is an
    oscillator of its own, fast and confined where the curvature is large, slow and far-reaching
    where it is small.

    Args:
        vectors: Directions of length 1 as rows; :func:`leading_directions` finds some.
        start: Weights at the waiting time: a flat vector, or a stack of them; or a model or
            its named tensors, in the order of its parameters.
        end: Weights later, likewise.

    Returns:
        Squared displacement along each direction, not divided by M.

    Raises:
        ValueError: If a vector is not of length 1, or the weights have another size.

    Source:
        Kunin et al., arXiv 2107.09133; specification, section 9.
    """
    lengths = vectors.norm(dim=1)
    if ((lengths - 1).abs() > 1e-3).any():
        wrong = float(lengths[(lengths - 1).abs().argmax()])
        raise ValueError(f"each of vectors must have length 1; got one of length {wrong:.3g}.")
    before, after = (flat(weights) for weights in (start, end))
    for size in (before.shape[-1], after.shape[-1]):
        if size != vectors.shape[1]:
            raise ValueError(
                f"weights must have {vectors.shape[1]} parameters, as the vectors have; got {size}."
            )
    moved = after.to(vectors) - before.to(vectors)
    return (moved @ vectors.T).square()


def flat(weights: Source | Tensor) -> Float[Tensor, "... params"]:
    """Weights as vectors."""
    return weights.detach() if isinstance(weights, Tensor) else Weights(weights).read()


def leading_directions(
    operator: Operator, count: int, *, steps: int = 100, seed: int = 0
) -> Directions:
    """Find the directions of largest curvature by Lanczos.

    From one start vector, an eigenvalue that is there several times shows once, with one of its
    vectors.

    Args:
        operator: Of a model's Hessian, from :func:`lowland.dynamics.hessian_product`.
        count: Number of directions.
        steps: Lanczos steps; that many vectors are held in float64.
        seed: Of the start vector.

    Returns:
        Values, vectors and bounds on the residuals; fewer than asked for, with a warning, where
        the operator has fewer distinct eigenvalues.

    Raises:
        ValueError: If there are more directions than steps, or none.

    Source:
        Lanczos (1950); see :func:`lowland.dynamics.lanczos.lanczos`.
    """
    steps = min(steps, operator.size)
    if not 1 <= count <= steps:
        raise ValueError(f"count must be at least 1 and at most steps, {steps}; got {count}.")
    (start,) = probe_vectors(operator, range(1), seed)
    finest = wide_type(start.device)
    space = Space(start.to(finest), steps, operator.dtype, finest, steps)
    grow(operator, [space], steps)
    values, inner = space.tridiagonal().eigh()
    if len(values) < count:
        warnings.warn(
            f"only {len(values)} of {count} directions were found: the operator has no more "
            "distinct eigenvalues.",
            stacklevel=2,
        )
    chosen = inner[:, -count:].flip(1)
    basis = space.basis[: space.steps]
    vectors = chosen.T.to(basis) @ basis
    residuals = space.betas[-1] * chosen[-1].abs()
    return Directions(values[-count:].flip(0), vectors.to(operator.dtype), residuals)
