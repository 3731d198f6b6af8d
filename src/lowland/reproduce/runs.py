"""Numbers of several runs, as plain values: a column, its mean, both in words."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

__all__ = ["column", "mean", "word"]

Runs = Sequence[dict[str, Any]]


def column(runs: Runs, what: str) -> tuple[float | None, ...]:
    """One number per run.

    Args:
        runs: Some of them.
        what: Which number.

    Returns:
        The numbers, None where one is not finite.
    """
    return tuple(run[what] for run in runs)


def mean(runs: Runs, what: str) -> float | None:
    """Mean over the runs.

    Args:
        runs: Some of them.
        what: Which number.

    Returns:
        The mean; None if there is no run or a number is missing.
    """
    values = [run[what] for run in runs]
    return None if not values or None in values else fmean(values)


def word(runs: Runs, what: str, digits: int = 1, factor: float = 1.0) -> str:
    """Spell out a mean with its spread.

    Args:
        runs: Some of them.
        what: Which number.
        digits: After the point.
        factor: On the number, 100 for a share in percent.

    Returns:
        For instance ``"98.4 ± 0.2 (n = 3)"``.
    """
    values = [run[what] for run in runs]
    if not values or None in values:
        return "none"
    values = [factor * value for value in values]
    text = f"{fmean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {stdev(values):.{digits}f}"
    return f"{text} (n = {len(values)})"
