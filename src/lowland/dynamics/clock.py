"""When to look at a run: logarithmic grids of waiting times and lags, in completed updates."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, isfinite, log10

import numpy as np

__all__ = ["Clock", "growing", "log_times", "pairs_of", "plan"]

MODES = ("pairs", "shared")


@dataclass(frozen=True)
class Clock:
    """Which pairs of instants of a run are compared.

    Attributes:
        waits: Waiting times, in completed updates, ascending.
        pairs: ``(waiting time, lag)`` in updates, in the order in which a run completes them.
        dropped: Pairs that were asked for but end after the run does.
        total: Length of the run in updates; None if nobody knows it.
        grows: For a clock that grows, the first arguments of :func:`growing`; else None.
    """

    waits: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    dropped: tuple[tuple[int, int], ...] = ()
    total: int | None = None
    grows: tuple[int, int, int] | None = None

    @property
    def instants(self) -> tuple[int, ...]:
        """Numbers of completed updates at which something is to be done, ascending."""
        return tuple(sorted({*self.waits, *(wait + lag for wait, lag in self.pairs)}))

    @property
    def horizon(self) -> float:
        """Updates up to which the pairs are known; infinite unless the clock grows."""
        return inf if self.grows is None else float(self.total or 0)

    @property
    def most_waits(self) -> int:
        """Largest number of waiting times that are waiting for a pair at the same time."""
        last = last_instants(self.pairs)
        events = sorted([*((wait, 1) for wait in last), *((end, 2) for end in last.values())])
        open_now, most = 0, 0
        for _, kind in events:
            open_now += 1 if kind == 1 else -1
            most = max(most, open_now)
        return most


def log_times(first: float, last: float, count: int) -> tuple[int, ...]:
    """Spread whole times evenly in their logarithm, with a zero in front.

    Args:
        first: First of them after 0, at least 1, in updates.
        last: Last of them, in updates.
        count: How many are spread; fewer are left once they are rounded to whole ones.

    Returns:
        Ascending times, 0 among them.

    Raises:
        ValueError: If ``first`` is below 1, ``count`` below 2 or not whole, or ``last`` below
            ``first``.

    Source:
        Specification, section 3.1; the authors' code.

    Example:
        >>> log_times(1, 1000, 4)
        (0, 1, 10, 100, 1000)
    """
    if not (first >= 1 and isfinite(first)):
        raise ValueError(f"the first time must be at least 1 update; got {first}. Zero is added.")
    if count < 2 or count != int(count):
        raise ValueError(
            f"a grid must have a whole number of times, at least 2; got {count}. "
            "Pass a larger count."
        )
    if not (last >= first and isfinite(last)):
        raise ValueError(
            f"the last time must be at least the first, {first}; got {last}. "
            "Train longer, or begin the grid earlier."
        )
    spread = np.geomspace(first, last, int(count)).tolist()
    return tuple(sorted({0, *(round(time) for time in spread)}))


def pairs_of(waits: Iterable[int], lags: Iterable[int], total: int | None = None) -> Clock:
    """Compare every waiting time with every lag.

    Args:
        waits: Waiting times in updates.
        lags: Lags in updates.
        total: Length of the run in updates; pairs that end later are listed as dropped.

    Returns:
        The clock.

    Raises:
        ValueError: If a time is negative or not whole, or if nothing is left to compare.

    Source:
        Specification, section 3.1.
    """
    waits, lags = whole(waits, "waits"), whole(lags, "lags")
    if total is not None:
        whole([total], "the total")
    end = inf if total is None else total
    every = [(wait, lag) for wait in waits for lag in lags]
    kept = [pair for pair in every if sum(pair) <= end]
    if not kept:
        raise ValueError(
            f"a grid must have a pair that ends within the run, total = {total}; got waits "
            f"{brief(waits)} and lags {brief(lags)}. Train longer, or begin the grid earlier."
        )
    return Clock(
        tuple(wait for wait in waits if wait <= end),
        in_time(kept),
        in_time(pair for pair in every if sum(pair) > end),
        total,
    )


def plan(
    total: int,
    *,
    waits: int = 50,
    lags: int = 100,
    first_wait: int = 10,
    first_lag: int = 1,
    last_wait: float | None = None,
    last_lag: float | None = None,
    mode: str = "pairs",
) -> Clock:
    """Spread waiting times and lags over a run, as the paper does.

    The end of the run is compared with every waiting time too.

    Args:
        total: Length of the run in updates.
        waits: Number of waiting times, before rounding to whole ones; 0 is added.
        lags: Number of lags, likewise.
        first_wait: First waiting time after 0, in updates.
        first_lag: First lag after 0, in updates.
        last_wait: Last waiting time; half of the run by default.
        last_lag: Last lag; half of the run by default.
        mode: ``"pairs"`` looks exactly at every wait plus every lag, at thousands of instants.
            ``"shared"`` looks at some hundred instants (a grid of ``lags`` times, the waits, and
            1, 10, 100, ... updates after each wait) and takes for every lag the nearest of them.

    Returns:
        The clock; ``dropped`` lists the pairs that do not fit into the run.

    Raises:
        ValueError: If the mode is unknown, the run too short, or as for :func:`log_times`.

    Source:
        Specification, section 3.1; defaults of the authors' scripts.

    Example:
        >>> clock = plan(10**6)
        >>> len(clock.waits), len(clock.pairs), len(clock.instants)
        (51, 4742, 4212)
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}; got {mode!r}.")
    whole([total], "the total")
    if last_wait is None and total < 2 * first_wait:
        raise ValueError(
            f"a run must have at least {2 * first_wait} updates, as planned waiting times go from "
            f"{first_wait} to its middle; got total = {total}. Train longer, or choose waits and "
            "lags."
        )
    at_waits = log_times(first_wait, total / 2 if last_wait is None else last_wait, waits)
    at_lags = log_times(first_lag, total / 2 if last_lag is None else last_lag, lags)
    every = pairs_of(at_waits, at_lags, total)
    if mode == "shared":
        return shared(every, at_lags, log_times(first_lag, total, lags))
    ends = {(wait, total - wait) for wait in every.waits}
    return Clock(every.waits, in_time({*every.pairs, *ends}), every.dropped, total)


