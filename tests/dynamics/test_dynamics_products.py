"""Hessian and Gauss-Newton products are those of the matrices written down by loops."""

import gc
import random
import warnings

import pytest
import torch
from torch import float64, nn
from torch.func import functional_call, hessian
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lowland.dynamics.products import hessian_product
from lowland.errors import UnsupportedModelError
from oracles.slow_hessian import slow_difference, slow_gauss_newton, slow_hessian
from small_networks import (
    Tied,
    class_batches,
    conv_net,
    dropout,
    generators,
    group_norm,
    losses,
    mlp,
    norm_mlp,
    same,
    seeded,
    snapshot,
    squared,
)

RAGGED = (8, 5, 3)


def ready(make, *shape, seed=1):
    """A network in float64 and ragged batches for it."""
    shape = shape or (4,)
    with torch.random.fork_rng(devices=[]):
        return seeded(make, seed).double(), class_batches(*shape, sizes=RAGGED, dtype=float64)


def block_of(size, rng, count=3):
    return torch.randn(size, count, dtype=float64, generator=rng)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("make", [mlp, group_norm, Tied, dropout], ids=lambda f: f.__name__)
def test_hessian_entry_by_entry(make, mode, rng):
    """Ragged batches, tied and frozen parameters; dropout is off."""
    model, batches = ready(make)
    full = slow_hessian(model.eval(), losses, batches)
    operator = hessian_product(model, losses, batches, mode=mode)
    block = block_of(operator.size, rng)
    assert_close(operator(block), full @ block, rtol=1e-10, atol=1e-12)
    assert_close(operator(block[:, 0]), full @ block[:, 0], rtol=1e-10, atol=1e-12)
    assert_close(operator.dense(), full, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("make", [mlp, Tied], ids=lambda f: f.__name__)
def test_gauss_newton_entry_by_entry(make, mode):
    model, batches = ready(make)
    operator = hessian_product(model, losses, batches, kind="gauss_newton", mode=mode)
    full = slow_gauss_newton(model, losses, batches)
    assert_close(operator.dense(), full, rtol=1e-10, atol=1e-12)
    assert torch.linalg.eigvalsh(full).min() > -1e-14


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_convolutions(mode, rng):
    """With running statistics, as in evaluation."""
    model, batches = ready(conv_net, 1, 4, 4)
    full = slow_hessian(model.eval(), losses, batches)
    operator = hessian_product(model.train(), losses, batches, mode=mode)
    block = block_of(operator.size, rng)
    assert_close(operator(block), full @ block, rtol=1e-10, atol=1e-12)


def test_the_hessian_of_torch(rng):
    """Section 7.6: against ``torch.func.hessian`` to 1e-10."""
    model, batches = ready(mlp)
    whole = [torch.cat(parts) for parts in zip(*batches, strict=True)]
    params = dict(model.named_parameters())

    def loss(named):
        return losses(functional_call(model, named, (whole[0],)), whole[1]).mean()

    nested = hessian(loss)(params)
    rows = [
        torch.cat([part.detach().reshape(params[a].numel(), -1) for part in nested[a].values()], 1)
        for a in params
    ]
    found = hessian_product(model, losses, batches).dense()
    assert_close(found, torch.cat(rows), rtol=1e-10, atol=1e-10)


def test_against_differences(rng):
    """Section 7.6: finite differences by hand, and as a mode."""
    model, batches = ready(mlp)
    exact = hessian_product(model, losses, batches)
    vector = block_of(exact.size, rng, 1)[:, 0]
    vector /= vector.norm()
    product = exact(vector)
    assert_close(slow_difference(model, losses, batches, vector), product, rtol=0, atol=1e-8)
    other = hessian_product(model, losses, batches, mode="difference")
    assert_close(other(7 * vector), 7 * product, rtol=1e-7, atol=1e-7)
    assert not other(0 * vector).any()


def test_linear_regression_is_known(rng):
    """Section 7.6: H = 2 X'X / P, whatever the weights, and all of it is Gauss-Newton."""
    x = torch.randn(12, 5, dtype=float64, generator=rng)
    x[:, 3] = x[:, 0] - x[:, 1]
    y = torch.randn(12, dtype=float64, generator=rng)
    batches = [(x[:7], y[:7]), (x[7:], y[7:])]
    model = nn.Linear(5, 1, bias=False).double()
    for kind in ("hessian", "gauss_newton"):
        found = hessian_product(model, squared, batches, kind=kind).dense()
        assert_close(found, 2 * x.T @ x / 12, rtol=1e-12, atol=1e-13)
    assert int((torch.linalg.eigvalsh(found) > 1e-10).sum()) == 4


def test_softmax_shift_is_null():
    """Section 7.6: h + 1 directions with H v = 0 to 1e-10 at any weights."""
    model, batches = ready(mlp)
    operator = hessian_product(model, losses, batches)
    for unit in range(7):
        shift = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        if unit < 6:
            shift["2.weight"][:, unit] = 1
        else:
            shift["2.bias"][:] = 1
        vector = torch.cat([part.flatten() for part in shift.values()])
        assert operator(vector).abs().max() < 1e-10


def test_batch_norm_modes():
    """With batch statistics, the matrix is that of the same batches, weighted by their sizes."""
    model, batches = ready(norm_mlp)
    found = {
        mode: hessian_product(model, losses, batches, batch_norm=mode).dense()
        for mode in ("eval", "train")
    }
    assert_close(found["eval"], slow_hessian(model.eval(), losses, batches))
    parts = []
    for x, y in batches:
        single = nn.Sequential(*[AsOne(layer) for layer in model.train()])
        parts.append(len(y) * whole_batch_hessian(single, x, y))
    assert_close(found["train"], sum(parts) / sum(RAGGED), rtol=1e-9, atol=1e-11)
    assert not torch.allclose(found["train"], found["eval"])


class AsOne(nn.Module):
    """A layer whose batch norm normalizes by hand."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        if not isinstance(self.layer, nn.BatchNorm1d):
            return self.layer(x)
        centered = x - x.mean(0)
        scale = (centered.square().mean(0) + self.layer.eps).sqrt()
        return centered / scale * self.layer.weight + self.layer.bias


def whole_batch_hessian(model, x, y):
    params = list(model.parameters())
    first = torch.autograd.grad(losses(model(x), y).mean(), params, create_graph=True)
    flat = torch.cat([part.flatten() for part in first])
    rows = [torch.autograd.grad(e, params, retain_graph=True, materialize_grads=True) for e in flat]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


@pytest.mark.parametrize("kind", ["hessian", "gauss_newton"])
def test_graphs_kept_or_built_anew(kind, rng):
    """The same products, whether the graphs fit or not; one vector or many."""
    model, batches = ready(mlp)
    kept = hessian_product(model, losses, batches, kind=kind)
    anew = hessian_product(model, losses, batches, kind=kind, max_bytes=0)
    block = block_of(kept.size, rng)
    assert_close(kept(block), anew(block), rtol=1e-13, atol=1e-15)
    one_by_one = torch.stack([kept(v) for v in block.T], dim=1)
    assert_close(kept(block), one_by_one, rtol=1e-12, atol=1e-14)


def test_the_operator_stays_where_it_was_made(rng):
    """Training goes on; the kept graphs, and those built anew, are of the old weights."""
    model, batches = ready(norm_mlp)
    block = None
    for max_bytes in (2**31, 0):
        operator = hessian_product(model, losses, batches, max_bytes=max_bytes)
        block = block_of(operator.size, rng) if block is None else block
        before = operator(block)
        with torch.no_grad():
            for value in [*model.parameters(), *model.buffers()]:
                value.add_(1)
        assert torch.equal(operator(block), before)
        with torch.no_grad():
            for value in [*model.parameters(), *model.buffers()]:
                value.sub_(1)


@pytest.mark.parametrize("options", [{}, {"max_bytes": 0}, {"mode": "difference"}], ids=str)
@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_the_model_is_left_as_it_was(options, batch_norm, rng):
    """Bits, gradients, modes, hooks, buffers and generators."""
    model, batches = ready(norm_mlp)
    model[0].bias.requires_grad_(requires_grad=False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[1].eval()
    loader = DataLoader(
        TensorDataset(*map(torch.cat, zip(*batches, strict=True))),
        8,
        shuffle=True,
        generator=torch.Generator(),
    )
    before = snapshot(model), generators(), loader.generator.get_state()
    operator = hessian_product(model, losses, loader, batch_norm=batch_norm, **options)
    vector = block_of(operator.size, rng)
    assert torch.equal(operator(vector), operator(vector))
    assert same(snapshot(model), before[0])
    assert same(generators(), before[1])
    assert same(loader.generator.get_state(), before[2])


def test_an_error_in_the_loss_leaves_the_model_as_it_was():
    model, batches = ready(norm_mlp)
    before = snapshot(model), generators()
    calls = 0

    def gives_up(output, target):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise ZeroDivisionError("enough")
        return losses(output, target)

    with pytest.raises(ZeroDivisionError, match="enough"):
        hessian_product(model, gives_up, batches)
    assert same(snapshot(model), before[0])
    assert same(generators(), before[1])


def test_graphs_are_freed():
    """No cycle keeps them alive."""
    model, batches = ready(mlp)
    gc.collect()
    before = sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())
    operator = hessian_product(model, losses, batches)
    operator(torch.ones(operator.size, dtype=float64))
    gc.disable()
    try:
        del operator
        after = sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())
    finally:
        gc.enable()
    assert after <= before


def test_a_loss_that_is_linear_in_the_parameters():
    """The Hessian is zero, and says so instead of failing."""
    model = nn.Linear(4, 1).double()
    batches = class_batches(4, dtype=float64)
    for options in ({}, {"kind": "gauss_newton"}, {"max_bytes": 0}):
        operator = hessian_product(model, lambda z, y: z[:, 0], batches, **options)
        assert not operator(torch.ones(5, dtype=float64)).any()


def test_float32_is_near_float64(rng):
    model, batches = ready(conv_net, 1, 4, 4)
    wide = hessian_product(model, losses, batches)
    narrow = hessian_product(model.float(), losses, [(x.float(), y) for x, y in batches])
    assert narrow.dtype == torch.float32
    vector = block_of(wide.size, rng, 1)[:, 0]
    error = (narrow(vector).double() - wide(vector)).norm() / wide(vector).norm()
    assert error < 1e-5


def test_bad_input():
    model, batches = ready(mlp)
    for options, words in [
        ({"kind": "fisher"}, "kind must be one of"),
        ({"mode": "sideways"}, "mode one of"),
        ({"kind": "gauss_newton", "mode": "difference"}, 'must go with kind="hessian"'),
        ({"batch_norm": "pool"}, "batch_norm must be one of"),
    ]:
        with pytest.raises(ValueError, match=words):
            hessian_product(model, losses, batches, **options)
    with pytest.raises(ValueError, match="at least one example"):
        hessian_product(model, losses, [])
    with pytest.raises(ValueError, match="batches must be iterable more than once"):
        hessian_product(model, losses, iter(batches))
    with pytest.raises(ValueError, match="one loss per example"):
        hessian_product(model, lambda z, y: losses(z, y).mean(), batches)
    with pytest.raises(ValueError, match="must have shape"):
        hessian_product(model, losses, batches)(torch.ones(3, dtype=float64))
    with pytest.raises(UnsupportedModelError, match="depend on a trainable parameter"):
        hessian_product(model, lambda z, y: losses(z.detach(), y), batches)
    with pytest.raises(UnsupportedModelError, match="float32 or float64"):
        hessian_product(model.bfloat16(), losses, batches)
    model.requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="requires a gradient"):
        hessian_product(model, losses, batches)


def test_augmented_batches_repeat():
    """A loader that draws anew each time is read with the same random numbers."""
    data = [torch.randn(4, generator=torch.Generator().manual_seed(i)) for i in range(6)]

    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return data[index] + random.random() + torch.rand(4), index % 3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = seeded(mlp, 0)
        loader = DataLoader(Noisy(), 4, shuffle=True)
        vector = torch.ones(51)
        found = [
            hessian_product(model, losses, loader, max_bytes=bytes_)(vector)
            for bytes_ in (2**31, 0, 0)
        ]
    assert torch.equal(found[1], found[2])
    assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
