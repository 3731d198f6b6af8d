"""Gradient noise against populations whose covariance is known, and the walk that it makes."""

from math import sqrt

import pytest
import torch
import two_noises
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

from forked import run_ranks
from lowland.dynamics.free_walk import free_displacement, momentum_factor
from lowland.dynamics.noise import GradientNoise, gradient_noise
from lowland.dynamics.recorder import TwoTimeRecorder
from lowland.dynamics.scatter import Scatter
from lowland.errors import UnsupportedModelError
from lowland.results import plain, read_json
from small_networks import (
    Tied,
    class_batches,
    conv_net,
    dropout,
    generators,
    losses,
    mlp,
    norm_mlp,
    same,
    seeded,
    snapshot,
)

P = 60


class Point(nn.Module):
    """A weight whose gradient on an example is the example itself."""

    def __init__(self, size=3):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, x):
        return x @ self.w


def linear(output, target):
    return output + 0 * target


@pytest.fixture
def population(rng):
    """Gradients of P examples, with a mean, in batches; and D_1 and G^2 of the population."""
    x = torch.randn(P, 3, dtype=torch.float64, generator=rng) + torch.tensor([1.0, 0.5, 0.0])
    batches = [(part, torch.zeros(len(part))) for part in x.split(13)]
    return batches, x.var(0, correction=0).sum().item(), x.mean(0).square().sum().item()


