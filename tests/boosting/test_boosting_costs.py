"""The pieces of the theory: the numbers of the hand examples, and those of the slow version."""

from math import atanh, log

import pytest
import torch
from torch import float64, tensor
from torch.testing import assert_close

from lowland.boosting.alphas import (
    LARGEST_ALPHA,
    closed_alpha,
    improvement,
    line_search_alpha,
    signed_root,
)
from lowland.boosting.costs import (
    binary_output,
    cost_matrix,
    covariance,
    edge,
    exponential_loss,
    margins,
    pair_weights,
)
from oracles.slow_boosting import slow_chain, slow_cost_edge, slow_costs, slow_line_search

LABELS = tensor([1, 1, -1, -1])


def binary(*outputs):
    return binary_output(tensor(outputs, dtype=float64), LABELS)


def simplex(*shape, rng, scale=1.0):
    return (scale * torch.randn(*shape, generator=rng, dtype=float64)).softmax(-1)


def classes(count, of, rng):
    return torch.randint(of, (count,), generator=rng)


def as_tensor(pairs, shape):
    found = torch.zeros(shape, dtype=float64)
    for place, value in pairs.items():
        found[place] = value
    return found


def test_the_first_weights_of_the_hand_example():
    """O3: D_1 = (1, 1, 3, 1)/6 and D_2."""
    first, target = binary(1, 1, 1, -1)
    second, _ = binary(1, 1, -0.5, -1)
    found = pair_weights(first, target, log(3) / 2).sum(1)
    assert_close(found, tensor([1, 1, 3, 1], dtype=float64) / 6)
    found = pair_weights(second, target, log(7) / 2).sum(1)
    expected = tensor([0.216143, 0.216143, 0.351572, 0.216143], dtype=float64)
    assert_close(found, expected, atol=5e-7, rtol=0)


def test_the_first_costs_of_the_example_with_three_classes():
    """O7: C_1, and C_0 = 1 with 1 - C for the right class."""
    target = tensor([0, 1])
    first = tensor([[0.5, 0.25, 0.25]] * 2, dtype=float64)
    alpha = closed_alpha(edge(first, target))
    expected = [[-1.968953, 0.984476, 0.984476], [1.015768, -2.015768, 1]]
    assert_close(
        cost_matrix(alpha * first, target), tensor(expected, dtype=float64), atol=5e-7, rtol=0
    )
    start = cost_matrix(torch.zeros(2, 3), target)
    assert start.tolist() == [[-2, 1, 1], [1, -2, 1]]


@pytest.mark.parametrize("of", [2, 3, 7])
def test_weights_of_the_recursion(of, rng):
    """O1 and O2: closed forms of weights, scores and losses are those of the recursion."""
    for _ in range(20):
        target = classes(6, of, rng)
        outputs = [simplex(6, of, rng=rng, scale=2) for _ in range(4)]
        chain = slow_chain([o.tolist() for o in outputs], target.tolist(), [0.3, 1.7, 0.2, 2.5])
        for output, found in zip(outputs, chain, strict=True):
            expected = as_tensor(found.weights, (6, of))
            assert_close(
                pair_weights(output, target, found.alpha), expected, rtol=1e-13, atol=1e-16
            )
            assert_close(
                tensor(found.score, dtype=float64), found.alpha * output, atol=1e-15, rtol=0
            )
            assert exponential_loss(output, target, found.alpha) == pytest.approx(
                found.loss, rel=1e-14
            )


def test_the_objective_of_a_round_has_no_weights(rng):
    """O2: D_t exp(alpha_t r_t) is one number for all pairs, 1 / (m L_t)."""
    target, output = classes(5, 4, rng), simplex(5, 4, rng=rng)
    weight, r = pair_weights(output, target, 1.3), margins(output, target)
    product = (weight * (1.3 * r).exp())[weight > 0]
    expected = 1 / (5 * exponential_loss(output, target, 1.3))
    assert_close(product, torch.full_like(product, expected), rtol=1e-14, atol=0)


