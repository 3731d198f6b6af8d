"""Exact norms: one backward pass per example; and the last layer's share of them for free."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lowland.errors import UnsupportedModelError
from lowland.importance import (
    cross_entropy_scores,
    equivalent_batch,
    gradient_norms,
    last_layer_scores,
    scores,
)
from oracles.slow_importance import slow_gradients, slow_last_layer
from small_networks import (
    Named,
    Tied,
    class_batches,
    conv_net,
    dropout,
    group_norm,
    losses,
    mlp,
    norm_mlp,
    same,
    seeded,
    snapshot,
)

EXACT = {"rtol": 1e-12, "atol": 1e-15}


def batch(*shape, rows=6):
    return class_batches(*shape, sizes=(rows,), dtype=torch.float64)[0]


def rows_at_once(model, inputs, target):
    return slow_gradients(model, losses, inputs, target).norm(dim=1)


@pytest.mark.parametrize("make", [mlp, norm_mlp, group_norm, dropout, Tied, conv_net])
@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_one_backward_pass_per_example(make, chunk):
    """Evaluation mode; tied weights count once, frozen ones not at all."""
    model = seeded(make, 1).double()
    inputs, target = batch(*((1, 4, 4) if make is conv_net else (4,)))
    norms = gradient_norms(model, losses, inputs, target, chunk=chunk)
    assert not norms.requires_grad
    assert_close(norms, rows_at_once(model.eval(), inputs, target), **EXACT)


def test_torchs_own_loss():
    model = seeded(mlp, 1).double()
    loss_fn = nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1)
    slow = slow_gradients(model, loss_fn, *batch(4)).norm(dim=1)
    assert_close(gradient_norms(model, loss_fn, *batch(4)), slow, **EXACT)


def test_inputs_by_name():
    model = seeded(Named, 1).double()
    left, target = batch(3)
    right = torch.ones(6, 2, dtype=torch.float64)
    expected = torch.cat(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*model.parameters()])])
            .norm()
            .unsqueeze(0)
            for x, z, y in zip(left, right, target, strict=True)
            for loss in [losses(model(x[None], z[None]), y[None]).sum()]
        ]
    )
    for inputs in ((left, right), {"left": left, "right": right}):
        assert_close(gradient_norms(model, losses, inputs, target), expected, **EXACT)


@pytest.mark.parametrize("make", [norm_mlp, dropout])
@pytest.mark.parametrize("mode", [True, False])
def test_the_model_stays_as_it_was(make, mode):
    model = seeded(make, 1).double().train(mode)
    before = snapshot(model)
    with torch.no_grad():
        gradient_norms(model, losses, *batch(4))
    assert same(snapshot(model), before)


def test_nothing_to_train():
    model = mlp().requires_grad_(requires_grad=False)
    with pytest.raises(UnsupportedModelError, match="requires a gradient"):
        gradient_norms(model, losses, *class_batches(4)[0])


# O12


@pytest.mark.parametrize("bias", [True, False])
def test_of_one_layer_the_last_is_all(rng, bias):
    """O12: for softmax regression the free score is the full norm of the gradient."""
    model = nn.Linear(5, 4, bias=bias, dtype=torch.float64)
    nn.init.normal_(model.weight, generator=rng)
    inputs = torch.randn(9, 5, dtype=torch.float64, generator=rng)
    target = torch.randint(4, (9,), generator=rng)
    output = model(inputs)
    delta = output.softmax(1) - F.one_hot(target, 4)
    free = last_layer_scores(delta, inputs, bias=bias)
    assert_close(free, rows_at_once(model, inputs, target), **EXACT)
    assert_close(free, gradient_norms(model, losses, inputs, target), **EXACT)
    factor = (inputs.square().sum(1) + bias).sqrt()
    assert_close(free, cross_entropy_scores(output, target) * factor, **EXACT)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 7)], ids=["plain", "one step", "sequence"])
def test_outer_products_summed_over_time(rng, shape, bias):
    """Steps of a sequence share the layer: their gradients add up before the norm is taken."""
    delta = torch.randn(*shape, 3, dtype=torch.float64, generator=rng)
    features = torch.randn(*shape, 4, dtype=torch.float64, generator=rng)
    slow = torch.tensor(slow_last_layer(delta, features, bias=bias), dtype=torch.float64)
    assert_close(last_layer_scores(delta, features, bias=bias), slow, **EXACT)


def test_steps_may_cancel():
    """Opposite slopes at equal features: the layer's gradient is zero, and never NaN."""
    delta = torch.tensor([[[1.0, -2.0], [-1.0, 2.0]]])
    features = torch.full((1, 2, 3), 0.1)
    assert last_layer_scores(delta, features).item() == pytest.approx(0, abs=1e-6)


# The bound


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_holds_layer_by_layer(seed):
    """2.2: ``|G_i| <= L rho s_i``, with rho the largest of input norm times Jacobian norm."""
    model = seeded(mlp, seed).double()
    inputs, target = batch(4, rows=12)
    first, activation, last = model
    norms = gradient_norms(model, losses, inputs, target)
    hidden = activation(first(inputs))
    bound = scores(nn.CrossEntropyLoss(reduction="none"), last(hidden), target)
    of_last = (hidden.square().sum(1) + 1).sqrt()
    jacobian = (1 - hidden.square()).unsqueeze(2) * last.weight.T
    of_first = (inputs.square().sum(1) + 1).sqrt() * torch.linalg.matrix_norm(jacobian, 2)
    rho = torch.maximum(of_first, of_last).max()
    assert (norms <= 2 * rho * bound * (1 + 1e-12)).all()
    free = last_layer_scores(last(hidden).softmax(1) - F.one_hot(target, 3), hidden)
    assert (free <= norms * (1 + 1e-12)).all()


def test_deeper_bounds_only_scale(rng):
    """O12: probabilities, and so tau, do not know a constant factor of the scores."""
    values = torch.rand(20, dtype=torch.float64, generator=rng)
    taus = [equivalent_batch(c * values) for c in (1e-30, 1e-8, 1.0, 1e12)]
    for a, b in pairwise(taus):
        assert_close(a, b, **EXACT)
