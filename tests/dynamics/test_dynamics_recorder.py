"""The recorder against walks whose displacement is known, and against whole copies by loops."""

from math import sqrt

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lowland.dynamics.clock import growing, plan
from lowland.dynamics.recorder import TwoTimeRecorder
from lowland.dynamics.sums import PIECE
from lowland.dynamics.two_time import TwoTime
from lowland.errors import OutcomeError
from lowland.results import Status
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

WAITS, LAGS = (0, 3, 10), (0, 1, 2, 5, 20)


def walk(steps, move, size=400, dtype=torch.float64, **options):
    """Record a vector that moves by a rule; also every place it has been."""
    w = torch.zeros(size, dtype=dtype)
    recorder = TwoTimeRecorder([w], **({"waits": WAITS, "lags": LAGS} | options))
    recorder.record(0)
    places = [w.clone()]
    for n in range(1, steps + 1):
        move(w, n)
        recorder.record(n)
        places.append(w.clone())
    return recorder.result(), places


def steps_of(rng, size=lambda n: 1.0):
    """Independent normal steps, of a size that may change."""

    def move(w, n):
        w.add_(torch.randn(len(w), dtype=w.dtype, generator=rng), alpha=size(n))

    return move


def test_a_random_walk(rng):
    """E Delta = sigma^2 t, relative standard deviation sqrt(2/M) of every pair."""
    size, sigma = 50_000, 0.01
    result, _ = walk(30, steps_of(rng, lambda n: sigma), size)
    expected = sigma**2 * result.lag.double()
    assert_close(result.displacement, expected, rtol=5 * sqrt(2 / size), atol=0)
    moved = result.lag > 0
    assert_close(result.kurtosis[moved], torch.full_like(expected[moved], 3.0), rtol=0.05, atol=0)


def test_a_straight_line(rng):
    """Delta = |v|^2 t^2 / M, and kurtosis M sum v^4 / |v|^4."""
    v = torch.randn(400, dtype=torch.float64, generator=rng)
    result, _ = walk(30, lambda w, n: w.copy_(n * v))
    assert_close(result.displacement, v @ v * result.lag**2 / 400, rtol=1e-13, atol=0)
    assert_close(result.quartic, v.pow(4).mean() * result.lag.double() ** 4, rtol=1e-13, atol=0)
    starts = result.waiting_time > 0
    assert_close(result.cosine[starts], torch.ones(int(starts.sum()), dtype=torch.float64))


def test_against_whole_copies(rng):
    """Every observable of every pair and instant, by the definition."""
    result, places = walk(30, steps_of(rng, float), path_length=True, bins=20)
    for row, (wait, lag) in enumerate(zip(result.waiting_time, result.lag, strict=True)):
        a, b = places[wait], places[wait + lag]
        assert_close(result.displacement[row], (a - b).square().mean(), rtol=1e-13, atol=0)
        assert_close(result.quartic[row], (a - b).pow(4).mean(), rtol=1e-13, atol=0)
        assert_close(result.overlap[row], (a * b).mean(), rtol=1e-10, atol=1e-12)
        if wait > 0:
            cosine = torch.cosine_similarity(a, b, dim=0)
            assert_close(result.cosine[row], cosine, rtol=1e-10, atol=1e-12)
    assert result.displacement[result.lag == 0].tolist() == [0.0] * 3
    assert result.displacement_se.count_nonzero() == 0
    lengths = [(b - a).norm() for a, b in zip(places, places[1:], strict=False)]
    for n, norm, length, step in zip(
        result.times, result.norm, result.path_length, result.step_length, strict=True
    ):
        assert_close(norm, places[n].norm())
        assert_close(length, sum(lengths[:n], torch.zeros((), dtype=torch.float64)))
        assert_close(step, lengths[n - 1] if n else torch.zeros((), dtype=torch.float64))
    for wait in (3, 10):
        histogram, x = result.histograms[wait], places[wait]
        assert (histogram["low"], histogram["high"]) == (x.min(), x.max())
        assert histogram["counts"] == torch.histc(x, 20).long().tolist()


def train(model, steps, recorder=None, *, momentum=0.9, at=lambda n: None):
    """SGD in training mode from a fixed seed."""
    torch.manual_seed(3)
    batches = class_batches(*([4] if not isinstance(model[0], nn.Conv2d) else [1, 4, 4]))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=momentum)
    if recorder is not None:
        recorder.record(0)
    for n in range(1, steps + 1):
        x, y = batches[n % 3]
        optimizer.zero_grad()
        losses(model(x.to(next(model.parameters()).dtype)), y).mean().backward()
        optimizer.step()
        if recorder is not None:
            recorder.record(n)
        at(n)


def test_one_step_of_gradient_descent():
    """M Delta(n, n + 1) = eta^2 |g_n|^2."""
    model = seeded(mlp, 0).double()
    recorder = TwoTimeRecorder(model, waits=range(5), lags=[1])
    squares = []

    def note(n):
        squares.append(sum(p.grad.square().sum() for p in model.parameters()).item())

    train(model, 5, recorder, momentum=0, at=note)
    result = recorder.result()
    moved = result.displacement * result.params / 0.1**2
    assert_close(moved, torch.tensor(squares, dtype=torch.float64), rtol=1e-12, atol=0)


