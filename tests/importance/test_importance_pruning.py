"""InfoBatch: an epoch without some easy rows has the whole sum of losses in expectation."""

import pytest
import torch
from rows_as_losses import N, given_loss, images

from lowland.importance.pruning import InfoBatchPruning


def test_pruning_keeps_the_sum_in_expectation():
    """Rows at or above the mean are always there; of m below it, k with weight m / k."""
    sampling = InfoBatchPruning(given_loss, 10**6, 0.7, seed=0)
    losses = torch.rand(N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    easy = losses < losses.mean()
    m = int(easy.sum())
    k = round(0.3 * m)
    counts, runs, sums = torch.zeros(N), 1000, []
    for number in range(runs):
        seen, total = [], 0.0
        for _, target in sampling(images(N, 7)):
            total += float(sampling.loss(losses[target], target)) * len(target)
            seen.append(target)
        seen = torch.cat(seen)
        assert len(seen.unique()) == len(seen)
        if number == 0:  # nothing is known yet
            assert len(seen) == N
            continue
        assert len(seen) == N - m + k
        counts[seen] += 1
        sums.append(total)
        assert total == pytest.approx(
            float(losses[~easy].sum() + losses[seen[easy[seen]]].sum() * m / k)
        )
    assert (counts[~easy] == runs - 1).all()
    share = k / m
    error = 5 * (share * (1 - share) / runs) ** 0.5
    assert ((counts[easy] / (runs - 1) - share).abs() < error).all()
    mean, spread = sum(sums) / len(sums), torch.tensor(sums).std() / len(sums) ** 0.5
    assert mean == pytest.approx(float(losses.sum()), abs=5 * float(spread))


def test_the_last_epochs_are_full():
    sampling = InfoBatchPruning(given_loss, 8, 0.5, anneal=0.5)
    kept = []
    for _ in range(8):
        for inputs, target in sampling(images()):
            sampling.loss(inputs, target)
        kept.append(sampling.kept)
        full = sampling.weights.unique().tolist() == [1.0]
        assert full == (sampling.kept == N)
    assert kept == [N] + [30] * 3 + [N] * 4
