"""What is known exactly of the pure spherical p-spin: its temperatures, energies and aging."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite, log, sqrt
from typing import Any

from scipy.optimize import brentq

from lowland.dynamics.mixture import as_mixture

__all__ = ["AgingLimit", "Statics", "aging_solution", "statics"]

TOLERANCE = 1e-15


@dataclass(frozen=True)
class Statics:
    """Transitions and energies of a pure model; energies per spin.

    Attributes:
        order: Spins per coupling, p.
        dynamic_temperature: T_d, below which a quench never reaches equilibrium.
        dynamic_overlap: Overlap of the states that appear there.
        static_temperature: T_s, below which few states carry all weight; T_d for p = 2.
        static_overlap: Their overlap there.
        threshold_energy: E_th, where a quench to zero temperature ends.
        ground_energy: The lowest energy.
    """

    order: int
    dynamic_temperature: float
    dynamic_overlap: float
    static_temperature: float
    static_overlap: float
    threshold_energy: float
    ground_energy: float


def statics(order: int) -> Statics:
    r"""Find the temperatures and energies that organize the landscape.

    :math:`T_d^2 = p (p-2)^{p-2} / (2 (p-1)^{p-1})`, :math:`q_d = (p-2)/(p-1)` and
    :math:`E_{th} = -\sqrt{2(p-1)/p}` are closed forms. The static point and the ground state solve
    the equations of one step of replica symmetry breaking, at :math:`x = 1` and :math:`T \to 0`.

    Args:
        order: Spins per coupling, at least 2.

    Returns:
        The numbers, roots to 1e-12.

    Raises:
        ValueError: If the order is not an integer of at least 2.

    Source:
        Crisanti and Sommers (1992); specification, section 7.2.

    Example:
        >>> round(statics(3).static_temperature, 7), round(statics(3).ground_energy, 7)
        (0.586054, -1.1716748)
    """
    p = checked(order)
    dynamic = sqrt(p * (p - 2) ** (p - 2) / (2 * (p - 1) ** (p - 1)))
    threshold = -sqrt(2 * (p - 1) / p)
    if p == 2:
        return Statics(2, dynamic, 0.0, dynamic, 0.0, threshold, threshold)

    def unbroken(q: float) -> float:  # stationary in x at x = 1, T eliminated by that in q
        return log(1 - q) + q + q**2 / (p * (1 - q))

    static = root(unbroken, (p - 2) / (p - 1), 1 - 1e-12)
    temperature = sqrt(p * static ** (p - 2) * (1 - static) / 2)

    def breaking(c: float) -> float:  # of x / T, as 1 - q = c T
        return 2 / (p * c) - c

    def unbalanced(c: float) -> float:  # stationary in x / T
        y = breaking(c)
        return 0.5 + log(c / (c + y)) / y**2 + 1 / (y * (c + y))

    largest = sqrt(2 / p)
    c = root(unbalanced, 1e-3 * largest, (1 - 1e-3) * largest)
    y = breaking(c)
    ground = -(y + p * c) / 4 + log(c / (c + y)) / (2 * y)
    overlap = (p - 2) / (p - 1)
    return Statics(p, dynamic, overlap, temperature, static, threshold, ground)


@dataclass(frozen=True)
class AgingLimit:
    """Where a quench from infinite temperature tends to, at late times.

    Attributes:
        order: Spins per coupling, p.
        temperature: T of the bath.
        overlap: q, the correlation at lags that are long and yet much shorter than the age.
        ratio: X, the fluctuation-dissipation ratio beyond it; 1 in equilibrium.
        effective_temperature: T / X.
        energy: Limit of the energy per spin.
        plateau: Mean square displacement at those lags, 2 (1 - q).
    """

    order: int
    temperature: float
    overlap: float
    ratio: float
    effective_temperature: float
    energy: float
    plateau: float


def aging_solution(order: int, temperature: float) -> AgingLimit:
    r"""Solve the equations of weak ergodicity breaking.

    Below :math:`T_d`: :math:`\tfrac12 p (p-1) q^{p-2} (1-q)^2 = T^2` (the larger root),
    :math:`X = (p-2)(1-q)/q` and :math:`E = -(1 - (1-X) q^p) / (2T)`; the limit at zero temperature
    is the threshold. Above it there is equilibrium, :math:`E = -1/(2T)`.

    Args:
        order: Spins per coupling, at least 2.
        temperature: T, at least 0.

    Returns:
        The solution, the root to 1e-12.

    Raises:
        ValueError: If the order or the temperature is not what it must be.

    Source:
        Cugliandolo and Kurchan (1993); specification, section 7.2.

    Example:
        >>> found = aging_solution(3, 0.5)
        >>> round(found.overlap, 6), round(found.energy, 6)
        (0.638824, -0.886693)
    """
    p, t = checked(order), temperature
    if not (isfinite(t) and t >= 0):
        raise ValueError(f"temperature must be finite and at least 0; got {t}.")
    known = statics(p)
    if t >= known.dynamic_temperature:
        return AgingLimit(p, t, 0.0, 1.0, t, -1 / (2 * t), 2.0)
    if t == 0:
        hot = inf if p == 2 else sqrt(p * (p - 1) / 2) / (p - 2)
        return AgingLimit(p, t, 1.0, 0.0, hot, known.threshold_energy, 0.0)

    def excess(q: float) -> float:
        return sqrt(p * (p - 1) / 2) * q ** ((p - 2) / 2) * (1 - q) - t

    q = root(excess, known.dynamic_overlap, 1.0)
    ratio = (p - 2) * (1 - q) / q
    energy = -(1 - (1 - ratio) * q**p) / (2 * t)
    return AgingLimit(p, t, q, ratio, t / ratio if ratio else inf, energy, 2 * (1 - q))


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Find the zero between two points of opposite sign."""
    found: Any = brentq(function, low, high, xtol=TOLERANCE)
    return float(found)


def checked(order: int) -> int:
    """Refuse what is not a pure order."""
    pure = as_mixture(order).order
    if pure is None:
        raise ValueError(f"order must be one integer, for a pure model; got {order}.")
    return pure
