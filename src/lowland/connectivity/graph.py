"""The graph of minima: nodes are networks, edges the saddles of the best known paths.

Every function takes a symmetric matrix of saddles in float64: infinite where no path is known, the
losses of the minima on its diagonal.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = [
    "Merge",
    "Pair",
    "components",
    "known_minima",
    "merges",
    "minimax",
    "route",
    "spanning_tree",
    "topographic_distance",
]


Pair = tuple[int, int]


class Merge(NamedTuple):
    """Two groups of minima that become one when the water has risen to a saddle.

    Attributes:
        height: The saddle.
        left: Numbers of the minima of one group; it holds the lowest one of both.
        right: Those of the other.
    """

    height: float
    left: tuple[int, ...]
    right: tuple[int, ...]


def spanning_tree(saddles: Float[Tensor, "minima minima"]) -> list[Pair]:
    """Find the edges that join all minima with the lowest saddles.

    Args:
        saddles: Best known saddle of every pair.

    Returns:
        Pairs ``(a, b)``, ``a < b``, from the lowest saddle to the highest; where saddles are equal,
        the smaller numbers first. A forest where some minima are not joined yet.

    Source:
        Kruskal (1956); Draxler et al., ICML 2018, section 3.3.
    """
    return [(a, b) for _, a, b, _, _ in joined(saddles)]


def joined(
    saddles: Tensor,
) -> list[tuple[float, int, int, tuple[int, ...], tuple[int, ...]]]:
    """Every edge of the tree, with the two groups of minima that it joined."""
    check(saddles)
    groups = {k: (k,) for k in range(len(saddles))}
    a, b = torch.triu_indices(*saddles.shape, offset=1)
    heights = saddles[a, b]
    known = heights.isfinite()
    edges = sorted(zip(*(part[known].tolist() for part in (heights, a, b)), strict=True))
    found = []
    for height, first, second in edges:
        left, right = groups[first], groups[second]
        if left != right:
            found.append((height, first, second, left, right))
            groups |= dict.fromkeys(left + right, tuple(sorted(left + right)))
    return found


def check(saddles: Tensor) -> None:
    """Refuse what is no matrix of saddles."""
    if saddles.ndim != 2 or saddles.shape[0] != saddles.shape[1]:
        raise ValueError(
            "saddles must be a square matrix, one row per minimum; got shape "
            f"{tuple(saddles.shape)}."
        )
    if saddles.isnan().any() or not torch.equal(saddles, saddles.T):
        raise ValueError(
            "saddles must be symmetric and hold no NaN, because a path has the same saddle in both "
            f"directions; got {saddles}. Write inf where no path is known."
        )


def minimax(saddles: Float[Tensor, "minima minima"]) -> Float[Tensor, "minima minima"]:
    r"""Lowest known saddle between every two minima, over any chain of paths.

    Joining the paths of a chain gives a path, so
    :math:`L^*_{AC} \le \max(L_{AB}, L_{BC})`: the highest edge on the way through the spanning tree
    is the best bound there is.

    Args:
        saddles: Best known saddle of every pair.

    Returns:
        An ultrametric matrix with the diagonal of ``saddles``; infinite where two minima are not
        joined.

    Source:
        Draxler et al., ICML 2018, section 3.3; E9 of the specification.
    """
    steps = joined(saddles)
    found = torch.full_like(saddles, float("inf"))
    found.diagonal().copy_(saddles.diagonal())
    for height, _, _, left, right in steps:
        rows, columns = torch.tensor(left).unsqueeze(1), torch.tensor(right)
        found[rows, columns] = height
        found.T[rows, columns] = height
    return found


def merges(saddles: Float[Tensor, "minima minima"]) -> list[Merge]:
    """Let the water rise: at which saddle which groups of minima become one.

    A disconnectivity graph is drawn from it: every minimum is a line that begins at its loss, and
    a merge is a bar at its height between the lines of both groups; ``left`` goes on above it.

    Args:
        saddles: Best known saddle of every pair.

    Returns:
        Merges from the lowest to the highest, one per edge of the spanning tree.

    Source:
        Becker & Karplus (1997), disconnectivity graphs; single linkage on the minimax matrix.
    """
    losses = saddles.diagonal().tolist()

    def lowest(group: Sequence[int]) -> tuple[float, int]:
        return min((losses[k], k) for k in group)

    return [
        Merge(height, *sorted((left, right), key=lowest))
        for height, _, _, left, right in joined(saddles)
    ]


def components(joins: Bool[Tensor, "minima minima"]) -> list[tuple[int, ...]]:
    """Group the minima that are joined by a chain of pairs.

    Args:
        joins: Which pairs are joined.

    Returns:
        Groups of numbers, sorted, that of minimum 0 first.
    """
    either = (joins | joins.T).tolist()
    left, groups = list(range(len(either))), []
    while left:
        group = [left.pop(0)]
        for k in group:  # grows while it is read
            near = [other for other in left if either[k][other]]
            left = [other for other in left if other not in near]
            group += near
        groups.append(tuple(sorted(group)))
    return groups


def route(saddles: Float[Tensor, "minima minima"], a: int, b: int) -> tuple[int, ...]:
    """Find the way through the spanning tree, the one with the lowest known saddle.

    Args:
        saddles: Best known saddle of every pair.
        a: Number of the minimum to start from.
        b: Number of the one to end at.

    Returns:
        Numbers of the minima on the way, both ends included; empty if they are not joined.

    Raises:
        ValueError: If no minimum has such a number.
    """
    known_minima(len(saddles), a, b)
    neighbors: dict[int, list[int]] = {k: [] for k in range(len(saddles))}
    for first, second in spanning_tree(saddles):
        neighbors[first].append(second)
        neighbors[second].append(first)
    ways = [(a,)]
    for way in ways:  # grows while it is read
        if way[-1] == b:
            return way
        ways += [(*way, k) for k in neighbors[way[-1]] if k not in way]
    return ()


def known_minima(count: int, a: int, b: int) -> None:
    """Refuse a number that no minimum has."""
    whole = isinstance(a, Integral) and isinstance(b, Integral)
    if not (whole and 0 <= a < count and 0 <= b < count):
        raise ValueError(f"minima have numbers from 0 to {count - 1}; got {a!r} and {b!r}.")


def topographic_distance(saddles: Float[Tensor, "minima minima"], a: int, b: int) -> float:
    r"""How much one climbs and descends on the way through the spanning tree.

    Over the edges of the way, :math:`\sum (S_{uv} - L_u) + (S_{uv} - L_v)`: the discrete form of
    :math:`\int |dL|` along a path that is as low as is known and rises once per edge.

    Args:
        saddles: Best known saddle of every pair.
        a: Number of one minimum.
        b: Number of the other.

    Returns:
        Climbs plus descents, in the unit of the loss; 0 for ``a == b``, infinite if the two are not
        joined.

    Raises:
        ValueError: If no minimum has such a number.

    Source:
        Meyer (1994), topographic distance and watershed lines; its form on the tree is ours.
    """
    way = route(saddles, a, b)
    steps = zip(way[:-1], way[1:], strict=True)
    climbs = [2 * saddles[u, v] - saddles[u, u] - saddles[v, v] for u, v in steps]
    return float(sum(climbs, saddles.new_zeros(()))) if way else float("inf")