@pytest.mark.parametrize("of", [2, 5])
def test_edge_is_that_of_the_paper(of, rng):
    """Minus the cost of the outputs over the sum of positive costs, entry by entry."""
    target = classes(9, of, rng)
    previous, output = simplex(9, of, rng=rng), simplex(9, of, rng=rng)
    score = (0.7 * previous).tolist()
    costs = slow_costs(score, target.tolist())
    expected = slow_cost_edge(costs, output.tolist(), target.tolist())
    assert edge(output, target, previous=previous, alpha=0.7) == pytest.approx(expected, abs=1e-15)
    assert_close(
        cost_matrix(0.7 * previous, target), tensor(costs, dtype=float64), rtol=1e-14, atol=1e-15
    )


def test_the_first_edge_of_a_softmax(rng):
    """(C mean p_y - 1) / (C - 1)."""
    target, output = classes(9, 6, rng), simplex(9, 6, rng=rng, scale=3)
    right = output.gather(1, target[:, None]).mean().item()
    assert edge(output, target) == pytest.approx((6 * right - 1) / 5, abs=1e-15)


def test_two_classes_are_the_binary_theory(rng):
    """O10: r = y (o_+ - o_-), for weights, loss and edge; K = 1."""
    o, y = torch.rand(7, generator=rng, dtype=float64) * 2 - 1, tensor([1, -1, 1, 1, -1, -1, 1])
    rows, target = binary_output(o, y)
    assert_close(margins(rows, target).sum(1), y * o)
    weight = (-0.9 * (y * o)).exp()
    assert_close(pair_weights(rows, target, 0.9).sum(1), weight / weight.sum())
    assert exponential_loss(rows, target, 0.9) == pytest.approx(weight.mean().item(), rel=1e-15)
    assert edge(rows, target) == pytest.approx((y * o).mean().item(), abs=1e-16)


def test_outputs_that_know_nothing():
    """O10: gt = 0, alpha = 0, L = K."""
    output, target = torch.full((4, 5), 0.2, dtype=float64), tensor([0, 1, 2, 4])
    assert edge(output, target) == 0
    assert closed_alpha(0.0) == line_search_alpha(output, target) == 0
    assert exponential_loss(output, target, 0.0) == 4


def test_covariance_and_what_it_is_equivalent_to(rng):
    """Cov <= 0 exactly if L_{t+1} <= K E[exp(-alpha r)]; its size is that of the slow version."""
    signs = set()
    for _ in range(50):
        target = classes(5, 3, rng)
        previous, output = simplex(5, 3, rng=rng, scale=2), simplex(5, 3, rng=rng, scale=2)
        slow = slow_chain([previous.tolist(), output.tolist()], target.tolist(), [0.8, 1.1])[1]
        found = covariance(
            output, target, alpha=1.1, previous=previous, alpha_previous=0.8
        )  # fmt: skip
        assert found == pytest.approx(slow.covariance, abs=1e-14)
        weight = pair_weights(previous, target, 0.8)
        mean = (weight * (-1.1 * margins(output, target)).exp()).sum().item()
        assert (found <= 0) == (exponential_loss(output, target, 1.1) <= 2 * mean)
        signs.add(found <= 0)
    assert signs == {True, False}


def test_line_search_is_the_minimum(rng):
    """Where the slow search by thirds ends; no older round has a part in it."""
    for scale in (0.3, 1, 3, 10):
        for _ in range(10):
            target = classes(8, 3, rng)
            output = simplex(8, 3, rng=rng, scale=scale)
            output = (output + torch.eye(3, dtype=float64)[target] * 0.2) / 1.2
            expected = slow_line_search(output.tolist(), target.tolist(), LARGEST_ALPHA)
            assert line_search_alpha(output, target) == pytest.approx(expected, abs=2e-6)


