"""``lowland.models``: parameter counts to the unit, shapes, and the paper's order of layers."""

import pytest
import torch
from torch import nn

from lowland.models import build, cnn, densenet, lstm, mlp, resnet, wide_resnet
from lowland.models.wide import ImageNorm


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


COUNTS = [  # no_barriers.md section 5, counted there on the official code
    ("resnet-8", 10, 78_042),
    ("resnet-20", 10, 272_474),
    ("resnet-32", 10, 466_906),
    ("resnet-32", 100, 472_756),
    ("resnet-44", 10, 661_338),
    ("resnet-44", 100, 667_188),
    ("resnet-56", 10, 855_770),
    ("resnet-56", 100, 861_620),
    ("densenet-40-12", 10, 1_059_298),
    ("densenet-100-12-bc", 10, 769_162),
    ("wrn-28-2", 10, 1_465_827),  # importance_sampling.md section 4, item 9
    ("wrn-28-2", 100, 1_477_437),
]


@pytest.mark.parametrize(("name", "classes", "count"), COUNTS)
def test_counts_are_those_of_the_paper(name, classes, count):
    assert size(build(name, classes=classes)) == count


def test_resnet_20_with_its_running_statistics_has_the_size_of_the_official_notebook():
    """The official code moved running means and variances too: D = 274,042."""
    model = resnet(20)
    moved = [b for name, b in model.named_buffers() if name.endswith(("mean", "var"))]
    assert size(model) + sum(buffer.numel() for buffer in moved) == 274_042


def linear(inputs, outputs):
    return inputs * outputs + outputs


