"""``lowland.importance.compare``: paired ratios with the interval of a paired t-test."""

from math import exp, log

import pytest
from scipy.stats import ttest_1samp

from lowland.importance.compare import best_rate, compare, time_to_loss

A, B = [0.5, 0.7, 0.4, 0.9], [1.0, 1.1, 0.6, 1.9]


def test_the_interval_is_that_of_a_paired_t_test():
    found = compare(A, B)
    logs = [log(a / b) for a, b in zip(A, B, strict=True)]
    test = ttest_1samp(logs, 0.0)
    low, high = test.confidence_interval(0.95)
    assert found.ratio == pytest.approx(exp(sum(logs) / 4))
    assert (found.low, found.high) == pytest.approx((exp(low), exp(high)))
    assert found.is_below == (test.pvalue < 0.05)
    assert not found.is_above


def test_it_is_paired():
    """Spread that both arms share does not count."""
    wide = [1e-3, 1.0, 1e3]
    found = compare([value * r for value, r in zip(wide, (0.5, 0.51, 0.49), strict=True)], wide)
    assert found.is_below
    assert compare(wide, wide).low == compare(wide, wide).high == 1.0


def test_turned_around():
    found, back = compare(A, B), compare(B, A)
    assert back.ratio == pytest.approx(1 / found.ratio)
    assert (back.low, back.high) == pytest.approx((1 / found.high, 1 / found.low))
    assert back.is_above


def test_one_seed_has_no_interval():
    found = compare([1.0], [2.0])
    assert (found.ratio, found.low, found.high, found.n) == (0.5, None, None, 1)
    assert not found.is_below


def test_bad_numbers():
    with pytest.raises(ValueError, match="one per seed; got 2 and 1"):
        compare([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="must be positive"):
        compare([0.0], [1.0])
    with pytest.raises(ValueError, match="must be positive"):
        compare([float("nan")], [1.0])


def test_the_best_rate():
    """Geometric mean; a rate that diverges once loses."""
    assert best_rate({0.1: [1.0, 1.0], 0.2: [0.1, 4.0]}) == 0.2
    assert best_rate({0.1: [1.0, 1.0], 0.2: [1e-9, None]}) == 0.1
    assert best_rate({0.1: [1.0], 0.2: [float("nan")], 0.4: [float("inf")]}) == 0.1
    assert best_rate({0.1: [], 0.2: []}) == 0.1


def test_time_to_loss():
    """Interpolated in the logarithm; the first time counts."""
    curve = [
        {"steps": steps, "train_loss": loss}
        for steps, loss in ((0, 1.0), (10, 0.01), (20, 0.5), (30, 0.001))
    ]
    assert time_to_loss(curve, 0.1, "steps") == pytest.approx(5.0)
    assert time_to_loss(curve, 0.01, "steps") == pytest.approx(10.0)
    assert time_to_loss(curve, 1e-4, "steps") is None
    assert time_to_loss(curve, 2.0, "steps") is None
