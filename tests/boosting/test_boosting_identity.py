"""``lowland.boosting.identity``: a block that adds nothing gives its input's bits, and learns."""

import pytest
import torch
from look_alikes import PlainResNet, VisionTransformer
from torch import nn

from lowland.boosting.chain import as_chain
from lowland.boosting.identity import copy_previous, make_identity, zero_start
from small_networks import seeded


@pytest.fixture(params=["resnet", "transformer"])
def case(request):
    """A chain, the place of a block that can be the identity, and what enters it."""
    make, place = {"resnet": (PlainResNet, 4), "transformer": (VisionTransformer, 3)}[request.param]
    model = seeded(make, 0).double()
    inputs = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    chain = as_chain(model, inputs)
    model.eval()
    values = chain.values(inputs)
    with torch.no_grad():
        for part in chain.parts[:place]:
            values = part(*values)
    return chain, chain.parts[place], values


def bits(part):
    return [w.detach().clone() for w in [*part.parameters(), *part.buffers()]]


def equal(a, b):
    return all(map(torch.equal, a, b))


def test_make_identity(case):
    _, part, values = case
    assert make_identity(part, values)
    assert torch.equal(part(*values)[0], values[0])
    assert not any(w.any() for w in part.parameters())


def test_zero_start(case):
    """Few zeros: the last layer of each branch; all weights move in two steps."""
    chain, part, values = case
    assert zero_start(part, values)
    assert torch.equal(part(*values)[0], values[0])
    zero = {name.split("/")[1] for name, w in part.named_parameters() if not w.any()}
    if hasattr(chain.model, "blocks"):
        assert zero == {
            "2.attn.proj.weight", "2.attn.proj.bias", "2.mlp.2.weight", "2.mlp.2.bias",
            "2.norm1.bias", "2.norm2.bias",  # as torch starts them
        }  # fmt: skip
    else:
        assert zero == {"1.bn2.weight", "1.bn2.bias", "1.bn1.bias"}
    part.train()
    before = bits(part)
    weights = list(part.parameters())
    for _ in range(2):
        loss = chain.head(*part(*values)).logsumexp(1).sum()
        slopes = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            torch._foreach_add_(weights, slopes, alpha=-0.1)
    moved = [not torch.equal(w, old) for w, old in zip(part.parameters(), before, strict=False)]
    assert all(moved)


def test_what_cannot_be_the_identity():
    """A new shape, or negative values before a ReLU: everything is put back."""
    model = seeded(PlainResNet, 0)
    chain = as_chain(model, torch.randn(4, 3, 8, 8))
    for part, values in (
        (chain.parts[1], -torch.ones(4, 4, 8, 8)),
        (chain.parts[3], torch.ones(4, 4, 8, 8)),
    ):
        before = bits(part)
        assert not make_identity(part, (values,))
        assert not zero_start(part, (values,))
        assert equal(bits(part), before)


def test_trying_leaves_no_trace(case):
    """Modes, statistics and draws stay, also in training mode."""
    _, part, values = case
    part.train()
    buffers = [b.clone() for b in part.buffers()]
    state = torch.get_rng_state()
    zero_start(part, values)
    assert all(module.training for module in part.modules())
    assert equal(list(part.buffers()), buffers)
    assert torch.equal(torch.get_rng_state(), state)


def test_copy_previous(case):
    chain, part, _ = case
    previous = chain.parts[chain.parts.index(part) - 1]
    if not hasattr(chain.model, "blocks"):  # a stage of two, the first of which has a shortcut
        assert not copy_previous(part, previous)
        part, previous = chain.parts[2], chain.parts[1]
    assert copy_previous(part, previous)
    assert equal(bits(part), bits(previous))
    assert next(part.parameters()) is not next(previous.parameters())
    before = bits(chain.parts[1])
    assert not copy_previous(chain.parts[1], chain.parts[0])
    assert equal(bits(chain.parts[1]), before)


def test_other_layers_of_the_same_shapes():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    first, second = as_chain(model).parts
    assert not copy_previous(second, first)
