"""Labels of axes: the small algebra of products and blocks, worked out by hand."""

from itertools import permutations, product

import pytest
import torch

from lowland.connectivity.axes import Axes
from lowland.connectivity.matching import Pairs, assign
from lowland.connectivity.permutations import index_of
from lowland.connectivity.segments import stretches_of


def sizes(axes, label):
    """Sizes of the factors of every stretch."""
    return [[size for _, size in segment] for segment in stretches_of(axes, label)]


def test_products_of_other_factors_are_refined():
    """2 x 6 and 4 x 3 are both 2 x 2 x 3."""
    axes = Axes()
    label = axes.new(12)
    axes.factor(label, [2, 6])
    axes.factor(label, [4, 3])
    assert sizes(axes, label) == [[2, 2, 3]]


def test_products_that_do_not_fit_are_frozen():
    """3 x 4 and 4 x 3 have no common refinement."""
    axes = Axes()
    label = axes.new(12)
    axes.factor(label, [3, 4])
    axes.factor(label, [4, 3])
    assert all(found is None for segment in stretches_of(axes, label) for found, _ in segment)
    assert "do not fit" in axes.why(label)


def test_blocks_are_cut_and_tied():
    """The last 3 of one cut are the last 3 of the other."""
    axes = Axes()
    label = axes.new(6)
    first, second = axes.split(label, [2, 4])
    *_, last = axes.split(label, [3, 3])
    assert sizes(axes, label) == [[2], [1], [3]]
    assert axes.split(second, [1, 3])[1] == axes.find(last)
    axes.freeze([first], "a reason")
    assert [segment[0][0] is None for segment in stretches_of(axes, label)] == [True, True, False]


def test_a_product_is_cut_between_its_blocks():
    """3 heads of 4 channels: after one head, the inner label is still one."""
    axes = Axes()
    label = axes.new(12)
    _, channels = axes.factor(label, [3, 4])
    one, rest = axes.split(label, [4, 8])
    assert sizes(axes, label) == [[4], [2, 4]]
    assert axes.find(one) == axes.find(channels)
    axes.split(rest, [3, 5])
    assert "middle of a block" in axes.why(rest)


def test_the_index_of_nested_permutations():
    """Two heads of three channels change places, and the channels inside of each."""
    segments = (((1, 2), (2, 3)), ((None, 2),))
    tables = {1: torch.tensor([1, 0]), 2: torch.tensor([[2, 0, 1], [0, 2, 1]])}
    assert index_of(segments, tables, {2: 1}).tolist() == [5, 3, 4, 0, 2, 1, 6, 7]


@pytest.mark.parametrize("seed", range(3))
def test_blocks_are_matched_by_their_best_inside(seed):
    """Against all 2! 3! 3! ways to permute two blocks of three units."""
    draws = torch.Generator().manual_seed(seed)
    whole = torch.rand(2, 2, generator=draws, dtype=torch.float64)
    inside = torch.rand(2, 3, 2, 3, generator=draws, dtype=torch.float64)

    def value(outer, inner):
        return sum(
            whole[h, outer[h]] + sum(inside[h, d, outer[h], inner[h][d]] for d in range(3))
            for h in range(2)
        )

    orders = [*permutations(range(3))]
    every = product(permutations(range(2)), product(orders, orders))
    best = max(float(value(*choice)) for choice in every)
    outer, inner = assign(Pairs(whole, {7: inside}))
    assert float(value(outer.tolist(), inner[7].tolist())) == pytest.approx(best, abs=1e-12)
