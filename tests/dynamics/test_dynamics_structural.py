"""Structural zeros: counted by cause, and never more than the null space of the full Hessian."""

import json

import pytest
import torch
from torch import float64, nn

from lowland.dynamics.products import hessian_product
from lowland.dynamics.structural import structural_zeros
from lowland.errors import UnsupportedModelError
from oracles.slow_hessian import slow_gauss_newton, slow_hessian
from small_networks import class_batches, conv_net, generators, losses, norm_mlp, same, snapshot


@pytest.fixture
def awkward():
    """A unit that is never active, and an input that is always zero."""
    rng = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
    model = model.double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, dtype=float64, generator=rng) / 2)
        model[0].bias[1] = -100
        model[2].bias.abs_().add_(1)
    inputs = torch.randn(40, 5, dtype=float64, generator=rng)
    inputs[:, 2] = 0
    target = torch.randint(0, 3, (40,), generator=rng)
    return model, [(inputs[:25], target[:25]), (inputs[25:], target[25:])]


def null_dimension(matrix):
    values = torch.linalg.eigvalsh(matrix).abs()
    return int((values < 1e-10 * values.max()).sum())


def test_causes_are_named(awkward):
    """Four weights of the dead input; six of the dead unit, three after it; four shifts."""
    model, batches = awkward
    found = structural_zeros(model, losses, batches)
    assert dict(found.unused) == {"0.weight": 4 + 4, "0.bias": 1, "2.weight": 3}
    assert dict(found.unused_inputs) == {"0.weight": (2,), "2.weight": (1,)}
    assert dict(found.dead_units) == {"0.weight": (1,)}
    assert found.softmax_shift == 4
    assert found.total == 16
    assert found.params == 51
    assert null_dimension(slow_hessian(model, losses, batches)) == found.total


def test_gauss_newton_has_no_larger_rank(awkward):
    """Examples times (classes - 1) for cross-entropy; times outputs for squared errors."""
    model, batches = awkward
    few = [(x[:3], y[:3]) for x, y in batches[:1]]
    found = structural_zeros(model, losses, few)
    assert found.gauss_newton_rank == 6
    matrix = slow_gauss_newton(model, losses, few)
    assert int(torch.linalg.matrix_rank(matrix, rtol=1e-10)) == 6

    def squared(output, target):
        return (output - nn.functional.one_hot(target, 3)).square().sum(1)

    found = structural_zeros(model, squared, few)
    assert (found.gauss_newton_rank, found.softmax_shift) == (9, 0)
    assert int(torch.linalg.matrix_rank(slow_gauss_newton(model, squared, few), rtol=1e-10)) == 9


def test_shift_needs_no_bias(awkward):
    """One for each feature without it; those of unused features are counted there."""
    model, batches = awkward
    model[4] = nn.Linear(3, 3, bias=False).double()
    with torch.no_grad():
        model[2].weight[0], model[2].bias[0] = 0, -1
    found = structural_zeros(model, losses, batches)
    assert found.softmax_shift == 2
    assert dict(found.unused_inputs)["4.weight"] == (0,)
    assert null_dimension(slow_hessian(model, losses, batches)) == found.total


def test_convolutions(rng):
    """An input channel that is zero, and a filter that a ReLU never lets through."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    ).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, dtype=float64, generator=rng))
        model[0].bias[2] = -1000
    ((x, y),) = class_batches(2, 4, 4, sizes=(20,), dtype=float64)
    x = x.clone()
    x[:, 1] = 0
    found = structural_zeros(model, losses, [(x, y)])
    assert dict(found.unused_inputs) == {"0.weight": (1,), "4.weight": (8, 9, 10, 11)}
    assert dict(found.dead_units) == {"0.weight": (2,)}
    assert found.softmax_shift == 9
    full = hessian_product(model, losses, [(x, y)]).dense()
    assert null_dimension(full) >= found.total


@pytest.mark.parametrize("make", [conv_net, norm_mlp], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, float64], ids=str)
def test_nothing_is_dead_in_a_smooth_network(make, dtype):
    shape = (1, 4, 4) if make is conv_net else (4,)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().to(dtype)
    batches = class_batches(*shape, dtype=dtype)
    before = snapshot(model), generators()
    for batch_norm in ("eval", "train"):
        found = structural_zeros(model, losses, batches, batch_norm=batch_norm)
        layer = [m for m in model if isinstance(m, nn.Linear)][-1]
        assert found.softmax_shift == layer.in_features + 1
        assert not found.dead_units
    assert same((snapshot(model), generators()), before)
    assert json.loads(json.dumps(found.record()))["total"] == found.total


def test_one_output(rng):
    """A regression with a single output has no shift."""
    model = nn.Linear(4, 1).double()
    batches = class_batches(4, sizes=(3, 3), dtype=float64)
    found = structural_zeros(model, lambda z, y: (z[:, 0] - y).square(), batches)
    assert (found.softmax_shift, found.total, found.gauss_newton_rank) == (0, 0, 5)
    flat = structural_zeros(model, lambda z, y: z[:, 0], batches)
    assert flat.total == 5


def test_bad_input():
    with pytest.raises(UnsupportedModelError, match="depend on a trainable parameter"):
        structural_zeros(nn.Linear(4, 3), lambda z, y: losses(z.detach(), y), class_batches(4))
