"""Draws: the outcomes, counted by hand, leave every mean as it is and give each scheme's variance.

Statistical tolerances are four standard errors, with seeds fixed.
"""

from fractions import Fraction
from math import sqrt

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lowland.importance import draw, focus, merge
from oracles.slow_importance import (
    all_multinomial,
    all_residual,
    all_systematic,
    all_without_replacement,
    moments,
)

SCHEMES = ["systematic", "multinomial", "residual"]
GRADIENTS = [1.0, -1.0, 2.0, 6.0]  # O5
SIZES = [1.0, 1.0, 2.0, 6.0]
SCORES = st.lists(
    st.one_of(st.just(0.0), st.floats(1e-6, 1e6), st.floats(0.5, 2)), min_size=1, max_size=40
).filter(any)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


# O5 and O6


def exact(scheme, score):
    """Mean and variance over all outcomes, by enumeration."""
    p = [Fraction(s) / Fraction(sum(score)) for s in score]
    ways = {"systematic": all_systematic, "residual": all_residual}
    if scheme == "multinomial":
        return moments(all_multinomial([float(x) for x in p], 2), GRADIENTS, [float(x) for x in p])
    return moments(ways[scheme](p, 2), GRADIENTS, [float(x) for x in p])


@pytest.mark.parametrize(
    ("scheme", "score", "variance"),
    [
        ("multinomial", [1.0] * 4, 3.25),
        ("multinomial", SIZES, 1.125),
        ("multinomial", [sqrt(s) for s in SIZES], 1.577842),
        ("multinomial", [s * s for s in SIZES], 3.25),
        ("systematic", SIZES, 1.0),
        ("residual", SIZES, 1.0),
    ],
)
def test_estimates_have_the_enumerated_moments(scheme, score, variance):
    """The mean is always 2; the variance is the scheme's, from 1,500 draws of two."""
    mean, expected = exact(scheme, score)
    assert mean == pytest.approx(2)
    assert expected == pytest.approx(variance, abs=1e-6)
    draws, rng, values = 1500, generator(1), double(GRADIENTS)
    found = []
    for _ in range(draws):
        index, weight = draw(double(score), 2, scheme, rng)
        found.append((weight * values[index]).mean())
    found = torch.stack(found)
    assert found.mean().item() == pytest.approx(2, abs=4 * sqrt(expected / draws))
    error = ((found - 2) ** 2).std().item() / sqrt(draws)
    assert ((found - 2) ** 2).mean().item() == pytest.approx(expected, abs=4 * error)


def test_leaving_out_what_was_drawn_would_be_biased():
    """O6: the trap that the enumeration detects, so that the test above means something."""
    p = [s / 10 for s in SIZES]
    mean, _ = moments(all_without_replacement(p, 2), GRADIENTS, p)
    assert mean == pytest.approx(1.784722, abs=5e-7)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("mixing", [0.0, 0.3])
def test_counts_are_right_on_average(scheme, mixing):
    """``E[count_i] = b p_i`` for every example, also with a uniform share mixed in."""
    score, size, draws = double([0.0, 0.5, 1.0, 1.0, 3.0, 7.5]), 4, 1000
    p = (1 - mixing) * score / score.sum() + mixing / 6
    rng = generator(2)
    counts = torch.stack(
        [
            draw(score, size, scheme, rng, mixing=mixing)[0].bincount(minlength=6).double()
            for _ in range(draws)
        ]
    )
    error = counts.std(0).clamp(min=1e-3) / sqrt(draws)
    assert ((counts.mean(0) - size * p).abs() <= 4 * error).all()
    if not mixing:
        assert not counts[:, 0].any()


# Draw by draw


@settings(max_examples=40)
@given(score=SCORES, size=st.integers(1, 60), seed=st.integers(0, 2**20))
@example(score=[1.0, 1.0, 1.0], size=3, seed=0)
@example(score=[0.1] * 10, size=40, seed=0)
@example(score=[0.0, 5e-324], size=5, seed=0)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_draw(scheme, score, size, seed):
    """Positions exist, p w = 1/B, nothing of score zero is ever drawn."""
    score = double(score)
    index, weight = draw(score, size, scheme, generator(seed))
    assert index.shape == weight.shape == (size,)
    assert (score[index] > 0).all()
    p = score / score.sum()
    assert_close(p[index] * weight, torch.full_like(weight, 1 / len(p)), rtol=1e-12, atol=0)


