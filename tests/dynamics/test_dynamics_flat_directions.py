"""Counts with a verdict: fifty operators with known spectra, and a network with its full Hessian.

A count that the verdict accepts is within 3 % of the truth (or half an eigenvalue); one that is
not, is rejected.
"""

from math import inf

import pytest
import torch
from torch import float64, nn

from lowland.data import load
from lowland.dynamics.flat_directions import flat_directions, negative_directions
from lowland.dynamics.operators import Operator
from lowland.dynamics.products import hessian_product
from lowland.dynamics.spectral_density import exact_spectrum, spectral_density
from lowland.results import plain
from oracles.slow_hessian import slow_count
from small_networks import class_batches, losses, mlp, seeded

SIZES = (300, 400, 800)


@pytest.fixture(scope="module")
def bases():
    """One random rotation for each size."""
    draws = torch.Generator().manual_seed(5)
    return {
        size: torch.linalg.qr(torch.randn(size, size, dtype=float64, generator=draws))[0]
        for size in SIZES
    }


def rotated(values, basis, dtype=float64):
    matrix = ((basis * values) @ basis.T).to(dtype)
    return Operator(lambda rows: rows @ matrix, len(matrix), dtype)


KINDS = {
    "logarithmic": lambda r: 10 ** (-6 * r),
    "even": lambda r: 2 * r - 1,
    "bulk and outliers": lambda r: torch.where(r < 0.95, 1e-3 * r, 1 + 10 * r),
    "seven values": lambda r: 1 + (7 * r).floor(),
    "heavy tail": lambda r: torch.tan(3 * (r - 0.5)),
}


def known_spectrum(number):
    """Of fifty: five kinds, three sizes, every other one with 50 to 90 % exact zeros."""
    draws = torch.Generator().manual_seed(number)
    size = SIZES[number % 3]
    zeros = int(size * (0.5 + 0.4 * float(torch.rand(1, generator=draws)))) if number % 2 else 0
    kind = list(KINDS.values())[number // 2 % 5]
    return torch.cat(
        [
            torch.zeros(zeros, dtype=float64),
            kind(torch.rand(size - zeros, dtype=float64, generator=draws)),
        ]
    )


def is_near(count, truth):
    return abs(count.value - truth) <= max(0.03 * truth, 0.5)


def judged(values, operator, *, relative, **options):
    """Flat and negative counts at a threshold, each with the truth."""
    found = flat_directions(operator, relative=relative, **options)
    eps = found.threshold
    assert eps == pytest.approx(relative * float(values.max()), rel=1e-3)
    return [
        (found.flat, slow_count(values, -eps, eps)),
        (found.negative, slow_count(values, -inf, -eps)),
    ]


def test_fifty_operators(bases):
    """At a moderate threshold; most are accepted, so that the test is not empty."""
    accepted = 0
    for number in range(50):
        values = known_spectrum(number)
        operator = rotated(values, bases[len(values)])
        for count, truth in judged(
            values, operator, relative=0.03, steps=20, max_steps=40, seed=number
        ):
            assert is_near(count, truth) or not count.reliable, (number, count, truth)
            accepted += count.reliable
    assert accepted >= 45


@pytest.mark.slow
@pytest.mark.parametrize("relative", [1e-4, 1e-3, 1e-2, 1e-1])
def test_fifty_operators_at_every_threshold(relative, bases):
    accepted = 0
    for number in range(50):
        values = known_spectrum(number)
        operator = rotated(values, bases[len(values)])
        for count, truth in judged(
            values, operator, relative=relative, steps=50, max_steps=200, probes=15, seed=number
        ):
            assert is_near(count, truth) or not count.reliable, (number, count, truth)
            accepted += count.reliable
    assert accepted >= 50


def test_float32_counts_no_rounding(bases):
    """Exact zeros come out as 1e-7: a threshold below that is refused, one above is met."""
    values = torch.cat([torch.zeros(280, dtype=float64), torch.linspace(0.5, 1, 120).double()])
    narrow = rotated(values, bases[400], torch.float32)
    wide = rotated(values, bases[400])
    options = {"steps": 60, "max_steps": 60, "probes": 40}
    refused = flat_directions(narrow, eps=1e-7, **options)
    assert not refused.reliable
    assert "zero to rounding" in refused.flat.reason
    for operator, eps in ((narrow, 1e-3), (wide, 1e-7)):
        found = flat_directions(operator, eps=eps, **options)
        assert found.value == pytest.approx(280, rel=0.03)
        assert found.reliable


def digits_net():
    """Section 3.5: 64-16-10 with a ReLU, 100 digits, cross-entropy, plain gradient descent."""
    digits = load("digits")
    inputs, target = digits.images[:100].reshape(100, -1).double() / 255, digits.labels[:100]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).double()
    return model, [(inputs[:60], target[:60]), (inputs[60:], target[60:])]


def descend(model, batches, steps):
    whole = [torch.cat(parts) for parts in zip(*batches, strict=True)]
    for _ in range(steps):
        model.zero_grad()
        losses(model(whole[0]), whole[1]).mean().backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.5 * p.grad


