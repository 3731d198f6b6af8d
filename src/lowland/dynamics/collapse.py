"""Whether curves fall on one: a score for it, the exponent of aging, and local exponents."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log

import numpy as np
import torch
from jaxtyping import Float, Num
from numpy.typing import NDArray
from torch import Tensor

from lowland.training import seed_from

__all__ = ["Aging", "Curve", "aging_exponent", "collapse_score", "has_plateau", "local_exponents"]

Curve = tuple[Tensor, Tensor]
FEWEST_POINTS, FEWEST_CURVES = 8, 3
POINTS = 50  # of the common support at which curves are compared
LARGEST_EXPONENT = 1.5
NEAR = 0.005  # exponents are searched to 0.0008
PLATEAU = 0.2  # slope below which a decade is flat


@dataclass(frozen=True)
class Aging:
    r"""How the time scale of a run grows with its age, :math:`\tau \propto t_w^{\mu_a}`.

    Attributes:
        exponent: :math:`\mu_a`: 0 stationary, 1 full aging, between 0 and 1 sub-aging.
        low: Lower end of an interval with 16 to 84 percent of the bootstrap over waits.
        high: Its upper end.
        score: Collapse score at the exponent.
        scores: Score at exponents 0, 0.5 and 1, by exponent; None where curves do not overlap.
        curves: Number of waiting times.
        at_edge: Whether the curves overlap too little to be compared at exponents just beyond, or
            these are above 1.5: then the best may lie outside. 0 is no edge.
    """

    exponent: float
    low: float
    high: float
    score: float
    scores: dict[str, float | None]
    curves: int
    at_edge: bool = False


def collapse_score(curves: Sequence[Curve]) -> float:
    r"""Measure how far curves are from falling on one.

    ``ln y`` is interpolated linearly in ``ln x`` on the support that all curves share; the score
    is the mean over it of the standard deviation over curves of ``ln y``. 0 is perfect; about 0.1
    means that they agree to ten percent.

    Args:
        curves: Pairs x, y, three or more; only positive and finite points count.

    Returns:
        The score.

    Raises:
        ValueError: If there are fewer than 3 curves, or fewer than 8 points of theirs on the
            common support.

    Source:
        Specification, section 3.4.
    """
    logs = [in_logs(curve) for curve in curves]
    found = score_of(logs)
    if found is None:
        raise ValueError(
            f"a collapse needs at least {FEWEST_CURVES} curves that share at least "
            f"{FEWEST_POINTS} places; got {len(logs)} curves with {shared_points(logs)}. "
            "Record more waits or lags, or leave out short curves."
        )
    return found


Numbers = NDArray[np.float64]
Logs = tuple[Numbers, Numbers]


def in_logs(curve: Curve) -> Logs:
    """Logarithms of the points that have them, in order."""
    x, y = (torch.as_tensor(v, dtype=torch.float64).flatten().numpy() for v in curve)
    kept = (x > 0) & (y > 0) & np.isfinite(x) & np.isfinite(y)
    order = np.argsort(x[kept], kind="stable")
    return np.log(x[kept][order]), np.log(y[kept][order])


def support(logs: Sequence[Logs]) -> tuple[float, float]:
    """Where all curves are."""
    if not logs or any(not len(x) for x, _ in logs):
        return 0.0, -1.0
    return max(x[0] for x, _ in logs), min(x[-1] for x, _ in logs)


def shared_points(logs: Sequence[Logs]) -> int:
    """Points of the curve that has fewest on the common support."""
    low, high = support(logs)
    return min((int(((x >= low) & (x <= high)).sum()) for x, _ in logs), default=0)


def score_of(logs: Sequence[Logs]) -> float | None:
    """The score, None where there is too little to compare."""
    if len(logs) < FEWEST_CURVES or shared_points(logs) < FEWEST_POINTS:
        return None
    low, high = support(logs)
    places = np.linspace(low, high, POINTS)
    table = np.stack([np.interp(places, x, y) for x, y in logs])
    return float(table.std(0, ddof=1).mean())


def aging_exponent(curves: Mapping[int, Curve], *, samples: int = 200, seed: int = 0) -> Aging:
    r"""Find the exponent with which displacements collapse against :math:`t / t_w^{\mu_a}`.

    Args:
        curves: Lags and displacements for each waiting time above 0.
        samples: Bootstrap samples over waiting times for the interval.
        seed: Seed of these.

    Returns:
        The exponent between 0 and 1.5, its interval and the scores.

    Raises:
        ValueError: If fewer than 3 waiting times share enough of their curves.

    Source:
        Specification, section 3.4.
    """
    logs = [(log(wait), *in_logs(curve)) for wait, curve in curves.items() if wait > 0]
    best = minimize(scaled(logs))
    if best is None:
        raise ValueError(
            f"an aging exponent needs at least {FEWEST_CURVES} waiting times above 0 that share "
            f"at least {FEWEST_POINTS} places; got {len(logs)} waiting times. "
            "Record more waits or lags."
        )
    draws = np.random.default_rng(seed_from(seed, "aging"))
    found = []
    for _ in range(samples):
        chosen = np.unique(draws.integers(len(logs), size=len(logs)))
        again = minimize(scaled([logs[k] for k in chosen]), coarse=True)
        if again is not None:
            found.append(again[0])
    low, high = np.quantile(found, [0.16, 0.84]) if found else (float("nan"), float("nan"))
    score = scaled(logs)
    at = {str(mu): score(mu) for mu in (0.0, 0.5, 1.0)}
    is_last = best[0] + NEAR > LARGEST_EXPONENT or score(best[0] + NEAR) is None
    is_first = best[0] > NEAR and score(best[0] - NEAR) is None
    return Aging(
        best[0], float(low), float(high), best[1], at, len(logs), at_edge=is_first or is_last
    )


def scaled(logs: Sequence[tuple[float, Numbers, Numbers]]) -> Callable[[float], float | None]:
    """The score of curves against t / tw^mu, as a function of mu."""
    return lambda mu: score_of([(x - mu * wait, y) for wait, x, y in logs])


def minimize(
    score: Callable[[float], float | None], *, coarse: bool = False
) -> tuple[float, float] | None:
    """The best exponent and its score: on a grid, then on finer ones around the best."""
    grid = np.linspace(0, LARGEST_EXPONENT, 31)
    width = grid[1] - grid[0]
    best: tuple[float, float] | None = None
    for _ in range(1 if coarse else 4):
        tried = [(float(mu), score(float(mu))) for mu in grid]
        known = [(mu, value) for mu, value in tried if value is not None]
        if not known:
            return best
        best = min(known, key=lambda pair: pair[1])
        grid = np.clip(np.linspace(best[0] - width, best[0] + width, 9), 0, LARGEST_EXPONENT)
        width /= 4
    return best


def local_exponents(
    lag: Num[Tensor, " lags"], displacement: Float[Tensor, " lags"]
) -> list[dict[str, float]]:
    r"""Measure :math:`d \ln \Delta / d \ln t` in every decade of lags.

    Args:
        lag: t in updates; 0 is left out.
        displacement: :math:`\Delta` at each.

    Returns:
        ``{"from", "to", "exponent"}`` for each decade with 3 points or more: 1 is diffusion, 2
        ballistic motion, 0 a plateau.

    Source:
        Specification, section 3.4.
    """
    x, y = in_logs((lag, displacement))
    decades = x / np.log(10)
    found = []
    for decade in range(int(np.floor(decades[0] + 1e-9)), int(decades[-1]) + 1) if len(x) else ():
        inside = (decades >= decade - 1e-9) & (decades <= decade + 1 + 1e-9)
        if len(np.unique(x[inside])) >= 3:
            slope = float(np.polyfit(x[inside], y[inside], 1)[0])
            found.append({"from": 10.0**decade, "to": 10.0 ** (decade + 1), "exponent": slope})
    return found


def has_plateau(lag: Num[Tensor, " lags"], displacement: Float[Tensor, " lags"]) -> bool | None:
    """Tell whether there is a whole decade of lags in which the displacement hardly grows.

    Args:
        lag: t in updates; 0 is left out.
        displacement: The displacement at each.

    Returns:
        Whether the slope is below 0.2 over some decade, in double logarithms; None where no
        decade has 3 points.

    Source:
        Specification, section 3.4.
    """
    x, y = in_logs((lag, displacement))
    slopes = []
    for start in x:
        inside = (x >= start - 1e-9) & (x <= start + np.log(10) + 1e-9)
        if x[-1] >= start + np.log(10) - 1e-9 and inside.sum() >= 3:
            slopes.append(float(np.polyfit(x[inside], y[inside], 1)[0]))
    known = [slope for slope in slopes if isfinite(slope)]
    return min(known) < PLATEAU if known else None