WAYS = {"plain": {}, "pair": {"pair": True}, "per_sample": {"per_sample": True}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sampling", ["iid", "epoch"])
def test_no_bias(population, sampling, way):
    """Means over many draws are D and G^2, and the spread of the draws is the error they tell."""
    batches, d_1, g_2 = population
    size, seeds = 6, 60 if way == "per_sample" else 150
    found = [
        gradient_noise(
            Point(), linear, batches, batch_size=size, n_batches=8, sampling=sampling, seed=seed,
            **WAYS[way],
        )
        for seed in range(seeds)
    ]  # fmt: skip
    traces = torch.tensor([noise.trace for noise in found])
    squares = torch.tensor([noise.mean_square for noise in found])
    expected = d_1 / size * ((P - size) / (P - 1) if sampling == "epoch" else 1.0)
    assert abs(traces.mean() - expected) < 4 * traces.std() / sqrt(seeds)
    assert abs(squares.mean() - g_2) < 4 * squares.std() / sqrt(seeds)
    assert traces.std() / sqrt(seeds) < 0.1 * expected
    told = torch.tensor([noise.trace_se for noise in found])
    if sampling == "iid":
        assert told.square().mean().sqrt() == pytest.approx(traces.std().item(), rel=0.35)
        told = torch.tensor([noise.mean_square_se for noise in found])
        assert told.square().mean().sqrt() == pytest.approx(squares.std().item(), rel=0.35)


def test_a_whole_epoch_is_exact(population):
    """With all P examples there is no doubt about the mean gradient."""
    batches, _, g_2 = population
    for way in WAYS.values():
        if "pair" not in way:
            noise = gradient_noise(
                Point(), linear, batches, batch_size=6, n_batches=10, sampling="epoch", **way
            )
            assert noise.mean_square == pytest.approx(g_2, rel=1e-12)
            assert noise.count == (60 if way else 10)


def test_batches_as_they_come(rng):
    """D by its definition; a ragged batch is left out."""
    x = torch.randn(44, 3, dtype=torch.float64, generator=rng)
    batches = [(part, torch.zeros(len(part))) for part in x.split(8)]
    noise = gradient_noise(Point(), linear, batches)
    g = torch.stack([part.mean(0) for part, _ in batches[:5]])
    assert noise.trace == pytest.approx(g.var(0).sum().item(), rel=1e-12)
    expected = g.mean(0).square().sum().item() - noise.trace / 5
    assert noise.mean_square == pytest.approx(expected, rel=1e-12)
    left = [torch.cat([g[:k], g[k + 1 :]]).var(0).sum() for k in range(5)]
    jackknife = sqrt(4 / 5 * torch.stack(left).var(correction=0) * 5)
    assert noise.trace_se == pytest.approx(jackknife, rel=1e-9)
    assert (noise.count, noise.batch_size, noise.sampling) == (5, 8, "given")


@pytest.mark.parametrize("make", [mlp, conv_net, Tied, norm_mlp])
def test_examples_and_batches_agree(make):
    """per_sample is the same estimate from the same draws, up to how they are grouped."""
    model = seeded(make, 0).double()
    shape = (1, 4, 4) if make is conv_net else (4,)
    batches = class_batches(*shape, sizes=(40, 40), dtype=torch.float64)
    ones = gradient_noise(model, losses, batches, batch_size=1, n_batches=80)
    fast = gradient_noise(model, losses, batches, batch_size=1, n_batches=80, per_sample=True)
    for name in ("trace", "trace_se", "mean_square", "mean_square_se", "loss", "loss_variance"):
        assert getattr(fast, name) == pytest.approx(getattr(ones, name), rel=1e-9)
    assert ones.params == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_groups_when_gradients_are_large(population, monkeypatch):
    """The estimate is the same, its error is coarser."""
    batches, _, _ = population
    fine = gradient_noise(Point(), linear, batches, batch_size=4, n_batches=200)
    monkeypatch.setattr("lowland.dynamics.scatter.MAX_BYTES", 8 * 3 * 20)
    coarse = gradient_noise(Point(), linear, batches, batch_size=4, n_batches=200)
    assert coarse.trace == pytest.approx(fine.trace, rel=1e-12)
    assert coarse.mean_square == pytest.approx(fine.mean_square, rel=1e-12)
    assert coarse.trace_se == pytest.approx(fine.trace_se, rel=0.6)


def test_losses_of_batches(population):
    batches, _, _ = population
    model = Point()
    with torch.no_grad():
        model.w += 1
    noise = gradient_noise(model, linear, batches, n_batches=4)
    means = torch.stack([x.sum(1).mean() for x, _ in batches[:4]])
    assert noise.loss == pytest.approx(means.mean().item())
    assert noise.loss_variance == pytest.approx(means.var().item())


WHERE = [{}, {"batch_size": 4}, {"pair": True}, {"batch_norm": "train"}, {"per_sample": True}]


@pytest.mark.parametrize("options", WHERE)
@pytest.mark.parametrize("make", [norm_mlp, dropout])
def test_nothing_is_disturbed(make, options):
    """Between backward and step: gradients, buffers, modes and generators stay."""
    torch.manual_seed(0)
    model = make().train()
    batches = class_batches(4, sizes=(8,) * 5)
    losses(model(batches[0][0]), batches[0][1]).mean().backward()
    model[0].eval()
    before, states = snapshot(model), generators()
    first = gradient_noise(model, losses, batches, **options)
    assert same(snapshot(model), before)
    assert same(generators(), states)
    assert first == gradient_noise(model, losses, batches, **options)


def test_batch_norm_is_explicit():
    model = seeded(norm_mlp, 0).double()
    batches = class_batches(4, sizes=(8,) * 5, dtype=torch.float64)
    modes = [gradient_noise(model, losses, batches, batch_norm=m) for m in ("eval", "train")]
    model.train()
    grads = []
    for x, y in batches:
        parts = torch.autograd.grad(losses(model(x), y).mean(), [*model.parameters()])
        grads.append(torch.cat([part.reshape(-1) for part in parts]))
    expected = torch.stack(grads).var(0).sum().item()
    assert modes[1].trace == pytest.approx(expected, rel=1e-9)
    assert modes[0].trace != pytest.approx(expected, rel=1e-2)


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path):
    run_ranks(two_noises.one_process, tmp_path)
    for name, options in two_noises.OPTIONS.items():
        first, second = (read_json(tmp_path / f"{name}-{rank}.json") for rank in (0, 1))
        assert first == second
        alone = plain(two_noises.measure(**options))
        assert first.pop("sampling") == alone.pop("sampling")
        assert first == pytest.approx(alone, rel=1e-9)


