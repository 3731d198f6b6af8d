"""Numbers that claims, figures and tables of li2018 share: picked, averaged, spelled out."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

__all__ = [
    "Runs", "arms_of", "mean", "pick", "reaches", "spread", "word",
]  # fmt: skip

Runs = Sequence[dict[str, Any]]


def pick(runs: Runs, task: str, arm: str) -> list[dict[str, Any]]:
    """The runs of one arm, in the order of their seeds.

    Args:
        runs: All of them.
        task: Name of the task.
        arm: Name of the arm.

    Returns:
        One dict per seed.
    """
    found = [run for run in runs if (run["task"], run["arm"]) == (task, arm)]
    return sorted(found, key=lambda run: run["seed"])


def arms_of(runs: Runs, task: str) -> list[str]:
    """The arms of a task, in the order of the settings.

    Args:
        runs: All of them.
        task: Its name.

    Returns:
        Names.
    """
    return list(dict.fromkeys(run["arm"] for run in runs if run["task"] == task))


def spread(runs: Runs, what: str) -> tuple[float | None, ...]:
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
    if not values or None in values:
        return None
    return fmean(values)


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


def reaches(run: dict[str, Any], what: str, level: float) -> int | None:
    """The first epoch at which a number of the curve is at a level or above.

    Args:
        run: One of them.
        what: Which number.
        level: Which level.

    Returns:
        Passes over the data, None if it never is.
    """
    for row in run["curve"]:
        if row[what] is not None and row[what] >= level:
            return row["epoch"]
    return None
