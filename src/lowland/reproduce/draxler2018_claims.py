"""The claims of Draxler et al. 2018, each as a function of what a run recorded."""

from collections.abc import Callable
from math import isfinite
from typing import Any

from lowland.reproduce.draxler2018_tree_claims import (
    low_high,
    tree_bounds,
    vanishing_eigenvalue,
    wider_and_deeper,
)
from lowland.reproduce.runs import Runs
from lowland.reproduce.verdicts import claim
from lowland.results import Claim

__all__ = ["judge"]


# The paper excepts its three smallest networks from C4.
SMALLEST = ("cnn-12", "cnn-24", "cnn-36")


def judge(settings: dict[str, Any], parts: dict[str, Any]) -> list[Claim]:
    """Judge every claim of the specification.

    As in the paper, claims on paths are about the edges of the spanning trees.

    Args:
        settings: Plain settings of the recipe.
        parts: What was measured, by kind: ``runs`` has one dict per pair of minima, with the
            records of its line and its path.

    Returns:
        Claims C1 to C11; those that the scale cannot show are not judged.
    """
    rule = settings["rule"]
    runs = [run for run in parts["runs"] if run["judged"] and run["on_tree"]]
    return [
        stays_low(rule, runs),
        test_error_flat(rule, runs),
        wider_and_deeper(settings["sizes"], parts["landscapes"]),
        closer_to_training(runs),
        crossed_late(settings, runs),
        modestly_longer(runs),
        tree_bounds(parts["landscapes"]),
        insertion_helps(settings, runs),
        vanishing_eigenvalue(parts["curvature"]),
        capacity(parts["xor"]),
        cost(settings, runs),
    ]


def each(runs: Runs, number: Callable[[dict[str, Any]], float]) -> tuple[float, ...]:
    """One number per pair."""
    return tuple(number(run) for run in runs)


def ends(run: dict[str, Any], metric: str) -> tuple[float, float]:
    """A metric at both minima."""
    values = run["path"]["profile"][metric]
    return values[0], values[-1]


def saddle(run: dict[str, Any], metric: str = "train_loss", of: str = "path") -> float:
    """Highest value along a path."""
    return highest(run[of], metric)


def highest(found: dict[str, Any], metric: str = "train_loss") -> float:
    """Highest value of a profile; infinite if it was not a number anywhere."""
    values = found["profile"][metric]
    return max(float("inf") if value is None else value for value in values)


def stays_low(rule: str, runs: Runs) -> Claim:
    """C1: the loss along the path stays near that of the minima."""
    path = each(runs, saddle)
    line = each(runs, lambda run: saddle(run, of="line"))
    end = each(runs, lambda run: max(ends(run, "train_loss")))
    barrier = each(runs, lambda run: run["line"]["barrier_max"])
    if rule == "digits":
        text = "saddle ≤ 3 x the higher end and ≤ 0.05 nats, line ≥ 0.2 nats, for every tree edge"
        truths = [
            p <= 3 * e and p <= 0.05 and straight >= 0.2
            for p, e, straight in zip(path, end, line, strict=True)
        ]
    elif rule == "cifar":
        text = "saddle - higher end ≤ 0.1 nats and line barrier ≥ 10 x that, for every tree edge"
        truths = [
            p - e <= 0.1 and b >= 10 * (p - e) for p, e, b in zip(path, end, barrier, strict=True)
        ]
    else:
        text = "saddle ≤ 3 x the higher end + 0.02 nats, for every tree edge"
        truths = [p <= 3 * e + 0.02 for p, e in zip(path, end, strict=True)]
    note = (
        f"Straight lines reach {low_high(line)} nats, the paths {low_high(path)}, "
        f"the minima {low_high(end)}."
    )
    cause = (
        "too few relaxation steps or pivots for these networks, if the saddle was still falling "
        "in the last cycles of the convergence figure; else minima that differ in their own loss."
    )
    if rule == "digits" and all(p <= 3 * e for p, e in zip(path, end, strict=True)):
        cause = "minima that were not trained far enough; the paths stay near them."
    return claim(
        "C1",
        "Independently trained minima are joined by paths whose training loss stays near theirs.",
        "1.0 (ResNet-8), 2.0 (ResNet-20), 5.9 (DenseNet-40-12), CIFAR-10, Table B.1",
        text,
        tuple(p / e for p, e in zip(path, end, strict=True)),
        "saddle / higher end",
        truths,
        note,
        cause,
    )


def test_error_flat(rule: str, runs: Runs) -> Claim:
    """C2: the test error rises little."""
    most = 1.0 if rule == "paper" else 2.0

    def rise(run: dict[str, Any]) -> float:
        return 100 * (saddle(run, "test_error") - sum(ends(run, "test_error")) / 2)

    rises = each(runs, rise)
    return claim(
        "C2",
        "Along the path the test error rises little.",
        "0.3 to 0.5 (CIFAR-10 ResNets), at most 2.2 (CIFAR-100), Table B.1",
        f"highest test error - mean of the ends ≤ {most:g} points, for every tree edge",
        rises,
        "points",
        [value <= most for value in rises],
        "",
        "a saddle whose training loss is high too, or a small test set.",
    )