def test_quadratic_loss_with_noise(rng):
    """Curvature h, noise variance v: the exact mean over many independent coordinates."""
    h, v, eta, size, start = 0.5, 0.04, 0.2, 50_000, 0.7
    a = 1 - eta * h
    w = torch.full((size,), start, dtype=torch.float64)
    recorder = TwoTimeRecorder([w], waits=WAITS, lags=LAGS)
    recorder.record(0)
    for n in range(1, 31):
        noise = torch.randn(size, dtype=w.dtype, generator=rng) * sqrt(v)
        w -= eta * (h * w + noise)
        recorder.record(n)
    result = recorder.result()
    tw, t = result.waiting_time.double(), result.lag.double()
    spread = eta**2 * v / (1 - a**2)
    m = a ** (2 * tw) * start**2 + spread * (1 - a ** (2 * tw))
    expected = (a**t - 1) ** 2 * m + spread * (1 - a ** (2 * t))
    assert_close(result.displacement, expected, rtol=5 * sqrt(2 / size), atol=0)


def test_float32_is_summed_widely(rng):
    """Small steps on large weights: the exact differences of the float32 numbers."""
    start = torch.randn(300_001, generator=rng)
    places = [start, start + 1e-4 * torch.randn(300_001, generator=rng)]
    w = start.clone()
    recorder = TwoTimeRecorder([w], waits=[0], lags=[1])
    recorder.record(0)
    w.copy_(places[1])
    recorder.record(1)
    difference = (places[1] - places[0]).double()
    result = recorder.result()
    assert_close(result.displacement[0], difference.square().mean(), rtol=1e-7, atol=0)
    assert_close(result.quartic[0], difference.pow(4).mean(), rtol=2e-6, atol=0)


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("piece", [1, 7, 64, 1000])
def test_pieces_across_tensors(piece, per_layer, monkeypatch, rng):
    """Wherever the cuts fall, inside a tensor or over several, every number is the definition's."""
    monkeypatch.setitem(PIECE, "cpu", piece)
    shapes = [(13, 5), (1,), (0,), (4, 3), (70,)]
    tensors = [torch.randn(shape, dtype=torch.float64, generator=rng) for shape in shapes]
    tensors.append(torch.randn(6, 4, dtype=torch.float64, generator=rng).T)
    recorder = TwoTimeRecorder(tensors, waits=[0, 1], lags=[1, 2], per_layer=per_layer)
    places = []
    for n in range(4):
        recorder.record(n)
        places.append([tensor.clone() for tensor in tensors])
        if n == 1:
            tensors[0].set_(tensors[0].clone())  # it may move on its own storage
        for tensor in tensors:
            tensor.add_(torch.randn(tensor.shape, dtype=torch.float64, generator=rng))
    result = recorder.result()
    for row, (wait, lag) in enumerate(zip(result.waiting_time, result.lag, strict=True)):
        moved = [b - a for a, b in zip(places[wait], places[wait + lag], strict=True)]
        every = torch.cat([each.reshape(-1) for each in moved])
        assert_close(result.displacement[row], every.square().mean(), rtol=1e-13, atol=0)
        assert_close(result.quartic[row], every.pow(4).mean(), rtol=1e-13, atol=0)
        if per_layer:
            mine = torch.stack([layer[row] for layer in result.layers.values()])
            means = torch.stack([each.square().sum() / max(each.numel(), 1) for each in moved])
            assert_close(mine, means, rtol=1e-13, atol=0)
    norms = [torch.cat([t.reshape(-1) for t in place]).norm() for place in places]
    assert_close(result.norm, torch.stack(norms), rtol=1e-13, atol=0)


def test_layers_add_up_and_order_does_not_matter(rng):
    model = seeded(conv_net, 0).double()
    names = [name for name, _ in model.named_parameters()]
    reverse = dict(reversed([*model.named_parameters()]))
    recorders = [
        TwoTimeRecorder(source, waits=WAITS, lags=LAGS, per_layer=layers)
        for source, layers in ((model, True), (reverse, False))
    ]
    both = type("Both", (), {"record": lambda self, n: [r.record(n) for r in recorders]})
    train(model, 30, both())
    first, second = (recorder.result() for recorder in recorders)
    assert list(first.layers) == names
    sizes = [p.numel() for p in model.parameters()]
    total = sum(first.layers[n] * m for n, m in zip(names, sizes, strict=True)) / sum(sizes)
    assert_close(total, first.displacement, rtol=1e-13, atol=0)
    assert_close(second.displacement, first.displacement, rtol=1e-12, atol=0)
    assert_close(second.quartic, first.quartic, rtol=1e-12, atol=0)


