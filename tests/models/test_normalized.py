"""The networks of Li & Hao: parameters to the unit, order of layers, and norms as officially."""

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, max_pool2d

from lowland.models import build, normalized_cnn, normalized_mlp
from lowland.training import norm_layers

# optimal_control.md section 5: weights, then scales and offsets, two numbers per channel
COUNTS = [
    ("bn-mlp-784-2048-2048-2048-10", (1, 28, 28), 10_014_720, 12_308),
    ("bn-cnn-128", (3, 32, 32), 14_022_016, 7_700),
    ("bn-cnn-64", (3, 32, 32), 6_397_632, 5_908),
]


def sizes(model, kinds):
    layers = (module for module in model.modules() if isinstance(module, kinds))
    return sum(p.numel() for layer in layers for p in layer.parameters(recurse=False))


@pytest.mark.parametrize(("name", "in_shape", "weights", "norms"), COUNTS)
def test_counts_are_those_of_the_paper(name, in_shape, weights, norms):
    model = build(name, in_shape=in_shape)
    assert sizes(model, (nn.Linear, nn.Conv2d)) == weights
    assert sizes(model, (nn.BatchNorm1d, nn.BatchNorm2d)) == norms
    assert sum(p.numel() for p in model.parameters()) == weights + norms


def test_products_per_image_are_those_of_the_paper():
    """617 million for CIFAR-10: every weight of a convolution meets every pixel of its output."""
    products = []

    def count(layer, _, output):
        pixels = output[0, 0].numel() if output.ndim == 4 else 1
        products.append(layer.weight.numel() * pixels)

    model = normalized_cnn(128).eval()
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(count)
    model(torch.zeros(1, 3, 32, 32))
    assert round(sum(products) / 1e6) == 617


def test_quarter_width():
    model = build("bn-cnn-32-256", in_shape=(3, 32, 32))
    wide = [layer.weight.shape[:2] for layer in model if isinstance(layer, nn.Linear | nn.Conv2d)]
    assert [tuple(shape) for shape in wide] == [
        *((32, 3), (32, 32), (64, 32), (64, 64), (128, 64), (128, 128)),
        *((256, 2048), (256, 256), (10, 256)),
    ]


def test_order_of_layers():
    """The maximum comes before the norm; the output has a norm and no ReLU; no biases."""
    single, pooled = ["Conv2d", "BatchNorm2d", "ReLU"], ["Conv2d", "MaxPool2d", "BatchNorm2d"]
    flat = ["Linear", "BatchNorm1d", "ReLU"]
    kinds = [type(layer).__name__ for layer in normalized_cnn(4, 8)]
    expected = (single + [*pooled, "ReLU"]) * 3 + ["Flatten"] + flat * 2 + flat[:2]
    assert kinds == expected
    assert [type(layer).__name__ for layer in normalized_mlp([3, 4, 2])] == [
        *("Flatten", "Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d")
    ]
    assert not any("linear" in n and "bias" in n for n, _ in normalized_cnn(4).named_parameters())


def test_cnn_is_the_formula_written_out(rng):
    model = build("bn-cnn-3-7", in_shape=(2, 9, 8), classes=5).double()
    for layer in norm_layers(model).values():
        nn.init.normal_(layer.weight, generator=rng)
        nn.init.normal_(layer.bias, generator=rng)
    named = dict(model.named_parameters())
    x = images = torch.rand(6, 2, 9, 8, dtype=torch.float64, generator=rng)

    def norm(x, name):
        scale, offset = named[f"{name}.weight"], named[f"{name}.bias"]
        return batch_norm(x, None, None, scale, offset, training=True, eps=1e-5)

    for number in range(1, 7):
        x = conv2d(x, named[f"conv{number}.weight"], padding=1)
        x = max_pool2d(x, 2, 2) if number % 2 == 0 else x
        x = norm(x, f"conv_norm{number}").relu()
    x = x.flatten(1)
    for number in (1, 2, 3):
        x = norm(x @ named[f"linear{number}.weight"].T, f"norm{number}")
        x = x.relu() if number < 3 else x
    assert x.shape == (6, 5)
    torch.testing.assert_close(model(images), x)


@pytest.mark.parametrize(
    ("name", "in_shape", "classes"),
    [
        ("bn-mlp-64-32-10", (1, 8, 8), 10),
        ("bn-mlp-5-3", (5,), 3),
        ("bn-cnn-4", (1, 8, 8), 10),
        ("bn-cnn-4-16", (1, 28, 28), 7),
        ("BN-CNN-2-3", (3, 20, 12), 100),
    ],
)
def test_shapes_and_seeds(name, in_shape, classes, rng):
    first, again = (build(name, classes=classes, in_shape=in_shape, seed=3) for _ in range(2))
    other = build(name, classes=classes, in_shape=in_shape, seed=4)
    images = torch.rand(5, *in_shape, generator=rng)
    output = first(images)
    assert output.shape == (5, classes)
    assert torch.equal(output, again(images))
    assert not torch.equal(output, other(images))
    output.square().sum().backward()
    assert all(parameter.grad is not None for parameter in first.parameters())


def test_norms_are_those_of_torch():
    for name in ("bn-mlp-64-8-10", "bn-cnn-4"):
        for layer in build(name, in_shape=(1, 8, 8)).modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                assert (layer.eps, layer.momentum) == (1e-5, 0.1)
                assert (layer.weight == 1).all()
                assert (layer.bias == 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: normalized_mlp([64]), "two or more positive numbers; got"),
        (lambda: normalized_mlp([64, 0, 10]), "two or more positive"),
        (lambda: normalized_cnn(0), "width, hidden and classes must be positive; got 0"),
        (lambda: normalized_cnn(4, in_shape=(1, 7, 8)), "at least 8x8 pixels.*got 7x8"),
        (lambda: build("bn-mlp-784-10", in_shape=(1, 8, 8)), "Take 'bn-mlp-64-10'"),
        (lambda: build("bn-mlp-64-9-10", classes=7), "Take 'bn-mlp-64-9-7'"),
        (lambda: build("bn-cnn-128x2"), "Did you mean bn-cnn-128"),
    ],
)
def test_impossible_networks_meet_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
