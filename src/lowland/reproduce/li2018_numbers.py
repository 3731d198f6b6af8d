"""Numbers that claims, figures and tables of li2018 share: which runs, and when they were good."""

from typing import Any

from lowland.reproduce.runs import Runs

__all__ = ["arms_of", "pick", "reaches"]


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
