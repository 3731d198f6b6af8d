"""``lowland.control.comparators``: each by hand, straight through, clipped, and at evaluation."""

from collections import OrderedDict
from math import sqrt

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from lowland.control.comparators import (
    AbsmeanTernary,
    BinaryConnect,
    TernaryWeightNetwork,
    glorot_learning_rates,
    use_latent_weights,
)
from lowland.control.losses import squared_hinge
from lowland.errors import UnsupportedModelError
from lowland.models import build
from lowland.training import train


def drawn():
    return BinaryConnect(stochastic=True)


ALL = [BinaryConnect, drawn, TernaryWeightNetwork, AbsmeanTernary]


def latent(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_binary_by_hand():
    """0 counts as positive, so that every weight has a sign."""
    seen = BinaryConnect()(latent(0.3, -0.2, 0.0, -0.0, 1.0, -1.0))
    assert seen.tolist() == [1, -1, 1, 1, 1, -1]


def test_ternary_weight_network_by_hand():
    """Mean 0.5, threshold 0.35; of the 0.8, 0.6 and 0.5 above it the mean is 1.9 / 3."""
    seen = TernaryWeightNetwork()(latent(0.8, -0.6, 0.1, -0.5))
    torch.testing.assert_close(seen, torch.tensor([1.0, -1, 0, -1]).double() * 1.9 / 3)
    assert TernaryWeightNetwork()(latent(0.0, 0.0)).tolist() == [0, 0]
    assert TernaryWeightNetwork()(latent(0.5, -0.5)).tolist() == [0.5, -0.5]
    assert TernaryWeightNetwork(threshold=1)(latent(0.5, -0.5)).tolist() == [0, 0]


def test_the_scale_of_a_ternary_weight_network_is_the_best(rng):
    """Of all scales for its own signs, the mean above the threshold has the least error."""
    w = torch.randn(50, dtype=torch.float64, generator=rng)
    seen = TernaryWeightNetwork()(w)
    errors = [(w - stretch * seen).square().sum() for stretch in (1, 0.99, 1.01)]
    assert errors[0] < min(errors[1:])


def test_absmean_by_hand():
    """Mean 0.5, so zero up to 0.25; larger ones stay at the scale."""
    seen = AbsmeanTernary()(latent(1.2, -0.3, 0.25, -0.25))
    assert seen.tolist() == [0.5, -0.5, 0, 0]
    assert AbsmeanTernary()(latent(0.0, 0.0)).tolist() == [0, 0]


@pytest.mark.parametrize("make", ALL)
def test_gradient_goes_straight_through(make, rng):
    """What arrives at the discrete weights arrives at the latent ones, exactly; outside, too."""
    w = (3 * torch.randn(20, dtype=torch.float64, generator=rng)).requires_grad_()
    upstream = torch.randn(20, dtype=torch.float64, generator=rng)
    seen = make()(w)
    assert len(seen.detach().unique()) == (2 if make in (BinaryConnect, drawn) else 3)
    seen.backward(upstream)
    assert torch.equal(w.grad, upstream)


@pytest.mark.parametrize("make", [BinaryConnect, drawn])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_binary_weights_are_exactly_so(make, dtype, rng):
    """1 + (w - w) is exact; w + (1 - w) would not be."""
    w = torch.randn(1000, generator=rng).to(dtype).requires_grad_()
    seen = make()(w)
    assert seen.dtype == dtype
    assert (seen.abs() == 1).all()


@pytest.mark.parametrize("make", [BinaryConnect, drawn])
def test_latent_weights_are_clipped_in_train_mode_only(make):
    binary = make()
    w = latent(1.5, -7.0, 0.25)
    binary.eval()(w)
    assert w.tolist() == [1.5, -7.0, 0.25]
    binary.train()(w)
    assert w.tolist() == [1.0, -1.0, 0.25]


def test_other_latent_weights_are_not_clipped():
    w = latent(1.5, -7.0, 0.25)
    for make in (TernaryWeightNetwork, AbsmeanTernary):
        make()(w)
    assert w.tolist() == [1.5, -7.0, 0.25]


def test_clipping_before_a_forward_pass_is_clipping_after_an_update(rng):
    """Twenty steps of Adam that leave the interval, against a loop that clips after each."""
    x = torch.randn(20, 5, 4, dtype=torch.float64, generator=rng)
    layer = nn.Linear(4, 3, bias=False).double()
    layer.weight.data = torch.randn(3, 4, dtype=torch.float64, generator=rng).tanh()
    use_latent_weights(layer, BinaryConnect)
    moved = layer.parametrizations.weight.original
    plain = moved.detach().clone().requires_grad_()
    adam, other = torch.optim.Adam([moved], lr=0.5), torch.optim.Adam([plain], lr=0.5)
    is_ever_clipped = False
    for inputs in x:
        (layer(inputs) - 9).square().mean().backward()
        signs = torch.where(plain.detach() >= 0, 1.0, -1.0).double().requires_grad_()
        (inputs @ signs.T - 9).square().mean().backward()
        plain.grad = signs.grad
        for optimizer in (adam, other):
            optimizer.step()
            optimizer.zero_grad()
        is_ever_clipped |= bool((plain.detach().abs() > 1).any())
        with torch.no_grad():
            plain.clamp_(-1, 1)
    assert is_ever_clipped
    torch.testing.assert_close(moved.detach().clamp(-1, 1), plain.detach())


def test_stochastic_weights_have_the_latent_ones_as_their_mean():
    """The mean of n draws of ±1 scatters by sqrt((1 - w^2) / n); five of these are allowed."""
    torch.manual_seed(0)
    w = latent(-1.0, -0.6, 0.0, 0.3, 0.9, 1.0)
    binary, n = drawn(), 20_000
    mean = torch.stack([binary(w).detach() for _ in range(n)]).mean(0)
    error = 5 * ((1 - w.detach() ** 2) / n).sqrt()
    assert ((mean - w.detach()).abs() <= error).all()  # certain at ±1, without any error


def test_at_evaluation_drawn_weights_are_latent_and_the_others_discrete(rng):
    x = torch.randn(6, 4, dtype=torch.float64, generator=rng)
    for make in ALL:
        layer = use_latent_weights(nn.Linear(4, 3).double(), make).eval()
        w = layer.parametrizations.weight.original.detach()
        seen = w if make is drawn else make()(w)
        torch.testing.assert_close(layer(x), x @ seen.T + layer.bias, rtol=0, atol=1e-14)
        assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("make", ALL)
def test_a_model_is_only_given_other_weights(make):
    """Its latent weights, other parameters, modes and the generator are what they were."""
    model = build("bn-cnn-2-3", in_shape=(1, 8, 8))
    model.conv1.eval()
    model.linear2.eval()
    with torch.no_grad():
        model.linear1.weight.fill_(5)  # outside of the interval
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert use_latent_weights(model, make, skip=("conv1",)) is model
    assert torch.equal(torch.get_rng_state(), state)
    after = model.state_dict()
    assert len(before) == len(after)
    for name, value in before.items():
        parts = name.rpartition(".")
        moved = f"{parts[0]}.parametrizations.weight.original"
        assert torch.equal(after.get(name, after.get(moved)), value), name
    layers = {n: m for n, m in model.named_children() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert {name for name, m in layers.items() if is_parametrized(m)} == {*layers} - {"conv1"}
    for name, module in model.named_modules():
        assert module.training == (name.partition(".")[0] not in ("conv1", "linear2")), name


def test_removing_it_leaves_the_discrete_weights():
    layer = use_latent_weights(nn.Linear(4, 3), BinaryConnect)
    seen = layer.weight.detach().clone()
    remove_parametrizations(layer, "weight")
    assert torch.equal(layer.weight, seen)
    assert (seen.abs() == 1).all()


def test_a_weight_with_two_layers_stays_one():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    use_latent_weights(model, BinaryConnect)
    assert len(glorot_learning_rates(model, 0.1)) == 2
    originals = [layer.parametrizations.weight.original for layer in model]
    assert originals[0] is originals[1]


def test_glorot_learning_rates_by_hand():
    """sqrt((fan-in + fan-out) / 1.5); what is not parametrized keeps the plain rate."""
    model = nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 8, 5), norm=nn.BatchNorm2d(8), linear=nn.Linear(20, 10))
    )
    use_latent_weights(model, BinaryConnect)
    groups = glorot_learning_rates(model, 1e-3)
    expected = [1e-3 * sqrt(25 * (3 + 8) / 1.5), 1e-3 * sqrt(30 / 1.5), 1e-3]
    assert [group["lr"] for group in groups] == pytest.approx(expected)
    assert [len(group["params"]) for group in groups] == [1, 1, 4]  # conv, linear; norm and biases
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("make", ALL)
def test_any_training_loop_trains_it(make, rng):
    """The library's own: the loss falls, the weights seen are discrete, the same seed the same."""
    x = torch.randn(200, 6, generator=rng)
    batches = [(part, (part[:, 0] > part[:, 1]).long()) for part in x.split(20)]
    states = []
    for _ in range(2):
        model = use_latent_weights(build("bn-mlp-6-16-2", seed=1), make)
        result = train(
            model,
            squared_hinge,
            batches,
            epochs=10,
            optimizer=lambda params: torch.optim.Adam(params, lr=0.1),
        )
        assert result.curve[-1]["train_loss"] < 0.5 * result.curve[0]["train_loss"]
        states.append(result.state)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    with torch.no_grad():
        assert len(model.linear1.weight.unique()) == (2 if make in (BinaryConnect, drawn) else 3)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            lambda: use_latent_weights(nn.Sequential(nn.Linear(2, 2)), BinaryConnect, skip=["1"]),
            ValueError,
            "skip must name .* got '1'. There are '0'",
        ),
        (
            lambda: use_latent_weights(nn.ReLU(), BinaryConnect),
            UnsupportedModelError,
            "must have a linear or convolutional layer.*ReLU with 0",
        ),
        (
            lambda: use_latent_weights(
                use_latent_weights(nn.Linear(2, 2), BinaryConnect), BinaryConnect
            ),
            ValueError,
            "weights must not be parametrized yet",
        ),
        (lambda: TernaryWeightNetwork(-1.0), ValueError, "threshold must not be negative; got -1"),
    ],
)
def test_bad_input_meets_a_sentence(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()
