"""The share of nonzero weights is a setting: met, and the best under this constraint."""

from itertools import product

import pytest
import torch
from drawn_weights import FLOAT, give, parameter
from torch import tensor
from torch.testing import assert_close

from allocated import most_bytes
from lowland.control import TERNARY, DiscreteMSA, annealing, held, nonzero_schedule, price_of_share


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6])
def test_target_is_met_at_every_step(share, rng):
    """The share is over all tensors together, and lambda the price that leaves it."""
    weights = [parameter(TERNARY, (300, 40), rng), parameter(TERNARY, (1000,), rng)]
    optimizer = DiscreteMSA(
        weights, values=TERNARY, alpha=0.9, rho=0.05, target_nonzero=lambda step: share
    )
    for _ in range(5):
        give(weights, rng)
        optimizer.step()
        nonzero = sum(int(w.count_nonzero()) for w in weights) / 13000
        assert abs(nonzero - share) <= 1 / 13000


def test_target_maximizes_under_the_constraint(rng):
    """No other vector with as many nonzero weights has a larger augmented Hamiltonian."""
    for _ in range(20):
        weight = parameter(TERNARY, (6,), rng)
        old = weight.detach().clone()
        optimizer = DiscreteMSA(
            [weight], values=TERNARY, alpha=0.0, rho=0.1, threshold="absolute", target_nonzero=1 / 3
        )
        give([weight], rng)
        m = -weight.grad
        optimizer.step()

        def value(v, m=m, old=old):
            return (m @ v - 0.1 * (v - old) @ (v - old)).item()

        every = (tensor(c, dtype=FLOAT) for c in product(TERNARY, repeat=6))
        top = max(value(v) for v in every if v.count_nonzero() <= 2)
        assert weight.count_nonzero() <= 2
        assert_close(value(weight.detach()), top)


def test_sampled_price_is_near(rng):
    """With more weights than are ranked, the share is met within 0.3 points."""
    weight = parameter(TERNARY, (3, 700_000), rng, torch.float32)
    optimizer = DiscreteMSA([weight], values=TERNARY, alpha=0.5, target_nonzero=0.02)
    for _ in range(3):
        give([weight], rng)
        optimizer.step()
        assert abs(weight.count_nonzero().item() / weight.numel() - 0.02) < 0.003


@pytest.mark.parametrize("shape", [(9, 7), (5, 40), (3, 2, 5), (2, 1), (1, 90), (4, 16)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_of_dead_rows_count_for_nothing(shape, dtype, rng, monkeypatch):
    """Averages are those of gradients set to zero there, to the bit, wherever blocks are cut."""
    monkeypatch.setattr(held, "BLOCK", 16)
    weight = parameter(TERNARY, shape, rng, dtype)
    with torch.no_grad():
        weight[::2] = 0
    optimizer = DiscreteMSA([weight], values=TERNARY, alpha=0.75, target_nonzero=0.5)
    expected = torch.zeros(shape)
    for _ in range(4):
        give([weight], rng)
        dead = [not row.any() for row in weight.detach()]
        felt = weight.grad.clone()
        felt[dead] *= 0
        expected.mul_(0.75).add_(felt, alpha=-0.25)
        optimizer.step()
        assert torch.equal(optimizer.state[weight]["average"], expected)


def test_no_copy_of_all_gradients():
    """A step takes an average, four bytes per weight, and blocks of some hundred kilobytes."""
    weights = [torch.nn.Parameter(torch.ones(1000, 1000)) for _ in range(4)]
    for weight in weights:
        weight.grad = torch.randn(1000, 1000)
        weight.data[::2] = 0
    optimizer = DiscreteMSA(weights, values=TERNARY, target_nonzero=0.3)
    assert most_bytes(optimizer.step) < 1.2 * 4 * 4_000_000


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_shares_are_shares(share):
    weight = torch.ones(4)
    with pytest.raises(ValueError, match="must be a share between 0 and 1"):
        price_of_share([(weight, weight, 0.1)], share)
    for settings in ({}, {"target": 0.1, "start": share}, {"target": 0.1, "until": share}):
        with pytest.raises(ValueError, match="must be a share between 0 and 1"):
            nonzero_schedule(**{"target": share, "steps": 10} | settings)
    with pytest.raises(ValueError, match=r"final, a factor on 1 - alpha, must be in \(0, 1\]"):
        annealing(10, share)