@settings(max_examples=40)
@given(score=SCORES, size=st.integers(1, 60), seed=st.integers(0, 2**20))
def test_systematic_counts_are_within_one(score, size, seed):
    """``|count_i - b p_i| < 1``; a count may be off by rounding where ``b p_i`` is whole."""
    score = double(score)
    index, _ = draw(score, size, "systematic", generator(seed))
    expected = size * score / score.sum()
    counts = index.bincount(minlength=len(score))
    assert ((counts - expected).abs() < 1 + 1e-9).all()


@settings(max_examples=40)
@given(score=SCORES, size=st.integers(1, 60), seed=st.integers(0, 2**20))
def test_residual_counts_have_their_whole_part(score, size, seed):
    score = double(score)
    index, _ = draw(score, size, "residual", generator(seed))
    expected = size * score / score.sum()
    assert (index.bincount(minlength=len(score)) >= (expected - 1e-9).floor()).all()


@settings(max_examples=40)
@given(score=SCORES, share=st.floats(0.01, 0.99), seed=st.integers(0, 2**20))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_mixing_bounds_the_weights(scheme, score, share, seed):
    """``w <= 1/lambda``, and the weight belongs to the mixed probability."""
    score = double(score)
    index, weight = draw(score, 8, scheme, generator(seed), mixing=share)
    p = (1 - share) * score / score.sum() + share / len(score)
    assert (weight <= 1 / share * (1 + 1e-12)).all()
    assert_close(weight, 1 / (len(p) * p[index]), rtol=1e-12, atol=0)


@settings(max_examples=40)
@given(count=st.integers(1, 50), size=st.integers(1, 50), seed=st.integers(0, 2**20))
@pytest.mark.parametrize("value", [1.0, 0.1, 1e-20, 3e7])
def test_equal_scores_are_plain_sampling(value, count, size, seed):
    """O11: weights are exactly 1, and a systematic draw of a whole pool takes each example once."""
    index, weight = draw(torch.full((count,), value), size, generator=generator(seed))
    assert_close(weight, torch.ones(size), rtol=0, atol=0)
    whole, _ = draw(torch.full((count,), value), count, generator=generator(seed))
    assert whole.sort().values.tolist() == list(range(count))


