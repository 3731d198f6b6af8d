"""Numbers that claims and figures of katharopoulos2018 share: picked, paired and averaged."""

from math import exp, log
from statistics import fmean
from typing import Any

from lowland.importance import batch_multiplier
from lowland.importance.compare import Comparison, compare, time_to_loss
from lowland.reproduce.runs import Runs

__all__ = [
    "CLOCKS", "COUNTER", "RACES", "common", "decisions", "geometric_mean", "pick", "ratio",
    "tuned_rate", "word",
]  # fmt: skip


CLOCKS = {"steps": "equal steps", "cost": "equal modelled cost", "seconds": "equal wall clock"}

RACES = {
    "images": "Images",
    "images-100": "Images, 100 classes",
    "fine-tuning": "Fine-tuning",
    "sequences": "Sequences",
}

# Section 6 of the specification: training loss of the digits perceptron after 600 uniform steps,
# after importance sampling at their modelled cost, and after 600 steps of it.
COUNTER = {0.1: (1.1e-2, 2.0e-2, 6.5e-3), 0.2: (1.75e-2, 1.2e-2, 2.5e-3)}


def pick(
    runs: Runs, race: str, clock: str, arm: str, rate: float | None = None
) -> list[dict[str, Any]]:
    """The runs of one arm, in the order of their seeds.

    Args:
        runs: All of them.
        race: Name of the race.
        clock: Its budget.
        arm: Name of the arm.
        rate: Learning rate; None for the tuned one.

    Returns:
        One dict per seed.
    """
    found = [
        run
        for run in runs
        if (run["race"], run["clock"], run["arm"]) == (race, clock, arm)
        and (run["is_tuned"] if rate is None else run["rate"] == rate)
    ]
    return sorted(found, key=lambda run: run["seed"])


def tuned_rate(runs: Runs) -> str:
    """The learning rates of some runs, in words.

    Args:
        runs: One per seed.

    Returns:
        For instance ``"0.1"``, or ``"0.1 or 0.2"`` if tuning was not of one mind.
    """
    return " or ".join(f"{rate:g}" for rate in sorted({run["rate"] for run in runs}))


def geometric_mean(runs: Runs, what: str = "train_loss") -> float | None:
    """Geometric mean over the seeds.

    Args:
        runs: One per seed.
        what: Which number.

    Returns:
        The mean; None if there is none, or one is missing or not positive.
    """
    values = [run[what] for run in runs]
    if not values or any(value is None or value <= 0 for value in values):
        return None
    return exp(fmean(log(value) for value in values))


def ratio(first: Runs, second: Runs, what: str = "train_loss") -> Comparison | None:
    """Compare two arms seed by seed.

    Args:
        first: Runs of one arm.
        second: Runs of the other.
        what: Which number.

    Returns:
        first / second with its interval; None if a number is missing or not positive.
    """
    theirs = {run["seed"]: run[what] for run in second}
    pairs = [(run[what], theirs[run["seed"]]) for run in first if run["seed"] in theirs]
    if not pairs or any(value is None or value <= 0 for pair in pairs for value in pair):
        return None
    return compare([one for one, _ in pairs], [other for _, other in pairs])


def common(runs: Runs, x: str, what: str = "train_loss") -> dict[str, list[float]]:
    """One curve for several seeds.

    Args:
        runs: One per seed.
        x: A clock.
        what: A column of the curves.

    Returns:
        ``x``: mean of the clock; ``y``: geometric mean; ``low`` and ``high``: smallest and largest.
    """
    curves = [run["curve"] for run in runs if run["curve"]]
    length = min((len(curve) for curve in curves), default=0)
    rows = [[curve[n] for curve in curves] for n in range(length)]
    rows = [row for row in rows if all((one[what] or 0) > 0 for one in row)]
    return {
        "x": [fmean(one[x] for one in row) for row in rows],
        "y": [exp(fmean(log(one[what]) for one in row)) for row in rows],
        "low": [min(one[what] for one in row) for row in rows],
        "high": [max(one[what] for one in row) for row in rows],
    }


def decisions(settings: dict[str, Any], runs: Runs) -> list[dict[str, Any]]:
    """Compare what the rules say with what was measured.

    Args:
        settings: Plain settings of the recipe.
        runs: All races.

    Returns:
        For every race, clock and learning rate where the paper's arm met the uniform one, and for
        both at the rates that tuning chose: the largest tau seen (by the third version's formula),
        how often the paper's rule was on, what the two-stage rule says at that tau, and the
        measured gain: the budget over its share that it took to the uniform arm's final loss, and
        the ratio of the final losses with its interval.
    """
    found = []
    for race in settings["races"]:
        for clock in ("cost", "seconds"):
            seen = []
            for rate in (*race["rates"], None):
                paper, uniform = (
                    pick(runs, race["name"], clock, arm, rate) for arm in ("paper", "uniform")
                )
                both = ratio(paper, uniform)
                if both is None or any(run["status"] != "finished" for run in (*paper, *uniform)):
                    continue
                rates = (tuned_rate(paper), tuned_rate(uniform))
                if rates not in seen:
                    found.append(decision(race, clock, rates, paper, uniform, both))
                seen.append(rates)
    return found


def decision(
    race: dict[str, Any],
    clock: str,
    rates: tuple[str, str],
    paper: Runs,
    uniform: Runs,
    both: Comparison,
) -> dict[str, Any]:
    """One row of :func:`decisions`."""
    power = 2 if race["rule"] == "v1" else 1
    looks = [max(1.0, row["tau"] ** power) for run in paper for row in run["curve"]]
    tau = max(looks)
    kappa = batch_multiplier(tau, race["presample"])
    curve = common(paper, "share")
    rows = [{"share": x, "train_loss": y} for x, y in zip(curve["x"], curve["y"], strict=True)]
    level = geometric_mean(uniform)
    reached = None if level is None else time_to_loss(rows, level, "share")
    measured = "undecided"
    if both.is_below or both.is_above:
        measured = "pays" if both.is_below else "does not pay"
    return {
        "race": race["name"],
        "clock": clock,
        "rate": rates[0],
        "uniform_rate": rates[1],
        "ratio": race["presample"],
        "tau": tau,
        "active_share": fmean(run["active_share"] for run in paper),
        "paper": any(run["active_share"] > 0 for run in paper),
        "kappa": kappa,
        "two_stage": kappa > 1 + race["presample"] / 3,
        "speed_up": None if reached is None else 1 / reached,
        "loss_ratio": both.ratio,
        "low": both.low,
        "high": both.high,
        "measured": measured,
    }


def word(found: Comparison | None) -> str:
    """A comparison in words.

    Args:
        found: The comparison.

    Returns:
        For instance ``"0.43 (0.31 to 0.60)"``.
    """
    if found is None:
        return "–"
    if found.low is None:
        return f"{found.ratio:.3g}"
    return f"{found.ratio:.3g} ({found.low:.3g} to {found.high:.3g})"
