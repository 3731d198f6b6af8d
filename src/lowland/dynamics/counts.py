"""How many eigenvalues lie in an interval, and whether that number can be relied on."""

from dataclasses import dataclass
from math import inf, isinf, sqrt

import torch
from jaxtyping import Float
from scipy.special import ndtri, stdtrit
from torch import Tensor

from lowland.dynamics.lanczos import Tridiagonal

__all__ = ["Count", "Measure", "judge", "measure_of"]

TOLERANCE = 0.03
CONFIDENCE = 0.999


@dataclass(frozen=True)
class Count:
    """A number of eigenvalues, with all that is known about its error.

    Attributes:
        value: Estimated number of eigenvalues in the interval.
        standard_error: Over the probes (of one probe, a bound); zero where all eigenvalues are
            known.
        resolution: By how much Lanczos of so many steps may be wrong at most, whatever the
            spectrum: half the distance of the bounds on the number, averaged over the probes.
        reliable: Whether both errors together are small enough, and Ritz values have settled in
            the interval.
        reason: Why, in a sentence.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    standard_error: float
    resolution: float
    reliable: bool
    reason: str
    low: float
    high: float


@dataclass(frozen=True)
class Measure:
    r"""How a probe vector is spread over the eigenvectors, as far as Lanczos can tell.

    Attributes:
        nodes: Ritz values, ascending.
        weights: Their weights :math:`\tau`, squares of first components; they add up to 1.
        residuals: Distance of each Ritz value from an eigenvalue, at most.
        tridiagonal: What it was read from; None if nodes and weights are those of all eigenvalues.
    """

    nodes: Float[Tensor, " steps"]
    weights: Float[Tensor, " steps"]
    residuals: Float[Tensor, " steps"]
    tridiagonal: Tridiagonal | None = None

    def below(self, x: float, slack: float = 0.0) -> tuple[float, float]:
        r"""Bound the weight of all eigenvalues below a point.

        Of all spectra that agree with the m steps, the quadrature with a node at the point itself
        has the least weight below it, and the most including it.

        Args:
            x: The point.
            slack: Eigenvalues this close to the point may lie on either side: rounding.

        Returns:
            Bounds of the weight, 0 to 1; without slack they are sharp.

        Source:
            The Chebyshev-Markov-Stieltjes inequalities; Golub & Meurant, Matrices, Moments and
            Quadrature (2010), Section 6.2 for the node (Gauss-Radau).
        """
        if isinf(x):
            return (0.0, 0.0) if x < 0 else (1.0, 1.0)
        if self.tridiagonal is None:
            shares = [self.weights[self.nodes < x + side].sum() for side in (-slack, slack)]
            return float(shares[0]), float(shares[1])
        below, weights = with_node(self.tridiagonal, x - slack)
        low = float(weights[:below].sum())
        if slack:
            below, weights = with_node(self.tridiagonal, x + slack)
        return low, min(1.0, float(weights[: below + 1].sum()))

    def within(self, low: float, high: float, slack: float = 0.0) -> tuple[float, float]:
        """Bound the weight of all eigenvalues in an interval.

        Args:
            low: Its lower end.
            high: Its upper end.
            slack: As for :meth:`below`.

        Returns:
            Bounds of the weight, 0 to 1.
        """
        left, right = self.below(low, slack), self.below(high, slack)
        least = max(0.0, right[0] - left[1])
        return least, max(least, right[1] - left[0])

    def has_settled(self, low: float, high: float) -> bool:
        """Tell whether a Ritz value in an interval is closer to an eigenvalue than half its width.

        Args:
            low: Lower end.
            high: Upper end.

        Returns:
            Whether there is one; on a half-line, one with an eigenvalue that is there too.
        """
        inside = (self.nodes > low) & (self.nodes < high)
        nodes, residuals = self.nodes[inside], self.residuals[inside]
        reach = torch.minimum(nodes - low, high - nodes)
        return bool((residuals < (reach if isinf(high - low) else (high - low) / 2)).any())


def measure_of(tridiagonal: Tridiagonal) -> Measure:
    """Read nodes, weights and residual bounds from the matrix of a probe.

    Args:
        tridiagonal: From :func:`lowland.dynamics.lanczos.lanczos`.

    Returns:
        The measure.
    """
    nodes, vectors = tridiagonal.eigh()
    residuals = float(tridiagonal.off_diagonal[-1]) * vectors[-1].abs()
    return Measure(nodes, vectors[0].square(), residuals, tridiagonal)


def with_node(tridiagonal: Tridiagonal, x: float) -> tuple[int, Float[Tensor, " nodes"]]:
    """Quadrature with one more node, at a point: how many nodes lie below it, and all weights."""
    tiny = torch.finfo(torch.float64).tiny ** 0.5
    alphas, betas = tridiagonal.diagonal.tolist(), tridiagonal.off_diagonal.tolist()
    pivot, below, before = inf, 0, 0.0
    for alpha, beta in zip(alphas, betas, strict=True):
        pivot = alpha - x - before**2 / pivot  # of T - x, by elimination
        pivot = pivot or tiny
        below += pivot < 0
        before = beta
    diagonal = torch.tensor([*alphas, x + before**2 / pivot], dtype=torch.float64)
    longer = Tridiagonal(diagonal, torch.tensor([*betas, 0.0], dtype=torch.float64), True)
    return below, longer.eigh()[1][0].square()


def judge(
    measures: tuple[Measure, ...],
    size: int,
    low: float,
    high: float,
    *,
    floor: float = 0.0,
    tolerance: float = TOLERANCE,
) -> Count:
    """Count the eigenvalues in an open interval, and say whether the count holds.

    The value is the middle of the bounds on the number, which no spectrum that agrees with the
    Lanczos steps passes. It is reliable if half their distance and the error from so few probes
    (at 99.9 %) add up to less than the tolerance, or to less than half an eigenvalue; and if in
    every probe a Ritz value in the interval has settled.

    Args:
        measures: One per probe.
        size: Number of eigenvalues in all.
        low: Lower end of the interval; may be infinite.
        high: Upper end.
        floor: By how much eigenvalues may be wrong, from rounding.
        tolerance: Largest error of a reliable count, as a share of it.

    Returns:
        The count.

    Raises:
        ValueError: If the interval is empty.

    Source:
        Section 3.5 of the specification for the residuals; the bounds are ours.
    """
    if not low < high:
        raise ValueError(f"low must be less than high; got {low} and {high}.")
    bounds = torch.tensor([m.within(low, high, floor) for m in measures], dtype=torch.float64)
    shares = bounds.mean(1)
    value = size * float(shares.mean())
    resolution = size * float((bounds[:, 1] - bounds[:, 0]).mean()) / 2
    is_exact = all(m.tridiagonal is None for m in measures)
    spread, chance = (0.0, 0.0) if is_exact else errors_of_chance(shares, size)
    error, allowed = resolution + chance, max(tolerance * value, 0.5)
    if resolution > allowed and min(abs(low), abs(high)) < 2 * floor:
        reason = (
            f"the count depends on eigenvalues that are zero to rounding, about {floor:.2g} here; "
            "take a wider interval, or float64"
        )
    elif resolution > allowed:
        reason = (
            f"Lanczos cannot tell on which side of the ends of the interval {resolution:.3g} "
            "eigenvalues lie; take more steps, or a wider interval"
        )
    elif error > allowed:
        reason = (
            f"{len(measures)} probes are too few: at 99.9 % the count may be wrong by {error:.3g}; "
            "take more"
        )
    elif value > 0.5 and not all(m.has_settled(low, high) for m in measures):
        reason = "in some probe no Ritz value in the interval has settled; take more steps"
    else:
        reason = f"at 99.9 % the count is wrong by {error:.3g} at most"
        return Count(value, spread, resolution, True, reason, low, high)
    return Count(value, spread, resolution, False, reason, low, high)


def errors_of_chance(shares: Float[Tensor, " probes"], size: int) -> tuple[float, float]:
    """Find how wrong a count over random probes may be.

    Two bounds hold: Student's, from how the probes differ, and that from the variance of signs
    whatever the eigenvectors, :math:`2 p (1 - p) / M` per probe.

    Args:
        shares: Share of the eigenvalues, as each probe sees it.
        size: Number of eigenvalues M.

    Returns:
        Standard error of the count, and what its error does not pass at 99.9 percent.

    Source:
        Ours.
    """
    n, level = len(shares), (1 + CONFIDENCE) / 2
    p = min(max(float(shares.mean()), 1 / size), 1 - 1 / size) if size > 1 else 0.5
    bound = sqrt(2 * p * (1 - p) * size / n)
    if n == 1:
        return bound, bound * float(ndtri(level))
    spread = size * float(shares.std()) / sqrt(n)
    student = spread * float(stdtrit(n - 1, level)) if spread < inf else inf
    return spread, min(student, bound * float(ndtri(level)))