def closer_to_training(runs: Runs) -> Claim:
    """C4: the saddle lies between training and test loss, nearer to training."""
    runs = [run for run in runs if run["model"] not in SMALLEST]

    def share(run: dict[str, Any]) -> float:
        train = sum(ends(run, "train_loss")) / 2
        test = sum(ends(run, "test_loss")) / 2
        return (saddle(run) - train) / (test - train) if test > train else float("inf")

    shares = each(runs, share)
    gaps = tuple(value for value in shares if isfinite(value))
    note = "" if len(gaps) == len(shares) else "Some pairs have no gap between test and training."
    return claim(
        "C4",
        "Saddles lie closer to the training loss of the minima than to their test loss.",
        "below 0.5 for all but the three smallest CNNs",
        "(saddle - train) / (test - train) < 0.5, for every tree edge but the smallest CNNs",
        gaps,
        "share of the gap",
        [value < 0.5 for value in shares],
        note,
        "a small network, or a short run.",
    )


def crossed_late(settings: dict[str, Any], runs: Runs) -> Claim:
    """C5: training gets below the saddle late."""
    decay = min(settings["training"]["decay_at"], default=1.0)
    moments = [crossing(curve, saddle(run)) for run in runs for curve in run["curves"]]
    reached = [moment for moment in moments if moment is not None]
    looks = len(runs[0]["curves"][0])
    return claim(
        "C5",
        "Training falls below the loss of the saddle only late.",
        "after 76 % of the steps (ResNet-20, CIFAR-10)",
        f"crossing after the first fall of the learning rate, at {decay:.0%}, at all ends of paths",
        tuple(reached),
        "share of the steps",
        [moment is not None and moment >= decay for moment in moments],
        f"The training loss is looked at {looks} times in a run.",
        "few relaxation steps leave the saddle high, and training passes it sooner.",
    )


def crossing(curve: Runs, level: float) -> float | None:
    """Share of the run after which the training loss stays at or below a level."""
    above = [row["step"] for row in curve if row["train_loss"] > level]
    later = [row["step"] for row in curve if row["step"] > max(above, default=-1)]
    return min(later) / curve[-1]["step"] if later else None


def modestly_longer(runs: Runs) -> Claim:
    """C6: the path is not much longer than the straight line."""
    ratios = each(runs, lambda run: run["path"]["length_ratio"])
    return claim(
        "C6",
        "Paths are smooth and modestly longer than the straight line.",
        "1.5 to 2.5",
        "length / distance between 1 and 3, for every tree edge",
        ratios,
        "length / distance",
        [1 <= ratio <= 3 for ratio in ratios],
        "",
        "minima of small norm, close to each other, or diverging steps.",
    )


def insertion_helps(settings: dict[str, Any], runs: Runs) -> Claim:
    """C8: inserting pivots at bumps brings the saddle down."""
    threshold = settings["schedule"]["threshold"]

    def shrinks(run: dict[str, Any]) -> float:
        first, last = run["path"]["cycles"][1], run["path"]["cycles"][-1]
        return highest(last) / highest(first)

    def all_on_bumps(run: dict[str, Any]) -> bool:
        new = [pivot for cycle in run["path"]["cycles"] for pivot in cycle["inserted"]]
        return all(pivot["residual"] > threshold for pivot in new)

    ratios = each(runs, shrinks)
    on_bumps = [all_on_bumps(run) for run in runs]
    return claim(
        "C8",
        "Pivots inserted at bumps bring the saddle down within the cycles.",
        "about a tenth of the saddle after cycle 1 (Fig. 4, ResNet-20)",
        f"saddle after the last cycle ≤ after cycle 1, every new pivot on a bump > {threshold:g}",
        ratios,
        "last / first cycle",
        [r <= 1 and good for r, good in zip(ratios, on_bumps, strict=True)],
        "",
        "a learning rate at which later cycles are no better.",
    )


def capacity(xor: Runs) -> Claim:
    """C10: more units remove the barrier of the XOR network."""
    two = [run for run in xor if run["hidden"] == 2]
    more = [run for run in xor if run["hidden"] >= 4]
    three = [run for run in xor if run["hidden"] == 3]
    truths: list[bool] = [run["saddle_error"] == 25 for run in two]
    truths += [run["saddle_error"] == 0 and run["saddle"] <= run["end"] + 1e-3 for run in more]
    errors = low_high([run["saddle_error"] for run in two])
    note = f"Errors at the saddle with 2 units: {errors} %." if two else ""
    if three:
        free = sum(run["saddle"] <= run["end"] + 1e-3 for run in three)
        note += f" With 3 units {free} of {len(three)} paths are free of a barrier."
    return claim(
        "C10",
        "Extra units remove the barrier between two XOR networks with swapped units.",
        "25 % with 2 units, 0 % with more (Fig. 8)",
        "2 units: 25 % error at every saddle; 4 or more: 0 % and saddle ≤ end + 0.001 nats",
        tuple(run["saddle_error"] for run in more),
        "% error at the saddle, 4 or more units",
        truths if two and more else [],
        note,
        "a path that noise sent into a bad local band; try more repetitions.",
    )


def cost(settings: dict[str, Any], runs: Runs) -> Claim:
    """C11: reported, not judged: the specification shows that the prose is too optimistic."""

    def samples(run: dict[str, Any]) -> float:
        steps = sum(cycle["steps"] * (cycle["num_pivots"] + 2) for cycle in run["path"]["cycles"])
        return steps / run["curves"][0][-1]["step"]

    return Claim(
        "C11",
        "AutoNEB costs about as much as one training.",
        "3 to 15 trainings by the published schedule",
        "reported only: gradient evaluations of a path / steps of a training, same batch size",
        each(runs, samples),
        "trainings",
        note=f"A training has {runs[0]['curves'][0][-1]['step']:,} steps here, a path "
        f"{sum(cycle['steps'] for cycle in settings['schedule']['cycles']):,}; the paper's have "
        "64,000 and 16,000.",
    )
