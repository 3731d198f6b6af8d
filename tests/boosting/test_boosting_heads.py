"""Auxiliary heads: the formulas written out, the model's own modules where these are asked for."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, cross_entropy

from lowland.boosting.chain import as_chain
from lowland.boosting.heads import (
    PooledHead,
    channel_axis,
    deep_head,
    downstream_head,
    make_head,
    own_head,
    pooled_head,
    warm_start,
)
from lowland.models import build
from lowland.training.memory import saved_bytes


class Step(nn.Module):
    """A part of one module."""

    def __init__(self, name, module):
        super().__init__()
        self.name, self.module = name, module

    def forward(self, hidden, *sides):
        return (self.module(hidden), *sides)


class Last(Step):
    def forward(self, hidden, *sides):
        return self.module(hidden)


def chain_of(model, first, last):
    """Parts of a Sequential by hand: stem, children first to last one by one, head."""
    children = list(model.named_children())
    stem = [Step("stem", model[:first])] if first else []
    parts = [*stem, *(Step(name, child) for name, child in children[first:last])]
    return SimpleNamespace(model=model, parts=tuple(parts), head=Last("head", model[last:]))


def resnet_chain(rng):
    """Stem and blocks of 4, 8 and 16 channels on images of 8x8."""
    model = build("pad-resnet-14-4", in_shape=(3, 8, 8), classes=5).double()
    chain = chain_of(model, 3, 9)
    values = [(torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=rng),)]
    with torch.no_grad():
        for part in chain.parts:
            values.append(part(*values[-1]))
    return chain, values[1:]


def perceptron_chain(rng):
    model = build("res-mlp-6-7-4x3", in_shape=(6,)).double()
    features = torch.randn(5, 6, dtype=torch.float64, generator=rng)
    return chain_of(model, 1, 4), (features,)


def tensors(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def agree(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize(
    ("shape", "axis", "pooled"),
    [
        ((5, 6), None, ()),
        ((5, 7, 6), None, (1,)),
        ((5, 6, 7), 1, (2,)),
        ((5, 6, 2, 3), None, (2, 3)),
        ((5, 2, 3, 6), -1, (1, 2)),
        ((5, 6, 2, 3, 2), None, (2, 3, 4)),
    ],
)
def test_pooled_head_is_mean_and_linear_layer(shape, axis, pooled, rng):
    hidden = torch.randn(shape, dtype=torch.float64, generator=rng)
    head = pooled_head((hidden, hidden[:, 0]), 4, axis=axis)
    mean = hidden.mean(pooled) if pooled else hidden
    expected = mean @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(hidden, hidden[:, 0]), expected)
    assert sum(p.numel() for p in head.parameters()) == 6 * 4 + 4
    assert not head.linear.bias.any()


def test_deep_head_on_images_is_the_formula_written_out(rng):
    hidden = torch.randn(5, 6, 4, 3, dtype=torch.float64, generator=rng)
    head = deep_head((hidden,), 4, 2)
    x = hidden
    for conv, norm in ((head.layers[0], head.layers[1]), (head.layers[3], head.layers[4])):
        x = conv2d(x, conv.weight, padding=1)
        x = batch_norm(x, None, None, norm.weight, norm.bias, training=True).relu()
    torch.testing.assert_close(head(hidden), head.linear(x.mean((2, 3))))


@pytest.mark.parametrize("shape", [(5, 6), (5, 7, 6)])
def test_deep_head_on_vectors_and_tokens_is_the_formula_written_out(shape, rng):
    hidden = torch.randn(shape, dtype=torch.float64, generator=rng)
    head = deep_head((hidden,), 4)
    x = (hidden @ head.layers[0].weight.T).relu()
    torch.testing.assert_close(head(hidden), head.linear(x.mean(1) if x.ndim == 3 else x))


@pytest.mark.parametrize("kind", ["deep", "deep-2", "plain"])
def test_seed_and_part_decide_the_weights_and_nothing_else_is_touched(kind, rng):
    chain, values = resnet_chain(rng)
    before, kept = torch.get_rng_state(), tensors(chain.model)
    first = make_head(kind, chain, 1, values[1], 5, seed=3)
    torch.rand(7)
    again = make_head(kind, chain, 1, values[1], 5, seed=3)
    torch.set_rng_state(before)
    others = [make_head(kind, chain, *place) for place in [(1, values[1], 5, 4), (2, values[2], 5)]]
    assert agree(tensors(first), tensors(again))
    assert not any(agree(tensors(first), tensors(other)) for other in others)
    assert torch.equal(before, torch.get_rng_state())
    assert agree(kept, tensors(chain.model))
    assert all(module.training for module in chain.model.modules())


def test_plain_is_the_models_own_head_where_it_fits(rng):
    """A residual perceptron's features have one width, a ResNet's head fits its last stage."""
    chain, values = perceptron_chain(rng)
    for index in range(3):
        head = make_head("plain", chain, index, values, 4)
        assert torch.equal(head(*values), chain.head(*values))
        assert not {id(p) for p in head.parameters()} & {id(p) for p in chain.head.parameters()}
    chain, values = resnet_chain(rng)
    kinds = [type(make_head("plain", chain, i, v, 5)).__name__ for i, v in enumerate(values)]
    assert kinds == ["PooledHead"] * 5 + ["Last"] * 2
    assert make_head("plain", chain, 2, values[2], 5).linear.in_features == 4


@pytest.mark.parametrize("kind", ["plain", "deep", "deep-2", pooled_head])
def test_the_last_part_has_the_models_own_head(kind, rng):
    """So that the last round is about the function that the model computes."""
    chain, values = resnet_chain(rng)
    head = make_head(kind, chain, 6, values[6], 5)
    assert torch.equal(head(*values[6]), chain.head(*values[6]))
    assert agree(tensors(head), tensors(chain.head))


def test_downstream_head_goes_through_the_first_block_of_every_later_stage(rng):
    """Blocks 3 and 5 change the shape; modules are the model's own, and the last head is too."""
    chain, values = resnet_chain(rng)
    kept = tensors(chain.model)
    for index, later in [(0, (3, 5)), (2, (3, 5)), (3, (5,)), (4, (5,)), (5, ()), (6, ())]:
        head = make_head("downstream", chain, index, values[index], 5)
        assert [part.name for part in head.later] == [chain.parts[i].name for i in later]
        expected = values[index]
        for i in later:
            expected = chain.parts[i](*expected)
        assert torch.equal(head(*values[index]), chain.head(*expected))
        modules = [*(chain.parts[i] for i in later), chain.head]
        own = {id(p) for module in modules for p in module.parameters()}
        assert {id(p) for p in head.parameters()} == own
    for name, value in chain.model.state_dict().items():  # running statistics moved just now only
        assert torch.equal(value, kept[name]) or "running" in name or "num_batches" in name


