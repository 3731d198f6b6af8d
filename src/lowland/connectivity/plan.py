"""The course of an exploration: which pairs are known, and which are under way."""

from dataclasses import dataclass
from itertools import combinations
from math import inf, isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.edge import Edge
from lowland.connectivity.graph import Pair
from lowland.connectivity.path_result import PathResult
from lowland.connectivity.suggest import BEGUN, Known, suggest_pair

__all__ = ["Plan"]


@dataclass
class Plan:
    """The exploration so far: which pairs are known, and which are under way.

    Attributes:
        losses: Training loss of every minimum.
        rule: Chooses the next pair.
        in_flight: Pairs under way at once.
        budget: Pairs in all, or None.
    """

    losses: Float[Tensor, " minima"]
    rule: str
    in_flight: int
    budget: int | None

    def __post_init__(self):
        self.edges: dict[Pair, Edge] = {}
        self.under_way: list[Pair] = []
        self.early: Tensor | None = None

    def to_begin(self) -> list[Pair]:
        """Pairs of which the rule wants to see the first cycle before it chooses."""
        count = len(self.losses) if self.rule in BEGUN else 0
        return list(combinations(range(count), 2))

    def look_at(self, pair: Pair, begun: PathResult) -> None:
        """Keep the saddle of the line or the first cycle, and of no later one that is there."""
        if self.early is None:
            self.early = unknown(self.losses)
        heights = [cycle.profile.saddle() for cycle in begun.cycles[:2]]
        lowest = min((height for height in heights if isfinite(height)), default=inf)
        self.early[pair] = self.early[pair[::-1]] = lowest

    def fill(self) -> list[Pair]:
        """Choose pairs until enough are under way, or none is left."""
        while len(self.under_way) < self.in_flight and not self.is_spent():
            pair = suggest_pair(self.rule, self.known())
            if pair is None:
                break
            self.under_way.append(pair)
        return self.under_way

    def is_spent(self) -> bool:
        """Whether the budget allows no further pair."""
        return self.budget is not None and len(self.edges) + len(self.under_way) >= self.budget

    def known(self) -> Known:
        """What the rule may know."""
        saddles = unknown(self.losses)
        tried = torch.eye(len(saddles), dtype=torch.bool)
        for (a, b), edge in self.edges.items():
            saddles[a, b] = saddles[b, a] = edge.saddles["train_loss"]
        for a, b in [*self.edges, *self.under_way]:
            tried[a, b] = tried[b, a] = True
        return Known(saddles, tried, tuple(self.under_way), self.early)


def unknown(losses: Float[Tensor, " minima"]) -> Float[Tensor, "minima minima"]:
    """Saddles before there is a path."""
    saddles = torch.full((len(losses), len(losses)), inf, dtype=torch.float64)
    saddles.diagonal().copy_(losses)
    return saddles
