"""``lowland.models.boostable``: parameter counts to the unit, and the formulas written out."""

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d

from lowland.models import build, padded_resnet, residual_mlp
from lowland.models.boostable import PaddedBlock


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def linear(inputs, outputs):
    return inputs * outputs + outputs


def convolution(inputs, outputs):
    return 9 * inputs * outputs + 2 * outputs  # no bias; scale and shift of the norm


def test_pad_resnet_50_has_the_size_of_the_released_model():
    """boosted_resnet.md section 4: 755,802 parameters, stem and 24 blocks."""
    model = build("pad-resnet-50")
    assert size(model) == 755_802
    assert sum(isinstance(module, PaddedBlock) for module in model) == 24
    assert size(model) == size(build("resnet-50")) - (512 + 64) - (2048 + 128)  # option B's own


@pytest.mark.parametrize(
    ("name", "widths", "blocks"),
    [
        ("pad-resnet-50-8", (8, 16, 32), 8),
        ("pad-resnet-26", (16, 32, 64), 4),
        ("pad-resnet-8-3", (3, 6, 12), 1),
        ("pad-resnet-52x15", (15,), 25),
    ],
)
def test_counts_by_hand(name, widths, blocks):
    expected, width = convolution(3, widths[0]), widths[0]
    for wider in widths:
        expected += convolution(width, wider) + (2 * blocks - 1) * convolution(wider, wider)
        width = wider
    assert size(build(name)) == expected + linear(width, 10)


def test_residual_mlp_counts_by_hand():
    expected = 8 * (linear(64, 128) + linear(128, 64)) + linear(64, 10)
    assert size(build("res-mlp-64-128-10x8")) == expected == 133_258


def test_residual_mlp_is_the_formula_written_out(rng):
    model = build("res-mlp-6-5-3x2", in_shape=(1, 2, 3), seed=1).double()
    x = torch.randn(4, 1, 2, 3, dtype=torch.float64, generator=rng)
    g = x.reshape(4, 6)
    for block in (model.block1, model.block2):
        hidden = (g @ block.linear1.weight.T + block.linear1.bias).clamp(min=0)
        g = g + hidden @ block.linear2.weight.T + block.linear2.bias
    torch.testing.assert_close(model(x), g @ model.linear.weight.T + model.linear.bias)


def test_padded_block_is_the_formula_written_out(rng):
    """Every second pixel, then zeros for the new channels; ReLU after the addition."""
    block = PaddedBlock(3, 6, 2).double().eval()
    for norm in (block.norm1, block.norm2):
        for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(value.data, 0.5, 1.5, generator=rng)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=rng)
    change = normalized(conv2d(x, block.conv1.weight, stride=2, padding=1), block.norm1).relu()
    change = normalized(conv2d(change, block.conv2.weight, padding=1), block.norm2)
    change[:, :3] += x[:, :, [0, 2, 4]][..., [0, 2]]
    torch.testing.assert_close(block(x), change.relu())
    assert {name.partition(".")[0] for name in block.state_dict()} == {
        *("conv1", "norm1", "conv2", "norm2")
    }


def normalized(x, norm):
    return batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def test_zero_change_keeps_non_negative_features_to_the_bit(rng):
    """So a block can be put back to doing nothing."""
    block = build("pad-resnet-8").stage1_block1.eval()
    nn.init.zeros_(block.norm2.weight)
    x = torch.rand(2, 16, 8, 8, generator=rng)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    ("name", "in_shape", "classes"),
    [
        ("pad-resnet-8", (3, 32, 32), 10),
        ("pad-resnet-8-4", (1, 8, 8), 7),
        ("pad-resnet-6x5", (3, 7, 9), 10),
        ("res-mlp-64-16-10x3", (1, 8, 8), 10),
    ],
)
def test_shapes_seeds_and_gradients(name, in_shape, classes, rng):
    first, again = (build(name, classes=classes, in_shape=in_shape, seed=3) for _ in range(2))
    other = build(name, classes=classes, in_shape=in_shape, seed=4)
    images = torch.rand(5, *in_shape, generator=rng)
    output = first(images)
    assert output.shape == (5, classes)
    assert torch.equal(output, again(images))
    assert not torch.equal(output, other(images))
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in first.parameters())
    assert not any(getattr(module, "inplace", False) for module in first.modules())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: padded_resnet(51), r"depth must be 6 n \+ 2; got 51\. Take 50"),
        (lambda: padded_resnet(51, 15, stages=1), r"2 n \+ 2; got 51\. Take 50"),
        (lambda: padded_resnet(2), "Take 8"),
        (lambda: padded_resnet(8, 0), "width, classes and stages must be positive"),
        (lambda: padded_resnet(8, in_shape=(64,)), r"in_shape must be \(channels"),
        (lambda: residual_mlp(64, 0, 10, 8), "must be positive; got 64, 0, 10 and 8"),
        (lambda: build("res-mlp-64-128-10x8", classes=3), "Take 'res-mlp-64-128-3x8'"),
        (
            lambda: build("res-mlp-64-128-10x8", in_shape=(3, 32, 32)),
            "got 'res-mlp-64-128-10x8'. Take 'res-mlp-3072-128-10x8'",
        ),
        (lambda: build("pad-resnet50"), "Did you mean pad-resnet-50"),
        (lambda: build("res-mlp-64-128-10"), "Did you mean res-mlp-64-128-10x8"),
    ],
)
def test_impossible_networks_meet_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