def test_line_search_of_signs_is_the_closed_form():
    """With outputs of -1 and 1 at the first depth both rules give artanh of the edge."""
    first, target = binary(1, 1, 1, -1)
    assert line_search_alpha(first, target) == pytest.approx(log(3) / 2, abs=1e-14)
    assert closed_alpha(0.5) == pytest.approx(log(3) / 2, rel=1e-15)


def test_alpha_has_an_end():
    """Separated examples would ask for an infinite one, an edge below zero for a negative one."""
    right, target = binary(1, 1, -1, -1)
    assert closed_alpha(1.0) == line_search_alpha(right, target) == LARGEST_ALPHA
    assert closed_alpha(-0.3) == line_search_alpha(1 - right, target) == 0
    nearly, _ = binary(1, 1, -1, -1e-9)
    assert line_search_alpha(nearly, target) == LARGEST_ALPHA
    assert closed_alpha(0.9) == atanh(0.9)


def test_improvement():
    """O3 and O4, near 1 without cancellation, negative where the edge fell."""
    assert improvement(0.5, 0.0) == pytest.approx(1 / 4, rel=1e-15)
    assert improvement(0.75, 0.5) == pytest.approx(5 / 12, rel=1e-15)
    assert improvement(2 / 3, 0.5) == pytest.approx(7 / 27, rel=1e-15)
    assert improvement(1 - 1e-9, 1 - 2e-9) == pytest.approx(0.5, rel=1e-6)
    assert improvement(0.5, 0.75) == pytest.approx(-5 / 7, rel=1e-15)
    assert improvement(-0.9, 0.5) == improvement(0.0, 0.5) < 0
    assert signed_root(-0.25) == -0.5
    assert signed_root(0.25) == 0.5


def test_improvements_multiply_to_the_last_edge():
    """The product of (1 - gamma^2) is 1 - gt^2."""
    edges, product = [0.0, 0.3, 0.25, 0.7, 0.95], 1.0
    for old, new in zip(edges, edges[1:], strict=False):
        product *= 1 - improvement(new, old)
    assert product == pytest.approx(1 - 0.95**2, rel=1e-14)


def test_the_end_points_of_figure_4():
    """O10: from an edge of 0.745 to 0.855."""
    assert (1 - improvement(0.855, 0.745)) ** 0.5 == pytest.approx(0.777478, abs=5e-7)


def test_weights_are_repetitions(rng):
    """An example with weight 3 is three examples; the scale of weights does not matter."""
    target, output = classes(4, 3, rng), simplex(4, 3, rng=rng)
    previous, counts = simplex(4, 3, rng=rng), tensor([3, 1, 0, 2])
    weights = counts.double() * 0.37
    y, o, p = (x.repeat_interleave(counts, 0) for x in (target, output, previous))
    assert edge(output, target, previous=previous, alpha=0.6, weights=weights) == pytest.approx(
        edge(o, y, previous=p, alpha=0.6), abs=1e-15
    )
    assert exponential_loss(output, target, 0.6, weights) == pytest.approx(
        exponential_loss(o, y, 0.6), rel=1e-15
    )
    assert line_search_alpha(output, target, weights) == pytest.approx(
        line_search_alpha(o, y), abs=1e-12
    )
    assert cost_matrix(output, target, weights)[2].abs().sum() == 0


SLIPS = {
    "difference instead of product": lambda a, o, b, p: a * o - (b - p),
    "no memory of the last round": lambda a, o, b, p: a * o,
}


@pytest.mark.parametrize("slip", SLIPS.values(), ids=SLIPS)
def test_scores_of_public_ports_do_not_telescope(slip, rng):
    """Ours, h = alpha o - alpha' o', adds up to the last alpha o; what ports compute does not."""
    outputs, alphas = [simplex(4, 3, rng=rng) for _ in range(3)], [0.4, 0.9, 1.6]
    before = [(0.0, torch.zeros(4, 3, dtype=float64)), *zip(alphas, outputs, strict=True)]
    steps = list(zip(alphas, outputs, before, strict=False))
    ours = sum(a * o - b * p for a, o, (b, p) in steps)
    theirs = sum(slip(a, o, b, p) for a, o, (b, p) in steps)
    assert_close(ours, alphas[-1] * outputs[-1], rtol=1e-15, atol=1e-15)
    assert (theirs - alphas[-1] * outputs[-1]).abs().max() > 0.1


