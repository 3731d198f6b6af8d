"""The pictures of Li & Hao 2018, described in plain values for the report."""

from typing import Any

from lowland.report.figures import banded, lines, series, shown, text
from lowland.reproduce.li2018_numbers import arms_of, pick
from lowland.reproduce.li2018_published import LOGS
from lowland.reproduce.li2018_settings import PRICES
from lowland.reproduce.li2018_tables import (
    beside_logs,
    candidates,
    comparators,
    identities,
    jumps,
    packed_files,
    principle,
    sizes,
)
from lowland.reproduce.runs import Runs

__all__ = ["draw"]

TITLES = {
    "digits": "Digits",
    "mnist": "MNIST, published settings",
    "mnist-ours": "MNIST, our settings",
    "cifar10-quarter": "CIFAR-10, a quarter of the width",
    "cifar10-full": "CIFAR-10, the paper's network on 10,000 images",
    "cifar10": "CIFAR-10",
    "svhn": "SVHN",
}

# A color for each arm in every picture, and dashes for the comparators that have it second.
COLORS = {
    "binary": (0, "line"),
    "Bop": (0, "dashed"),
    "ternary": (1, "line"),
    "TWN": (1, "dashed"),
    "ternary, 2 % asked for": (2, "line"),
    "ternary, 1.9 % asked for": (3, "line"),
    "float": (3, "dashed"),
    "BinaryConnect": (4, "dashed"),
    "lambda 1e-07": (3, "line"),
    "lambda 1e-05": (4, "line"),
    "lambda 0.0001": (5, "line"),
}

WORDS = {"train": "training", "test": "test"}

DIFFERENCES = text(
    "differences",
    "What is not as in the paper",
    "The paper's printed tables could not be read: its numbers here are those of the "
    "logs in the official notebooks, one run each, as our specification collected them. The "
    "official code is GPL and was not read for this library.\n\n"
    "On digits, and where a task says our settings: batch norm starts with scale 1 and offset "
    "0, Adam at 0.01 falls along half a cosine, 1 - alpha falls to 1/25 over the run, and "
    "batch-norm statistics are taken anew over training images after the last update, for "
    "every method alike. The specification's prototype kept running averages and a constant "
    "rate. Accuracies by epoch are with running averages for the comparators and the "
    "published settings.\n\n"
    "Comparators have the same network, batch norm after the last layer, loss, batches and "
    "epochs. Their learning rates, and Bop's threshold, were chosen by training loss on a seed "
    "that is not reported (100), from two to four values each.\n\n"
    "Published settings: the running variance is torch's, of the unbiased batch variance (1 % "
    "larger for 100 values per channel); validation images are the last 5,000 of the training "
    "set, and are used to name a best epoch only.",
)


