"""The pictures of Draxler et al. 2018, described in plain values for the report."""

from collections.abc import Sequence
from typing import Any

from lowland.report.figures import lines, series, shown
from lowland.reproduce.draxler2018_tables import pairs, title_of, ways
from lowland.reproduce.draxler2018_tree_figures import trees, two_statistics
from lowland.reproduce.runs import Runs

__all__ = ["draw"]


def draw(settings: dict[str, Any], parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Describe all figures; pictures of a single pair show the first judged one."""
    runs = parts["runs"]
    judged = [run for run in runs if run["judged"]]
    first = judged[0]
    figures = [
        line_and_path(first, settings["schedule"]["samples"]),
        *(plane(values, first) for values in parts["planes"]),
        *trees(settings, parts),
        convergence(judged),
        cycles(first),
        errors(first),
        training(first),
        *(coordinates(bend, first) for bend in parts["bends"]),
        *(two_statistics(one) for one in parts["norms"]),
        *(ways(one) for one in parts["comparisons"]),
        pairs(runs),
        xor_paths(parts["xor"]),
    ]
    return shown(figures)


def line_and_path(run: dict[str, Any], samples: int) -> dict[str, Any]:
    """The straight line, the path, and its pivots."""
    line, path = run["line"]["profile"], run["path"]["profile"]
    corners = slice(None, None, samples + 1)
    return lines(
        "line-and-path",
        "Training loss along the straight line and along the path",
        f"Training loss between two independently trained networks ({title_of(run)}). On the "
        f"straight line it rises to {run['line']['saddle']:.3g} nats, on the path to "
        f"{run['path']['saddle']:.3g}; the higher end has "
        f"{max(path['train_loss'][0], path['train_loss'][-1]):.3g}.",
        "fraction of the way from one network to the other",
        "training loss (nats per example)",
        [
            series("straight line", line["t"], line["train_loss"], "dashed"),
            series("AutoNEB path", path["t"], path["train_loss"]),
            series("its pivots", path["t"][corners], path["train_loss"][corners], "points"),
        ],
        y_log=True,
    )


def plane(values: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """Figure 1 of the paper."""
    x, y = zip(*values["pivots"], strict=True)
    return {
        "kind": "heatmap",
        "id": "plane",
        "title": "The path goes around the hill",
        "caption": "Training loss in the plane through both networks and the mean of the path "
        f"({title_of(run)}). The path lies in this plane only at its ends; its pivots are drawn "
        "where they project to, so their own loss is lower than the color under them.",
        "x_label": "along the straight line (Euclidean distance)",
        "y_label": "across it",
        "x": values["x"],
        "y": values["y"],
        "values": values["loss"],
        "log": True,
        "equal": True,
        "value_label": "training loss (nats per example)",
        "points": [
            {"name": name, "x": x[at], "y": y[at]} for name, at in (("start", 0), ("end", -1))
        ],
        "paths": [
            {"name": "straight line", "x": [x[0], x[-1]], "y": [y[0], y[-1]]},
            {"name": "AutoNEB path", "x": list(x), "y": list(y)},
        ],
    }  # fmt: skip


def convergence(runs: Runs) -> dict[str, Any]:
    """Highest loss after every cycle."""
    return lines(
        "convergence",
        "The saddle falls from cycle to cycle",
        "Highest training loss along the path after each cycle of AutoNEB, on the fixed examples "
        "that decide; cycle 0 is the straight line.",
        "cycle",
        "saddle (nats per example)",
        [
            series(
                title_of(run),
                [cycle["number"] for cycle in run["path"]["cycles"]],
                [top(cycle["profile"]["train_loss"]) for cycle in run["path"]["cycles"]],
            )
            for run in runs[:6]
        ],
        y_log=True,
    )


def top(values: Sequence[float | None]) -> float | None:
    """The largest value, None if one is missing."""
    return None if None in values else max(value for value in values if value is not None)


def cycles(run: dict[str, Any]) -> dict[str, Any]:
    """Figure 4 of the paper: the loss along the path as it converges."""
    all_cycles = run["path"]["cycles"]
    shown = [cycle for cycle in all_cycles if cycle["number"] in (1, 4, 7)]
    shown += [cycle for cycle in all_cycles[-1:] if cycle not in shown]
    return lines(
        "cycles",
        "Loss along the path as it converges",
        f"After some of the cycles ({title_of(run)}), on the fixed examples that decide.",
        "fraction of the path",
        "training loss (nats per example)",
        [
            series(
                f"cycle {cycle['number']}, {cycle['num_pivots']} pivots",
                cycle["profile"]["t"],
                cycle["profile"]["train_loss"],
            )
            for cycle in shown
        ],
        y_log=True,
    )


def errors(run: dict[str, Any]) -> dict[str, Any]:
    """Test error along line and path."""
    line, path = run["line"]["profile"], run["path"]["profile"]

    def percent(values: Sequence[float]) -> list[float]:
        return [100 * value for value in values]

    return lines(
        "test-error",
        "The test error stays flat along the path",
        f"Test error between the two networks ({title_of(run)}).",
        "fraction of the way from one network to the other",
        "test error (%)",
        [
            series("straight line", line["t"], percent(line["test_error"]), "dashed"),
            series("AutoNEB path", path["t"], percent(path["test_error"])),
        ],
    )


def training(run: dict[str, Any]) -> dict[str, Any]:
    """Figure 6 of the paper: when training gets below the saddle."""
    curves = [
        series(
            f"training of seed {seed}",
            [row["step"] for row in curve],
            [row["train_loss"] for row in curve],
        )
        for seed, curve in zip(run["seeds"], run["curves"], strict=True)
    ]
    span = [row["step"] for row in (run["curves"][0][0], run["curves"][0][-1])]
    level = series("saddle of the path", span, [run["path"]["saddle"]] * 2, "dashed")
    return lines(
        "training",
        "Training gets below the saddle only late",
        f"Training loss of the two networks ({title_of(run)}) and the saddle between them.",
        "step",
        "training loss (nats per example)",
        [*curves, level],
        y_log=True,
    )


def coordinates(bend: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """Figure 7 of the paper: single parameters along the path."""
    return lines(
        "coordinates",
        "Single parameters bend smoothly",
        f"The {len(bend['bend'])} parameters that leave the straight line furthest "
        f"({title_of(run)}), as distance from it.",
        "fraction of the path",
        "parameter minus its value on the straight line",
        [series(f"parameter {i + 1}", bend["t"], row) for i, row in enumerate(bend["bend"])],
    )


def xor_paths(xor: Runs) -> dict[str, Any]:
    """Figure 8 of the paper as an experiment."""
    firsts = {run["hidden"]: run for run in reversed(xor)}
    return lines(
        "xor",
        "Two hidden units make a barrier, four remove it",
        "Loss along relaxed paths between an XOR network and the same with two units swapped.",
        "fraction of the path",
        "loss (nats per example)",
        [
            series(f"{hidden} hidden units", firsts[hidden]["t"], firsts[hidden]["loss"])
            for hidden in sorted(firsts)
        ],
    )
