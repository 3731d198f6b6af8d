"""Methods that read pools: uniform and larger batches, random subsets, selective backprop."""

import pytest
import torch
from rows_as_losses import Identity, N, given_loss, rows

from lowland.importance.baselines import RandomSubset, UniformSampling
from lowland.importance.selective import SelectiveBackprop


@pytest.mark.parametrize("multiple", [1, 2, 3])
def test_a_larger_batch_is_its_parts_joined(multiple):
    """Also in mappings, and the loss of one is bit by bit the plain mean."""
    parts = [({"a": x, "b": y[:, None]}, y) for x, y in rows()]
    sampling = UniformSampling(given_loss, multiple)
    found = list(sampling(parts))
    assert [len(y) for _, y in found] == [
        sum(len(y) for _, y in parts[i : i + multiple]) for i in range(0, len(parts), multiple)
    ]
    for number, (inputs, target) in enumerate(found):
        own = parts[number * multiple : (number + 1) * multiple]
        assert torch.equal(target, torch.cat([y for _, y in own]))
        assert torch.equal(inputs["a"], torch.cat([x["a"] for x, _ in own]))
        assert torch.equal(inputs["b"][:, 0], target)
    losses = torch.randn(len(target), generator=torch.Generator().manual_seed(0))
    assert torch.equal(sampling.loss(losses, target), losses.mean())
    assert sampling.summary() == f"{len(found)} uniform steps; {N} rows read"


def test_a_random_subset_is_uniform():
    """Every row of a pool is drawn in b / B of the runs, without repetition; 5 standard errors."""
    counts, runs = torch.zeros(12), 2000
    sampling = RandomSubset(given_loss, 3.0, seed=0)
    for _ in range(runs):
        (_, target), *rest = sampling(rows(12, 4))
        assert not rest
        assert len(target.unique()) == 4
        counts[target] += 1
    share = 1 / 3
    assert ((counts / runs - share).abs() < 5 * (share * (1 - share) / runs) ** 0.5).all()


@pytest.mark.parametrize(
    ("presample", "sizes", "pools"),
    [(2.0, [8, 8, 8], [16, 16, 8]), (3.0, [8, 8], [24, 16]), (2.3, [8, 8, 4], [18, 18, 4])],
)
def test_pools_of_a_subset_go_through_the_data_once(presample, sizes, pools):
    """Consecutive rows, B = r b rounded; a last pool that is not larger is used whole."""
    sampling, start = RandomSubset(given_loss, presample), 0
    for (_, target), size, pool in zip(sampling(rows()), sizes, pools, strict=True):
        assert len(target) == size
        assert target.min() >= start
        assert target.max() < start + pool
        start += pool
    assert sampling.rows_read == start == N
    assert sampling.held is None


def test_nothing_comes_from_nothing():
    for sampling in (RandomSubset(given_loss), SelectiveBackprop(Identity(), given_loss)):
        assert list(sampling([])) == []


def test_chances_are_the_distribution_function_to_a_power():
    """With 10 known losses and these 5, ranks by hand: k / n, ties in the middle."""
    sampling = SelectiveBackprop(Identity(), given_loss, 3.0, history=15, seed=0)
    sampling.losses = torch.arange(10, dtype=torch.float64)  # 0..9
    losses = torch.tensor([-1.0, 4.0, 4.5, 9.0, 20.0], dtype=torch.float64)
    # among -1 0 1 2 3 4 4 4.5 5 6 7 8 9 9 20: places 1, 6-7, 8, 13-14, 15 of 15
    expected = (torch.tensor([1, 6.5, 8, 13.5, 15]) / 15) ** 2
    state, runs = sampling.losses.clone(), 4000
    counts = torch.zeros(5)
    for _ in range(runs):
        sampling.losses = state.clone()
        counts[sampling.keep(losses)] += 1
    error = 5 * (expected * (1 - expected) / runs) ** 0.5
    assert ((counts / runs - expected).abs() <= error).all()
    assert torch.equal(sampling.losses, torch.cat([state, losses]))
    sampling.keep(losses[:3])
    assert torch.equal(sampling.losses, torch.cat([state, losses, losses[:3]])[-15:])


def test_selective_keeps_one_in_presample_and_all_batches_are_full():
    """E[F^beta] = 1 / (1 + beta); 300 draws of a row with chance near 1 / 3, five errors."""
    model = Identity().train()
    sampling = SelectiveBackprop(model, given_loss, 3.0, seed=0)
    data = [(x.flip(0) + 0.01, y) for x, y in rows(3000, 20)]
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    batches = list(sampling([data[i] for i in order.tolist()]))
    assert all(len(target) == 20 for _, target in batches[:-1])
    total = sum(len(target) for _, target in batches)
    assert sampling.rows_read == 3000
    assert total / 3000 == pytest.approx(1 / 3, abs=5 * (2 / 9 / 3000) ** 0.5)
    targets = torch.cat([target for _, target in batches])
    assert len(targets.unique()) == len(targets)
    assert targets.double().mean() > 1600  # large losses are preferred
    assert set(model.modes) == {(False, False)}  # scored in evaluation mode, without gradient
    assert model.training


def test_selective_gives_at_least_one_batch():
    """Here nothing is kept, as all losses are below those of the history."""
    sampling = SelectiveBackprop(Identity(), given_loss, 60.0, history=10_000)
    sampling.losses = torch.full((10_000,), 1e6, dtype=torch.float64)
    ((_, target),) = sampling(rows(10, 5))
    assert target.tolist() == [5, 6, 7, 8, 9]


def test_mappings_with_labels_are_batches_too():
    """By keyword to the model, rows chosen in every entry; the same rows as of pairs."""

    class Named(Identity):
        def forward(self, x):
            return super().forward(x)

    data = rows(400, 20)
    plain = SelectiveBackprop(Identity(), given_loss, seed=1)
    named = SelectiveBackprop(Named(), given_loss, seed=1)
    mappings = [{"x": x, "labels": y} for x, y in data]
    for (x, y), batch in zip(plain(data), named(mappings), strict=True):
        assert torch.equal(batch["x"], x)
        assert torch.equal(batch["labels"], y)