@pytest.mark.parametrize(("width", "depth"), [(12, 1), (24, 1), (48, 1), (96, 1), (48, 2), (48, 3)])
def test_cnn_counts_by_hand(width, depth):
    """Convolutions 5x5 with bias, two numbers per normalized channel, image halved each time."""
    convolutions = linear(3 * 25, width) + (depth - 1) * linear(width * 25, width)
    norms = 2 * width * depth + 2 * 256
    pixels = (32 // 2**depth) ** 2
    expected = convolutions + norms + linear(width * pixels, 256) + linear(256, 10)
    assert size(cnn(width, depth)) == expected
    name = f"cnn-{width}" if depth == 1 else f"cnn-{width}x{depth}"
    assert size(build(name)) == expected


def test_mlp_counts_by_hand():
    plain = linear(64, 32) + linear(32, 32) + linear(32, 10)
    assert size(build("mlp-64-32-32-10")) == plain == 3466
    assert size(build("mlp-bn-64-32-32-10")) == plain + 4 * 32
    assert size(build("mlp-64-12-10")) == 910  # no_barriers.md section 7.6


@pytest.mark.parametrize(
    ("name", "in_shape", "classes"),
    [
        ("mlp-64-32-32-10", (1, 8, 8), 10),
        ("mlp-64-10", (64,), 10),
        ("mlp-bn-784-16-10", (1, 28, 28), 10),
        ("cnn-12", (1, 8, 8), 10),
        ("cnn-6x3", (1, 8, 8), 10),
        ("cnn-12x2", (1, 28, 28), 10),
        ("cnn-12x3", (3, 32, 32), 100),
        ("cnn-4x2", (3, 20, 12), 7),
        ("resnet-8", (1, 8, 8), 10),
        ("resnet-8", (1, 28, 28), 10),
        ("resnet-8", (3, 32, 32), 100),
        ("densenet-10-4", (1, 8, 8), 10),
        ("densenet-10-4-bc", (1, 28, 28), 10),
        ("wrn-10-1", (1, 8, 8), 10),
        ("wrn-16-1", (3, 32, 32), 100),
        ("wrn-10-2", (3, 20, 12), 7),
        ("lstm-rows-32", (1, 8, 8), 10),
        ("lstm-rows-16", (3, 20, 12), 7),
        ("lstm-pixels-16", (3, 8, 6), 7),
        ("lstm-permuted-16", (1, 8, 8), 10),
    ],
)
def test_shapes_adapt_to_the_input(name, in_shape, classes):
    model = build(name, classes=classes, in_shape=in_shape)
    images = torch.rand(5, *in_shape, generator=torch.Generator().manual_seed(0))
    output = model(images)
    assert output.shape == (5, classes)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.training


def test_one_image_keeps_its_batch_axis():
    """The official DenseNet squeezes it away."""
    images = torch.zeros(1, 3, 32, 32)
    for model in (densenet(10, 4), resnet(8)):
        assert model.eval()(images).shape == (1, 10)


def kinds(model):
    return [type(module).__name__ for module in model]


def test_order_of_layers():
    """The paper's CNN pools before it normalizes; the last layer has no ReLU."""
    stage = ["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU"]
    assert kinds(cnn(4, 2)) == stage * 2 + ["Flatten", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert kinds(mlp([3, 4, 2])) == ["Flatten", "Linear", "ReLU", "Linear"]
    normed = ["Flatten", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert kinds(mlp([3, 4, 2], batch_norm=True)) == normed


def test_residual_block_with_zero_change_is_relu_of_its_input():
    block = next(m for m in resnet(8) if type(m).__name__ == "ResidualBlock").eval()
    nn.init.zeros_(block.norm2.weight)
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x), x.relu(), rtol=0, atol=0)


def test_resnet_is_the_formula_written_out():
    """Option B: where stride or width changes, the shortcut is a normalized 1x1 convolution."""
    model = build("resnet-8", in_shape=(1, 8, 8)).double().eval()
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features = model.relu(model.norm(model.conv(x)))
    for block in (model.stage1_block1, model.stage2_block1, model.stage3_block1):
        inner = block.norm2(block.conv2(block.norm1(block.conv1(features)).relu()))
        features = (inner + block.shortcut(features)).relu()
    expected = model.linear(features.mean((2, 3)))
    torch.testing.assert_close(model(x), expected)
    assert features.shape == (3, 64, 2, 2)


def test_image_norm_is_the_formula_written_out(rng):
    """Statistics over (channels, rows, columns) of one example, gain 1 number, bias by channel."""
    norm = ImageNorm(6).double()
    with torch.no_grad():
        norm.weight.fill_(1.7)
        norm.bias.copy_(torch.randn(6, generator=rng))
    x = torch.randn(4, 6, 5, 3, dtype=torch.float64, generator=rng)
    x = (x * 0.03 + 2).requires_grad_()  # a variance below eps, so that eps and its place matter
    upstream = torch.randn(4, 6, 5, 3, dtype=torch.float64, generator=rng)
    gradients = []
    for y in (norm(x), normalized(x, norm)):
        gradients.append((y, *torch.autograd.grad(y, (x, norm.weight, norm.bias), upstream)))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert size(norm) == 1 + 6


def normalized(x, norm):
    mean = x.mean((1, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((1, 2, 3), keepdim=True)
    return norm.weight * (x - mean) / (variance + 1e-3) ** 0.5 + norm.bias[:, None, None]


def test_wide_resnet_is_the_formula_written_out():
    """Normalization before each convolution; the shortcut sees the raw input of the block."""
    model = build("wrn-10-2", in_shape=(1, 8, 8), init="glorot").double()
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features = model.conv(x)
    for block in (model.stage1_block1, model.stage2_block1, model.stage3_block1):
        inner = block.conv1(normalized(features, block.norm1).relu())
        inner = block.conv2(normalized(inner, block.norm2).relu())
        features = inner + block.shortcut(features)
    expected = model.linear(normalized(features, model.norm).relu().mean((2, 3)))
    torch.testing.assert_close(model(x), expected)
    assert features.shape == (3, 128, 2, 2)


def test_wide_resnet_looks_at_each_image_alone(rng):
    """So a batch of hard examples does not move the statistics; and functions of one work."""
    model = build("wrn-10-1", in_shape=(1, 8, 8)).double()
    images = torch.rand(5, 1, 8, 8, dtype=torch.float64, generator=rng)
    together = model(images)
    alone = torch.cat([model(images[[row]]) for row in range(5)])
    torch.testing.assert_close(together, alone)
    mapped = torch.func.vmap(lambda image: model(image[None])[0])(images)
    torch.testing.assert_close(mapped, alone)


@pytest.mark.parametrize("steps", ["rows", "pixels", "permuted"])
def test_lstm_reads_step_by_step(steps, rng):
    """The same by a cell, one step after the other, with torch's formula of a cell."""
    model = build(f"lstm-{steps}-5", in_shape=(2, 4, 3), classes=7).double()
    images = torch.rand(6, 2, 4, 3, dtype=torch.float64, generator=rng)
    if steps == "rows":
        sequence = [images[:, :, row].transpose(1, 2).flatten(1) for row in range(4)]
    else:
        order = range(12) if steps == "pixels" else model.order.tolist()
        sequence = [images[:, :, place // 3, place % 3] for place in order]
    layer = model.lstm
    hidden = memory = torch.zeros(6, 5, dtype=torch.float64)
    for x in sequence:
        gates = x @ layer.weight_ih_l0.T + layer.bias_ih_l0
        gates = gates + hidden @ layer.weight_hh_l0.T + layer.bias_hh_l0
        into, forget, new, out = gates.chunk(4, 1)
        memory = forget.sigmoid() * memory + into.sigmoid() * new.tanh()
        hidden = out.sigmoid() * memory.tanh()
    torch.testing.assert_close(model(images), model.linear(hidden))


def test_lstm_counts_by_hand():
    """Four gates, each with inputs, hidden state and torch's two biases."""
    assert size(lstm("rows", 32)) == 4 * 32 * (28 + 32 + 2) + linear(32, 10)
    assert size(lstm("pixels", 128)) == 4 * 128 * (1 + 128 + 2) + linear(128, 10)
    assert size(build("lstm-permuted-128", in_shape=(1, 28, 28))) == size(lstm("pixels", 128))


def test_rows_of_a_permuted_image_have_other_pixels(rng):
    """The permutation goes over all pixels, then they are cut into rows."""
    images = torch.rand(2, 1, 4, 3, generator=rng)
    plain, permuted = (
        lstm("rows", 5, in_shape=(1, 4, 3)),
        lstm("rows", 5, in_shape=(1, 4, 3), permutation_seed=3),
    )
    assert permuted.order is not None
    order = permuted.order
    plain.load_state_dict({k: v for k, v in permuted.state_dict().items() if k != "order"})
    moved = images.flatten(2)[..., order].reshape(images.shape)
    torch.testing.assert_close(permuted(images), plain(moved))


def test_dense_layer_keeps_its_input_beside_the_new_features():
    model = build("densenet-10-4-bc", in_shape=(1, 8, 8)).eval()
    layer = model.block1_layer1
    x = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    out = layer(x)
    assert out.shape == (2, 12, 8, 8)
    assert torch.equal(out[:, :8], x)


def test_transitions_halve_channels_only_with_bottlenecks():
    assert densenet(40, 12).transition1.conv.weight.shape[:2] == (168, 168)
    assert densenet(100, 12, bottleneck=True).transition1.conv.weight.shape[:2] == (108, 216)
    assert densenet(40, 12).conv.out_channels == 24


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: resnet(18), r"depth must be 6 n \+ 2.*got 18\. Take 20"),
        (lambda: resnet(2), r"Take 8"),
        (lambda: densenet(41), r"depth must be 3 n \+ 4.*Take 40"),
        (lambda: densenet(42, bottleneck=True), r"6 n \+ 4.*Take 40"),
        (lambda: densenet(40, 0), "growth must be positive"),
        (lambda: wide_resnet(20), r"depth must be 6 n \+ 4.*got 20\. Take 22"),
        (lambda: wide_resnet(4), "Take 10"),
        (lambda: wide_resnet(10, 0), "widen and classes must be positive"),
        (lambda: wide_resnet(10, in_shape=(64,)), r"in_shape must be \(channels"),
        (lambda: lstm("columns"), "steps must be 'rows' or 'pixels'"),
        (lambda: lstm("rows", 0), "hidden and classes must be positive"),
        (lambda: cnn(12, 4, in_shape=(1, 8, 8)), r"at least 16x16 pixels.*got 8x8"),
        (lambda: cnn(0), "must be positive"),
        (lambda: cnn(4, in_shape=(64,)), r"in_shape must be \(channels, height, width\)"),
        (lambda: mlp([64]), "two or more positive"),
        (lambda: mlp([64, 0, 10]), "two or more positive"),
    ],
)
def test_impossible_networks_meet_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
