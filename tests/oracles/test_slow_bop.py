"""The slow Bop itself: three steps by hand, so it may judge the library."""

from oracles.slow_bop import slow_bop


def test_three_steps_by_hand():
    """Half of each gradient is taken; a weight flips where the gradient has its own sign."""
    gradients = [[1.0, 1.0, 0.4, 0.5], [1.0, -3.0, 1.0, 0.0], [0.0, 0.0, 0.0, -2.0]]
    weights, averages = slow_bop([1, -1, 1, 1], gradients, gamma=0.5, tau=0.25)
    assert averages[0] == [0.5, 0.5, 0.2, 0.25]
    assert weights[0] == [-1, -1, 1, 1]  # the third too small, the fourth not above: strict
    assert averages[1] == [0.75, -1.25, 0.6, 0.125]
    assert weights[1] == [-1, 1, -1, 1]
    assert averages[2] == [0.375, -0.625, 0.3, -0.9375]
    assert weights[2] == [-1, 1, -1, 1]  # each pushed where it is already


def test_a_given_average_is_where_it_starts():
    weights, averages = slow_bop([1, 1], [[0.0, 0.0]], 0.5, 0.1, average=[1.0, -1.0])
    assert averages == [[0.5, -0.5]]
    assert weights == [[-1, 1]]
