"""The tables of Draxler et al. 2018, described in plain values for the report."""

from typing import Any

from lowland.report.figures import table
from lowland.reproduce.draxler2018_published import published
from lowland.reproduce.runs import Runs

__all__ = ["architectures", "pairs", "title_of", "ways"]


def title_of(run: dict[str, Any]) -> str:
    """Name a pair."""
    a, b = run["seeds"]
    return f"{run['model']}, seeds {a} and {b}"


def pairs(runs: Runs) -> dict[str, Any]:
    """All numbers of all pairs."""
    rows = []
    for run in runs:
        path, line = run["path"], run["line"]
        best = next(c for c in path["cycles"] if c["number"] == path["best_cycle"])
        rows.append(
            [
                title_of(run),
                max(path["profile"]["train_loss"][0], path["profile"]["train_loss"][-1]),
                line["saddle"],
                path["saddle"],
                path["barrier_max"],
                path["barrier_mid"],
                path["barrier_lin"],
                path["length_ratio"],
                best["num_pivots"],
                best["backend"],
                path["seconds"],
            ]
        )
    columns = [
        "pair", "higher end", "line", "saddle", "barrier above the higher end",
        "above the mean of the ends", "above interpolated losses", "length / distance", "pivots",
        "backend", "seconds",
    ]  # fmt: skip
    return table(
        "pairs",
        "Every pair",
        "Training losses in nats per example. Three definitions of the barrier are in use; all are "
        "given.",
        columns,
        rows,
    )


def ways(compared: dict[str, Any]) -> dict[str, Any]:
    """Straight line, curves, AutoNEB and aligned line between the same two networks."""
    rows = compared["rows"]
    columns = list(rows[0])
    return table(
        f"ways-{compared['model']}",
        "Five ways from one network to another",
        f"One pair of {compared['model']}. Training losses in nats per example; test columns take "
        "their own maxima.",
        [name.replace("_", " ") for name in columns],
        [[row[name] for name in columns] for row in rows],
    )


def architectures(data: str, parts: dict[str, Any]) -> dict[str, Any]:
    """Means over minima and over edges of the tree, beside Table B.1 of the paper."""
    rows = []
    for one in parts["landscapes"]:
        paper = published(data, one["model"]) or {}
        edges = [run for run in parts["runs"] if run["model"] == one["model"] and run["on_tree"]]
        minima = sum(one["losses"]) / len(one["losses"])
        error = [100 * max(run["path"]["profile"]["test_error"]) for run in edges]
        rows.append(
            [
                one["model"],
                edges[0]["params"],
                len(one["losses"]),
                minima,
                one["tree_saddle"],
                one["tree_saddle"] / minima,
                sum(error) / len(error),
                paper.get("minima"),
                paper.get("saddles"),
                paper.get("error_saddles"),
            ]
        )
    columns = [
        "network", "parameters", "minima", "their loss", "saddles of the tree", "saddle / minimum",
        "test error at its maximum (%)", "paper: minima", "paper: saddles", "paper: error (%)",
    ]  # fmt: skip
    return table(
        "architectures",
        "All architectures, beside Table B.1 of the paper",
        f"{data}; training losses in nats per example, means over minima and over the edges of the "
        "spanning tree. The paper's minima were trained for 64,000 steps and more.",
        columns,
        rows,
    )
