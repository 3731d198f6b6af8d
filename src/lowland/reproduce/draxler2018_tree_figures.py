"""Pictures of many minima and architectures, described in plain values for the report."""

from collections.abc import Sequence
from typing import Any

from lowland.report.figures import lines, series
from lowland.reproduce.draxler2018_tables import architectures
from lowland.reproduce.runs import Runs

__all__ = ["disconnectivity", "trees", "two_statistics"]


def trees(settings: dict[str, Any], parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Describe what many minima and architectures show.

    Args:
        settings: Plain settings of the recipe.
        parts: What was measured.

    Returns:
        Figures.
    """
    many = [one for one in parts["landscapes"] if len(one["losses"]) > 2]
    return [
        *map(disconnectivity, many),
        exploration(many),
        by_size(settings["sizes"], parts["landscapes"]),
        architectures(settings["data"], parts),
    ]


def disconnectivity(landscape: dict[str, Any]) -> dict[str, Any]:
    """Draw at which loss the minima become one, as rising water would see it.

    Args:
        landscape: One architecture.

    Returns:
        A disconnectivity graph: one vertical line per minimum, a bar where two groups merge.
    """
    order = order_of(landscape)
    place = {minimum: float(position) for position, minimum in enumerate(order)}
    losses = landscape["losses"]
    stems = {minimum: (place[minimum], losses[minimum]) for minimum in order}
    branches = []
    for height, left, right in landscape["merges"]:
        one, other = (stems[min(group, key=lambda k: (losses[k], k))] for group in (left, right))
        middle = (one[0] + other[0]) / 2
        branches.append(([one[0], one[0], other[0], other[0]], [one[1], height, height, other[1]]))
        stems[min((*left, *right), key=lambda k: (losses[k], k))] = (middle, height)
    model = landscape["model"]
    return lines(
        f"disconnectivity-{model}",
        "At which loss the minima become one",
        f"Disconnectivity graph of {len(losses)} minima of {model}: every minimum begins at its "
        "training loss, and two groups are joined at the lowest saddle known between them.",
        "minima, in the order in which they are joined",
        "training loss (nats per example)",
        [
            *(series(f"merge at {ys[1]:.4g}", xs, ys) for xs, ys in branches),
            series("minima", [place[k] for k in order], [losses[k] for k in order], "points"),
        ],
    )


def order_of(landscape: dict[str, Any]) -> list[int]:
    """Minima side by side so that no two branches cross; those that nothing joins come last."""
    groups = {k: [k] for k in range(len(landscape["losses"]))}
    for _, left, right in landscape["merges"]:
        both = groups[left[0]] + groups[right[0]]
        groups |= dict.fromkeys(both, both)
    order = list(groups[0])
    for minimum, group in groups.items():
        order += [] if minimum in order else group
    return order


def exploration(landscapes: Runs) -> dict[str, Any]:
    """How the mean saddle of the tree falls from pair to pair."""
    return lines(
        "exploration",
        "The tree gets lower as more pairs are tried",
        "Mean saddle of the spanning tree after each pair, once all minima are joined, in the "
        "paper's order.",
        "pairs tried",
        "mean saddle of the tree (nats per example)",
        [
            series(one["model"], list(range(first, first + len(means))), means)
            for one in landscapes
            for first, means in [(len(one["tried"]) - len(one["means"]) + 1, one["means"])]
        ],
        y_log=True,
    )


def by_size(sizes: Sequence[Sequence[str]], landscapes: Runs) -> dict[str, Any]:
    """Figure 5 of the paper: minima and saddles by width and depth."""
    known = {one["model"]: one for one in landscapes}
    drawn = []
    for chain in sizes:
        rows = [known[name] for name in chain if name in known]
        x = list(range(len(rows)))
        label = f" ({chain[0]} to {chain[-1]})" if len(sizes) > 1 else ""
        drawn.append(series(f"saddles{label}", x, [one["tree_saddle"] for one in rows]))
        means = [sum(one["losses"]) / len(one["losses"]) for one in rows]
        drawn.append(series(f"minima{label}", x, means, "dashed"))
    names = "; ".join(", ".join(chain) for chain in sizes)
    return lines(
        "sizes",
        "Larger networks have lower saddles",
        f"Mean training loss of minima and of the saddles of the tree: {names}.",
        "number in the row, from small to large",
        "training loss (nats per example)",
        drawn,
        y_log=True,
    )


def two_statistics(norm: dict[str, Any]) -> dict[str, Any]:
    """The same path with batch-norm statistics recomputed, and interpolated as published.

    Args:
        norm: Profiles of one architecture.

    Returns:
        Lines.
    """
    named = {"recalibrate": "recomputed at every point", "interpolate": "interpolated"}
    found = {"recalibrate": "our path", "interpolate": "path relaxed as published"}
    drawn = [
        series(
            f"{found[relaxed]}, statistics {named[way]}",
            profile["t"],
            profile["train_loss"],
            "line" if way == "recalibrate" else "dashed",
        )
        for relaxed, profiles in norm["relaxed"].items()
        for way, profile in profiles.items()
    ]
    tops = "; ".join(
        f"{one['name']}: {max(value for value in one['y'] if value is not None):.4g}"
        for one in drawn
    )
    return lines(
        f"statistics-{norm['model']}",
        "Interpolated batch-norm statistics lift the loss between pivots",
        f"One pair of {norm['model']}, on the training data. Saddles in nats: {tops}.",
        "fraction of the path",
        "training loss (nats per example)",
        drawn,
    )