@settings(max_examples=40)
@given(score=SCORES, factor=st.floats(1e-9, 1e9), seed=st.integers(0, 2**20))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_scale_of_scores_does_not_matter(scheme, score, factor, seed):
    """O12. A power of two keeps every bit; any other factor keeps the weights."""
    score = double(score)
    index, weight = draw(score, 9, scheme, generator(seed))
    again, weight_again = draw(score * 2**20, 9, scheme, generator(seed))
    assert torch.equal(index, again)
    assert torch.equal(weight, weight_again)
    _, other = draw(score * factor, 9, scheme, generator(seed))
    p = score / score.sum()
    possible = 1 / (len(p) * p[p > 0])
    assert torch.isclose(other[:, None], possible, rtol=1e-9).any(1).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_randomness_comes_from_the_generator_alone(scheme):
    score = torch.arange(1.0, 20)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = draw(score, 8, scheme, generator(5))
    torch.manual_seed(4)
    again = draw(score, 8, scheme, generator(5))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    torch.manual_seed(3)
    draw(score, 8, scheme)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_order_of_the_pool_does_not_matter(scheme):
    """Neighbors of a sorted pool are drawn together as often as strangers: pair counts agree.

    Without the permutation a systematic comb never takes both of two neighbors of p = 1/4, b = 2.
    """
    rng, pairs, draws = generator(6), torch.zeros(4, 4), 1500
    for _ in range(draws):
        counts = draw(torch.ones(4), 2, scheme, rng)[0].bincount(minlength=4).float()
        pairs += counts.outer(counts)
    apart = pairs[~torch.eye(4, dtype=torch.bool)] / draws
    expected = 2 * (1 / 12 if scheme != "multinomial" else 1 / 16)
    if scheme == "residual":
        expected = 2 / 16  # nothing is certain here
    assert ((apart - expected).abs() < 4 * sqrt(expected / draws)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_of_scores(dtype, rng):
    """Half types, whose sums would be coarse, are drawn from as exactly as they are given."""
    score = torch.rand(3000, generator=rng).to(dtype)
    index, weight = draw(score, 100, generator=generator(7))
    p = score.double() / score.double().sum()
    assert weight.dtype in (torch.float32, torch.float64)
    assert_close(weight.double(), 1 / (3000 * p[index]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scores_whose_sum_has_no_number(scheme):
    """Each is finite, so all is well."""
    index, weight = draw(double([1e308, 1e308, 1e308]), 3, scheme, generator(1))
    assert set(index.tolist()) <= {0, 1, 2}
    assert_close(weight, torch.ones(3, dtype=torch.float64))


def test_one_score_holds_everything():
    score = torch.tensor([0.0, 1e-38, 0.0])
    for scheme in SCHEMES:
        index, weight = draw(score, 5, scheme, generator(1))
        assert index.tolist() == [1] * 5
        assert_close(weight, torch.full((5,), 1 / 3))


def test_gradient_over_many_pools_is_the_mean(rng):
    """Over one pool, the mean of 800 weighted gradients is the pool's gradient, in each scheme."""
    gradients = (
        torch.randn(30, 6, dtype=torch.float64, generator=rng) * torch.logspace(-2, 1, 30)[:, None]
    )
    score = gradients.norm(dim=1) * (0.5 + torch.rand(30, dtype=torch.float64, generator=rng))
    for scheme in SCHEMES:
        draws = []
        for _ in range(800):
            index, weight = draw(score, 5, scheme, rng)
            draws.append((weight[:, None] * gradients[index]).mean(0))
        draws = torch.stack(draws)
        error = draws.std(0) / sqrt(800)
        assert ((draws.mean(0) - gradients.mean(0)).abs() < 4 * error).all()


# Repeated draws, and the bias knob


@settings(max_examples=40)
@given(index=st.lists(st.integers(0, 9), min_size=1, max_size=30), seed=st.integers(0, 1000))
def test_merged_rows_have_the_same_sum(index, seed):
    index = torch.tensor(index)
    weight = torch.rand(len(index), dtype=torch.float64, generator=generator(seed))
    values = torch.rand(10, dtype=torch.float64, generator=generator(seed + 1))
    rows, merged = merge(index, weight)
    assert rows.tolist() == sorted(set(index.tolist()))
    assert_close((merged * values[rows]).sum(), (weight * values[index]).sum())


def test_focus_has_the_official_numbers():
    """O3: k = 0.5 for the items 0 and 3 of [1, 1, 1, 3]."""
    score = double([1.0, 3.0])
    weight = 6 / (4 * score)
    focused = focus(weight, score, 0.5)
    assert focused.tolist() == pytest.approx([1.098076, 0.633975], abs=5.1e-7)


@settings(max_examples=40)
@given(power=st.floats(0, 1), seed=st.integers(0, 1000))
def test_focus_keeps_the_weighted_sum(power, seed):
    score = 0.1 + torch.rand(12, dtype=torch.float64, generator=generator(seed))
    index, weight = draw(score, 6, generator=generator(seed))
    focused = focus(weight, score[index], power)
    assert_close((focused * score[index]).sum(), (weight * score[index]).sum())
    assert torch.equal(focus(weight, score[index], 1.0), weight)
    none = torch.zeros_like(weight)
    assert torch.equal(focus(weight, none, power), weight)  # any weights keep a sum of zeros
    if power < 1:  # harder examples, of smaller weight, gain
        gain = focused / weight
        assert (gain[weight.argmin()] >= gain.max() * (1 - 1e-12)).all()
