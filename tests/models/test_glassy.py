"""``lowland.models.glassy``: parameter counts to the unit, and the loss of the toy by hand."""

import pytest
import torch
from torch.nn.functional import mse_loss, one_hot

from lowland.models import alex6464, bruna, build, conv1020, one_hot_losses

GRAY, COLORED = (1, 28, 28), (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "in_shape", "classes", "count"),
    [
        ("bruna-10", GRAY, 10, 7_960),
        ("bruna-10", COLORED, 10, 30_840),
        ("bruna-10000", GRAY, 10, 7_950_010),
        ("conv1020-relu", GRAY, 10, 31_770),
        ("conv1020-relu", COLORED, 10, 56_890),
        ("conv1020-tanh", COLORED, 10, 56_890),
        ("conv1020-relu", COLORED, 100, 369_292),
        ("alex6464", COLORED, 10, 1_327_498),
    ],
)
def test_counts_of_the_specification(name, in_shape, classes, count):
    """glassy_dynamics.md, section 5, read in the authors' code."""
    model = build(name, in_shape=in_shape, classes=classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert model.eval()(torch.rand(2, *in_shape)).shape == (2, classes)


def test_the_largest_toy_counts_without_being_built():
    with torch.device("meta"):
        model = bruna(10_000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 30_830_010


def test_toy_outputs_are_sigmoids_of_the_formula_written_out(rng):
    model = build("bruna-5", in_shape=(1, 2, 3), classes=4, seed=1).double()
    x = torch.randn(3, 1, 2, 3, dtype=torch.float64, generator=rng)
    hidden = (x.reshape(3, 6) @ model.linear1.weight.T + model.linear1.bias).clamp(min=0)
    expected = torch.sigmoid(hidden @ model.linear2.weight.T + model.linear2.bias)
    torch.testing.assert_close(model(x), expected)


def test_the_loss_is_the_mean_square_distance_from_one_hot(rng):
    output = torch.rand(7, 4, dtype=torch.float64, generator=rng)
    target = torch.randint(4, (7,), generator=rng)
    found = one_hot_losses(output, target)
    assert found.shape == (7,)
    expected = mse_loss(output, one_hot(target, 4).double())
    assert found.mean().item() == pytest.approx(expected.item(), rel=1e-14)


def test_tanh_and_relu_differ_only_in_the_curve(rng):
    models = [build(f"conv1020-{name}", seed=3) for name in ("relu", "tanh")]
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    x = torch.rand(2, *COLORED, generator=rng)
    assert not torch.equal(models[0](x), models[1](x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bruna(0), "must be positive; got 0, 10"),
        (lambda: conv1020("sine"), "activation must be one of relu, tanh; got 'sine'"),
        (lambda: conv1020(in_shape=(1, 8, 8)), "at least 16x16 pixels"),
        (lambda: conv1020(classes=0), "classes must be positive; got 0"),
        (lambda: alex6464(0), "classes must be positive; got 0"),
        (lambda: alex6464(in_shape=(3, 8, 8)), "at least 15x15 pixels"),
        (lambda: build("conv1020"), "Did you mean conv1020"),
    ],
)
def test_impossible_networks_meet_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
