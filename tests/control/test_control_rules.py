"""The elementwise rules are the argmax of the augmented Hamiltonian over all candidates (O1)."""

from itertools import product

import pytest
import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from lowland.control.rules import binary_rule, finite_set_rule, largest_wrong, ternary_rule

FLOAT = torch.float64


def best(weight: Tensor, m: Tensor, values: tuple[float, ...], rho: float, lam: float) -> Tensor:
    """Try every candidate of the whole vector; ties by the fewest, then the shortest moves."""

    def value(candidate: tuple[float, ...]) -> tuple[float, int, float]:
        v = tensor(candidate, dtype=FLOAT)
        score = (m @ v - lam * v @ v - rho * (v - weight) @ (v - weight)).item()
        return score, -int((v != weight).sum()), -float((v - weight).abs().sum())

    return tensor(max(product(values, repeat=len(weight)), key=value), dtype=FLOAT)


@pytest.mark.parametrize(
    "values", [(-1.0, 1.0), (-1.0, 0.0, 1.0), (-2.0, -0.5, 0.0, 1.5), (0.0, 1.0)]
)
def test_rules_meet_every_candidate(values, rng):
    """100 random cases, or 60, and all 2^5, 3^5, ... candidates."""
    for _ in range(100 if len(values) < 4 else 60):
        size = 5 if len(values) < 4 else 3
        weight = tensor(values, dtype=FLOAT)[torch.randint(len(values), (size,), generator=rng)]
        m = torch.randn(size, dtype=FLOAT, generator=rng)
        rho, lam = torch.rand(2, dtype=FLOAT, generator=rng).tolist()
        lam = 0.0 if values == (-1.0, 1.0) else lam
        wanted = best(weight, m, values, rho, lam)
        assert_close(finite_set_rule(weight, m, values, rho, lam), wanted, rtol=0, atol=0)
        if values == (-1.0, 1.0):
            assert_close(binary_rule(weight, m, rho), wanted, rtol=0, atol=0)
        if values == (-1.0, 0.0, 1.0):
            assert_close(ternary_rule(weight, m, rho, lam), wanted, rtol=0, atol=0)


def test_published_ternary_thresholds(rng):
    """+1 if M > rho (1 - 2 W) + lambda; -1 if M < -rho (1 + 2 W) - lambda; 0 otherwise."""
    weight = torch.randint(-1, 2, (500,), generator=rng).to(FLOAT)
    m = torch.randn(500, dtype=FLOAT, generator=rng)
    rho, lam = 0.3, 0.2
    up, down = m > rho * (1 - 2 * weight) + lam, m < -rho * (1 + 2 * weight) - lam
    assert not (up & down).any()
    assert_close(ternary_rule(weight, m, rho, lam), up.to(FLOAT) - down.to(FLOAT))


def test_published_binary_threshold(rng):
    """The sign of M if |M| > 2 rho, else the weight."""
    weight = torch.randint(2, (500,), generator=rng).to(FLOAT) * 2 - 1
    m = torch.randn(500, dtype=FLOAT, generator=rng)
    assert_close(binary_rule(weight, m, 0.4), torch.where(m.abs() > 0.8, m.sign(), weight))


@pytest.mark.parametrize("rho", [0.0, 0.25, 1.0])
def test_ties_keep_the_weight_or_take_the_nearest(rho):
    """Exactly on every threshold (powers of two, so that ties are exact)."""
    lam = 0.5
    kept = tensor([1.0, -1.0, 0.0, 0.0], dtype=FLOAT)
    m = tensor([lam - rho, rho - lam, rho + lam, -rho - lam], dtype=FLOAT)
    assert_close(ternary_rule(kept, m, rho, lam), kept)
    assert_close(finite_set_rule(kept, m, (-1.0, 0.0, 1.0), rho, lam), kept)
    far = tensor([-1.0], dtype=FLOAT)  # between 0 and +1 it takes 0
    edge = tensor([3 * rho + lam], dtype=FLOAT)
    assert ternary_rule(far, edge, rho, lam).item() == 0
    assert finite_set_rule(far, edge, (-1, 0, 1), rho, lam).item() == 0
    flat = tensor([1.0, -1.0], dtype=FLOAT)
    assert_close(binary_rule(flat, -2 * rho * flat, rho), flat)