def test_momentum_factor_by_its_sum():
    """The numbers of the specification, and the sum itself."""
    found = momentum_factor(0.5, torch.tensor([1, 2, 10, 100]))
    assert_close(
        found, torch.tensor([4 / 3, 4, 34.671875, 394.6667], dtype=torch.float64), rtol=1e-4, atol=0
    )
    for mu in (0.0, 0.3, 0.9, 0.99):
        for t in (0, 1, 2, 7, 50):
            total = t + 2 * sum((t - k) * mu**k for k in range(1, t))
            assert momentum_factor(mu, t).item() == pytest.approx(total / (1 - mu**2), rel=1e-9)
        assert momentum_factor(mu, 1e6) / 1e6 == pytest.approx(1 / (1 - mu) ** 2, rel=1e-3)


def test_heavy_ball_noise(rng):
    """M Delta = eta^2 D S_mu(t), with the recorder, from a stationary velocity."""
    size, mu, eta, sigma = 60_000, 0.5, 0.1, 0.3
    w = torch.zeros(size, dtype=torch.float64)
    velocity = torch.zeros_like(w)
    recorder = TwoTimeRecorder([w], waits=[0, 40, 60], lags=[0, 1, 2, 10, 30])
    for n in range(95):
        recorder.record(n)
        velocity.mul_(mu).add_(torch.randn(size, dtype=w.dtype, generator=rng), alpha=sigma)
        w.sub_(velocity, alpha=eta)
    result = recorder.result()
    trace = sigma**2 * size
    expected = free_displacement(result.lag, trace, size, learning_rate=eta, momentum=mu)
    late = result.waiting_time > 0  # the velocity was 0 at the beginning
    assert_close(result.displacement[late], expected[late], rtol=5 * sqrt(2 / size), atol=0)


def test_ballistic_part():
    """A constant gradient alone: the distance is eta t |g| / (1 - mu)."""
    found = free_displacement(7.0, 0.0, 5, learning_rate=0.1, momentum=0.5, mean_square=4.0).item()
    assert found == pytest.approx((0.1 * 7 * 2 / 0.5) ** 2 / 5)


def test_published_run():
    """M Delta / (eta^2 D t) of the authors' file, from its Delta and D: eta = 0.01, M = 56,890.

    Delta at t = 10 is interpolated there. At n = 0 one step is eta^2 (G^2 + D); that D is biased.
    """
    delta = [2.85, 3.99, 3.61, 14.4, 11.9, 21.1, 17.1, 22.3, 20.4]
    noise = [0.155, 0.152, 0.177, 0.863, 2.98, 6.09, 6.95, 8.62, 8.46]
    shown = [10.4, 15.3, 12.0, 9.7, 2.20, 1.96, 1.33, 1.46, 1.42]
    for d, n, ratio in zip(delta, noise, shown, strict=True):
        free = free_displacement(10, n, 56_890, learning_rate=0.01).item()
        assert 1e-8 * d / free == pytest.approx(ratio, rel=0.06)
    one = free_displacement(1, 0.1561, 1, learning_rate=1.0, mean_square=0.0460).item()
    assert one == pytest.approx(0.1961, rel=0.04)


def scalar_loss(output, target):
    return losses(output, target).mean()


