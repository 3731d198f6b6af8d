"""Numbers that claims, figures and tables of huang2018 share: picked, compared, spelled out."""

from typing import Any

from lowland.reproduce.runs import Runs

__all__ = ["at", "chosen", "curve_of", "gaps", "names_of", "signed_square"]


def chosen(runs: Runs, growth: str, way: str) -> list[dict[str, Any]]:
    """The runs of one way, in the order of their seeds.

    Args:
        runs: All of them.
        growth: Name of the network that is grown.
        way: ``"boosted"``, ``"end to end"``, ``"refined"`` or ``"AdaBoost.MM"``.

    Returns:
        One dict per seed.
    """
    found = [run for run in runs if (run["growth"], run["way"]) == (growth, way)]
    return sorted(found, key=lambda run: run["seed"])


def names_of(runs: Runs, way: str) -> list[str]:
    """The networks that were trained in some way.

    Args:
        runs: All of them.
        way: The way.

    Returns:
        Names, in the order of the settings.
    """
    return list(dict.fromkeys(run["growth"] for run in runs if run["way"] == way))


def curve_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The course of a run, on both of its clocks.

    Args:
        run: One of them.

    Returns:
        Runs with ``module_updates``, ``seconds``, ``train_error`` and ``test_error``: one per
        round, or as a training end to end was measured.
    """
    if "rounds" not in run:
        return run["curve"]
    rows, updates, seconds = [], 0, 0.0
    for one in run["rounds"]:
        updates, seconds = updates + one["module_updates"], seconds + one["seconds"]
        errors = {name: one[name] for name in ("train_error", "test_error")}
        rows.append({"module_updates": updates, "seconds": seconds} | errors)
    return rows


def at(run: dict[str, Any], clock: str, budget: float, what: str = "test_error") -> float | None:
    """A number of a run at a budget, between two measurements along a line.

    Args:
        run: One of them.
        clock: ``"module_updates"`` or ``"seconds"``.
        budget: How much of it.
        what: Which number.

    Returns:
        The number; that of the first measurement before it, None beyond the last.
    """
    rows = [row for row in curve_of(run) if row[what] is not None]
    if not rows or rows[-1][clock] < budget * (1 - 1e-9):
        return None
    before = rows[0]
    for row in rows:
        if row[clock] >= budget:
            length = row[clock] - before[clock]
            share = (budget - before[clock]) / length if length > 0 else 1.0
            return before[what] + max(0.0, share) * (row[what] - before[what])
        before = row
    return rows[-1][what]


def gaps(runs: Runs, growth: str, way: str, other: str, clock: str | None = None) -> list[float]:
    """Test accuracy of one way above that of another, seed by seed.

    Args:
        runs: All of them.
        growth: Name of the network.
        way: Which way, at its end.
        other: What it is compared with.
        clock: The other one is read where this clock shows what the first way has used; None
            takes its end.

    Returns:
        Points, without seeds where the other one did not run as long.
    """
    found: list[float] = []
    for one, two in zip(chosen(runs, growth, way), chosen(runs, growth, other), strict=False):
        error = two["test_error"]
        if clock is not None:
            error = at(two, clock, curve_of(one)[-1][clock])
        if None not in (error, one["test_error"]):
            found.append(100 * (error - one["test_error"]))
    return found


def signed_square(gamma: float) -> float:
    """Gamma squared, with the sign of gamma.

    Args:
        gamma: Signed root.

    Returns:
        The normalized improvement.
    """
    return gamma * abs(gamma)