@pytest.mark.slow
def test_the_table_of_section_3_5():
    """Three states, three thresholds, m from 20 to 160: every wrong cell is rejected."""
    model, batches = digits_net()
    accepted = rejected = 0
    for steps in (0, 100, 900):
        descend(model, batches, steps)
        operator = hessian_product(model, losses, batches)
        values = torch.linalg.eigvalsh(operator.dense())
        assert len(values) == 1210
        for m in (20, 40, 80, 160):
            found = spectral_density(operator, steps=m)
            for relative in (1e-4, 1e-3, 1e-2):
                eps = relative * float(values[-1])
                count, truth = found.count(-eps, eps), slow_count(values, -eps, eps)
                assert is_near(count, truth) or not count.reliable, (steps, m, relative, count)
                accepted += count.reliable
                rejected += not is_near(count, truth)
    assert accepted >= 8
    assert rejected >= 12


@pytest.mark.slow
def test_doubling_resolves_a_network():
    """From 20 steps on, until the count stands."""
    model, batches = digits_net()
    descend(model, batches, 200)
    operator = hessian_product(model, losses, batches)
    values = torch.linalg.eigvalsh(operator.dense())
    found = flat_directions(operator, relative=1e-3, steps=20, max_steps=640, probes=20)
    assert found.reliable
    assert found.steps > 40
    assert is_near(found.flat, slow_count(values, -found.threshold, found.threshold))


def test_three_thresholds(bases):
    """The number itself, a share of the largest eigenvalue, and the age of the run."""
    values = torch.linspace(-0.2, 2, 400, dtype=float64)
    operator = rotated(values, bases[400])
    options = {"steps": 60, "probes": 4}
    found = [
        flat_directions(operator, **{name: value}, **options)
        for name, value in (("eps", 0.5), ("relative", 0.25), ("age", 2.0))
    ]
    for one in found:
        assert one.threshold == pytest.approx(0.5, rel=1e-6)
        assert one.value == pytest.approx(found[0].value, rel=1e-6)
        assert abs(one.value - 127) < one.flat.resolution + 5 * one.standard_error
        assert one.negative.value == pytest.approx(0, abs=0.5)
    assert found[0].record()["threshold"] == 0.5
    assert plain(found[0].record()) == found[0].record()


def test_negative_directions(bases):
    """A saddle, a minimum with a gap, and zeros that nobody can give a sign."""
    half = torch.linspace(0.5, 1, 200, dtype=float64)
    saddle = rotated(torch.cat([half, -half]), bases[400])
    count = negative_directions(saddle, steps=40, probes=60)
    assert count.reliable
    assert is_near(count, 200)
    minimum = rotated(torch.cat([half, half + 1]), bases[400])
    count = negative_directions(minimum, steps=40)
    assert count.value == pytest.approx(0, abs=1e-6)
    assert count.reliable
    flat = rotated(torch.cat([half, 0 * half]), bases[400])
    count = negative_directions(flat, steps=40, max_steps=40)
    assert not count.reliable
    assert "zero to rounding" in count.reason


def test_a_model(rng):
    """The same numbers from a model and from its operator."""
    model, batches = mlp().double(), class_batches(4, sizes=(8, 5), dtype=float64)
    options = {"eps": 1e-2, "steps": 20, "probes": 3}
    found = flat_directions(model, losses, batches, **options)
    other = flat_directions(hessian_product(model, losses, batches), **options)
    assert found.record() == other.record()
    count = negative_directions(model, losses, batches, eps=1e-2, steps=20, probes=3)
    assert count.value == pytest.approx(found.negative.value, abs=1)


def test_the_cap_is_named(bases):
    values = torch.linspace(-1, 1, 400, dtype=float64)
    found = flat_directions(rotated(values, bases[400]), eps=1e-3, steps=5, max_steps=10)
    assert not found.reliable
    assert found.steps == 10
    assert "max_steps was 10" in found.flat.reason


def test_a_small_matrix_is_named():
    """Where probes cost more products than there are eigenvalues, these are the better way."""
    model, batches = seeded(mlp, 0), class_batches(4)
    found = flat_directions(model, losses, batches, relative=1e-2, steps=40, probes=3)
    assert not found.reliable
    size = found.spectrum.size
    assert f"or all {size} eigenvalues from exact_spectrum" in found.flat.reason
    exact = exact_spectrum(model, losses, batches).count(-found.threshold, found.threshold)
    assert exact.reliable
    assert abs(exact.value - found.value) <= 4 * found.standard_error


def test_bad_input(bases):
    operator = rotated(-torch.linspace(0, 1, 400, dtype=float64), bases[400])
    for options in ({}, {"eps": 1.0, "age": 2.0}):
        with pytest.raises(ValueError, match="exactly one of"):
            flat_directions(operator, **options)
    for options in ({"eps": 0.0}, {"eps": -1.0}, {"age": inf}, {"relative": float("nan")}):
        with pytest.raises(ValueError, match="must be positive and finite"):
            flat_directions(operator, **options)
    with pytest.raises(ValueError, match="positive one"):
        flat_directions(rotated(-torch.ones(400).double(), bases[400]), relative=0.1)
    with pytest.raises(ValueError, match="at least 0"):
        negative_directions(operator, eps=-1.0)
    with pytest.raises(ValueError, match="at least 1"):
        flat_directions(operator, eps=1.0, probes=0)


@pytest.mark.untyped  # a checker puts frames of its own in between
def test_more_steps_than_parameters(bases):
    """The caller's line is named."""
    operator = rotated(-torch.linspace(0, 1, 400, dtype=float64), bases[400])
    with pytest.warns(UserWarning, match="must not exceed") as told:
        flat_directions(operator, eps=2.0, steps=401, probes=2)
    assert told[0].filename == __file__