def not_finite(output, target):
    return losses(output, target) * torch.inf


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_batches": 1}, "n_batches must be a whole number, at least 2"),
        ({"n_batches": 3, "pair": True}, "n_batches must be a whole number, at least 4"),
        ({"batches": (b for b in class_batches(4))}, "iterable more than once; got a generator"),
        ({"batch_size": 25}, "between 1 and the number of examples, 24; got 25"),
        ({"batch_size": 0}, "between 1 and the number of examples, 24; got 0"),
        ({"batch_size": 20, "sampling": "epoch"}, "at least 2 batches; 24 examples make 1 of 20"),
        ({"sampling": "shuffle"}, "sampling must be one of"),
        ({"batch_norm": "batch"}, "batch_norm one of"),
        ({"pair": True, "per_sample": True}, "goes with neither"),
        ({"loss_fn": scalar_loss}, "one loss per example"),
        ({"loss_fn": not_finite}, "gradients and losses must be finite"),
        ({"batches": []}, "at least 2 batches of one size; got 0"),
        ({"batches": [], "batch_size": 2}, "at least one example; got none"),
        ({"batches": [(torch.zeros(4, 4), torch.zeros(4).long())]}, "got 1. Pass batch_size"),
        ({"model": mlp().requires_grad_(False)}, "requires a gradient"),
    ],
)
def test_bad_input(options, words):
    given = {"model": mlp(), "loss_fn": losses, "batches": class_batches(4)} | options
    with pytest.raises(ValueError, match=words):
        gradient_noise(given.pop("model"), given.pop("loss_fn"), given.pop("batches"), **given)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: momentum_factor(1.0, 3), "momentum must be"),
        (lambda: momentum_factor(-0.1, 3), "momentum must be"),
        (lambda: momentum_factor(0.5, -3), "lags must be"),
        (lambda: free_displacement(1, 1.0, 3, learning_rate=0.0), "must be positive"),
    ],
)
def test_bad_walks(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.untyped
def test_a_number_of_batches_is_whole():
    with pytest.raises(ValueError, match="n_batches must be a whole number, at least 2.*got 2.5"):
        gradient_noise(mlp(), losses, class_batches(4), n_batches=2.5)


class Attention(nn.Module):
    """Causal attention over five places, fused where torch can."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(3, 12), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.into(x).chunk(3, dim=-1)
        return self.out(scaled_dot_product_attention(q, k, v, is_causal=True)).mean(1)


def test_examples_of_attention():
    """Its fused kernel has no batching rule, of which torch would warn; the numbers agree."""
    model = seeded(Attention, 0)
    batches = class_batches(5, 3, sizes=(24,))
    ones = gradient_noise(model, losses, batches, batch_size=1, n_batches=24)
    fast = gradient_noise(model, losses, batches, batch_size=1, n_batches=24, per_sample=True)
    assert fast.trace == pytest.approx(ones.trace, rel=1e-5)


class Packed(nn.Module):
    """Reads the lengths of its sequences as plain numbers, which vmap does not know."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, sequences, lengths):
        packed = pack_padded_sequence(sequences, lengths, batch_first=True, enforce_sorted=False)
        return self.out(self.rnn(packed)[1][0][-1])


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_examples_that_vmap_cannot_take(rng):
    """The sentence says what goes on, and that does."""
    model = seeded(Packed, 0)
    sequences, lengths = torch.randn(24, 5, 3, generator=rng), torch.arange(24) % 5 + 1
    batches = [({"sequences": sequences, "lengths": lengths}, lengths % 3)]
    assert gradient_noise(model, losses, batches, batch_size=4, n_batches=8).trace > 0
    with pytest.raises(UnsupportedModelError, match="Pass per_sample=False"):
        gradient_noise(model, losses, batches, batch_size=4, n_batches=8, per_sample=True)


class Offset(nn.Module):
    """One weight in bfloat16 on top of every target."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))

    def forward(self, x):
        return x + self.weight


def test_the_loss_of_a_batch_is_not_rounded_to_half_precision():
    """Losses 1 and 1 + 2^-7 have a mean that bfloat16 does not."""
    x = torch.tensor([1, 1 + 2**-7], dtype=torch.bfloat16)
    batches = [(x, torch.zeros(2))] * 2
    found = gradient_noise(Offset(), lambda output, target: output, batches, n_batches=2)
    assert found.loss == 1 + 2**-8


def test_a_result_is_plain():
    found = gradient_noise(mlp(), losses, class_batches(4), n_batches=2)
    assert isinstance(found, GradientNoise)
    record = found.record()
    assert record["trace"] == found.trace
    assert record["trace_se"] is None  # of two batches
    assert Scatter.__doc__
