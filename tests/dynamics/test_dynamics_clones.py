"""Clones: a pure random walk has exponent 1, drift cancels, and curvature stops the noise."""

import json
import warnings
from copy import deepcopy
from math import sqrt

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lowland.data import Batches
from lowland.dynamics.clones import clone_displacement, fork, measure_clones
from lowland.dynamics.langevin_sgd import LangevinSGD
from lowland.errors import NoEffectWarning
from lowland.results import Status
from small_networks import (
    class_batches,
    dropout,
    generators,
    losses,
    mlp,
    norm_mlp,
    same,
    seeded,
    snapshot,
)

SIZE = 1000


class Slope(nn.Module):
    """Loss x w + h w^2 / 2: the gradient is the example, plus a restoring force."""

    def __init__(self, curvature=0.0, start=0.0):
        super().__init__()
        self.h = curvature
        self.w = nn.Parameter(torch.full((SIZE,), start, dtype=torch.float64))

    def forward(self, x):
        return x @ self.w + self.h / 2 * self.w.square().sum()


def linear(output, target):
    return output + 0 * target


def examples(count=3000, drift=0.0, noise=1.0):
    draws = torch.Generator().manual_seed(0)
    x = drift + noise * torch.randn(count, SIZE, dtype=torch.float64, generator=draws)
    return [(x[k : k + 1], torch.zeros(1)) for k in range(count)]


def slope_of(lag, values):
    x, y = lag.double().log(), values.log()
    return ((x - x.mean()) @ y / (x - x.mean()).square().sum()).item()


def clones(model, batches, loss_fn=linear, rate=0.1, momentum=0.0, **options):
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=momentum)
    return measure_clones(model, loss_fn, batches, optimizer=optimizer, **options)


def test_a_random_walk_has_exponent_one():
    """Independent batches, no curvature, even with a drift that the raw displacement shows."""
    lags = (1, 2, 4, 8, 16, 32, 64)
    found = clones(Slope(), examples(drift=0.5), lags=lags, replicas=4)
    assert slope_of(found.lag, found.displacement) == pytest.approx(1.0, abs=0.02)
    expected = 0.1**2 * found.lag.double()
    assert_close(found.displacement, expected, rtol=0.1, atol=0)
    drift = 0.1**2 * (found.lag + 0.25 * found.lag**2).double()
    assert_close(found.raw, drift, rtol=0.1, atol=0)
    assert slope_of(found.lag[-3:], found.raw[-3:]) > 1.6
    assert found.status is Status.FINISHED


def test_curvature_stops_the_noise():
    """2 eta^2 v / (1 - a^2) between two instants, half of it as a variance over replicas."""
    h, eta = 1.0, 0.2
    found = clones(Slope(h, 3.0), examples(), rate=eta, lags=(1, 5, 40), replicas=4)
    a = 1 - eta * h
    expected = eta**2 * (1 - a ** (2 * found.lag)) / (1 - a**2)
    assert_close(found.displacement, expected.double(), rtol=0.1, atol=0)
    assert found.raw[0] == pytest.approx((1 - a) ** 2 * 9 + eta**2, rel=0.1)


def test_no_noise_no_distance():
    """Pure drift: all replicas go the same way, and that is told."""
    with pytest.warns(NoEffectWarning, match="moved alike"):
        found = clones(Slope(), examples(100, drift=0.5, noise=0.0), lags=(1, 10))
    assert found.displacement.tolist() == [0.0, 0.0]
    assert_close(found.raw, torch.tensor([0.0025, 0.25], dtype=torch.float64))


def test_by_the_definition(rng):
    w = torch.randn(5, 40, dtype=torch.float64, generator=rng)
    found = clone_displacement([[row] for row in w])
    assert found == pytest.approx(w.var(0).mean().item(), rel=1e-12)
    two = clone_displacement([[w[0]], [w[1]]])
    assert two == pytest.approx((w[0] - w[1]).square().mean().item() / 2, rel=1e-12)


