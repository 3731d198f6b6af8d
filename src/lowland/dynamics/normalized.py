"""Displacements of several runs in one, and in units of the gradient noise."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowland.dynamics.collapse import Curve
from lowland.dynamics.two_time import TwoTime

__all__ = ["mean_curves", "over_integral", "over_noise"]


def mean_curves(two_time: TwoTime | Sequence[TwoTime] | Mapping[int, Curve]) -> dict[int, Curve]:
    """Average displacements over runs with the same pairs.

    Args:
        two_time: One run or several; or curves by waiting time, which stay as they are.

    Returns:
        Lags above 0 and displacements, for each waiting time that all runs have.

    Source:
        Ours.
    """
    if isinstance(two_time, Mapping):
        return dict(two_time)
    runs = [two_time] if isinstance(two_time, TwoTime) else list(two_time)
    if not runs:
        return {}
    tables = [
        dict(
            zip(
                zip(run.waiting_time.tolist(), run.lag.tolist(), strict=True),
                run.displacement.tolist(),
                strict=True,
            )
        )
        for run in runs
    ]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    curves: dict[int, list[tuple[int, float]]] = {}
    for wait, lag in shared:
        if lag > 0:
            mean = sum(table[wait, lag] for table in tables) / len(tables)
            curves.setdefault(wait, []).append((lag, mean))
    return {
        wait: tuple(torch.tensor(column, dtype=torch.float64) for column in zip(*c, strict=True))
        for wait, c in curves.items()
    }  # type: ignore[return-value]


def over_noise(
    curves: TwoTime | Sequence[TwoTime] | Mapping[int, Curve], noise: Curve
) -> dict[int, Curve]:
    r"""Divide displacements by the noise at their waiting time, :math:`\Delta / D(t_w)`.

    Args:
        curves: What a recorder found, of one run or several, or lags and displacements by waiting
            time.
        noise: Completed updates and D, positive; interpolated in double logarithms.

    Returns:
        The curves, divided.

    Source:
        Baity-Jesi et al., ICML 2018; specification, section 2.
    """
    at = interpolator(noise)
    return {
        wait: (t, y / float(at(np.array([float(wait)]))[0]))
        for wait, (t, y) in mean_curves(curves).items()
    }


def over_integral(
    curves: TwoTime | Sequence[TwoTime] | Mapping[int, Curve], noise: Curve
) -> dict[int, Curve]:
    r"""Divide displacements by all noise meanwhile, :math:`\Delta / \int_{t_w}^{t_w+t} D\,dn`.

    Args:
        curves: What a recorder found, of one run or several, or lags and displacements by waiting
            time.
        noise: Completed updates and D, positive; interpolated in double logarithms.

    Returns:
        The curves, divided.

    Source:
        Specification, section 2; the authors' plot script.
    """
    at, curves = interpolator(noise), mean_curves(curves)
    last = max(wait + float(t.max()) for wait, (t, _) in curves.items())
    fine = np.expm1(np.linspace(0, np.log1p(last), 4000))
    values = at(fine)
    whole = np.concatenate([[0.0], np.cumsum(np.diff(fine) * (values[1:] + values[:-1]) / 2)])

    def integral(wait: int, t: Tensor) -> Tensor:
        ends = np.interp(wait + t.numpy(), fine, whole)
        return torch.from_numpy(ends - np.interp(wait, fine, whole))

    return {wait: (t, y / integral(wait, t.double())) for wait, (t, y) in curves.items()}


def interpolator(noise: Curve) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """D as a function of time."""
    n, d = (torch.as_tensor(v, dtype=torch.float64) for v in noise)
    kept = (d > 0) & d.isfinite() & (n >= 0)
    if not kept.any():
        raise ValueError("the noise must be positive at some time; got none. Check D.")
    x, y = np.log1p(n[kept].numpy()), d[kept].log().numpy()
    order = np.argsort(x, kind="stable")

    def at(times: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(np.interp(np.log1p(times), x[order], y[order]))

    return at
