"""The slow band itself: it brings out the table of section 7.1, so it may judge the library."""

import pytest

from oracles.slow_neb import (
    mueller_brown_by_hand,
    slow_highest,
    slow_length,
    slow_line,
    slow_neb,
)

START, END = [-0.5582236346, 1.4417258418], [0.6234994049, 0.0280377585]
SADDLE = -40.6648435087

# pivots, tangent, dense - exact, highest pivot - exact, length: as printed
TABLE = [
    (5, "paper", 1.6390, -0.9079, 2.464),
    (9, "paper", 0.8465, -2.5554, 2.536),
    (15, "paper", 0.0009, -0.0045, 2.627),
    (29, "paper", 0.0119, -0.4282, 2.656),
    (61, "paper", 0.0007, -0.0884, 2.679),
    (5, "improved", 0.9561, None, None),
    (9, "improved", 0.3470, None, None),
    (15, "improved", 0.0002, None, None),
    (29, "improved", 0.0097, None, None),
    (61, "improved", 0.0005, None, None),
]


def check(interior, tangent, dense, pivot, length, steps):
    weights = [1 / (interior + 1)] * (interior + 1)
    path = slow_neb(
        slow_line(START, END, interior),
        weights,
        mueller_brown_by_hand,
        steps=steps,
        learning_rate=1e-4,
        tangent=tangent,
    )[-1]
    highest = slow_highest(path, mueller_brown_by_hand, 100)
    assert highest - SADDLE == pytest.approx(dense, abs=5.1e-5)
    if pivot is not None:
        at_pivots = max(mueller_brown_by_hand(point)[0] for point in path)
        assert at_pivots - SADDLE == pytest.approx(pivot, abs=5.1e-5)
        assert slow_length(path) == pytest.approx(length, abs=5.1e-4)


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_a_thousand_steps_give_the_table(row):
    """The band is at rest by then; the other 5,000 steps change nothing."""
    check(*row, steps=1000)


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE, ids=str)
def test_the_printed_steps_give_the_table(row):
    check(*row, steps=6000)
