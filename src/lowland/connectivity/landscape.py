"""What is known of many minima and the paths between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, nan
from pathlib import Path as FilePath
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity import graph
from lowland.connectivity.edge import Edge, mirrored, number, pair_folder
from lowland.connectivity.graph import Merge, Pair
from lowland.connectivity.path_result import PathResult
from lowland.connectivity.suggest import BEGUN, Known, suggest_pair
from lowland.errors import OutcomeError
from lowland.results import Status, plain, read_json, write_json

__all__ = ["Landscape"]


@dataclass(frozen=True, eq=False, repr=False)
class Landscape:
    """Minima, and the paths that an exploration has found between them.

    Attributes:
        minima: Metric to its value at every minimum; losses are means per example.
        edges: One per pair that was tried, in the order of the exploration.
        status: How the exploration ended.
        message: More about the status, or empty.
        settings: Plain values that decided the numbers.
        seconds: Wall time of the paths, over all calls and machines that shared a folder.
        folder: Where the paths lie, or None.
        kept: The paths that are in memory.
        early: Saddle of every pair after its first cycle, where the rule has looked at it.
    """

    minima: dict[str, Float[Tensor, " minima"]]
    edges: tuple[Edge, ...]
    status: Status
    message: str
    settings: dict[str, Any]
    seconds: float
    folder: FilePath | None = None
    kept: Mapping[Pair, PathResult] = field(default_factory=dict)
    early: Float[Tensor, "minima minima"] | None = None

    def __repr__(self) -> str:
        """The numbers that matter, without tensors."""
        return (
            f"Landscape(minima={len(self.losses)}, pairs={len(self.edges)}, "
            f"mean_saddle={self.mean_saddle():.4g}, status={self.status.name})"
        )

    @property
    def losses(self) -> Float[Tensor, " minima"]:
        """Training loss of every minimum."""
        return self.minima["train_loss"]

    def saddles(self, metric: str = "train_loss") -> Float[Tensor, "minima minima"]:
        """Saddle of every pair that was tried.

        Args:
            metric: ``train_loss``, ``train_error``, ``test_loss`` or ``test_error``.

        Returns:
            Infinite where no path is known; values at the minima on the diagonal.

        Raises:
            KeyError: If the metric was not measured.
        """
        if metric not in self.minima:
            known = ", ".join(self.minima)
            raise KeyError(f"metric must be one of {known}; got {metric!r}.")
        found = torch.full((len(self.losses),) * 2, inf, dtype=torch.float64)
        found.diagonal().copy_(self.minima[metric])
        for edge in self.edges:
            found[edge.a, edge.b] = found[edge.b, edge.a] = edge.saddles[metric]
        return found

    def tree(self, metric: str = "train_loss") -> tuple[Edge, ...]:
        """Find the paths that join all minima with the lowest saddles.

        Args:
            metric: Whose saddles.

        Returns:
            Edges of the minimum spanning tree, the lowest saddle first.
        """
        by_pair = {(edge.a, edge.b): edge for edge in self.edges}
        return tuple(by_pair[pair] for pair in graph.spanning_tree(self.saddles(metric)))

    def minimax(self, metric: str = "train_loss") -> Float[Tensor, "minima minima"]:
        """Lowest known saddle between every two minima, over any chain of paths.

        Args:
            metric: Whose saddles.

        Returns:
            What :func:`lowland.connectivity.minimax` returns.
        """
        return graph.minimax(self.saddles(metric))

    def merges(self, metric: str = "train_loss") -> list[Merge]:
        """At which saddle which groups of minima become one, for a disconnectivity graph.

        Args:
            metric: Whose saddles.

        Returns:
            What :func:`lowland.connectivity.merges` returns.
        """
        return graph.merges(self.saddles(metric))

    def topographic_distance(self, a: int, b: int, metric: str = "train_loss") -> float:
        """How much one climbs and descends from one minimum to another through the tree.

        Args:
            a: Number of one minimum.
            b: Number of the other.
            metric: Whose saddles.

        Returns:
            What :func:`lowland.connectivity.topographic_distance` returns.
        """
        return graph.topographic_distance(self.saddles(metric), a, b)

    def route(self, a: int, b: int) -> tuple[int, ...]:
        """Find the way from one minimum to another with the lowest known saddle.

        Args:
            a: Number of the minimum to start from.
            b: Number of the one to end at.

        Returns:
            Numbers of the minima on the way; :meth:`path` gives the path of each step.
        """
        return graph.route(self.saddles(), a, b)

    def mean_saddle(self, metric: str = "train_loss") -> float:
        """Average of a saddle over the tree of training losses, as in the paper's tables.

        Args:
            metric: Which saddle; every metric takes its own maximum along each path.

        Returns:
            The mean; NaN before there is a path.
        """
        self.saddles(metric)  # refuses an unknown metric
        found = [edge.saddles[metric] for edge in self.tree()]
        return sum(found) / len(found) if found else nan

    def suggest(self, rule: str | None = None) -> Pair | None:
        """Which pair to try next.

        Args:
            rule: A name of ``RULES``; that of the exploration by default.

        Returns:
            A pair, or None where the rule expects nothing from any other path.

        Raises:
            ValueError: If there is no such rule, or it needs first cycles that nobody looked at.
        """
        tried = torch.eye(len(self.losses), dtype=torch.bool)
        for edge in self.edges:
            tried[edge.a, edge.b] = tried[edge.b, edge.a] = True
        wanted: str = rule or self.settings["suggest"]
        if wanted in BEGUN and self.early is None:
            raise ValueError(
                f"{wanted!r} needs the first cycle of every pair, which this exploration did not "
                f"look at; got one with suggest={self.settings['suggest']!r}. Take another rule, "
                f"or explore with suggest={wanted!r}."
            )
        return suggest_pair(wanted, Known(self.saddles(), tried, early=self.early))

    def path(self, a: int, b: int) -> PathResult:
        """Give the path between two minima.

        Args:
            a: Number of the minimum to start from.
            b: Number of the one to end at.

        Returns:
            The path; a search goes from the smaller number to the larger, and the other direction
            is its mirror image.

        Raises:
            ValueError: If the pair was not tried.
        """
        graph.known_minima(len(self.losses), a, b)
        if a == b:
            raise ValueError(
                f"a path joins two different minima; got {a} twice. Take one of the pairs of "
                ".edges."
            )
        pair = min(a, b), max(a, b)
        if pair not in {(edge.a, edge.b) for edge in self.edges}:
            way = self.route(a, b)
            raise ValueError(
                f"the pair must have been tried; {pair} was not. "
                + (f"The tree leads along {way}." if way else "No path joins them yet.")
            )
        if pair in self.kept:
            found = self.kept[pair]
        else:
            found = PathResult.load(pair_folder(self.folder or FilePath(), pair))
        return found if (a, b) == pair else mirrored(found)

    def raise_for_status(self) -> "Landscape":
        """Turn a bad outcome into an exception.

        Returns:
            This landscape.

        Raises:
            OutcomeError: If the exploration did not finish.
        """
        if self.status is not Status.FINISHED:
            raise OutcomeError(f"the exploration ended: {self.status.value}; {self.message}")
        return self

    def record(self) -> dict[str, Any]:
        """Everything but the paths themselves, as plain values.

        Returns:
            A dict that JSON can hold; what is infinite or undefined is None.
        """
        return plain(
            {
                "mean_loss": float(self.losses.mean()),
                "mean_saddle": self.mean_saddle(),
                "mean_saddles": {metric: self.mean_saddle(metric) for metric in self.minima},
                "minima": self.minima,
                "edges": self.edges,
                "tree": [(edge.a, edge.b) for edge in self.tree()],
                "merges": [merge._asdict() for merge in self.merges()],
                "early": self.early,
                "status": self.status,
                "message": self.message,
                "settings": self.settings,
                "seconds": self.seconds,
            }
        )

    def save(self, folder: str | FilePath) -> FilePath:
        """Write ``result.json`` and every path.

        Args:
            folder: Where to.

        Returns:
            The folder.
        """
        folder = FilePath(folder)
        here = self.folder is not None and self.folder.resolve() == folder.resolve()
        for edge in self.edges:
            if not here:
                self.path(edge.a, edge.b).save(pair_folder(folder, (edge.a, edge.b)))
        write_json(folder / "result.json", self.record())
        return folder

    @classmethod
    def load(cls, folder: str | FilePath) -> "Landscape":
        """Read a landscape.

        Args:
            folder: A folder written by :meth:`save`, or the ``out`` of an exploration.

        Returns:
            The landscape; its paths are read when they are asked for.
        """
        values = read_json(FilePath(folder) / "result.json")

        def tensor(rows: list[Any]) -> Tensor:
            return torch.tensor(rows, dtype=torch.float64)

        early = values.get("early")
        return cls(
            minima={
                name: tensor([number(x) for x in column])
                for name, column in values["minima"].items()
            },
            early=None if early is None else tensor([[number(x) for x in row] for row in early]),
            edges=tuple(Edge.from_plain(edge) for edge in values["edges"]),
            status=Status[values["status"].upper()],
            folder=FilePath(folder),
            **{name: values[name] for name in ("message", "settings", "seconds")},
        )
