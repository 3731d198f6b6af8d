"""Time grids: the authors' formula by hand, and pairs that fit and stay as a run grows."""

import numpy as np
import pytest

from lowland.dynamics.clock import growing, log_times, pairs_of, plan
from lowland.dynamics.units import steps_at


def test_the_authors_formula():
    """Geometric, rounded, unique, zero in front."""
    assert log_times(1, 1000, 4) == (0, 1, 10, 100, 1000)
    expected = sorted({0} | {round(5 * (2000 / 5) ** (k / 29)) for k in range(30)})
    assert list(log_times(5, 2000, 30)) == expected
    assert log_times(1, 4, 9) == (0, 1, 2, 3, 4)


def test_the_ratios_of_the_published_run():
    """1.307 in tw, 1.1416 in t and 1.150 in loss times: the run was planned for 10^6 steps."""
    waits = np.array(log_times(1, 5e5, 50), float)
    assert (waits[-1] / waits[-2]) == pytest.approx(1.307, abs=5e-4)
    lags = np.array(log_times(1, 5e5, 100), float)
    assert (lags[-1] / lags[-2]) == pytest.approx(1.1416, abs=2e-4)
    losses = np.array(log_times(1, 1e6, 100), float)
    assert (losses[-1] / losses[-2]) == pytest.approx(1.150, abs=1e-3)


def test_a_plan_of_the_paper():
    clock = plan(10**5)
    assert clock.waits[0] == 0
    assert clock.waits[1] == 10
    assert clock.waits[-1] == 50_000
    assert clock.instants[-1] == 10**5
    lags = log_times(1, 5e4, 100)
    for wait in clock.waits:
        found = {lag for w, lag in clock.pairs if w == wait}
        assert found == {*lags, 10**5 - wait}
    assert not clock.dropped
    ends = [wait + lag for wait, lag in clock.pairs]
    assert ends == sorted(ends)


def test_what_does_not_fit_is_listed():
    clock = plan(1000, last_wait=1000, last_lag=1000)
    assert clock.dropped
    assert all(wait + lag > 1000 for wait, lag in clock.dropped)
    assert all(wait + lag <= 1000 for wait, lag in clock.pairs)
    assert clock.waits[-1] == 1000
    short = pairs_of([0, 10, 50], [1, 5, 100], total=20)
    assert short.waits == (0, 10)
    assert short.pairs == ((0, 1), (0, 5), (10, 1), (10, 5))
    assert set(short.dropped) == {(0, 100), (10, 100), (50, 1), (50, 5), (50, 100)}


def test_shared_instants_are_few_and_near():
    many, few = plan(10**6), plan(10**6, mode="shared")
    assert len(few.instants) < 500 < 4000 < len(many.instants)
    assert few.waits == many.waits
    wanted = log_times(1, 5e5, 100)
    for wait in few.waits:
        found = np.array(sorted(lag for w, lag in few.pairs if w == wait and lag))
        assert found[0] == 1
        for lag in wanted[1:]:
            assert np.abs(np.log(found / lag)).min() < np.log(3.5)


def test_a_longer_horizon_changes_nothing():
    short, long = growing(horizon=1000), growing(horizon=20_000)
    assert [pair for pair in long.pairs if sum(pair) <= 1000] == list(short.pairs)
    assert long.waits[: len(short.waits)] == short.waits
    assert short.horizon == 1000
    assert plan(1000).horizon == float("inf")


def test_how_many_wait_at_once():
    assert pairs_of([0, 10, 20], [1, 5]).most_waits == 1
    assert pairs_of([0, 3, 4], [1, 5]).most_waits == 3
    assert pairs_of([0, 3], [3]).most_waits == 2  # the end of one is the beginning of the other


def test_times_beyond_64_bits():
    assert log_times(1, 1e30, 4) == (0, 1, 10**10, 10**20, int(1e30))


def test_other_units():
    assert steps_at([0, 0.3, 1.0], 0.1) == (0, 3, 10)
    assert steps_at([0, 150, 1000], 100) == (0, 2, 10)
    assert steps_at([0.1, 0.35, 0.4], [0.1, 0.1, 0.1, 0.05, 0.05]) == (1, 4, 5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: log_times(0.5, 10, 3), "at least 1 update; got 0.5"),
        (lambda: log_times(1, 10, 1), "whole number of times, at least 2; got 1"),
        (lambda: log_times(10, 5, 3), "at least the first, 10; got 5"),
        (lambda: plan(4), "must have at least 20 updates.*got total = 4. .*choose waits and lags"),
        (lambda: plan(100, last_wait=3), "at least the first, 10; got 3"),
        (lambda: plan(100, mode="union"), "mode must be one of"),
        (lambda: pairs_of([-1], [1]), "waits must be whole numbers"),
        (lambda: pairs_of([1], []), "lags must be whole numbers"),
        (lambda: pairs_of([5], [1], total=4), "a pair that ends within the run"),
        (lambda: growing(0), "waits_per_decade must be at least 1; got 0"),
        (lambda: steps_at([1.0], 0.0), "positive time"),
        (lambda: steps_at([-1.0], 1.0), "not negative"),
        (lambda: steps_at([1.0], [0.1, 0.1]), "must reach the last time"),
    ],
)
def test_bad_grids(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.untyped
def test_a_grid_has_a_whole_number_of_times():
    with pytest.raises(ValueError, match="whole number of times, at least 2; got 2.5"):
        log_times(1, 10, 2.5)