@pytest.mark.parametrize("memory", ["exact", "sketch"])
@pytest.mark.parametrize("make", [mlp, norm_mlp, conv_net, dropout])
def test_training_does_not_notice(make, memory):
    """With and without: the same bits, with momentum, batch norm and dropout."""
    plain, watched = seeded(make, 1), seeded(make, 1)
    train(plain, 40)
    expected = generators()
    recorder = TwoTimeRecorder(
        watched, total=40, memory=memory, path_length=True, per_layer=True, bins=5
    )
    train(watched, 40, recorder)
    assert same(generators(), expected)
    assert same(watched.state_dict(), plain.state_dict())
    before = snapshot(watched)
    recorder.record(41) if recorder.last < 40 else recorder.result()
    after = snapshot(watched)
    assert same(before, after)
    assert recorder.result().status is Status.FINISHED


def test_a_tied_weight_is_counted_once():
    model = Tied()
    recorder = TwoTimeRecorder(model, waits=[0], lags=[1])
    recorder.record(0)
    with torch.no_grad():
        model.inner.weight += 1
        model.scale += 2
    recorder.record(1)
    result = recorder.result()
    assert result.params == 4 * 4 + 4 + 1
    assert result.tied == {"again.weight": "inner.weight"}
    assert_close(result.at(0, 1), (16 + 4) / 21)


def test_a_whole_plan(rng):
    """All pairs are there, in the order of the clock; between its instants nothing is read."""
    w = torch.zeros(5)
    clock = plan(300, mode="shared")
    recorder = TwoTimeRecorder([w], clock=clock)
    looked = set()
    views = recorder.weights.views

    def noted():
        looked.add(now)
        return views()

    recorder.weights.views = noted
    for now in range(301):
        recorder.record(now)
    result = recorder.result()
    assert looked == {*clock.instants}
    assert [*zip(result.waiting_time.tolist(), result.lag.tolist(), strict=True)] == [*clock.pairs]
    assert not result.missing
    assert not recorder.store.kept
    assert result.times.tolist() == [*clock.instants]


def test_a_clock_that_grows(rng):
    """Beyond its horizon it goes on with the pairs that a longer horizon would have had."""
    moves = torch.randn(2501, 7, dtype=torch.float64, generator=rng)
    places = moves.cumsum(0)
    w = places[0].clone()
    recorder = TwoTimeRecorder([w])
    assert recorder.clock.horizon == 1000
    for n in range(2501):
        w.copy_(places[n])
        recorder.record(n)
    result = recorder.result()
    pairs = [p for p in growing(horizon=10_000).pairs if sum(p) <= 2500]
    assert [*zip(result.waiting_time.tolist(), result.lag.tolist(), strict=True)] == pairs
    for wait, lag in pairs[::50]:
        expected = (places[wait] - places[wait + lag]).square().mean().item()
        assert result.at(wait, lag) == pytest.approx(expected)
    assert not result.missing


def test_divergence_keeps_what_was_there(rng):
    """A weight that is no longer finite ends the record; no NaN is written."""
    noise = torch.randn(400, dtype=torch.float64, generator=rng)

    def move(w, n):
        w.add_(noise)
        if n == 12:
            w[7] = float("inf") if noise[0] > 0 else float("nan")

    result, _ = walk(30, move, bins=3, path_length=True)
    assert result.diverged_at == 12
    assert result.status is Status.NOT_FINITE
    assert result.times.max() == 11
    assert result.displacement.isfinite().all()
    assert (10, 5) in result.missing
    with pytest.raises(OutcomeError, match="no longer finite at update 12"):
        result.raise_for_status()


def test_a_record_comes_back(tmp_path, rng):
    result, _ = walk(25, steps_of(rng), per_layer=True, bins=4, path_length=True)
    loaded = TwoTime.load(result.save(tmp_path))
    assert_close(loaded.displacement, result.displacement, rtol=0, atol=0)
    assert_close(loaded.layers, result.layers, rtol=0, atol=0)
    assert loaded.record() == result.record()
    assert loaded.missing == ((10, 20),)
    assert loaded.status is Status.INTERRUPTED
    lags, values = loaded.curve(3)
    assert lags.tolist() == [1, 2, 5, 20]
    assert values[0] == loaded.at(3, 1)


def test_overlap_of_spherical_spins(rng):
    """2 (1 - C) = Delta for vectors of square length N: a p-spin model is recorded like a net."""
    model = nn.Module()
    start = torch.randn(3, 50, dtype=torch.float64, generator=rng)
    model.spins = nn.Parameter(start * sqrt(50) / start.norm(dim=1, keepdim=True))
    recorder = TwoTimeRecorder(model, waits=WAITS, lags=LAGS)
    recorder.record(0)
    for n in range(1, 31):
        with torch.no_grad():
            model.spins += 0.2 * torch.randn(3, 50, dtype=torch.float64, generator=rng)
            model.spins *= sqrt(50) / model.spins.norm(dim=1, keepdim=True)
        recorder.record(n)
    result = recorder.result()
    assert_close(result.displacement, 2 * (1 - result.overlap))
    assert_close(result.overlap, result.cosine)
