"""Rows drawn by the loss they had last: frequencies and weights are those of the formulas."""

import pytest
import torch
from rows_as_losses import Identity, N, given_loss, images

from lowland.importance.history import HistorySampling, RankSampling, rank_probabilities


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_history_draws_by_the_last_loss_and_undoes_it(alpha):
    """Chance times weight is 1/N draw by draw: no bias. Frequencies within 5 errors of p."""
    sampling = HistorySampling(given_loss, alpha, 1.0, 0.3, seed=0)
    losses = torch.rand(N, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 4
    counts, total, runs = torch.zeros(N, dtype=torch.float64), 0.0, 400
    data = images(N, 50)
    next(sampling(data))
    sampling.losses = losses.clone()
    p = (losses + 0.3) ** alpha / ((losses + 0.3) ** alpha).sum()
    for _ in range(runs):
        sampling.left = 0
        _, target = next(sampling(data))
        torch.testing.assert_close(sampling.weight * p[target] * N, torch.ones(50).double())
        counts += torch.bincount(target, minlength=N)
        total += float(sampling.loss(losses[target], target))
    draws = 50 * runs
    assert ((counts / draws - p).abs() < 5 * (p * (1 - p) / draws) ** 0.5).all()
    spread = (((losses / (N * p)) ** 2 * p).sum() - losses.mean() ** 2).clamp(min=0) ** 0.5
    assert total / runs == pytest.approx(float(losses.mean()), abs=float(5 * spread / draws**0.5))


def test_history_weights_to_a_power():
    first, second = (HistorySampling(given_loss, beta=beta, seed=3) for beta in (1.0, 0.5))
    for sampling in (first, second):
        for inputs, target in sampling(images()):
            sampling.loss(inputs, target)
        next(sampling(images()))
    torch.testing.assert_close(first.weight**0.5, second.weight)
    assert first.weight.unique().numel() > 3


def test_history_counts_the_unknown_with_the_largest_loss():
    sampling = HistorySampling(given_loss, 1.0, offset=0.5)
    inputs, target = next(sampling(images()))
    assert torch.equal(sampling.weight, torch.ones(8).double())  # nothing known: uniform
    sampling.loss(torch.arange(8).double(), target)
    last = dict(zip(target.tolist(), range(8), strict=True))
    largest = max(last.values())
    expected = [last.get(row, largest) + 0.5 for row in range(N)]
    assert sampling.priorities().tolist() == expected


@pytest.mark.parametrize(("count", "pressure"), [(7, 100.0), (40, 10.0), (5, 1.0)])
def test_rank_probabilities_are_the_closed_form(count, pressure):
    """A geometric series: p_k = q^k (1 - q) / (1 - q^N) with q = s_e^(-1/N)."""
    q = pressure ** (-1 / count)
    total = count if q == 1 else (1 - q**count) / (1 - q)
    expected = torch.tensor([q**k / total for k in range(count)], dtype=torch.float64)
    torch.testing.assert_close(rank_probabilities(count, pressure), expected)


def test_rank_draws_follow_the_ranks():
    """Rank 0 is the largest last loss; frequencies within 5 standard errors."""
    sampling = RankSampling(given_loss, 10**9, (50.0, 50.0), seed=0)
    losses = torch.rand(N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    counts, runs, data = torch.zeros(N, dtype=torch.float64), 400, images(N, 50)
    for _ in range(runs):
        _, target = next(sampling(data))
        if sampling.steps > 1:
            counts += torch.bincount(target, minlength=N)
        sampling.losses = losses.clone()
        sampling.left = 0
    draws = 50 * (runs - 1)
    p = torch.empty(N, dtype=torch.float64)
    p[losses.argsort(descending=True)] = rank_probabilities(N, 50.0)
    assert ((counts / draws - p).abs() < 5 * (p * (1 - p) / draws) ** 0.5).all()


def test_pressure_moves_geometrically():
    sampling = RankSampling(given_loss, 4, (100.0, 1.0))
    seen = []
    for _ in range(6):
        seen.append(sampling.pressure_now())
        next(sampling(images(N, 40)))
    assert seen == pytest.approx([100, 100**0.75, 10, 100**0.25, 1, 1])


def test_rank_puts_rows_without_a_loss_first_in_a_random_order():
    sampling = RankSampling(given_loss, 10, seed=0)
    inputs, target = next(sampling(images()))
    order = sampling.order()
    assert torch.equal(order.sort().values, torch.arange(N))
    assert not torch.equal(order, torch.arange(N))
    sampling.loss(inputs, target)
    known = target.unique()
    assert torch.equal(sampling.order()[-len(known) :], known.flip(0))


def test_rank_computes_all_losses_now_and_then():
    """In evaluation mode and without gradient; the first time after ``recompute_every`` steps."""
    model = Identity()
    sampling = RankSampling(given_loss, 100, recompute_every=3, model=model)
    stream = (batch for _ in range(2) for batch in sampling(images(10, 4)))
    for number, _ in zip(range(1, 6), stream, strict=False):
        assert len(model.modes) == (0 if number < 4 else 3)  # 3 batches of 4, 4 and 2 rows
    assert torch.equal(sampling.losses, torch.arange(10).double() / 255)
    assert set(model.modes) == {(False, False)}
    assert model.training