def test_the_error_of_replicas():
    """Not below the scatter between repetitions; a jackknife of 4 errs to the safe side."""
    batches = [(x[:, :7], y) for x, y in examples(200)]

    class Short(Slope):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(7, dtype=torch.float64))

    found = [clones(Short(), batches, lags=(6,), replicas=4, seed=seed) for seed in range(60)]
    values = torch.stack([each.displacement[0] for each in found])
    told = torch.stack([each.displacement_se[0] for each in found])
    assert 0.9 < told.square().mean().sqrt() / values.std() < 2
    assert values.mean() == pytest.approx(0.06, abs=4 * values.std().item() / sqrt(60))
    assert clones(Short(), batches, lags=(6,)).displacement_se.isnan().all()


def test_one_replica_is_a_run_by_hand():
    """With a list of one batch there is one order: the steps are those of plain training."""
    model = seeded(mlp, 0)
    batches = class_batches(4, sizes=(8,))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        losses(model(batches[0][0]), batches[0][1]).mean().backward()
        optimizer.step()
    before = deepcopy((model, optimizer))
    with pytest.warns(NoEffectWarning):
        found = measure_clones(model, losses, batches, optimizer=optimizer, lags=[4])
    twin, sgd = before
    for _ in range(4):
        sgd.zero_grad()
        losses(twin(batches[0][0]), batches[0][1]).mean().backward()
        sgd.step()
    moved = sum(
        (a - b).square().sum() for a, b in zip(twin.parameters(), model.parameters(), strict=True)
    )
    size = sum(p.numel() for p in model.parameters())
    assert found.raw[0].item() == pytest.approx(moved.item() / size, rel=1e-5)


@pytest.mark.parametrize("make", [norm_mlp, dropout])
@pytest.mark.parametrize("kind", ["list", "loader"])
def test_the_run_is_not_disturbed(make, kind):
    """Model, optimizer, generators and loader stay; the same seed gives the same numbers."""
    model = seeded(make, 0).train()
    batches = class_batches(4, sizes=(8,) * 5)
    if kind == "loader":
        x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
        own = torch.Generator().manual_seed(4)
        batches = DataLoader(TensorDataset(x, y), 8, shuffle=True, generator=own)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    x, y = next(iter(batches))
    losses(model(x), y).mean().backward()
    optimizer.step()
    before, states = snapshot(model), generators()
    buffers = deepcopy(optimizer.state_dict())
    options = {"optimizer": optimizer, "lags": [1, 5, 12], "replicas": 3}
    first = measure_clones(model, losses, batches, **options)
    assert same(snapshot(model), before)
    assert same(generators(), states)
    assert same(optimizer.state_dict(), buffers)
    second = measure_clones(model, losses, batches, **options)
    assert torch.equal(first.displacement, second.displacement)
    assert torch.equal(first.raw, second.raw)
    assert (first.displacement > 0).all()
    other = measure_clones(model, losses, batches, **options, seed=1)
    assert not torch.equal(first.displacement, other.displacement)


def numbered(kind, count=24, size=3):
    """Batches of examples whose targets are their numbers: in a new order by epoch, or a list."""
    images = torch.zeros(count, 1, 2, 2, dtype=torch.uint8)
    own = torch.Generator().manual_seed(4)
    if kind == "by epoch":
        return Batches(images, torch.arange(count), size, seed=5)
    if kind == "loader":
        pairs = TensorDataset(images.float(), torch.arange(count))
        return DataLoader(pairs, size, shuffle=True, generator=own)
    return [(x, y) for x, y in Batches(images, torch.arange(count), size, shuffle=False)]