def test_gamma_of_a_public_port_lacks_a_bracket():
    a, b = 0.75, 0.5
    assert (a**2 - b**2) / 1 - b**2 == 0.0625
    assert improvement(a, b) == pytest.approx(5 / 12)


def test_costs_of_a_public_port_fill_whole_columns(rng):
    """Indexing columns by the labels of all examples spoils the wrong classes of every row."""
    target, score = tensor([0, 1, 1]), torch.zeros(3, 3)
    theirs = torch.ones(3, 3)
    theirs[:, target] = -2.0
    ours = cost_matrix(score, target)
    assert ours.sum(1).abs().max() == 0
    assert theirs.sum(1).abs().max() > 0


def test_softmax_over_the_batch_hides_a_perfect_classifier():
    """The released code: with 100 balanced examples of 10 classes its edge is 0.1, not 1."""
    target = torch.arange(100) % 10
    logits = 1e3 * torch.eye(10, dtype=float64)[target]
    assert edge(logits.softmax(0), target) == pytest.approx(0.1, abs=1e-12)
    assert edge(logits.softmax(1), target) == 1


def test_a_start_at_an_edge_of_one_stays_finite():
    """Algorithm 3 prints it, and divides by zero."""
    assert -1e13 < improvement(0.5, 1.0) < 0


ROWS = torch.full((3, 4), 0.25)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("output", "target", "words"),
    [
        (ROWS, tensor([0, 1]), "must have shape"),
        (ROWS, tensor([0, 1, 4]), r"classes 0\.\.3.*got 0\.\.4"),
        (ROWS, tensor([-1, 1, 2]), r"got -1\.\.2"),
        (ROWS, tensor([0.0, 1.0, 2.0]), "integer classes"),
        (ROWS[:, :1], tensor([0, 0, 0]), "at least two classes"),
        (ROWS * torch.nan, tensor([0, 1, 2]), "finite and bounded"),
        (ROWS.log_softmax(1) * ROWS.cumsum(1) * 30, tensor([0, 1, 2]), "softmax"),
    ],
)
def test_bad_outputs(output, target, words):
    with pytest.raises(ValueError, match=words):
        margins(output, target)


@pytest.mark.untyped
def test_bad_arguments(rng):
    target = tensor([0, 1, 2])
    with pytest.raises(ValueError, match="finite and not negative"):
        pair_weights(ROWS, target, 1.0, tensor([1.0, -1.0, 0.0]))
    with pytest.raises(ValueError, match="one number per example"):
        exponential_loss(ROWS, target, 1.0, torch.ones(4))
    for found in (exponential_loss, pair_weights):
        with pytest.raises(ValueError, match="weight above zero"):
            found(ROWS, target, 1.0, torch.zeros(3))
    with pytest.raises(ValueError, match="weight above zero"):
        line_search_alpha(ROWS, target, torch.zeros(3))
    with pytest.raises(ValueError, match="small enough for exp"):
        cost_matrix(tensor([[0.0, 1e4]]), tensor([0]))
    with pytest.raises(ValueError, match=r"lie in \[-1, 1\]; got 1.5"):
        closed_alpha(1.5)
    with pytest.raises(ValueError, match="got nan"):
        improvement(0.3, float("nan"))
    with pytest.raises(ValueError, match="labels must be -1 or 1"):
        binary_output(torch.zeros(2), tensor([0, 1]))
    with pytest.raises(ValueError, match="Clip or tanh"):
        binary_output(tensor([0.0, 2.0]), tensor([1, -1]))
