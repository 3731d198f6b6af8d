"""Where pivots are put in: residuals by a loop, weights that keep the density."""

import pytest
import torch
from torch import float64
from torch.testing import assert_close

from lowland.connectivity import (
    insert_equal,
    insert_highest,
    insertion_residuals,
    points_between,
    redistribute,
    segment_lengths,
)


def zigzag(pivots, params=3, seed=0):
    draws = torch.Generator().manual_seed(seed)
    path = torch.randn(pivots, params, dtype=float64, generator=draws)
    weights = torch.rand(pivots - 1, dtype=float64, generator=draws) + 0.1
    return path, weights / weights.sum()


@pytest.mark.parametrize("samples", [1, 2, 9])
def test_residuals_by_a_loop(samples, rng):
    """Eq. E8 point by point; extremes over pivots only, though a sample is the highest of all."""
    losses = torch.rand(4 * (samples + 1) + 1, dtype=float64, generator=rng)
    losses[1] = 5.0
    at_pivots = [float(losses[i * (samples + 1)]) for i in range(5)]
    extent = max(at_pivots) - min(at_pivots)
    found = insertion_residuals(losses, samples)
    assert found.shape == (4, samples)
    for i in range(4):
        for j in range(1, samples + 1):
            alpha = j / (samples + 1)
            line = (1 - alpha) * at_pivots[i] + alpha * at_pivots[i + 1]
            expected = (float(losses[i * (samples + 1) + j]) - line) / extent
            assert float(found[i, j - 1]) == pytest.approx(expected, abs=1e-12)


def test_residuals_of_a_straight_and_of_a_flat_profile():
    """A straight profile has none; pivots of one height give zeros, not NaN."""
    assert_close(insertion_residuals(torch.linspace(0, 1, 9), 3), torch.zeros(2, 3))
    bump = torch.tensor([1.0, 3.0, 1.0, 1.0, 1.0])
    assert insertion_residuals(bump, 1).tolist() == [[0.0], [0.0]]
    assert insertion_residuals(torch.ones(3), 0).shape == (2, 0)


def test_residuals_have_no_unit():
    """A loss times 7 plus 3 has the same residuals."""
    losses = torch.tensor([0.0, 0.9, 1.0, 0.2, 0.5], dtype=float64)
    assert_close(insertion_residuals(7 * losses + 3, 1), insertion_residuals(losses, 1))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_equal_insertion(count):
    """Even points of every segment; old pivots bit for bit; shares split evenly."""
    path, weights = zigzag(4)
    longer, shares = insert_equal(path, weights, count)
    assert len(longer) == 4 + 3 * count
    assert torch.equal(longer[:: count + 1], path)
    assert_close(longer, points_between(path, count))
    for i in range(3):
        part = shares[i * (count + 1) : (i + 1) * (count + 1)]
        assert_close(part, torch.full_like(part, float(weights[i]) / (count + 1)))
    assert float(shares.sum()) == pytest.approx(1)


def test_highest_insertion():
    """The best sample of each segment, the best segments first, no more than asked for."""
    path, weights = zigzag(5)
    residuals = torch.tensor([[0.1, 0.3, 0.0], [0.9, 0.8, 0.7], [0.2, 0.1, 0.0], [0.0, 0.1, 0.5]])
    longer, shares, chosen = insert_highest(path, weights, residuals, count=2, threshold=0.2)
    assert [(new.segment, new.alpha) for new in chosen] == [(1, 0.25), (3, 0.75)]
    assert [new.residual for new in chosen] == pytest.approx([0.9, 0.5])
    expected = [
        path[0], path[1], 0.75 * path[1] + 0.25 * path[2], path[2], path[3],
        0.25 * path[3] + 0.75 * path[4], path[4],
    ]  # fmt: skip
    assert_close(longer, torch.stack(expected))
    w = weights.tolist()
    split = [w[0], 0.25 * w[1], 0.75 * w[1], w[2], 0.75 * w[3], 0.25 * w[3]]
    assert_close(shares, torch.tensor(split, dtype=float64))
    old = [0, 1, 3, 4, 6]
    assert torch.equal(longer[old], path)


def test_at_most_one_per_segment():
    path, weights = zigzag(3)
    residuals = torch.tensor([[0.9, 0.8], [0.1, 0.0]])
    _, _, chosen = insert_highest(path, weights, residuals, count=5, threshold=0.0)
    assert [(new.segment, new.alpha) for new in chosen] == [(0, 1 / 3), (1, 1 / 3)]


@pytest.mark.parametrize(("threshold", "number"), [(0.0, 2), (0.25, 1), (0.5, 0), (0.6, 0)])
def test_only_above_the_threshold(threshold, number):
    """Strictly above: a bump of exactly the threshold gets none, nor does one of nothing."""
    path, weights = zigzag(4)
    residuals = torch.tensor([[0.25], [0.5], [0.0]])
    longer, shares, chosen = insert_highest(path, weights, residuals, count=3, threshold=threshold)
    assert len(chosen) == number
    assert len(longer) == len(shares) + 1 == 4 + number
    if not number:
        assert torch.equal(longer, path)
        assert_close(shares, weights)


def test_nothing_to_insert():
    path, weights = zigzag(3)
    for residuals, count in ((torch.ones(2, 0), 2), (torch.ones(2, 3), 0)):
        same, shares, chosen = insert_highest(path, weights, residuals, count=count, threshold=0.0)
        assert (same is path, shares is weights, chosen) == (True, True, ())


def test_a_residual_that_is_not_a_number_gets_no_pivot():
    path, weights = zigzag(3)
    residuals = torch.tensor([[torch.nan], [0.3]])
    assert [
        new.segment for new in insert_highest(path, weights, residuals, count=2, threshold=0.0)[2]
    ] == [1]


def test_density_stays_after_redistribution():
    """New weights put the pivots where they were inserted, in units of the length."""
    path, weights = zigzag(4)
    path = redistribute(path, weights)
    residuals = torch.tensor([[0.1], [0.9], [0.2]])
    longer, shares, _ = insert_highest(path, weights, residuals, count=1, threshold=0.0)
    line = torch.stack([path[0], path[-1]])
    spread = segment_lengths(redistribute(line, shares))
    assert_close(spread / spread.sum(), shares)
    split = torch.tensor([1, 0.5, 0.5, 1], dtype=float64)
    assert_close(shares, split * weights[[0, 1, 1, 2]])
    assert len(longer) == 5


def test_bad_numbers():
    path, weights = zigzag(3)
    with pytest.raises(ValueError, match="count must be a whole number, at least 0; got -1"):
        insert_equal(path, weights, -1)
    residuals = torch.ones(2, 1)
    with pytest.raises(ValueError, match="count must be a whole number, at least 0; got -1"):
        insert_highest(path, weights, residuals, count=-1, threshold=0.2)
    with pytest.raises(ValueError, match="threshold must be zero or more; got -0.1"):
        insert_highest(path, weights, residuals, count=1, threshold=-0.1)
