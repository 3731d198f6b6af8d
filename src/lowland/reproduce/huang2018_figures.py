"""The pictures of Huang et al. 2018, described in plain values for the report."""

from statistics import fmean
from typing import Any

from lowland.report.figures import lines, series, shown, text
from lowland.reproduce.huang2018_numbers import chosen, curve_of, names_of, signed_square
from lowland.reproduce.huang2018_tables import WAYS, fitted, rounds_table, timing, totals, variants
from lowland.reproduce.runs import Runs

__all__ = ["draw"]

TITLES = {
    "digits": "Digits",
    "depth": "Digits, 30 blocks",
    "cifar10-narrow": "CIFAR-10, 25 narrow blocks",
    "cifar10": "CIFAR-10",
    "svhn": "SVHN",
    "depth-mnist": "MNIST, 30 blocks",
}

DIFFERENCES = text(
    "differences",
    "What is not as in the paper",
    "Blocks are trained by cross-entropy unless a table says otherwise; edges, gamma "
    "and bounds are those of the theory, with the errata of our specification. Every block "
    "begins as the identity (its last layer is zero) with the head of the block before, where "
    "shapes agree.\n\n"
    "A step end to end counts as one module update for each part of the chain, the stem too; "
    "a step of a round as one for each part that it trains. The paper does not say how it "
    "counts.\n\n"
    "Refinement uses the learning rate of boosting after a warm-up of 100 steps.\n\n"
    "AdaBoost.MM: every weak learner is one block with a classifier of its own, on the "
    "images; as many rounds and epochs as boosting has.",
)


