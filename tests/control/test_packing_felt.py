"""A weight is felt where torch's gradient of non-negative inputs and costates is not zero."""

import pytest
import torch
from torch import nn

from lowland.control.packing import felt
from lowland.control.packing.felt import strike_felt, strike_met

LAYERS = {
    "linear": (lambda: nn.Linear(7, 5), (9, 7)),
    "tokens": (lambda: nn.Linear(7, 5), (3, 4, 7)),
    "signals": (
        lambda: nn.Conv1d(4, 6, 3, stride=2, dilation=2, padding=3, padding_mode="circular"),
        (5, 4, 11),
    ),
    "images": (lambda: nn.Conv2d(4, 6, (3, 5), padding="same", groups=2), (5, 4, 6, 5)),
    "one image": (lambda: nn.Conv2d(3, 4, 3, padding=(2, 1), stride=(1, 2)), (3, 6, 7)),
    "each channel": (lambda: nn.Conv2d(4, 8, 3, groups=4), (5, 4, 5, 5)),
    "volumes": (lambda: nn.Conv3d(2, 3, 2, padding=1, padding_mode="reflect"), (2, 2, 3, 3, 3)),
    "transposed": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        (3, 4, 4, 5),
    ),
    "transposed signals": (lambda: nn.ConvTranspose1d(3, 4, 3, dilation=2, padding=1), (3, 3, 6)),
}


def rare(*shape, rng):
    """Ones at few places, so that some weights stay unfelt."""
    return (torch.rand(shape, generator=rng) < 0.08).float()


def touched(layer, inputs, p):
    """What torch's own gradient says: sums of products of zeros and ones cannot cancel."""
    out = layer(*inputs)
    (gradient,) = torch.autograd.grad(out, layer.weight, p, allow_unused=True)
    return gradient.abs() > 1e-3


@pytest.mark.parametrize("together", [1, 50, 2**20])
@pytest.mark.parametrize("name", LAYERS)
def test_felt_and_met_as_gradients_say(name, together, rng, monkeypatch):
    """However many examples are looked at together; weights struck out before stay so."""
    monkeypatch.setattr(felt, "TOGETHER", together)
    make, shape = LAYERS[name]
    layer, x = make(), rare(*shape, rng=rng)
    p = rare(*layer(x).shape, rng=rng)
    start = torch.rand(layer.weight.shape, generator=rng) < 0.9
    unfelt, unmet = start.clone(), start.clone()
    strike_felt(layer, unfelt, x != 0, p != 0)
    strike_met(layer, unmet, x != 0, p != 0)
    assert torch.equal(unfelt, start & ~touched(layer, (x,), p))
    assert torch.equal(unmet, start & ~touched(layer, (x,), torch.ones_like(p)))
    assert unfelt.any()
    assert (start & ~unfelt).any()


def test_products_of_two_inputs(rng):
    """A bilinear layer feels what both inputs and the costate show."""
    layer = nn.Bilinear(4, 5, 3)
    x, y, p = rare(20, 4, rng=rng), rare(20, 5, rng=rng), rare(20, 3, rng=rng) + 0.0
    p[:, 0] = 1
    pairs = (x.unsqueeze(2) * y.unsqueeze(1)).flatten(1) != 0
    unfelt = torch.ones(3, 4, 5, dtype=torch.bool)
    unmet = unfelt.clone()
    strike_felt(layer, unfelt, pairs, p != 0)
    strike_met(layer, unmet, pairs, p != 0)
    assert torch.equal(unfelt, ~touched(layer, (x, y), p))
    assert torch.equal(unmet, ~touched(layer, (x, y), torch.ones_like(p)))


def test_rows_of_a_table(rng):
    """A row is met where it is looked up, and felt where the costate is not zero, too."""
    layer, index = nn.Embedding(9, 4), torch.tensor([[1, 5], [5, 7]])
    p = (torch.rand(2, 2, 4, generator=rng) < 0.5).float()
    unfelt = torch.ones(9, 4, dtype=torch.bool)
    unmet = unfelt.clone()
    strike_felt(layer, unfelt, index, p != 0)
    strike_met(layer, unmet, index, p != 0)
    assert torch.equal(unfelt, ~touched(layer, (index,), p))
    assert torch.equal(unmet, ~touched(layer, (index,), torch.ones_like(p)))


@pytest.mark.parametrize("name", ["linear", "images", "transposed"])
def test_no_examples(name):
    """An empty batch strikes nothing out."""
    make, shape = LAYERS[name]
    layer, x = make(), torch.zeros(0, *shape[1:])
    unfelt = torch.ones_like(layer.weight, dtype=torch.bool)
    for strike in (strike_felt, strike_met):
        strike(layer, unfelt, x != 0, layer(x) != 0)
    assert unfelt.all()
