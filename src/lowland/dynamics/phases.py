"""The phases of a run: where its loss bends, where it ages, and where it only diffuses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowland.dynamics.collapse import (
    Aging,
    Curve,
    aging_exponent,
    collapse_score,
    has_plateau,
    local_exponents,
)
from lowland.dynamics.normalized import mean_curves, over_integral, over_noise
from lowland.dynamics.pieces import fit_pieces, threshold_times
from lowland.dynamics.two_time import TwoTime
from lowland.results import plain
from lowland.training import seed_from

__all__ = ["Phases", "find_phases"]

PHASES = ("before_t1", "between", "after_t2", "all")
STATIONARY = 0.5  # of the raw score: dividing by the noise must at least halve it
STUCK = 0.2  # of the first loss, above which a run has not learned
FLAT = 0.1  # of the first loss, that a stuck run gains at most in its last decade


@dataclass(frozen=True)
class Phases:
    r"""What the curves of a run, or of several with different seeds, say.

    Phases are ``"before_t1"``, ``"between"`` and ``"after_t2"``, by waiting time, and ``"all"``.
    None stands for what the curves cannot tell.

    Attributes:
        t1: End of the plateau at the beginning: the first break of three lines in ln n.
        t2: End of the descent: the last break.
        t1_interval: 16 to 84 percent of a bootstrap over seeds; None for one seed.
        t2_interval: Likewise.
        t1_threshold: First n at which 5 percent of the whole descent are done.
        t2_threshold: First n with a loss below 5 percent of the first, else ``t2``.
        slopes: Of the three lines, in loss per unit of ln n.
        bic_gain: By how much three lines are better than one; positive if they are.
        loss_ratio: Last loss over the first.
        loss_gained_late: What the last decade of n gained, in units of the first loss.
        scores: By phase, the collapse score of ``raw`` displacements, divided by the noise at the
            waiting time (``over_noise``) and by its integral (``over_integral``).
        aging: By phase, the aging exponent.
        exponents: By waiting time, the local exponents by decade of raw displacements.
        plateau: By phase, whether some wait has a decade of lags with slope below 0.2.
        stationary_after_t2: Whether dividing by the noise halves the score, at least.
        glassy: Whether it does not, and the loss is stuck above 0.
        seeds: Number of learning curves.
    """

    t1: float
    t2: float
    t1_interval: tuple[float, float] | None
    t2_interval: tuple[float, float] | None
    t1_threshold: float | None
    t2_threshold: float
    slopes: tuple[float, ...]
    bic_gain: float
    loss_ratio: float
    loss_gained_late: float
    scores: dict[str, dict[str, float | None]]
    aging: dict[str, Aging | None]
    exponents: dict[int, list[dict[str, float]]]
    plateau: dict[str, bool | None]
    stationary_after_t2: bool | None
    glassy: bool | None
    seeds: int

    def record(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        return plain(self)


def find_phases(
    losses: Curve | Sequence[Curve],
    two_time: TwoTime | Sequence[TwoTime] | Mapping[int, Curve] = (),
    noise: Curve | Sequence[Curve] = (),
    *,
    samples: int = 200,
    seed: int = 0,
) -> Phases:
    """Find the phases of a run, and whether it ages or only diffuses.

    Verdicts are advice: the numbers are the output. A good collapse does not prove diffusion; that
    takes clones (:func:`lowland.dynamics.measure_clones`).

    Args:
        losses: Completed updates and mean loss per example, with a loss at 0; one pair, or one for
            each seed.
        two_time: What a recorder returned, one or one for each seed, which are averaged; or lags
            and displacements for each waiting time.
        noise: Completed updates and trace D of the gradient noise, one pair or one for each seed,
            which are averaged.
        samples: Bootstrap samples over seeds, and over waiting times for the aging exponent.
        seed: Seed of these.

    Returns:
        The phases.

    Raises:
        ValueError: If there is no learning curve, one has too few losses or one that is not
            finite, or the first loss is not positive.

    Source:
        Baity-Jesi et al., ICML 2018; specification, section 3.4.
    """
    runs = as_list(losses)
    if not runs:
        raise ValueError("find_phases needs at least one learning curve (steps, loss); got none.")
    steps, table = on_common_steps(runs)
    mean = table.mean(0)
    if not mean[0] > 0:
        raise ValueError(
            f"the first loss must be positive, as losses are compared with it; got {mean[0]:.3g}. "
            "Subtract the lowest loss that is possible."
        )
    fit = fit_pieces(steps, mean)
    t1, t2 = fit.breaks
    intervals = bootstrap(steps, table, samples, seed)
    first, last = threshold_times(steps, mean)
    ratio = (mean[-1] / mean[0]).item()
    before = np.interp(np.log1p(steps[-1].item() / 10), steps.log1p().numpy(), mean.numpy())
    late = (float(before) - mean[-1].item()) / mean[0].item()
    curves = mean_curves(two_time)
    noises = as_list(noise)
    forms = {"raw": curves}
    if noises and curves:
        together = on_common_steps(noises)
        average = (together[0], together[1].mean(0))
        forms["over_noise"] = maybe(over_noise, curves, average) or {}
        forms["over_integral"] = maybe(over_integral, curves, average) or {}
    scores, aging, plateau = {}, {}, {}
    for phase in PHASES:
        waits = chosen(curves, phase, t1, t2)
        scores[phase] = {
            name: maybe(collapse_score, [form[w] for w in waits if w in form])
            for name, form in forms.items()
        }
        some = {wait: curves[wait] for wait in waits}
        aging[phase] = maybe(lambda some=some: aging_exponent(some, samples=samples, seed=seed))
        flat = [found for found in (has_plateau(*curves[w]) for w in waits) if found is not None]
        plateau[phase] = any(flat) if flat else None
    raw, divided = (scores["after_t2"].get(name) for name in ("raw", "over_noise"))
    stationary = None if raw is None or divided is None else divided < STATIONARY * raw
    stuck = ratio > STUCK and late < FLAT
    return Phases(
        t1=t1,
        t2=t2,
        t1_interval=intervals[0],
        t2_interval=intervals[1],
        t1_threshold=first,
        t2_threshold=t2 if last is None else last,
        slopes=fit.slopes,
        bic_gain=fit_pieces(steps, mean, 1).bic - fit.bic,
        loss_ratio=ratio,
        loss_gained_late=late,
        scores=scores,
        aging=aging,
        exponents={wait: local_exponents(*curve) for wait, curve in curves.items()},
        plateau=plateau,
        stationary_after_t2=stationary,
        glassy=None if stationary is None else not stationary and stuck,
        seeds=len(runs),
    )


def as_list(curves: Curve | Sequence[Curve]) -> list[Curve]:
    """One pair of times and values, or several, as a list."""
    if len(curves) == 2 and isinstance(curves[0], Tensor) and curves[0].ndim == 1:
        return [curves]  # type: ignore[list-item]
    for curve in curves:
        if len(curve) != 2 or not all(isinstance(part, Tensor) for part in curve):
            raise ValueError(
                "a curve must be a pair of tensors, times and values; got "
                f"{type(curve).__name__} of {len(curve)}. Use torch.as_tensor."
            )
    return list(curves)  # type: ignore[arg-type]


def on_common_steps(curves: Sequence[Curve]) -> tuple[Tensor, Tensor]:
    """Curves at the times of the first, interpolated in ln(n + 1) where theirs are others."""
    steps = torch.as_tensor(curves[0][0], dtype=torch.float64).sort().values
    rows = []
    for n, values in curves:
        n, y = (torch.as_tensor(v, dtype=torch.float64) for v in (n, values))
        if n.shape != y.shape or not len(n) or not (n.isfinite() & y.isfinite()).all():
            raise ValueError(
                "a curve must be times and as many finite values; got shapes "
                f"{tuple(n.shape)} and {tuple(y.shape)}, {int((~y.isfinite()).sum())} values not "
                "finite. Leave out runs that diverged, or what came after."
            )
        order = n.argsort(stable=True)
        n, y = n[order], y[order]
        if not torch.equal(n, steps):
            y = torch.from_numpy(np.interp(steps.log1p().numpy(), n.log1p().numpy(), y.numpy()))
        rows.append(y)
    return steps, torch.stack(rows)


def bootstrap(
    steps: Tensor, table: Tensor, samples: int, seed: int
) -> list[tuple[float, float] | None]:
    """Intervals of both breaks over seeds."""
    if len(table) < 2 or samples < 2:
        return [None, None]
    draws = np.random.default_rng(seed_from(seed, "phases"))
    found = []
    for _ in range(samples):
        mean = table[draws.integers(len(table), size=len(table))].mean(0)
        found.append(fit_pieces(steps, mean).breaks)
    low, high = np.quantile(found, [0.16, 0.84], axis=0)
    return [(float(low[k]), float(high[k])) for k in range(2)]


def chosen(curves: Mapping[int, Curve], phase: str, t1: float, t2: float) -> list[int]:
    """Waiting times of a phase."""
    ends = {"before_t1": (-inf, t1), "between": (t1, t2), "after_t2": (t2, inf)}
    low, high = ends.get(phase, (-inf, inf))
    return [wait for wait in sorted(curves) if low <= wait < high]


def maybe(function: Any, *arguments: Any) -> Any:
    """What a function finds, None where it says that there is too little to find it in."""
    try:
        return function(*arguments)
    except ValueError:
        return None
