r"""The p-spin of order 2 in closed form: a random symmetric matrix, mode by mode.

With the semicircle of radius 2 for the eigenvalues :math:`\lambda` of the couplings,
:math:`g(t) = \int e^{2 \lambda t} \rho(\lambda) d\lambda = I_1(4t)/(2t)`, the spins' growth
:math:`\Gamma = \exp(2 \int \mu)` solves :math:`\Gamma = g + 2T \, g * \Gamma`. Its Laplace
transform is algebraic, and inverted it reads

.. math::
    \Gamma(t) = \tfrac2\pi \int_0^\pi \frac{\sin^2\phi \; e^{4 t \cos\phi}}{1 + T^2 - 2T\cos\phi}
        d\phi + [T > 1] (1 - T^{-2}) e^{(2T + 2/T) t}.
"""

from dataclasses import dataclass
from math import ceil, isfinite, pi
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ive

__all__ = ["SphericalSK"]


@dataclass(frozen=True)
class SphericalSK:
    """Dynamics of the infinitely large spherical model of order 2, from a random start.

    Attributes:
        temperature: T; the transition is at 1, and below it q = 1 - T and E tends to -1 + T/2.

    Source:
        Cugliandolo and Dean (1995); specification, section 7.3. The integral over angles is ours.

    Example:
        >>> glass = SphericalSK(0.0)
        >>> round(float(glass.E(1.0)), 6), round(float(glass.C(10.0, 5.0)), 6)
        (-0.658047, 0.916967)
    """

    temperature: float

    def __post_init__(self) -> None:
        if not (isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature must be finite and >= 0; got {self.temperature}.")

    def E(self, t: Any) -> Float[np.ndarray, "*shape"]:
        """Energy per spin.

        Args:
            t: Times, at least 0.

        Returns:
            One energy per time.
        """
        growth, slope = self.growth(t)
        return np.asarray((self.temperature - (self.rate + slope / growth) / 2) / 2)

    def C(self, t: Any, earlier: Any) -> Float[np.ndarray, "*shape"]:
        """Correlation per spin.

        Args:
            t: The later times.
            earlier: The earlier times; broadcast with ``t``.

        Returns:
            One value per pair.
        """
        t, earlier = np.broadcast_arrays(np.asarray(t, float), np.asarray(earlier, float))
        values = np.empty(t.shape)
        for place in np.ndindex(t.shape):
            values[place] = self.correlation(float(t[place]), float(earlier[place]))
        return values

    def R(self, t: Any, earlier: Any) -> Float[np.ndarray, "*shape"]:
        """Response to a field at the earlier time.

        Args:
            t: The later times.
            earlier: The earlier times; broadcast with ``t``.

        Returns:
            One value per pair.
        """
        t, earlier = np.asarray(t, float), np.asarray(earlier, float)
        ratio = self.growth(earlier)[0] / self.growth(t)[0]
        return np.asarray(np.sqrt(ratio) * self.free((t - earlier) / 2))

    @property
    def rate(self) -> float:
        """Fastest exponential growth, taken out of everything: 4, or 2T + 2/T above T = 1."""
        t = self.temperature
        return 4.0 if t <= 1 else 2 * t + 2 / t

    def free(self, t: Any) -> Float[np.ndarray, "*shape"]:
        """Evaluate g, the growth at zero temperature, less the fastest growth."""
        t = np.asarray(t, float)
        safe = np.maximum(t, 1e-9)
        scaled = np.where(t > 1e-9, ive(1, 4 * safe) / (2 * safe), 1.0)
        return np.asarray(scaled * np.exp((4 - self.rate) * t))

    def growth(self, t: Any) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
        """Evaluate Gamma, less the fastest growth, and the time derivative of that."""
        t = np.asarray(t, float)
        hot = self.temperature > 1
        ratio = 1 / self.temperature if hot else self.temperature
        count = ceil(64 + 40 * np.sqrt(t.max(initial=0.0)))  # resolves exp(4 t cos(angle))
        angle = pi * (np.arange(count) + 0.5) / count
        # sin^2 / (1 + r^2 - 2 r cos) as a Fourier series, cut where the exponential has no weight:
        # near r = 1 the ratio itself has a dip too narrow for the angles.
        k = np.arange(2, count)
        tail = np.cos(angle[:, None] * k) @ ratio ** (k - 2.0)
        share = (1 + ratio * np.cos(angle) - (1 - ratio**2) * tail) / 2
        weight = 2 / count * share * (ratio**2 if hot else 1)
        power = 4 * np.cos(angle) - self.rate
        grown = np.exp(t[..., None] * power)
        value, slope = grown @ weight, grown @ (weight * power)
        return np.asarray(value + (1 - ratio**2 if hot else 0.0)), np.asarray(slope)

    def correlation(self, t: float, earlier: float) -> float:
        """Evaluate the correlation of one pair of times."""
        if not 0 <= earlier <= t:
            raise ValueError(f"a pair must be (later, earlier), from 0 on; got {t} and {earlier}.")
        middle = (t + earlier) / 2
        value = float(self.free(middle))
        if self.temperature > 0 and earlier > 0:
            s, weights = graded(earlier)
            inner = self.free(middle - s) * self.growth(s)[0]
            value += 2 * self.temperature * float(weights @ inner)
        return value / float(np.sqrt(self.growth(t)[0] * self.growth(earlier)[0]))


def graded(end: float) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"]]:
    """Gauss-Legendre nodes and weights from 0 to an end, dense at both."""
    points, weights = np.polynomial.legendre.leggauss(16)
    half = np.concatenate([[0.0], np.geomspace(min(0.1, end / 4), end / 2, 8)])
    edges = np.concatenate([half, end - half[-2::-1]])
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    return (middle[:, None] + width[:, None] * points).ravel(), (width[:, None] * weights).ravel()