def test_making_a_downstream_head_leaves_the_model_as_it_was(rng):
    chain, values = resnet_chain(rng)
    kept, state = tensors(chain.model), torch.get_rng_state()
    chain.model.stage2_block1.eval()
    modes = [module.training for module in chain.model.modules()]
    downstream_head(chain, 0, values[0])
    assert agree(kept, tensors(chain.model))
    assert modes == [module.training for module in chain.model.modules()]
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["plain", "deep", "deep-2"])
def test_zero_block_with_a_warm_head_leaves_the_logits_unchanged(kind, rng):
    """O14: the loss of a new depth begins where the last one ended, to the bit."""
    chain, values = perceptron_chain(rng)
    old, new = (make_head(kind, chain, i, values, 4, seed=i) for i in (0, 1))
    for parameter in old.parameters():
        parameter.data.normal_(generator=rng)
    block = chain.parts[1].module
    block.linear2.weight.data.zero_()
    block.linear2.bias.data.zero_()
    assert not torch.equal(new(*values), old(*values))
    assert warm_start(new, old)
    assert torch.equal(new(*chain.parts[1](*values)), old(*values))
    new.linear.weight.data.zero_() if kind != "plain" else new.module.linear.weight.data.zero_()
    assert old(*values).any()  # copied, not shared


def test_warm_start_between_kinds_and_shapes(rng):
    chain, values = resnet_chain(rng)
    pooled, other = (make_head("plain", chain, i, values[i], 5, seed=i) for i in (0, 3))
    kept = tensors(other)
    assert not warm_start(other, pooled)
    assert agree(kept, tensors(other))
    own = own_head(chain)  # a pooled linear layer too, under another name
    assert warm_start(own, pooled_head(values[6], 5, seed=8))
    assert torch.equal(own(*values[6]), pooled_head(values[6], 5, seed=8)(*values[6]))
    heads = [downstream_head(chain, i, values[i]) for i in (2, 3)]
    assert warm_start(heads[1], heads[0])  # the same modules are warm already


