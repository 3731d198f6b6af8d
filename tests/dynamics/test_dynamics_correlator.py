"""A time average over all origins is known for a straight line, a free walk and a spring."""

import pytest
import torch
from torch import float64
from torch.testing import assert_close

from lowland.dynamics.correlator import SLOTS, MultiTau
from lowland.dynamics.stationary import compare_halves, judge_window
from lowland.results import Status, plain


def watched(path, *, stride=1, first=0, samples=None):
    """Run a correlator over the rows of a path."""
    weights = path[0].clone()
    correlator = MultiTau({"w": weights}, samples=len(path) if samples is None else samples)
    for index, row in enumerate(path):
        weights.copy_(row)
        correlator.record(first + stride * index)
    return correlator


def walk(samples, params, rng, scale=0.1):
    steps = torch.randn(samples, params, dtype=float64, generator=rng)
    return (scale * steps).cumsum(0)


def spring(samples, params, rng, keep=0.8, start=None):
    """The recursion of a quadratic loss, w <- a w + xi; stationary variance 1 / (1 - a^2)."""
    noise = torch.randn(samples, params, dtype=float64, generator=rng)
    w = noise[0] / (1 - keep**2) ** 0.5 if start is None else torch.full_like(noise[0], start)
    rows = [w]
    for kick in noise[1:]:
        rows.append(keep * rows[-1] + kick)
    return torch.stack(rows)


def test_a_straight_line():
    """Whole numbers, w = n v: Delta = |v|^2 t^2 / M exactly at every lag, long ones included."""
    v = torch.tensor([1.0, -2.0, 3.0, 5.0], dtype=float64)
    path = torch.arange(700, dtype=float64).unsqueeze(1) * v
    found = watched(path, stride=5, first=35).result()
    assert torch.equal(found.displacement, found.lag.double() ** 2 / 25 * (v @ v) / 4)
    assert found.lag[:16].tolist() == [5 * k for k in range(1, 17)]
    assert found.lag[16:26].tolist() == [5 * k for k in (18, 20, 22, 24, 26, 28, 30, 32, 36, 40)]
    assert found.lag[-1] > 5 * 600
    assert found.is_stationary
    assert found.status is Status.FINISHED


