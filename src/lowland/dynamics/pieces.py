"""When a learning curve bends: lines in the logarithm of time, and thresholds of the loss."""

from dataclasses import dataclass
from itertools import combinations
from math import exp, inf, log

import numpy as np
import torch
from jaxtyping import Float, Num
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Pieces", "fit_pieces", "threshold_times"]

CANDIDATES = 40  # places tried for a break, before they are refined
REFINEMENTS = 4


@dataclass(frozen=True)
class Pieces:
    """A continuous line with breaks, in ln n.

    Attributes:
        breaks: Where it bends, in updates, ascending.
        slopes: Of each piece, in loss per unit of ln n.
        residual: Mean square distance from the data.
        bic: Bayesian information criterion, up to a constant; less is better.
        count: Number of data.
    """

    breaks: tuple[float, ...]
    slopes: tuple[float, ...]
    residual: float
    bic: float
    count: int


def fit_pieces(
    steps: Num[Tensor, " times"], loss: Float[Tensor, " times"], pieces: int = 3
) -> Pieces:
    r"""Fit a learning curve by lines in :math:`\ln n` that meet at the breaks.

    Least squares; all places of a fine grid are tried for the breaks, then finer ones around the
    best. Each break costs two numbers in the criterion: its place and a slope.

    Args:
        steps: Completed updates n of each loss; those of n = 0 are left out.
        loss: Mean loss per example.
        pieces: Number of lines, 1 to 3.

    Returns:
        The fit.

    Raises:
        ValueError: If there are too few finite losses at different times, or ``pieces`` is not 1
            to 3.

    Source:
        Specification, section 3.4.
    """
    if pieces not in (1, 2, 3):
        raise ValueError(f"pieces must be 1, 2 or 3; got {pieces}.")
    x, y = usable(steps, loss, 2 * pieces + 1)
    if pieces == 1:
        return describe(x, y, ())
    grid = np.linspace(x[0], x[-1], CANDIDATES + 2)[1:-1]
    best = search(x, y, [grid] * (pieces - 1))
    width = grid[1] - grid[0]
    for _ in range(REFINEMENTS):
        around = [np.linspace(center - width, center + width, 9) for center in best]
        best = search(x, y, [np.clip(part, x[0], x[-1]) for part in around])
        width /= 4
    return describe(x, y, best)


def usable(
    steps: Tensor, loss: Tensor, least: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of the times, and finite losses, in order."""
    n, y = (torch.as_tensor(v, dtype=torch.float64).flatten().numpy() for v in (steps, loss))
    if n.shape != y.shape:
        raise ValueError(f"there must be one loss for each time; got {len(y)} for {len(n)}.")
    kept = (n > 0) & np.isfinite(y)
    order = np.argsort(n[kept], kind="stable")
    x, y = np.log(n[kept][order]), y[kept][order]
    if len(np.unique(x)) < least:
        raise ValueError(
            f"a fit needs at least {least} finite losses at different times above 0; got "
            f"{len(np.unique(x))}. Record the loss at more times."
        )
    return x, y


def columns(x: NDArray[np.float64], breaks: tuple[float, ...]) -> NDArray[np.float64]:
    """Level, slope, and change of slope at each break."""
    bends = [np.maximum(x - place, 0) for place in breaks]
    return np.stack([np.ones_like(x), x - x[0], *bends], 1)


def search(
    x: NDArray[np.float64], y: NDArray[np.float64], places: list[NDArray[np.float64]]
) -> tuple[float, ...]:
    """The places, one from each list or two from the same, with the least squares."""
    if len(places) == 1:
        tried = [(place,) for place in places[0]]
    elif places[0] is places[1]:
        tried = list(combinations(places[0], 2))
    else:
        tried = [(a, b) for a in places[0] for b in places[1] if a < b]
    matrices = np.stack([columns(x, place) for place in tried])
    # normal equations of all candidates at once; a tiny ridge where two bends fall together
    gram = matrices.transpose(0, 2, 1) @ matrices + 1e-10 * np.eye(matrices.shape[2])
    moment = matrices.transpose(0, 2, 1) @ y
    solved = np.linalg.solve(gram, moment[..., None])[..., 0]
    residual = ((matrices @ solved[..., None])[..., 0] - y[None]) ** 2
    return tuple(float(place) for place in tried[int(residual.sum(1).argmin())])


def describe(x: NDArray[np.float64], y: NDArray[np.float64], breaks: tuple[float, ...]) -> Pieces:
    """Fit with given breaks."""
    matrix = columns(x, breaks)
    solved, *_ = np.linalg.lstsq(matrix, y, rcond=None)
    residual = float(np.mean((matrix @ solved - y) ** 2))
    # below rounding all fits are alike, and the fewest numbers win
    floor = (1e-12 * float(np.abs(y).max() + 1e-100)) ** 2
    numbers = 2 + 2 * len(breaks)
    bic = len(x) * log(max(residual, floor)) + numbers * log(len(x))
    slopes = np.cumsum(solved[1:])
    return Pieces(
        tuple(exp(place) for place in breaks),
        tuple(float(slope) for slope in slopes),
        residual,
        bic,
        len(x),
    )


def threshold_times(
    steps: Num[Tensor, " times"], loss: Float[Tensor, " times"]
) -> tuple[float | None, float | None]:
    """Find when the loss has begun to fall, and when almost nothing is left of it.

    Args:
        steps: Completed updates of each loss; the first should be 0.
        loss: Mean loss per example, positive.

    Returns:
        First n with L(n) < L(0) - 0.05 (L(0) - L_end), and first n with L(n) < 0.05 L(0); None
        where that never happens.

    Source:
        Specification, section 3.4.
    """
    n, y = (torch.as_tensor(v, dtype=torch.float64).flatten() for v in (steps, loss))
    first, last = y[n.argmin()], y[n.argmax()]
    goal = first - 0.05 * (first - last) if last < first else -y.new_tensor(inf)

    def reached(level: Tensor) -> float | None:
        below = n[y < level]
        return below.min().item() if len(below) else None

    return reached(goal), reached(0.05 * first)