def draw(settings: dict[str, Any], parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Describe all figures."""
    runs, checks, search = parts["runs"], parts["checks"], parts["search"]
    figures: list[dict[str, Any] | None] = []
    for task in settings["tasks"]:
        name = task["name"]
        figures += [accuracy(runs, name, "test"), accuracy(runs, name, "train")]
        figures += [nonzero(runs, name), trajectory(runs, name)]
    figures.append(prices(runs))
    if search:
        figures.append(descent(search["descent"]))
    if checks:
        figures += [sweeps(checks["sweeps"]), remainder(checks["remainder"])]
    figures += [comparators(settings, runs), beside_logs(runs)]
    if search:
        figures += [
            candidates(search["candidates"]),
            principle(search["principle"]),
            jumps(search["principle"]),
        ]
    if checks:
        figures.append(identities(checks))
    figures += [packed_files(runs), sizes(settings, runs), DIFFERENCES]
    return shown(figures)


def by_epoch(
    name: str, runs: Runs, what: str, factor: float = 1.0, **more: Any
) -> dict[str, Any] | None:
    """A column of the curves: mean and range over the seeds; None without any number."""
    rows = [*zip(*(run["curve"] for run in runs), strict=False)]
    kept = [row for row in rows if None not in [one[what] for one in row]]
    values = [[factor * one[what] for one in row] for row in kept]
    return banded(name, [row[0]["epoch"] for row in kept], values, **more) if kept else None


def look_of(arm: str) -> dict[str, Any]:
    """Color and style of an arm; those of the user's own have none."""
    if arm not in COLORS:
        return {}
    color, style = COLORS[arm]
    return {"color": color, "style": style}


def accuracy(runs: Runs, task: str, part: str) -> dict[str, Any]:
    """Accuracy by epoch, all methods."""
    drawn = [
        by_epoch(arm, pick(runs, task, arm), f"{part}_accuracy", **look_of(arm))
        for arm in arms_of(runs, task)
        if not arm.startswith("lambda")  # these differ in lambda only
    ]
    return lines(
        f"{part}-accuracy-{task}",
        f"{TITLES.get(task, task)}: {WORDS[part]} accuracy by epoch",
        "Mean and range over the seeds. In our settings discrete MSA takes the statistics of batch "
        "norm anew before every evaluation; its published settings and the comparators keep "
        "running averages, which lag behind weights that jump.",
        "passes over the training images",
        f"{WORDS[part]} accuracy (%)",
        drawn,
    )


def nonzero(runs: Runs, task: str) -> dict[str, Any]:
    """Share of nonzero weights by epoch."""
    drawn = []
    for arm in arms_of(runs, task):
        found = pick(runs, task, arm)
        if any(run["nonzero"] <= 0.999 for run in found):
            drawn.append(by_epoch(arm, found, "nonzero", 100, **look_of(arm)))
    return lines(
        f"nonzero-{task}",
        f"{TITLES.get(task, task)}: nonzero weights by epoch",
        "Share of the ternary weights that are not zero; mean and range over the seeds.",
        "passes over the training images",
        "nonzero weights (%)",
        drawn,
        y_log=True,
    )


def trajectory(runs: Runs, task: str) -> dict[str, Any] | None:
    """Ours beside the official log."""
    name = task.removesuffix("-ours").removesuffix("-quarter")
    if not any(key[0] == name for key in LOGS):
        return None
    drawn: list[dict[str, Any] | None] = []
    for number, kind in enumerate(("binary", "ternary")):
        found = pick(runs, task, kind)
        if not found:
            continue
        last = max(row["epoch"] for run in found for row in run["curve"])
        log = [row for row in LOGS[name, kind] if row[0] + 1 <= max(last, 10)]
        drawn.append(by_epoch(f"{kind}, ours", found, "test_accuracy", color=number))
        x = [row[0] + 1 for row in log]
        drawn.append(
            series(f"{kind}, official log", x, [row[2] for row in log], "points", color=number)
        )
        if kind == "ternary":
            drawn.append(by_epoch("nonzero, ours", found, "nonzero", 100, color=2))
            y = [row[3] for row in log]
            drawn.append(series("nonzero, official log", x, y, "points", color=2))
    width = "" if task == name else " The log's network is the paper's, with its settings."
    return lines(
        f"log-{task}",
        f"{TITLES.get(task, task)}: beside the official log",
        "Test accuracy, and share of nonzero weights of the ternary network; the log is of one "
        f"run.{width}",
        "passes over the training images",
        "%",
        drawn,
    )


def prices(runs: Runs) -> dict[str, Any]:
    """Lambda against sparsity and accuracy."""
    found = [(price, pick(runs, "digits", f"lambda {price:g}")) for price in PRICES]
    found = [(price, each) for price, each in found if each]
    x = [price for price, _ in found]
    shares = [[100.0 * (run["nonzero"] or 0.0) for run in each] for _, each in found]
    accuracies = [[run["test_accuracy"] or 0.0 for run in each] for _, each in found]
    return lines(
        "lambda",
        "Lambda controls the sparsity",
        "Ternary networks on digits at the end of 30 epochs, alpha 0.9 at first. Lambda is in "
        "units of the gradient of the mean loss.",
        "lambda",
        "%",
        [banded("nonzero weights", x, shares), banded("test accuracy", x, accuracies)],
        x_log=True,
        y_log=True,
    )


def descent(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """J along three methods on a discrete network."""
    words = {
        "plain": "plain: every layer to its argmax",
        "augmented": "augmented: relative penalty 0.5",
        "monotone": "monotone: only where J falls",
    }
    return lines(
        "descent",
        "Discrete weights: J along the sweeps",
        "Squared hinge of a binary network on one whole batch of digits, from the same random "
        "weights. Without a penalty the method wanders; with the published one it falls, not in "
        "every sweep; the monotone one falls in every sweep, for some trials more.",
        "sweeps",
        "J (squared hinge, mean)",
        [
            series(
                words[name],
                [row["step"] for row in rows],
                [row["loss"] for row in rows],
                "dashed" if name == "plain" else "line",
            )
            for name, rows in found.items()
        ],
    )


def sweeps(found: list[dict[str, Any]]) -> dict[str, Any]:
    """J along the sweeps on linear-quadratic problems."""
    drawn = []
    for number, row in enumerate(found):
        above = [max(cost - row["optimum"], 1e-16) for cost in row["costs"] if cost is not None]
        above = [value for value in above if value < 1e9][:60]
        name = f"{row['problem']}, penalty {row['penalty']:g}"
        style = "dashed" if row["penalty"] == 0 else "line"
        drawn.append(series(name, range(len(above)), above, style, color=number))
    return lines(
        "sweeps",
        "Float controls: J along the sweeps, above the optimum",
        "Linear dynamics with quadratic costs, where Riccati's equation knows the optimum "
        "(oracles O3 and O4 of the specification). The penalty is that with a half.",
        "sweeps",
        "J above the optimum",
        drawn,
        y_log=True,
    )


def remainder(found: list[dict[str, Any]]) -> dict[str, Any]:
    """R / distance squared."""
    return lines(
        "remainder",
        "What the Hamiltonians do not promise is of second order",
        "A tanh network in float64, all controls moved along one random direction: change of J "
        "plus gain of the Hamiltonians, over the squared distance, tends to a constant.",
        "distance",
        "remainder / distance²",
        [series("remainder", [row["distance"] for row in found], [row["ratio"] for row in found])],
        x_log=True,
    )
