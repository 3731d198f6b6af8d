"""Objectives: identities with the exponential loss, stable at both ends, one loss per example."""

from math import exp, log

import pytest
import torch
from torch import float64, tensor
from torch.testing import assert_close

from lowland.boosting.objectives import OBJECTIVES, objective, transport


def examples(rng, scale=3.0, count=6, classes=4):
    logits = scale * torch.randn(count, classes, generator=rng, dtype=float64)
    return logits, torch.randint(classes, (count,), generator=rng)


def slow_exponential(row, y):
    return sum(exp(z - row[y]) for c, z in enumerate(row) if c != y)


def test_exponential_loss_of_logits(rng):
    """O9: expm1(CE) is the sum over wrong classes of exp(z_l - z_y)."""
    logits, target = examples(rng)
    expected = [
        slow_exponential(row, y) for row, y in zip(logits.tolist(), target.tolist(), strict=True)
    ]
    found = objective("exp")(logits, target)
    assert_close(found, tensor(expected, dtype=float64), rtol=1e-13, atol=1e-14)
    assert_close(objective("ce")(logits, target).expm1(), found, rtol=1e-14, atol=1e-15)


def test_small_losses_keep_their_digits():
    """Far on the right side exp(-40) is left, which 1 + exp(-40) - 1 would lose."""
    logits = tensor([[30.0, 0.0]], dtype=float64)
    assert objective("exp")(logits, tensor([0])).item() == pytest.approx(exp(-30), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, float64])
def test_large_losses_stay_finite_and_have_a_gradient(dtype):
    """Beyond a cross-entropy of 20 a line goes on with slope exp(20)."""
    logits = tensor([[0.0, 4992.0], [0.0, 30.0], [0.0, 2.0]], dtype=dtype, requires_grad=True)
    losses = objective("exp")(logits, tensor([0, 0, 0]))
    assert losses.dtype == (float64 if dtype == float64 else torch.float32)
    assert losses.isfinite().all()
    expected = [exp(20) * (4992 - 20) + exp(20), exp(20) * 11, exp(2)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    (slope,) = torch.autograd.grad(losses.sum(), logits)
    if dtype != torch.float16:  # whose gradient has no room for it
        assert slope[:, 1].tolist() == pytest.approx([exp(20), exp(20), exp(2)], rel=5e-3)


def test_gradients_are_those_of_autograd(rng):
    """The exponential weighs each example's cross-entropy gradient by 1 / p_y."""
    logits, target = examples(rng)
    logits.requires_grad_()
    (plain,) = torch.autograd.grad(objective("ce")(logits, target).sum(), logits)
    (ours,) = torch.autograd.grad(objective("exp")(logits, target).sum(), logits)
    p = logits.softmax(1).gather(1, target[:, None])
    assert_close(ours, plain / p, rtol=1e-12, atol=1e-14)


def test_the_released_objective(rng):
    """Exp of the mean cross-entropy of a softmax over the batch, written out."""
    logits, target = examples(rng, scale=1.0)
    columns = logits.T.exp() / logits.T.exp().sum(1, keepdim=True)
    entropies = [
        -log(exp(row[y]) / sum(exp(value) for value in row))
        for row, y in zip(columns.T.tolist(), target.tolist(), strict=True)
    ]
    found = objective("released")(logits, target)
    assert found.shape == (6,)
    assert found.mean().item() == pytest.approx(exp(sum(entropies) / 6))
    alone = objective("released")(logits[:3], target[:3])
    assert alone[0] != pytest.approx(found[0].item())  # an output depends on its batch


def test_the_released_objective_saturates():
    """With both softmaxes over classes, cross-entropy cannot go below 1.4612 for ten of them."""
    logits = 1e3 * torch.eye(10, dtype=float64)
    found = objective("ce")(logits.softmax(1), torch.arange(10))
    assert found.min().item() == pytest.approx(1.4612, abs=5e-5)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_weights(name, rng):
    """Equal weights change nothing; a factor multiplies an example's gradient."""
    logits, target = examples(rng)
    loss_fn = objective(name)
    assert_close(loss_fn(logits, target, torch.ones(6)), loss_fn(logits, target))
    if name == "released":
        return
    weights = tensor([0.0, 1.0, 2.0, 0.5, 1.0, 1.5])
    assert_close(loss_fn(logits, target, weights), loss_fn(logits, target) * weights)


def test_transport(rng):
    """The mean over examples is mean ||f||^2 / (2 tau)."""
    change = torch.randn(5, 3, 2, 2, generator=rng, dtype=float64)
    expected = sum(float((row * row).sum()) for row in change) / 5 / (2 * 0.3)
    found = transport(change, 0.3)
    assert found.shape == (5,)
    assert found.mean().item() == pytest.approx(expected)
    assert transport(torch.full((1, 8), 300.0, dtype=torch.float16), 0.5).item() == 720_000


@pytest.mark.untyped
def test_bad_arguments():
    with pytest.raises(ValueError, match=r"one of \['ce', 'exp', 'released'\]; got 'mse'"):
        objective("mse")
    with pytest.raises(ValueError, match="tau must be positive; got 0"):
        transport(torch.ones(2, 3), 0)
    for loss_fn in OBJECTIVES.values():
        with pytest.raises(ValueError, match="target shape"):
            loss_fn(torch.ones(2, 3), torch.ones(2, 3))
        with pytest.raises(ValueError, match="one number per example"):
            loss_fn(torch.ones(2, 3), tensor([0, 1]), torch.ones(3))