def test_axis_of_the_channels():
    images, tokens = torch.zeros(2, 6, 4, 4), torch.zeros(2, 4, 6)
    assert channel_axis(nn.Conv2d(3, 6, 3), images) == 1
    assert channel_axis(nn.Sequential(nn.Conv2d(6, 6, 7), nn.LayerNorm(4)), images) == 1
    assert channel_axis(nn.LayerNorm(6), torch.zeros(2, 4, 4, 6)) == -1
    assert channel_axis(nn.Linear(6, 6), torch.zeros(2, 4, 4, 6)) == -1
    assert channel_axis(nn.ReLU(), images) == 1
    assert channel_axis(nn.ReLU(), tokens) == -1
    assert channel_axis(nn.Conv1d(3, 4, 3), tokens) == 1
    assert channel_axis(nn.Conv2d(3, 4, 3), tokens) == -1  # patches of an image made the tokens
    assert channel_axis(nn.Linear(6, 6), torch.zeros(2, 6)) == -1


def test_users_own_head(rng):
    """A function of values and classes; what it draws comes from the seed."""
    chain, values = resnet_chain(rng)

    def maker(values, classes):
        width = values[0][0].numel()
        return nn.Sequential(nn.Flatten(), nn.Linear(width, classes)).double()

    before = torch.get_rng_state()
    first, again = (make_head(maker, chain, 1, values[1], 5, seed=2) for _ in range(2))
    assert agree(tensors(first), tensors(again))
    assert torch.equal(before, torch.get_rng_state())
    assert first(*values[1]).shape == (6, 5)


def test_types_and_devices_follow_the_features(rng):
    hidden = torch.randn(2, 3, 4, 4, generator=rng)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        head = deep_head((hidden.to(dtype),), 4)
        assert {parameter.dtype for parameter in head.parameters()} == {dtype}
    assert isinstance(head, PooledHead)


def test_bad_heads_meet_a_sentence(rng):
    chain, values = resnet_chain(rng)
    with pytest.raises(ValueError, match=r"head must be one of plain.*got 'linear'"):
        make_head("linear", chain, 1, values[1], 5)
    with pytest.raises(ValueError, match=r"part 'stage1_block1' must turn .* 5 numbers.*\(7,\)"):
        make_head(lambda values, _: pooled_head(values, 7), chain, 1, values[1], 5)
    with pytest.raises(ValueError, match=r"part 'stage3_block2' must .* 3 numbers .*got \(5,\)"):
        make_head("plain", chain, 6, values[6], 3)
    with pytest.raises(ValueError, match="got an error for features"):
        make_head(lambda *_: nn.Linear(3, 5).double(), chain, 1, values[1], 5)
    with pytest.raises(ValueError, match=r"floating-point numbers of 2 to 5 axes.*int64"):
        pooled_head((torch.zeros(3, 4, dtype=torch.int64),), 5)


@pytest.mark.slow
def test_stored_bytes_with_downstream_heads(rng):
    """O12, MiB at a batch of 100: one part and the head behind it, within 10 %."""
    model = build("pad-resnet-50")
    chain = as_chain(model)
    values = chain.values(torch.rand(100, 3, 32, 32, generator=rng))
    target, found = torch.arange(100) % 10, []
    for index, part in enumerate(chain.parts):
        if index in (0, 1, 9, 10, 17, 18):
            with torch.no_grad():
                after = part(*values)
            head = make_head("downstream", chain, index, after, 10)

            def run(part=part, values=values, head=head):
                return cross_entropy(head(*part(*values)), target)

            found.append(saved_bytes(run, model) / 2**20)
        with torch.no_grad():
            values = part(*values)
    assert found == pytest.approx([32.7, 50.3, 25.3, 22.2, 9.6, 8.1], rel=0.1)


@pytest.mark.parametrize(
    ("blocks", "places"), [(0, [3, 6]), (2, [3, 6, 8]), (4, [1, 3, 5, 6, 8]), (99, [*range(9)])]
)
def test_downstream_heads_with_more_blocks_are_spread_up_to_the_last(blocks, places):
    """What changes the shape, and every so many later parts; all run, and are the model's own."""
    chain = as_chain(build("pad-resnet-20-4", in_shape=(3, 8, 8)))
    with torch.no_grad():
        values = chain.parts[0](torch.rand(2, 3, 8, 8))
    head = downstream_head(chain, 0, values, blocks)
    assert [chain.parts[1:].index(part) for part in head.later] == places
    assert head(*values).shape == (2, 10)
    for part in chain.parts[1:9]:
        values = part(*values)
    assert len(downstream_head(chain, 8, values, blocks).later) == min(blocks, 1)
