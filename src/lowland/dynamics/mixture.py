r"""The covariance of a spherical glass's energy, :math:`N f(q)` at overlap :math:`q`."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, perm, sqrt
from numbers import Integral

import numpy as np
from jaxtyping import Float

__all__ = ["Mixture", "as_mixture"]


@dataclass(frozen=True)
class Mixture:
    r"""A sum of p-spin energies :math:`\sum_p a_p H_p`, with :math:`f(q) = \sum_p a_p^2 q^p / 2`.

    Attributes:
        amplitudes: Pairs of order :math:`p` and amplitude :math:`a_p`, by rising order.
    """

    amplitudes: tuple[tuple[int, float], ...]

    @property
    def order(self) -> int | None:
        """The order of a pure model of amplitude 1, None for anything else."""
        (order, amplitude), *others = self.amplitudes
        return order if amplitude == 1 and not others else None

    @property
    def radius(self) -> float:
        r"""Radius of the semicircle of second derivatives, :math:`2 \sqrt{f''(1)}`."""
        return 2 * sqrt(self.at_one(2))

    def at_one(self, derivative: int) -> float:
        """Evaluate the covariance, or one of its derivatives, where two configurations are one.

        Args:
            derivative: How often to differentiate.

        Returns:
            The value at overlap 1.
        """
        return sum(a**2 * perm(p, derivative) / 2 for p, a in self.amplitudes)

    def f(
        self, q: Float[np.ndarray, " overlap"], derivative: int = 0
    ) -> Float[np.ndarray, " overlap"]:
        """Evaluate the covariance, or one of its derivatives.

        Args:
            q: Overlaps, at most 1 in absolute value.
            derivative: How often to differentiate.

        Returns:
            One value per overlap.

        Source:
            Specification section 2.
        """
        total = np.zeros_like(q)
        for order, amplitude in self.amplitudes:
            if order >= derivative:
                term = amplitude**2 * perm(order, derivative) / 2
                for _ in range(order - derivative):  # much faster than NumPy's ** beyond squares
                    term = term * q
                total += term
        return total


def as_mixture(order: int | Mapping[int, float] | Mixture) -> Mixture:
    """Read a pure order, or amplitudes by order.

    Args:
        order: ``3``, or for instance ``{2: 0.5, 3: 1.0}``.

    Returns:
        The mixture.

    Raises:
        ValueError: If an order is not a whole number of at least 2, or no amplitude is above 0.
    """
    if isinstance(order, Mixture):
        return order
    amplitudes = dict(order) if isinstance(order, Mapping) else {order: 1.0}
    for p, amplitude in amplitudes.items():
        if isinstance(p, bool) or not isinstance(p, Integral) or p < 2:
            raise ValueError(f"order, the spins per coupling, must be an integer >= 2; got {p!r}.")
        if not (isfinite(amplitude) and amplitude >= 0):
            raise ValueError(
                f"the amplitude of order {p} must be finite and >= 0; got {amplitude}."
            )
    kept = tuple((int(p), float(a)) for p, a in sorted(amplitudes.items()) if a > 0)
    if not kept:
        raise ValueError(f"a mixture must have an amplitude above 0; got {amplitudes}.")
    return Mixture(kept)
