"""The slow version itself: it brings out the numbers of the paper's page, so it may judge ours."""

from fractions import Fraction
from math import sqrt

import pytest
import torch
from torch import nn

from oracles.slow_importance import (
    all_multinomial,
    all_residual,
    all_systematic,
    all_without_replacement,
    moments,
    slow_averages,
    slow_decisions,
    slow_focal,
    slow_gradients,
    slow_last_layer,
    slow_multiplier,
    slow_scores,
    slow_tau,
)

VALUES = [1.0, -1.0, 2.0, 6.0]


def normalized(score):
    return [s / sum(score) for s in score]


@pytest.mark.parametrize(
    ("score", "variance"),
    [
        ([1, 1, 1, 1], 3.25),
        ([1, 1, 2, 6], 1.125),
        ([1, 1, sqrt(2), sqrt(6)], 1.577842),
        ([1, 1, 4, 36], 3.25),
    ],
    ids=str,
)
def test_enumeration_of_two_draws(score, variance):
    """O5, and its general formula ``[(1/B^2) sum G^2/p - mean^2] / b``."""
    p = normalized(score)
    mean, found = moments(all_multinomial(p, 2), VALUES, p)
    second = sum(v * v / x for v, x in zip(VALUES, p, strict=True)) / 16
    assert mean == pytest.approx(2)
    assert found == pytest.approx(variance, abs=5e-7)
    assert found == pytest.approx((second - 4) / 2)


def test_the_difference_formula():
    """O5: what the best probabilities save per draw, 4.25; tau 1.68."""
    sizes = [abs(v) for v in VALUES]
    mean = sum(sizes) / 4
    p = normalized(sizes)
    assert sum(v * v for v in VALUES) / 4 - mean**2 == pytest.approx(4.25)
    assert 4 * mean**2 * sum((x - 0.25) ** 2 for x in p) == pytest.approx(4.25)
    assert slow_tau(sizes) == pytest.approx(1.68)


def test_every_way_to_draw_twice():
    """O6: chances add up to 1, counts to ``b p``, and only draws without replacement are biased."""
    exact = [Fraction(n, 10) for n in (1, 1, 2, 6)]
    p = [float(x) for x in exact]
    for outcomes, mean, count in (
        (list(all_multinomial(p, 2)), 2, True),
        (list(all_systematic(exact, 2)), 2, True),
        (list(all_residual(exact, 2)), 2, True),
        (list(all_without_replacement(p, 2)), 1.784722, False),
    ):
        assert sum(chance for chance, _ in outcomes) == pytest.approx(1)
        assert moments(iter(outcomes), VALUES, p)[0] == pytest.approx(mean, abs=5e-7)
        counts = [sum(c * index.count(i) for c, index in outcomes) for i in range(4)]
        assert (counts == pytest.approx([2 * x for x in p])) == count


def test_averages_and_decisions():
    """O4, and the first active step after them."""
    assert slow_averages([3.0] * 11, 0.9)[-2:] == pytest.approx([1.9540, 2.0586], abs=5e-5)
    after = slow_averages([1.6] * 27, 0.9)
    assert after[25] < 1.5 < after[26]
    active, taus = slow_decisions([[0.0, 0.0, 1.0]] * 17, 3, 2.0)
    assert active == [False] * 11 + [True] * 2
    assert taus[10] == pytest.approx(2.0586, abs=5e-5)


def test_one_example_at_a_time():
    """O1, the focal loss without focus, and O12 in one line each."""
    logits = torch.tensor([[2.0, 0.0, -1.0]] * 3, dtype=torch.float64)
    target = torch.arange(3)
    found = slow_scores(nn.CrossEntropyLoss(reduction="none"), logits, target)
    assert found.tolist() == pytest.approx([0.198003723, 1.224093356, 1.281707771], abs=5e-10)
    again = slow_scores(lambda z, y: slow_focal(z, y, 0.0), logits, target)
    assert again.tolist() == pytest.approx(found.tolist())
    model = nn.Linear(2, 3).double()
    inputs = torch.ones(3, 2, dtype=torch.float64)
    loss_fn = nn.CrossEntropyLoss(reduction="none")
    delta = model(inputs).softmax(1) - torch.eye(3)
    full = slow_gradients(model, loss_fn, inputs, target).norm(dim=1)
    assert slow_last_layer(delta, inputs) == pytest.approx(full.tolist())


def test_multiplier():
    """2.6: tau r / (tau + r)."""
    assert slow_multiplier(4, 3) == pytest.approx(12 / 7)
    assert slow_multiplier(4, 3, stage_one=0) == pytest.approx(4)
