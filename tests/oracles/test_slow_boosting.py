"""The slow version itself: it brings out the numbers of the paper's page, so it may judge ours."""

import pytest

from oracles.slow_boosting import slow_chain, slow_cost_edge, slow_costs, slow_line_search


def rows(binary):
    return [[(1 - o) / 2, (1 + o) / 2] for o in binary]


LABELS = [1, 1, 0, 0]
THREE = [rows(o) for o in ((1, 1, 1, -1), (1, 1, -0.5, -1), (1, 1, -0.9, -1))]


def test_the_hand_example():
    """O3."""
    found = slow_chain(THREE, LABELS)
    assert [r.edge for r in found] == pytest.approx([0.5, 0.75, 0.964843], abs=1e-6)
    assert [r.alpha for r in found] == pytest.approx([0.549306, 0.972955, 2.011668], abs=1e-6)
    assert [r.loss for r in found] == pytest.approx([0.866025, 0.437170, 0.141217], abs=1e-6)
    assert [r.step_ratio for r in found] == pytest.approx([0.866025, 0.504801, 0.323025], abs=1e-6)
    assert [r.covariance for r in found] == pytest.approx([0, -0.068365, -0.006925], abs=1e-6)
    assert [r.error for r in found] == [0.25, 0, 0]
    assert list(found[0].weights.values()) == pytest.approx([1 / 6, 1 / 6, 1 / 2, 1 / 6])


def test_two_ways_to_an_edge():
    """The paper's costs of the score so far, and the recursion over weights."""
    outputs = [
        [[0.5, 0.25, 0.25]] * 2,
        [[0.7, 0.2, 0.1], [0.2, 0.6, 0.2]],
        [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]],
    ]
    score = [[0.0] * 3] * 2
    for output, found in zip(outputs, slow_chain(outputs, [0, 1]), strict=True):
        assert slow_cost_edge(slow_costs(score, [0, 1]), output, [0, 1]) == pytest.approx(
            found.edge, abs=1e-15
        )
        score = found.score


def test_line_search():
    assert slow_line_search(THREE[0], LABELS, 12.0) == pytest.approx(0.549306, abs=1e-6)
