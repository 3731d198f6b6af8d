"""What came out of a race, and whether one arm is better than another: paired, with an interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log, sqrt
from typing import Any

from lowland.results import Status, plain

__all__ = ["ArmResult", "Comparison", "best_rate", "compare", "time_to_loss"]


@dataclass(frozen=True)
class ArmResult:
    """What an arm of a race has come to.

    Attributes:
        name: Its name.
        clock: What the budget was: ``"steps"``, ``"cost"`` or ``"seconds"``.
        status: Whether it finished.
        steps: Updates.
        seconds: Seconds of training, without evaluation and warm-up.
        cost: Modelled cost, in forward passes of one example.
        active_share: Share of the updates with importance sampling on; None if it has no switch.
        train_loss: At the end, in the unit of the loss function.
        train_error: At the end; None where there are no classes.
        test_loss: At the end, if there are test batches.
        test_error: Likewise.
        curve: One row for each evaluation, with all clocks, losses, errors, tau and the switch.
        trace: After each turn: steps, seconds, cost, tau, whether sampling is on.
        switches: When the switch turned: steps done before, and whether it went on.
    """

    name: str
    clock: str
    status: Status
    steps: int
    seconds: float
    cost: float
    active_share: float | None
    train_loss: float
    train_error: float | None
    test_loss: float | None
    test_error: float | None
    curve: list[dict[str, Any]] = field(default_factory=list)
    trace: list[list[Any]] = field(default_factory=list)
    switches: list[list[Any]] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Give the result as plain values.

        Returns:
            What JSON can hold.
        """
        return plain(self)


@dataclass(frozen=True)
class Comparison:
    """One arm against another, seed by seed.

    Attributes:
        ratio: Geometric mean of first / second.
        low: Lower end of its 95 % interval (Student's t on the differences of logarithms); None
            for a single seed.
        high: Upper end.
        n: Number of seeds.
    """

    ratio: float
    low: float | None
    high: float | None
    n: int

    @property
    def is_below(self) -> bool:
        """Whether the whole interval lies below 1: the first is smaller."""
        return self.high is not None and self.high < 1

    @property
    def is_above(self) -> bool:
        """Whether the whole interval lies above 1: the first is larger."""
        return self.low is not None and self.low > 1


def compare(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Comparison:
    """Compare positive numbers of two arms that share their seeds.

    Args:
        first: Numbers of one arm, for instance its training losses, one per seed.
        second: Those of the other, in the same order of seeds.
        level: Coverage of the interval.

    Returns:
        Geometric mean of the ratios with an interval of Student's t.

    Raises:
        ValueError: If there is nothing to compare, or a number is not positive.

    Source:
        Ours.

    Example:
        >>> found = compare([0.5, 0.6, 0.4], [1.0, 1.0, 1.0])
        >>> round(found.ratio, 3), found.is_below
        (0.493, True)
    """
    if not first or len(first) != len(second):
        raise ValueError(
            "there must be as many numbers of both arms, one per seed; got "
            f"{len(first)} and {len(second)}."
        )
    if not all(value > 0 for value in (*first, *second)):
        raise ValueError(f"what is compared must be positive; got {first} and {second}.")
    logs = [log(a) - log(b) for a, b in zip(first, second, strict=True)]
    n, mean = len(logs), sum(logs) / len(logs)
    if n == 1:
        return Comparison(exp(mean), None, None, 1)
    from scipy.special import stdtrit  # the t quantile; scipy.stats takes a second to import

    spread = sqrt(sum((value - mean) ** 2 for value in logs) / (n - 1) / n)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * spread
    return Comparison(exp(mean), exp(mean - half), exp(mean + half), n)


def best_rate(losses: Mapping[float, Sequence[float]]) -> float:
    """Choose the learning rate with the lowest training loss.

    Args:
        losses: For each rate the final losses, one per tuning seed.

    Returns:
        The rate with the lowest geometric mean; one with a loss that is missing or not finite
        loses against all others. Of equals the first.

    Source:
        Ours.
    """

    def mean(rate: float) -> float:
        values = losses[rate]
        good = values and all(value is not None and 0 <= value < float("inf") for value in values)
        tiny = 1e-300  # a loss of exactly zero is the best there is
        return sum(log(max(v, tiny)) for v in values) / len(values) if good else float("inf")

    return min(losses, key=mean)


def time_to_loss(curve: Sequence[Mapping[str, Any]], level: float, clock: str) -> float | None:
    """Find when a training loss came down to a level.

    Args:
        curve: Rows with ``train_loss`` and the clocks, in order.
        level: The loss to reach.
        clock: ``"steps"``, ``"seconds"`` or ``"cost"``.

    Returns:
        What the clock showed, interpolated in the logarithm of the loss between the last row above
        and the first at or below the level; None if it was not reached.

    Source:
        Ours.
    """
    for before, after in zip(curve, curve[1:], strict=False):
        if after["train_loss"] is None or before["train_loss"] is None:
            return None
        if after["train_loss"] <= level < before["train_loss"]:
            whole = log(before["train_loss"] / max(after["train_loss"], 1e-300))
            part = log(before["train_loss"] / level) / whole
            return before[clock] + part * (after[clock] - before[clock])
    return None
