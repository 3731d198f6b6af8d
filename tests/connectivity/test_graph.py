"""Spanning tree, minimax matrix and merges agree with Floyd-Warshall and scipy on random graphs."""

import pytest
import torch
from scipy.cluster.hierarchy import linkage
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import squareform

from lowland.connectivity import merges, minimax, route, spanning_tree, topographic_distance

INF = float("inf")


def random_graph(n, seed, missing=0.0):
    """Symmetric saddles, each above both of its ends."""
    draws = torch.Generator().manual_seed(seed)
    losses = torch.rand(n, dtype=torch.float64, generator=draws)
    above = torch.rand(n, n, dtype=torch.float64, generator=draws).triu(1)
    unknown = torch.rand(n, n, generator=draws).triu(1) > 1 - missing
    saddles = torch.maximum(losses[:, None], losses[None]) + above + above.T
    saddles[unknown | unknown.T] = INF
    saddles.diagonal().copy_(losses)
    return saddles


def floyd_warshall(saddles):
    """The highest edge of the best chain, by trying every stop on the way."""
    found = saddles.clone()
    for stop in range(len(found)):
        found = torch.minimum(found, torch.maximum(found[:, stop, None], found[None, stop]))
    found.diagonal().copy_(saddles.diagonal())
    return found


GRAPHS = pytest.mark.parametrize(
    "saddles",
    [random_graph(10, seed, missing) for seed in range(5) for missing in (0, 0.3, 0.8)],
    ids=lambda _: "graph",
)


@GRAPHS
def test_minimax_is_the_best_chain(saddles):
    assert torch.equal(minimax(saddles), floyd_warshall(saddles))


@GRAPHS
def test_the_tree_is_that_of_scipy(saddles):
    known = torch.where(saddles.isfinite(), saddles, 0).fill_diagonal_(0)
    other = minimum_spanning_tree(known.numpy()).tocoo()
    pairs = {(min(a, b), max(a, b)) for a, b in zip(*other.coords, strict=True)}
    found = spanning_tree(saddles)
    assert set(found) == pairs
    heights = [float(saddles[pair]) for pair in found]
    assert heights == sorted(heights)


@pytest.mark.parametrize("seed", range(5))
def test_single_linkage_has_the_heights_of_the_tree(seed):
    """scipy, on the minimax matrix alone, merges at the saddles of the tree."""
    saddles = random_graph(10, seed)
    apart = minimax(saddles).fill_diagonal_(0)
    rows = linkage(squareform(apart.numpy()), "single")
    found = merges(saddles)
    assert rows[:, 2].tolist() == [merge.height for merge in found]
    assert [len(m.left) + len(m.right) for m in found] == rows[:, 3].tolist()


@GRAPHS
def test_what_merges_is_what_the_water_joins(saddles):
    """Two minima are one group above a height if, and only if, their minimax saddle is below it."""
    bound, losses = minimax(saddles), saddles.diagonal()
    for height, left, right in merges(saddles):
        assert all(bound[a, b] == height for a in left for b in right)
        inside = [*left, *right]
        assert (bound[inside][:, inside].fill_diagonal_(0) <= height).all()
        assert losses[list(left)].min() <= losses[list(right)].min()


@GRAPHS
def test_the_way_through_the_tree(saddles):
    """Its highest edge is the minimax saddle; climbs and descents add up along it."""
    bound, tree = minimax(saddles), set(spanning_tree(saddles))
    for a in range(len(saddles)):
        for b in range(len(saddles)):
            way = route(saddles, a, b)
            if bound[a, b] == INF:
                assert (way, topographic_distance(saddles, a, b)) == ((), INF)
                continue
            assert (way[0], way[-1]) == (a, b)
            steps = list(zip(way[:-1], way[1:], strict=True))
            assert {(min(s), max(s)) for s in steps} <= tree
            assert max([float(saddles[s]) for s in steps], default=bound[a, a]) == bound[a, b]
            heights = [float(saddles[a, a])]
            for u, v in steps:
                heights += [float(saddles[u, v]), float(saddles[v, v])]
            walked = sum(abs(y - x) for x, y in zip(heights[:-1], heights[1:], strict=True))
            assert topographic_distance(saddles, a, b) == pytest.approx(walked, abs=1e-12)


def test_by_hand():
    """Three minima in a row: 0 and 1 merge at 3, then 2 joins at 5, although 0-2 costs 9."""
    saddles = torch.tensor([[1.0, 3, 9], [3, 2, 5], [9, 5, 0]], dtype=torch.float64)
    assert spanning_tree(saddles) == [(0, 1), (1, 2)]
    assert minimax(saddles).tolist() == [[1, 3, 5], [3, 2, 5], [5, 5, 0]]
    assert merges(saddles) == [(3.0, (0,), (1,)), (5.0, (2,), (0, 1))]
    assert route(saddles, 0, 2) == (0, 1, 2)
    assert topographic_distance(saddles, 0, 2) == 2 + 1 + 3 + 5


def test_equal_saddles_go_by_number():
    saddles = torch.ones(4, 4, dtype=torch.float64)
    assert spanning_tree(saddles) == [(0, 1), (0, 2), (0, 3)]


def test_what_is_no_matrix_of_saddles():
    with pytest.raises(ValueError, match=r"square matrix, one row per minimum; got shape \(2, 3\)"):
        minimax(torch.ones(2, 3, dtype=torch.float64))
    for bad in ([[0.0, 1], [2, 0]], [[0.0, float("nan")], [float("nan"), 0]]):
        with pytest.raises(ValueError, match=r"(?s)symmetric and hold no NaN.*Write inf"):
            spanning_tree(torch.tensor(bad, dtype=torch.float64))