def test_no_gradient_changes_nothing():
    """M = 0 without a price keeps every set, whatever rho is."""
    weight = tensor([-1.0, 0.0, 1.0], dtype=FLOAT)
    zero = torch.zeros(3, dtype=FLOAT)
    assert_close(ternary_rule(weight, zero, 0.0), weight)
    assert_close(ternary_rule(weight, zero, 0.7), weight)
    assert_close(finite_set_rule(weight, zero, (-1, 0, 1), 0.0), weight)


def test_limits():
    """O8: no price and no penalty gives the sign; a price above all of M gives zero."""
    weight = tensor([-1.0, 1.0, 1.0, -1.0], dtype=FLOAT)
    m = tensor([0.5, -0.25, 2.0, -1.0], dtype=FLOAT)
    assert_close(binary_rule(weight, m, 0.0), m.sign())
    assert_close(ternary_rule(weight, m, 0.0), m.sign())
    assert not ternary_rule(weight, m, 0.5, 2.0 + 0.5 + 1e-9).any()


def test_largest_wrong():
    """The largest |M| without the sign of its weight; zeros count as wrong."""
    m = tensor([3.0, -2.0, 0.5, -0.25], dtype=FLOAT)
    right = m.sign()
    assert largest_wrong(right, m, (-1.0, 1.0)).item() == 0
    assert largest_wrong(right * tensor([1, -1, -1, 1]), m, (-1.0, 1.0)).item() == 2
    assert largest_wrong(right * tensor([0.0, 1, 1, 1]), m, (-1.0, 0.0, 1.0)).item() == 3
    assert largest_wrong(torch.zeros(0), torch.zeros(0), (-1.0, 1.0)).item() == 0


def test_largest_wrong_of_any_set(rng):
    """Wrong is what enumeration would change at rho = 0."""
    values, lam = (-2.0, -0.5, 0.0, 1.5), 0.3
    weight = tensor(values, dtype=FLOAT)[torch.randint(4, (50,), generator=rng)]
    m = torch.randn(50, dtype=FLOAT, generator=rng)
    sizes = [
        abs(x)
        for x, w in zip(m.tolist(), weight.tolist(), strict=True)
        if max(values, key=lambda v: x * v - lam * v * v) != w
    ]
    assert largest_wrong(weight, m, values, lam).item() == max(sizes)


def test_a_right_zero_of_a_set_without_minus_one():
    """Of 0 and 1, a zero whose M is negative is right."""
    weight, m = tensor([0.0, 1.0], dtype=FLOAT), tensor([-5.0, -1.0], dtype=FLOAT)
    assert largest_wrong(weight, m, (0.0, 1.0)).item() == 1


@pytest.mark.parametrize("wrong", [-0.1, float("nan"), float("inf")])
def test_penalties_and_prices_out_of_range(wrong):
    """A negative penalty would move the weights that are right."""
    weight, m = tensor([1.0, -1.0]), tensor([0.5, -0.5])
    with pytest.raises(ValueError, match="rho, the penalty on a move, must be finite and at least"):
        binary_rule(weight, m, wrong)
    for rho, lam, name in ((wrong, 0.0, "rho"), (0.0, wrong, "lam")):
        with pytest.raises(ValueError, match=f"{name}, the p.* must be finite and at least 0"):
            ternary_rule(weight, m, rho, lam)
        with pytest.raises(ValueError, match=f"{name}, the p.* must be finite and at least 0"):
            finite_set_rule(weight, m, (-1, 2), rho, lam)