def draw(settings: dict[str, Any], parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Describe all figures."""
    runs = parts["runs"]
    figures: list[dict[str, Any] | None] = []
    for name in names_of(runs, "boosted"):
        figures += [edges(runs, name), bounds(runs, name), errors(runs, name)]
        for clock in ("module_updates", "seconds"):
            figures.append(race(runs, name, clock))
    figures += [memory(parts["memory"]), spread(parts["collapse"]), noise(parts["noise"])]
    figures += [totals(runs), variants(parts["variants"])]
    figures += [rounds_table(runs), fitted(parts["fitted"]), timing(parts["timing"]), DIFFERENCES]
    return shown(figures)


def title(name: str) -> str:
    """A network in words."""
    return TITLES.get(name, name)


def edges(runs: Runs, name: str) -> dict[str, Any]:
    """Edge and gamma by depth."""
    found = chosen(runs, name, "boosted")
    drawn = []
    for number, run in enumerate(found):
        depth = range(1, len(run["rounds"]) + 1)
        label = f"seed {run['seed']}"
        drawn.append(
            series(f"edge, {label}", depth, [r["edge"] for r in run["rounds"]], color=number)
        )
        squares = [max(-1.0, signed_square(r["gamma"])) for r in run["rounds"]]
        drawn.append(series(f"gamma², {label}", depth, squares, "dashed", color=number))
    return lines(
        f"edges-{name}",
        f"{title(name)}: edge and gamma by depth",
        f"Over the whole training set, closed-form alpha (the paper's Fig. 4), {len(found)} seeds. "
        "gamma² with the sign of gamma, cut off at -1: below 0 a block was worse than the one "
        "before.",
        "block",
        "edge, gamma²",
        drawn,
    )


def bounds(runs: Runs, name: str) -> dict[str, Any]:
    """Training error and its bounds, first seed."""
    run = chosen(runs, name, "boosted")[0]
    depth = range(1, len(run["rounds"]) + 1)
    known = {
        "training error": [one["train_error"] or None for one in run["rounds"]],
        "B0, exponential loss": [one["bounds"]["B0"] for one in run["rounds"]],
        "B1, from the mean margin": [one["bounds"]["B1"] for one in run["rounds"]],
        "B2, from the edge": [one["bounds"]["B2"] for one in run["rounds"]],
    }
    drawn = [
        series(label, depth, values, "points" if number == 0 else "line", color=number)
        for number, (label, values) in enumerate(known.items())
    ]
    return lines(
        f"bounds-{name}",
        f"{title(name)}: training error and its bounds",
        "One seed. A bound above 1 says nothing; a gap means that it is void, or that no training "
        "example is wrong.",
        "block",
        "error",
        drawn,
        y_log=True,
    )


def errors(runs: Runs, name: str) -> dict[str, Any]:
    """Accuracy by depth."""
    drawn = []
    for number, run in enumerate(chosen(runs, name, "boosted")):
        depth = range(1, len(run["rounds"]) + 1)
        for part, style in (("test", "line"), ("train", "dashed")):
            values = [100 * (1 - one[f"{part}_error"]) for one in run["rounds"]]
            label = {"test": "test", "train": "training"}[part]
            drawn.append(series(f"{label}, seed {run['seed']}", depth, values, style, color=number))
    return lines(
        f"depth-{name}",
        f"{title(name)}: accuracy by depth",
        "Of the network that ends at a block, with the head that block was trained with.",
        "block",
        "accuracy (%)",
        drawn,
    )


def race(runs: Runs, name: str, clock: str) -> dict[str, Any] | None:
    """Test accuracy of all ways on one clock, first seed."""
    if not chosen(runs, name, "end to end"):
        return None
    (first, *_) = chosen(runs, name, "boosted")
    start = curve_of(first)[-1]
    drawn = []
    for number, way in enumerate(WAYS):
        found = chosen(runs, name, way)
        if not found:
            continue
        rows = curve_of(found[0])
        if way == "refined":  # goes on where boosting ended
            rows = [start, *({**row, clock: row[clock] + start[clock]} for row in rows)]
        drawn.append(
            series(
                way,
                [row[clock] for row in rows],
                [
                    None if row["test_error"] is None else 100 * (1 - row["test_error"])
                    for row in rows
                ],
                "dashed" if way in ("end to end", "AdaBoost.MM") else "line",
                color=number,
            )
        )
    words = {
        "module_updates": ("module updates", "One step end to end updates every block."),
        "seconds": ("seconds", "With evaluations; on a machine that may do other work."),
    }[clock]
    return lines(
        f"race-{clock.replace('_', '-')}-{name}",
        f"{title(name)}: test accuracy by {words[0]}",
        f"One seed. {words[1]}",
        words[0],
        "test accuracy (%)",
        drawn,
    )


def memory(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Saved bytes by part."""
    if not found:
        return None
    whole, *rows = found
    return lines(
        "memory",
        "What autograd saves in one update",
        f"MiB per 100 images of 3x32x32, float32; end to end it is {whole['MiB']:.1f}. Deep: one "
        "hidden convolution in the head. Downstream: the head goes through the first block of "
        "every later stage.",
        "block (0 is the stem)",
        "MiB",
        [
            series(kind, range(len(rows)), [row[kind] for row in rows], "steps", color=number)
            for number, kind in enumerate(("plain", "deep", "downstream"))
        ],
    )


def spread(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Training accuracy end to end by depth, for every start."""
    starts = dict.fromkeys((row["init"], row["rate"]) for row in found)
    drawn = []
    for number, (init, rate) in enumerate(starts):
        rows = [row for row in found if (row["init"], row["rate"]) == (init, rate)]
        values = [None if r["train_error"] is None else 100 * (1 - r["train_error"]) for r in rows]
        drawn.append(
            series(f"{init}, rate {rate:g}", [r["blocks"] for r in rows], values, color=number)
        )
    return lines(
        "collapse",
        "End to end: training accuracy by depth, for several starts",
        "Digits, residual perceptrons, Adam, one seed. he: normal weights of variance 2 / fan-in, "
        "with which features double in every block; official: 1 / fan-in.",
        "blocks",
        "training accuracy (%)",
        drawn,
    )


def noise(found: Runs) -> dict[str, Any] | None:
    """Test accuracy by depth under label noise."""
    if not found:
        return None
    drawn = []
    for number, radius in enumerate(dict.fromkeys(run["radius"] for run in found)):
        mine = [run for run in found if run["radius"] == radius]
        depth = range(1, len(mine[0]["rounds"]) + 1)
        name = "no constraint" if radius is None else f"l1 norm ≤ {radius:g}"
        for part, style in (("test", "line"), ("train", "dashed")):
            values = [
                fmean(100 * (1 - run["rounds"][t - 1][f"{part}_error"]) for run in mine)
                for t in depth
            ]
            label = {"test": "test", "train": "training (with wrong labels)"}[part]
            drawn.append(series(f"{label}, {name}", depth, values, style, color=number))
    return lines(
        "noise",
        "Partly wrong labels, with and without the l1 constraint",
        f"Digits; {100 * found[0]['changed']:.0f} % of the training labels are wrong. The l1 norm "
        "of every unit's incoming weights is held by projection after every step, head included.",
        "block",
        "accuracy (%)",
        drawn,
    )
