"""The minima of one architecture, trained and joined, as plain values for claims and figures."""

from math import log
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lowland.connectivity import Landscape, connect_minima, linear_path
from lowland.connectivity.graph import spanning_tree
from lowland.reproduce.draxler2018_images import find_minimum, losses
from lowland.reproduce.draxler2018_settings import Network, Settings
from lowland.reproduce.frame import pass_ctrl_c_on
from lowland.reproduce.images import Images
from lowland.results import plain
from lowland.training import TrainResult

__all__ = ["describe_landscape", "describe_pairs", "explore", "find_minima"]

# A network whose training loss stays above this share of that of a guess has learned nothing.
DEAD = 0.9

# Networks trained for one minimum that is alive, at most.
TRIES = 4


def find_minima(
    network: Network, settings: Settings, images: Images, out: Path, display: Any
) -> dict[int, tuple[nn.Module, TrainResult]]:
    """Train networks from seed after seed; those that learned nothing are passed over.

    Args:
        network: The architecture.
        settings: Of the recipe.
        images: The data.
        out: Folder of the run.
        display: Progress display.

    Returns:
        By seed, the network and how it was trained.

    Raises:
        ValueError: If too few networks learn anything.
    """
    guess = log(images.classes)
    found: dict[int, tuple[nn.Module, TrainResult]] = {}
    for seed in range(TRIES * network.minima):
        if len(found) == network.minima:
            return found
        model, trained = find_minimum(network.name, settings, images, seed, out, display)
        if trained.curve[-1]["train_loss"] < DEAD * guess:
            found[seed] = model, trained
    if len(found) == network.minima:
        return found
    raise ValueError(
        f"{network.name} must learn something from {network.minima} of {TRIES * network.minima} "
        f"seeds; only {len(found)} did. Take a wider network or train it longer."
    )


def explore(
    network: Network,
    settings: Settings,
    images: Images,
    minima: dict[int, tuple[nn.Module, TrainResult]],
    out: Path,
    display: Any,
) -> Landscape:
    """Join the minima of an architecture in the paper's order.

    Args:
        network: The architecture.
        settings: Of the recipe.
        images: The data.
        minima: From :func:`find_minima`.
        out: Folder of the run.
        display: Progress display.

    Returns:
        The landscape, with all pairs that were tried.

    Raises:
        KeyboardInterrupt: After Ctrl-C, with everything finished saved.
    """
    models = [model for model, _ in minima.values()]
    found = connect_minima(
        models[0],
        losses,
        images.training(0, settings.path_batch_size),
        models,
        schedule=settings.schedule,
        budget=network.pairs,
        suggest="paper",
        test_batches=images.testing,
        evaluation_batches=images.reading,
        backend=settings.backend,
        out=out / "landscapes" / network.name,
        progress=display,
    )
    pass_ctrl_c_on(found.status)
    return found


def describe_pairs(
    network: Network,
    settings: Settings,
    images: Images,
    minima: dict[int, tuple[nn.Module, TrainResult]],
    landscape: Landscape,
    out: Path,
    display: Any,
) -> list[dict[str, Any]]:
    """Evaluate the straight line of every pair that was tried, beside its path.

    Args:
        network: The architecture.
        settings: Of the recipe.
        images: The data.
        minima: From :func:`find_minima`.
        landscape: From :func:`explore`.
        out: Folder of the run.
        display: Progress display.

    Returns:
        One dict per pair: the records of line and path, the training curves of both ends, and
        whether the pair is an edge of the spanning tree.
    """
    seeds, tree = list(minima), landscape.tree()
    rows = []
    for edge in landscape.edges:
        a, b = edge.a, edge.b
        (model, one), (end, other) = minima[seeds[a]], minima[seeds[b]]
        line = linear_path(
            model,
            losses,
            images.training(0, settings.path_batch_size),
            model,
            end,
            samples=settings.line_samples,
            test_batches=images.testing,
            evaluation_batches=images.reading,
            calibration=settings.schedule.calibration,
            backend=settings.backend,
            out=out / "lines" / f"{network.name}-{a}-{b}",
            progress=display,
        )
        path = landscape.path(a, b)
        rows.append(
            {
                "model": network.name,
                "judged": network.judged,
                "seeds": [seeds[a], seeds[b]],
                "on_tree": edge in tree,
                "status": path.status,
                "message": path.message,
                "params": path.path.layout.size,
                "line": line.record(),
                "path": path.record(),
                "curves": [one.curve, other.curve],
            }
        )
    return plain(rows)


def describe_landscape(network: Network, landscape: Landscape) -> dict[str, Any]:
    """Say how the minima hang together, as plain values.

    Args:
        network: The architecture.
        landscape: From :func:`explore`.

    Returns:
        Losses of the minima, pairs in the order in which they were tried, their saddles, the
        edges of the tree, minimax matrix and merges, and the mean saddle of tree and star.
    """
    lowest = int(landscape.losses.argmin())
    star = [edge for edge in landscape.edges if lowest in (edge.a, edge.b)]
    whole = len(star) == len(landscape.losses) - 1
    return plain(
        {
            "model": network.name,
            "judged": network.judged,
            "losses": landscape.losses,
            "tried": [[edge.a, edge.b] for edge in landscape.edges],
            "saddles": [edge.saddles["train_loss"] for edge in landscape.edges],
            "tree": [[edge.a, edge.b] for edge in landscape.tree()],
            "minimax": landscape.minimax(),
            "merges": landscape.merges(),
            "means": tree_after_each_pair(landscape),
            "tree_saddle": landscape.mean_saddle("train_loss"),
            "star_saddle": sum(e.saddles["train_loss"] for e in star) / len(star)
            if whole
            else None,
            "seconds": landscape.seconds,
        }
    )


def tree_after_each_pair(landscape: Landscape) -> list[float]:
    """Mean saddle of the spanning tree as pairs were tried, from the first that joins all on."""
    number, means = len(landscape.losses), []
    saddles = torch.full((number, number), float("inf"), dtype=torch.float64)
    for edge in landscape.edges:
        saddles[edge.a, edge.b] = saddles[edge.b, edge.a] = edge.saddles["train_loss"]
        tree = spanning_tree(saddles)
        if len(tree) == number - 1:
            means.append(sum(float(saddles[pair]) for pair in tree) / len(tree))
    return means