@pytest.mark.parametrize("samples", [2, 17, 18, 19, 145, 300])
def test_all_pairs_one_by_one(samples, rng):
    """The mean over all origins that are multiples of 2^level, with nothing recursive."""
    path = walk(samples, 7, rng)
    found = watched(path).result()
    lags = [k for k in range(1, SLOTS + 1) if k < samples]
    expected = {k: range(0, samples - k) for k in lags}
    for level in range(1, 9):
        for k in range(SLOTS // 2 + 1, SLOTS + 1):
            apart = k * 2**level
            if apart < samples:
                expected[apart] = range(0, samples - apart, 2**level)
    assert found.lag.tolist() == sorted(expected)
    for lag, pairs, value in zip(found.lag, found.pairs, found.displacement, strict=True):
        origins = torch.tensor(expected[int(lag)])
        assert pairs == len(origins)
        assert_close(value, (path[origins + lag] - path[origins]).square().mean())


def test_free_walk(rng):
    """Delta = sigma^2 t; the mean over origins has relative variance 4 t / (3 N M) or less."""
    samples, params = 2048, 1000
    found = watched(walk(samples, params, rng)).result()
    for lag, value in zip(found.lag.tolist(), found.displacement.tolist(), strict=True):
        error = (min(4 * lag / (3 * samples) + 1 / samples, 1) * 2 / params) ** 0.5
        assert value == pytest.approx(0.01 * lag, rel=4 * error)
    assert found.is_stationary, found.reason
    assert found.compared == 64


def test_the_plateau_of_a_spring(rng):
    """Section 7.1 (v) in the stationary state: 2 m (1 - a^t), with m = 1 / (1 - a^2)."""
    found = watched(spring(2048, 400, rng)).result()
    expected = 2 / (1 - 0.8**2) * (1 - 0.8 ** found.lag.double())
    known = found.lag <= found.compared
    off = (found.displacement - expected)[known] / found.displacement_se[known]
    assert off.abs().max() < 4
    assert off.abs().median() < 1.5
    assert found.displacement_se[~known].isnan().all()
    assert found.is_stationary, found.reason


def test_no_false_alarm(rng):
    """Blocks that differ by chance, at lags that see the same moves: 999 of 1000 pass."""
    alarms = 0
    for _ in range(500):
        own, shared = (torch.randn(n, 16, dtype=float64, generator=rng) for n in (30, 1))
        shift, error = compare_halves((0.3 * (own + shared)).exp())
        lag = torch.arange(1, 31)
        alarms += "aging" in judge_window(shift, error, lag, 960, 960, None)[1]
    assert alarms <= 3


@pytest.mark.parametrize("first", [100, 1500])
def test_aging_is_told(first, rng):
    """Steps of variance 1 / n, so Delta = ln((tw + t) / tw): it falls from half to half."""
    times = torch.arange(first, first + 2048, dtype=float64)
    kicks = torch.randn(2048, 300, dtype=float64, generator=rng)
    found = watched((kicks / times.sqrt()[:, None]).cumsum(0), first=first).result()
    assert not found.is_stationary
    assert "aging" in found.reason
    rates = (1 / times).view(16, 128).mean(1).log()
    expected = rates[8:].mean() - rates[:8].mean()
    assert found.shift[0].item() == pytest.approx(expected.item(), abs=0.02)


def test_a_transient_is_told(rng):
    """A spring that begins far from rest moves faster at first."""
    found = watched(spring(2048, 300, rng, keep=0.998, start=100.0)).result()
    assert not found.is_stationary


def test_what_cannot_be_told(rng):
    """A window that is too short, one that is not over, and one weight that hops by chance."""
    assert "too short" in watched(walk(20, 50, rng)).result().reason
    early = watched(walk(100, 50, rng), samples=500).result()
    assert early.status is Status.INTERRUPTED
    assert "100 of 500" in early.reason
    rare = (torch.rand(64, 1, dtype=float64, generator=rng) < 0.05).double().cumsum(0)
    found = watched(rare).result()
    assert not found.is_stationary
    assert "too few" in found.reason


def test_nothing_moves():
    found = watched(torch.ones(64, 3, dtype=float64)).result()
    assert not found.displacement.any()
    assert found.is_stationary


def test_memory_grows_like_the_logarithm(rng):
    """Sixteen vectors for each factor of two, those that levels share counted once."""
    correlator = watched(walk(1000, 3, rng), samples=1000)
    assert len(correlator.rings) == 7  # 9 * 2^6 < 1000
    kept = {row.data_ptr() for ring in correlator.rings for row in ring}
    assert len(kept) <= 7 * SLOTS
    assert correlator.bytes == 7 * SLOTS * 3 * 8
    assert plain(correlator.result()) == correlator.result().record()


def test_resume_gives_the_same_bits(rng, tmp_path):
    """Saved and loaded in the middle of the window, against a run without an interruption."""
    path = walk(300, 9, rng)
    whole = watched(path).result()
    weights = path[0].clone()
    before = MultiTau({"w": weights}, samples=300)
    for step in range(150):
        weights.copy_(path[step])
        before.record(step)
    torch.save(before.state_dict(), tmp_path / "state.pt")
    after = MultiTau({"w": weights}, samples=300)
    after.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in range(150, 300):
        weights.copy_(path[step])
        for one in (before, after):
            one.record(step)
    assert after.result().record() == whole.record() == before.result().record()
    with pytest.raises(ValueError, match="another window"):
        MultiTau({"w": weights}, samples=301).load_state_dict(before.state_dict())


def test_a_run_that_diverges(rng):
    """What came before is kept, and no NaN enters an average."""
    path = walk(100, 5, rng)
    path[60:] = torch.nan
    found = watched(path, first=10).result()
    assert found.diverged_at == 70
    assert found.status is Status.NOT_FINITE
    assert not found.is_stationary
    assert_close(found.displacement, watched(path[:60], samples=100).result().displacement)


def test_bad_input():
    weights = {"w": torch.zeros(3)}
    with pytest.raises(ValueError, match="samples must be at least 2; got 1"):
        MultiTau(weights, samples=1)
    correlator = MultiTau(weights, samples=9)
    correlator.record(3)
    with pytest.raises(ValueError, match="grow by the same number"):
        correlator.record(3)
    correlator.record(5)
    with pytest.raises(ValueError, match="grow by the same number.*got 8 after 5"):
        correlator.record(8)
    for step in range(7, 40, 2):
        correlator.record(step)  # after the window there is nothing to do
    assert correlator.result().pairs[0] == 8