@pytest.mark.parametrize("kind", ["by epoch", "loader", "list"])
def test_every_replica_has_an_order_of_its_own(kind):
    """Each goes through whole epochs, in another order than the others and than the run itself."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))
    seen = []

    def loss_fn(output, target):
        seen.append(tuple(target.tolist()))
        return output[:, 0].square() + target * output[:, 0]

    def orders(batches, seed):
        """What each of three replicas sees in 18 updates, measured after 10 and after 18."""
        seen.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoEffectWarning)  # images of zeros move nothing
            clones(model, batches, loss_fn, lags=(10, 18), replicas=3, seed=seed)
        assert len(seen) == 3 * 18
        return [seen[10 * r :][:10] + seen[30 + 8 * r :][:8] for r in range(3)]

    batches = numbered(kind)
    found = orders(batches, 0)
    for order in found:
        for epoch in (order[:8], order[8:16]):
            assert sorted(number for batch in epoch for number in batch) == [*range(24)]
    epochs = [tuple(order[k : k + 8]) for order in found for k in (0, 8)]
    assert len({*epochs}) == 6
    assert orders(batches, 0) == found
    if kind == "by epoch":
        assert batches.epoch == 0
        mine = {tuple(tuple(y.tolist()) for _, y in batches.epoch_batches(k)) for k in range(100)}
        assert mine.isdisjoint(epochs)
    else:
        assert orders(batches, 1) != found


def test_divergence():
    found = clones(Slope(3.0, 1.0), examples(60), rate=1e150, lags=(1, 2, 3, 50))
    assert found.diverged_at is not None
    assert found.displacement.isfinite().all()
    assert found.status is Status.NOT_FINITE
    assert len(found.lag) < 4
    record = found.record()
    assert (record["status"], record["lag"]) == ("not_finite", found.lag.tolist())
    json.dumps(record, allow_nan=False)


class Careful(torch.optim.SGD):
    """Refuses weights that are not finite."""

    def step(self, closure=None):
        if not self.param_groups[0]["params"][0].isfinite().all():
            raise FloatingPointError
        return super().step(closure)


def test_an_optimizer_that_refuses():
    model = Slope(3.0, 1.0)
    optimizer = Careful(model.parameters(), 1e150)
    lags = (1, 2, 3, 50)
    found = measure_clones(model, linear, examples(60), optimizer=optimizer, lags=lags)
    assert found.diverged_at is not None


def test_every_replica_has_a_heat_of_its_own():
    """One batch without a slope, so that all that moves is thermal: 2 T eta t."""
    model = Slope()
    optimizer = LangevinSGD(model.parameters(), 0.1, temperature=0.3)
    batches = [(torch.zeros(1, SIZE, dtype=torch.float64), torch.zeros(1))]
    options = {"optimizer": optimizer, "lags": (1, 20), "replicas": 4}
    found = measure_clones(model, linear, batches, **options)
    expected = 2 * 0.3 * 0.1 * found.lag.double()
    assert_close(found.displacement, expected, rtol=0.13, atol=0)
    again = measure_clones(model, linear, batches, **options)
    other = measure_clones(model, linear, batches, **options, seed=1)
    assert torch.equal(found.displacement, again.displacement)
    assert not torch.equal(found.displacement, other.displacement)
    assert optimizer.generators == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"replicas": 1}, "replicas must be a whole number, at least 2; got 1"),
        ({"lags": [-1]}, "lags must be whole"),
        ({"lags": []}, "lags must be whole"),
        ({"batches": []}, "at least one batch"),
        ({"batches": iter([])}, "iterable more than once; got a list_iterator"),
        ({"loss_fn": lambda output, target: output.mean()}, "one loss per example"),
    ],
)
def test_bad_input(options, words):
    given = {"batches": examples(5), "loss_fn": linear, "lags": [1], "replicas": 2} | options
    with pytest.raises(ValueError, match=words):
        clones(Slope(), given.pop("batches"), given.pop("loss_fn"), **given)


def test_bad_forks():
    with pytest.raises(ValueError, match="it holds none of them"):
        fork(mlp(), torch.optim.SGD(mlp().parameters(), 0.1), 2)
    with pytest.raises(ValueError, match="at least 2 replicas of one size; got 2 of sizes"):
        clone_displacement([[torch.zeros(3)], [torch.zeros(4)]])
