"""``lowland.params``: a module and its flat vector are two faces of the same numbers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lowland.params import Layout, call, call_at, trainable
from small_networks import Named, Tied, class_batches, mlp, norm_mlp, same, seeded, snapshot

SHAPES = st.lists(st.lists(st.integers(1, 3), max_size=3).map(tuple), min_size=1, max_size=5)


def layout_of(shapes):
    return Layout(tuple(f"p{i}" for i in range(len(shapes))), tuple(shapes))


@given(SHAPES)
def test_round_trip(shapes):
    """Any vector comes back from its named parts, and has them in order."""
    layout = layout_of(shapes)
    vector = torch.arange(layout.size).double()
    named = layout.views(vector)
    assert [tuple(value.shape) for value in named.values()] == shapes
    assert torch.equal(torch.cat([value.flatten() for value in named.values()]), vector)
    assert torch.equal(layout.flatten(named), vector)


@given(SHAPES, st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple))
def test_rows_of_a_stack(shapes, stack):
    """The parts of a stack of vectors are the stacked parts of its vectors."""
    layout = layout_of(shapes)
    vectors = torch.arange(layout.size * torch.Size(stack).numel()).double()
    together = layout.views(vectors.view(*stack, layout.size))
    for row, vector in enumerate(vectors.view(-1, layout.size)):
        for name, alone in layout.views(vector).items():
            assert torch.equal(together[name].flatten(0, len(stack) - 1)[row], alone)


def test_views_share_memory():
    """A view starts at the address of its first coordinate; writing to it writes the vector."""
    layout = trainable(Tied())
    stack = torch.zeros(3, layout.size)
    for vector in (stack[1], stack):
        for offset, view in zip(layout.offsets, layout.views(vector).values(), strict=True):
            assert view.data_ptr() == vector[..., offset:].data_ptr()
    layout.views(stack)["scale"][1] = 7
    where = layout.offsets[layout.names.index("scale")]
    assert stack.nonzero().tolist() == [[1, where]]


def test_a_layout_of_a_module():
    """Tied weights once, frozen ones left out, a scalar has one coordinate."""
    layout = trainable(Tied())
    assert layout.names == ("scale", "inner.weight", "inner.bias")
    assert layout.shapes == ((), (4, 4), (4,))
    assert layout.aliases == (("again.weight", "inner.weight"),)
    assert (layout.sizes, layout.offsets, layout.size) == ((1, 16, 4), (0, 1, 17), 21)


def test_two_layouts_in_one_vector():
    both = trainable(mlp()) + Layout(("mean",), ((2,),), (("other", "mean"),))
    assert both.size == 51 + 2
    assert both.views(torch.arange(53.0))["mean"].tolist() == [51, 52]
    assert both.aliases == (("other", "mean"),)


@pytest.mark.parametrize("make", [mlp, norm_mlp, Tied])
def test_the_module_at_its_own_vector(make):
    """A module at the vector of another is that other."""
    one, other = (seeded(make, seed).eval() for seed in (1, 2))
    layout = trainable(one)
    named = layout.views(layout.flatten(other.state_dict())) | dict(other.named_buffers())
    inputs = class_batches(4)[0][0]
    assert torch.equal(call_at(one, named, inputs), other(inputs))
    assert not torch.equal(one(inputs), other(inputs))


def test_inputs_by_tensor_tuple_list_and_mapping():
    model = seeded(Named, 1)
    left, right = torch.ones(2, 3), -torch.ones(2, 2)
    named = {name: 2 * value.detach() for name, value in model.named_parameters()}
    doubled = seeded(Named, 1)
    doubled.load_state_dict(named)
    for inputs in ((left, right), [left, right], {"right": right, "left": left}):
        assert torch.equal(call(model, inputs), model(left, right))
        assert torch.equal(call_at(model, named, inputs), doubled(left, right))
    assert torch.equal(call(model.left, left), model.left(left))


def test_the_module_is_untouched():
    """Also where a whole module is there twice, which ``functional_call`` leaves changed."""
    model = seeded(norm_mlp, 1)
    model.append(model[1]).append(nn.Identity())
    model[-2] = nn.Linear(3, 6)
    model[-1] = model[1]
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = snapshot(model)
    named = {name: value.detach() + 1 for name, value in model.named_parameters()}
    named |= {name: value.clone() for name, value in model.named_buffers()}
    mean = named["1.running_mean"].clone()
    assert call_at(model, named, torch.randn(8, 4)).requires_grad is False
    assert same(snapshot(model), before)
    assert not torch.equal(named["1.running_mean"], mean)  # what is given is written to


def test_a_tied_weight_is_replaced_under_all_of_its_names():
    """Its gradient is the sum of the gradients of both uses."""
    model, (inputs, _) = seeded(Tied, 1), class_batches(4)[0]
    model(inputs).square().sum().backward()
    weight = model.inner.weight.detach().clone().requires_grad_()
    call_at(model, {"inner.weight": weight}, inputs).square().sum().backward()
    assert torch.equal(weight.grad, model.again.weight.grad)


def test_bad_input():
    layout = trainable(mlp())
    with pytest.raises(ValueError, match=r"must hold 51 parameters; got shape \(2, 50\)"):
        layout.views(torch.zeros(2, 50))
    state = mlp().state_dict()
    with pytest.raises(ValueError, match=r"'0.bias' must have shape \(6,\); got \(3,\)"):
        layout.flatten(state | {"0.bias": torch.zeros(3)})
    del state["2.bias"]
    with pytest.raises(ValueError, match=r"'2.bias' must have shape \(3,\); got nothing"):
        layout.flatten(state)
    with pytest.raises(ValueError, match="Linear has none. Call model.requires_grad_"):
        trainable(nn.Linear(2, 2).requires_grad_(requires_grad=False))
    with pytest.raises(ValueError, match=r"float32 on cpu.*float64 on cpu.*model.to"):
        trainable(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()))
