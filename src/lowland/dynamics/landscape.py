r"""The bulk of the Hessian on the p-spin sphere: a semicircle that slides with the energy."""

from math import sqrt
from typing import Any

import numpy as np
from jaxtyping import Float

from lowland.dynamics.statics import checked

__all__ = ["hessian_edges", "negative_fraction"]


def hessian_edges(
    order: int, energy: Any
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    r"""Find the ends of the spectrum of second derivatives at typical points of some energy.

    It is a semicircle about :math:`-pE` of radius :math:`\sqrt{2 p (p-1)}`; its lower end is 0 at
    the threshold energy.

    Args:
        order: Spins per coupling, p.
        energy: Energies per spin.

    Returns:
        Lower and upper ends, one per energy.

    Source:
        Specification, section 7.4.

    Example:
        >>> lower, upper = hessian_edges(3, 0.0)
        >>> round(float(lower), 4), round(float(upper), 4)
        (-3.4641, 3.4641)
    """
    p = checked(order)
    center, radius = -p * np.asarray(energy, float), sqrt(2 * p * (p - 1))
    return np.asarray(center - radius), np.asarray(center + radius)


def negative_fraction(order: int, energy: Any) -> Float[np.ndarray, "*shape"]:
    r"""Find the share of negative curvatures at typical points of some energy.

    :math:`F(pE/r)` with :math:`F(x) = \tfrac12 + (x \sqrt{1 - x^2} + \arcsin x) / \pi` and the
    radius r of the semicircle.

    Args:
        order: Spins per coupling, p.
        energy: Energies per spin.

    Returns:
        One share per energy, 0 at and below the threshold.

    Source:
        Specification, section 7.4.

    Example:
        >>> float(negative_fraction(3, 0.0))
        0.5
    """
    p = checked(order)
    x = np.clip(p * np.asarray(energy, float) / sqrt(2 * p * (p - 1)), -1, 1)
    return np.asarray(0.5 + (x * np.sqrt(1 - x**2) + np.arcsin(x)) / np.pi)
