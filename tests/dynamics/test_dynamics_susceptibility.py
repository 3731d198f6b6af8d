"""Overlaps of independent weights fluctuate as the normal distribution says."""

import pytest
import torch
from torch import float64
from torch.testing import assert_close

from lowland.dynamics.susceptibility import dynamic_susceptibility, stay_fraction


def test_by_hand():
    """M times the unbiased variance; the jackknife of three numbers by hand."""
    overlaps = torch.tensor([[1.0, 2.0], [1.0, 4.0], [1.0, 6.0]], dtype=float64)
    chi, error = dynamic_susceptibility(overlaps, 10)
    assert chi.tolist() == [0, 40]
    # left out in turn: variances of (4, 6), (2, 6), (2, 4) are 2, 8, 2
    expected = 10 * (2 / 3 * torch.tensor([2.0, 8.0, 2.0]).sub(4).square().sum()).sqrt()
    assert_close(error, torch.tensor([0.0, expected], dtype=float64))


@pytest.mark.parametrize("cosine", [0.0, 0.6, 1.0])
def test_independent_weights(cosine, rng):
    """With w' = c w + sqrt(1 - c^2) xi it is M Var Q = 1 + c^2."""
    seeds, params = 400, 300
    w, xi = torch.randn(2, seeds, params, dtype=float64, generator=rng)
    overlap = (w * (cosine * w + (1 - cosine**2) ** 0.5 * xi)).mean(1)
    chi, error = dynamic_susceptibility(overlap, params)
    assert chi.item() == pytest.approx(1 + cosine**2, abs=4 * error.item())
    # a variance of n normal numbers has relative error sqrt(2 / n)
    assert error.item() == pytest.approx(chi.item() * (2 / seeds) ** 0.5, rel=0.3)


def test_weights_that_move_together(rng):
    """In groups of g that share a fate the susceptibility is g times as large."""
    seeds, groups, together = 400, 50, 8
    moved = torch.rand(seeds, groups, generator=rng).round().repeat_interleave(together, 1)
    stayed = torch.stack([stay_fraction(0 * row, row, 0.5) for row in moved])
    chi, error = dynamic_susceptibility(stayed, groups * together)
    assert chi.item() == pytest.approx(together / 4, abs=4 * error.item())


def test_the_share_that_stays(rng):
    """Of a free walk: erf(a / sqrt(2 sigma^2 t)), which falls as t^(-1/2)."""
    start = torch.zeros(40_000, dtype=float64)
    times = torch.tensor([1.0, 10.0, 100.0], dtype=float64)
    end = times.sqrt()[:, None] * torch.randn(3, 40_000, dtype=float64, generator=rng)
    expected = torch.erf(0.3 / (2 * times).sqrt())
    assert_close(stay_fraction(start, end, 0.3), expected, rtol=0, atol=4 * 0.5 / 200)


def test_bad_input():
    with pytest.raises(ValueError, match="at least 2 seeds; got 1"):
        dynamic_susceptibility(torch.ones(1, 4), 10)
    assert dynamic_susceptibility(torch.ones(2, 4), 10)[1].isnan().all()
    with pytest.raises(ValueError, match="params must be at least 1; got 0"):
        dynamic_susceptibility(torch.ones(3, 4), 0)
    with pytest.raises(ValueError, match="overlaps must be finite"):
        dynamic_susceptibility(torch.full((3, 4), torch.nan), 10)
    with pytest.raises(ValueError, match="width must be positive; got 0"):
        stay_fraction(torch.ones(2), torch.ones(2), 0.0)
