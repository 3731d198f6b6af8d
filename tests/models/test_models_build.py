"""``lowland.models.build`` and ``initialize``: the seed decides everything, and touches nothing."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lowland.errors import MissingExtraError
from lowland.models import build, initialize

NAMES = ["mlp-64-32-10", "mlp-bn-64-32-10", "cnn-4", "resnet-8", "densenet-10-4-bc"]
NAMES += ["wrn-10-1", "lstm-rows-8", "lstm-permuted-8"]


def weights(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


@pytest.mark.parametrize("init", ["he", "official", "glorot"])
@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_network(name, init):
    first = build(name, in_shape=(1, 8, 8), seed=3, init=init)
    torch.rand(7)  # whatever happens to the global generator in between
    again = build(name, in_shape=(1, 8, 8), seed=3, init=init)
    other = build(name, in_shape=(1, 8, 8), seed=4, init=init)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


@pytest.mark.parametrize("name", NAMES)
def test_global_generators_are_untouched(name):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    build(name, in_shape=(1, 8, 8), seed=5)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.mark.parametrize(("init", "gain"), [("he", 2.0), ("official", 1.0)])
def test_variance_is_the_gain_over_the_fan_in(init, gain):
    """A sample variance of n normal draws scatters by sqrt(2 / n); five of these are allowed."""
    model = build("cnn-48x2", init=init, seed=0)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight = module.weight.detach().double()
            fan_in = weight[0].numel()
            n = weight.numel()
            assert weight.var().item() * fan_in / gain == pytest.approx(1, abs=5 * (2 / n) ** 0.5)
            assert abs(weight.mean().item()) < 5 * (gain / fan_in / n) ** 0.5
            assert not module.bias.any()


def test_glorot_is_uniform_with_the_variance_of_both_fans():
    """Variance 2 / (n + m), all within sqrt(3) standard deviations; five standard errors."""
    model = build("wrn-16-1", init="glorot", seed=0)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight = module.weight.detach().double()
            area = weight[0, 0].numel()
            variance = 2 / (area * (weight.shape[0] + weight.shape[1]))
            n = weight.numel()
            error = 5 * (4 / 5 / n) ** 0.5  # kurtosis 9/5 of a uniform variable, minus 1
            assert weight.var().item() / variance == pytest.approx(1, abs=error)
            assert weight.abs().max().item() < (3 * variance) ** 0.5


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_keep_the_distribution_of_torch(kind):
    """Uniform in 1 / sqrt(hidden size), biases too, from the generator; their memory is kept."""
    layer = kind(5, 16, num_layers=2)
    places = [parameter.data_ptr() for parameter in layer.parameters()]
    initialize(layer, "he", torch.Generator().manual_seed(2))
    draws = torch.Generator().manual_seed(2)
    for parameter in layer.parameters():
        expected = (2 * torch.rand(parameter.shape, generator=draws) - 1) / 4
        torch.testing.assert_close(parameter.detach(), expected)
    assert [parameter.data_ptr() for parameter in layer.parameters()] == places


def test_the_order_of_permuted_pixels_is_the_same_for_all_seeds():
    """It is part of the task; unpermuted networks have none."""
    first, second = (build("lstm-permuted-4", in_shape=(1, 8, 8), seed=seed) for seed in (1, 2))
    assert torch.equal(first.order, second.order)
    assert not torch.equal(first.order, torch.arange(64))
    assert torch.equal(first.order.sort().values, torch.arange(64))
    assert "order" in first.state_dict()
    assert build("lstm-pixels-4", in_shape=(1, 8, 8)).order is None


def test_he_is_root_two_times_official():
    he, official = build("mlp-64-32-10"), build("mlp-64-32-10", init="official")
    torch.testing.assert_close(he.linear1.weight, official.linear1.weight * 2**0.5)


def test_normalization_is_reset():
    model = build("mlp-bn-64-32-10")
    norm = model.norm1
    with torch.no_grad():
        norm.weight.fill_(3)
        norm.bias.fill_(4)
    model(torch.rand(8, 64, generator=torch.Generator().manual_seed(0)))
    assert norm.num_batches_tracked == 1
    initialize(model, "he", torch.Generator().manual_seed(0))
    assert norm.num_batches_tracked == 0
    assert (norm.weight == 1).all()
    assert not norm.bias.any()
    assert not norm.running_mean.any()
    assert (norm.running_var == 1).all()
    wide = build("wrn-10-1")
    with torch.no_grad():
        wide.norm.weight.fill_(3)
        wide.norm.bias.fill_(4)
    initialize(wide, "he", torch.Generator().manual_seed(0))
    assert (wide.norm.weight == 1).all()
    assert not wide.norm.bias.any()


def test_draws_follow_the_generator():
    """One generator, used for two networks, gives two networks."""
    source = torch.Generator().manual_seed(0)
    first = initialize(nn.Linear(4, 3), "he", source)
    second = initialize(nn.Linear(4, 3), "he", source)
    assert not torch.equal(first.weight, second.weight)
    expected = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 0.5**0.5
    torch.testing.assert_close(first.weight.detach(), expected)
    assert first.weight.requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet20"}, r"got 'resnet20'\. Did you mean resnet-20"),
        ({"name": "ResNet-21"}, r"6 n \+ 2"),
        ({"name": "densnet-40-12"}, "Did you mean densenet-40-12"),
        ({"name": "wrn-28"}, "Did you mean wrn-28-2"),
        ({"name": "wrn-20-2"}, r"6 n \+ 4"),
        ({"name": "lstm-row-32"}, "Did you mean lstm-rows-32"),
        ({"name": "zzz"}, "There are mlp-64-32-10"),
        ({"name": "mlp-64"}, "name must be that of a network"),
        ({"name": "mlp-64-32-10", "in_shape": (3, 32, 32)}, "Take 'mlp-3072-32-10'"),
        ({"name": "mlp-bn-64-10", "classes": 100}, "Take 'mlp-bn-64-100'"),
        (
            {"name": "cnn-12", "init": "xavier"},
            "init must be one of he, official, glorot; got 'xav",
        ),
        ({"name": "cnn-12", "classes": 0}, "classes must be positive"),
        ({"name": "keras:resnet"}, "a library must be timm or torchvision"),
        ({"name": "torchvision:resnet18", "in_shape": (1, 28, 28)}, "inputs of 3 channels"),
    ],
)
def test_bad_names_meet_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(arguments.pop("name"), **arguments)


def test_upper_case_is_accepted():
    assert torch.equal(weights(build("ResNet-8")), weights(build("resnet-8")))


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_missing_library_meets_a_sentence(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=f"pip install {library}"):
        build(f"{library}:resnet18")


def fake(name, **contents):
    module = ModuleType(name)
    vars(module).update(contents)
    return module


def test_libraries_get_classes_channels_and_seed(monkeypatch):
    """Peers stand in: they draw from the global generator, as the real libraries do."""

    def create_model(name, num_classes, in_chans):
        assert name == "tiny"
        return nn.Linear(in_chans, num_classes)

    def get_model(name, weights, num_classes):
        assert name == "tiny"
        assert weights is None
        return nn.Linear(3, num_classes)

    models = SimpleNamespace(get_model=get_model)
    monkeypatch.setitem(sys.modules, "timm", fake("timm", create_model=create_model))
    monkeypatch.setitem(sys.modules, "torchvision", fake("torchvision", models=models))
    monkeypatch.setitem(sys.modules, "torchvision.models", fake("torchvision.models"))
    before = torch.get_rng_state()
    timm = build("timm:tiny", classes=7, in_shape=(1, 28, 28), seed=1)
    assert timm.weight.shape == (7, 1)
    assert build("torchvision:tiny", classes=5, seed=1).weight.shape == (5, 3)
    assert torch.equal(before, torch.get_rng_state())
    again = build("timm:tiny", classes=7, in_shape=(1, 28, 28), seed=1)
    assert torch.equal(timm.weight, again.weight)
    with pytest.raises(ValueError, match="timm must know the network"):
        build("timm:unknown")