def shared(clock: Clock, lags: Sequence[int], grid: Sequence[int]) -> Clock:
    """Move the pairs of a clock to fewer instants."""
    total = clock.total or 0
    after = {
        wait + 10**power for wait in clock.waits for power in range(ceil(log10(max(total, 2))))
    }
    instants = sorted({*grid, *clock.waits, *(n for n in after if n <= total)})
    pairs = set()
    for wait in clock.waits:
        later = instants[bisect_left(instants, wait) :]
        offered = np.array([instant - wait for instant in later])
        for lag in (lag for lag in lags if wait + lag <= total):
            distance = np.abs(np.log((offered + 0.1) / (lag + 0.1)))
            pairs.add((wait, int(offered[distance.argmin()])))
        pairs.add((wait, total - wait))
    return Clock(clock.waits, in_time(pairs), clock.dropped, total)


def growing(
    waits_per_decade: int = 10,
    lags_per_decade: int = 20,
    first_wait: int = 10,
    *,
    horizon: int = 1000,
) -> Clock:
    """Spread waiting times and lags over a run of unknown length.

    A longer horizon adds pairs and changes none, so a recorder can extend it on the way.

    Args:
        waits_per_decade: Waiting times per factor ten.
        lags_per_decade: Lags per factor ten, from 1.
        first_wait: First waiting time after 0, in updates.
        horizon: Updates up to which pairs are listed.

    Returns:
        The clock.

    Raises:
        ValueError: If a number is below 1.

    Source:
        Specification, section 3.1 (iii).
    """
    for name, value in (
        ("waits_per_decade", waits_per_decade),
        ("lags_per_decade", lags_per_decade),
        ("first_wait", first_wait),
        ("horizon", horizon),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}.")
    waits = decades(first_wait, waits_per_decade, horizon)
    lags = decades(1, lags_per_decade, horizon)
    pairs = in_time((w, t) for w in waits for t in lags if w + t <= horizon)
    return Clock(waits, pairs, (), horizon, (waits_per_decade, lags_per_decade, first_wait))


def decades(first: int, per_decade: int, horizon: int) -> tuple[int, ...]:
    """Zero, and whole times from the first on, so many per factor ten."""
    steps = max(0, floor(per_decade * log10(max(horizon / first, 1)) + 1e-9)) + 1
    times = {round(first * 10 ** (k / per_decade)) for k in range(steps)}
    return (0, *sorted(time for time in times if time <= horizon))


def last_instants(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """When each waiting time is compared for the last time."""
    last: dict[int, int] = {}
    for wait, lag in pairs:
        last[wait] = max(last.get(wait, 0), wait + lag)
    return last


def in_time(pairs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Pairs without repetitions, in the order in which a run completes them."""
    return tuple(sorted(set(pairs), key=lambda pair: (pair[0] + pair[1], pair[0])))


def whole(times: Iterable[int], name: str) -> tuple[int, ...]:
    """Whole times, not negative, ascending and without repetitions."""
    found = list(times)
    if not found or any(not (t >= 0 and isfinite(t) and t == int(t)) for t in found):
        raise ValueError(
            f"{name} must be whole numbers of updates, 0 or more, at least one; got {brief(found)}."
        )
    return tuple(sorted({int(t) for t in found}))


def brief(values: Sequence[float]) -> str:
    """Some numbers, but not thousands of them."""
    shown = ", ".join(str(value) for value in values[:6])
    return f"({shown}{', ...' if len(values) > 6 else ''})"
