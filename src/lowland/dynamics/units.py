"""Times in other units than completed updates: gradient-flow time, samples seen."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from math import ceil, isfinite

from lowland.dynamics.clock import brief

__all__ = ["steps_at"]


def steps_at(times: Sequence[float], per_step: float | Sequence[float]) -> tuple[int, ...]:
    r"""Convert times in another unit to completed updates.

    For gradient-flow time :math:`\tau = \sum \eta / (1 - \mu)` pass :math:`\eta / (1 - \mu)`, for
    samples seen the batch size; a schedule is a sequence with one value per update.

    Args:
        times: Times in that unit, not negative.
        per_step: How much of it an update takes: one positive number, or one for each update.

    Returns:
        For each time the number of updates after which it is reached, without repetitions.

    Raises:
        ValueError: If a time is negative, an update takes nothing, or a schedule is too short.

    Source:
        Specification, section 3.1 (iv).

    Example:
        >>> steps_at([0.0, 0.5, 1.0], per_step=0.1)
        (0, 5, 10)
    """
    rates = [per_step] if isinstance(per_step, int | float) else list(per_step)
    if not rates or not all(rate > 0 and isfinite(rate) for rate in rates):
        raise ValueError(f"every update must take a positive time; got per_step = {brief(rates)}.")
    if any(not (time >= 0 and isfinite(time)) for time in times):
        raise ValueError(f"times must be finite and not negative; got {brief(times)}.")
    if isinstance(per_step, int | float):
        return tuple(sorted({ceil(time / per_step - 1e-9) for time in times}))
    reached = [0.0, *accumulate(rates)]
    last = max(times, default=0.0)
    if last > reached[-1] * (1 + 1e-12):
        raise ValueError(
            f"the schedule must reach the last time, {last}; its {len(rates)} updates reach "
            f"{reached[-1]}. Give the whole schedule, or earlier times."
        )
    return tuple(sorted({min(bisect_left(reached, t * (1 - 1e-12)), len(rates)) for t in times}))
