"""Filters that are scaled do not turn, filters that are turned keep their length."""

from math import cos, pi, sqrt

import pytest
import torch
from torch import float64, nn
from torch.testing import assert_close

from lowland.dynamics.directions import direction_displacement


def conv(rng, **options):
    layer = nn.Conv2d(3, 5, 3, dtype=float64, **options)
    with torch.no_grad():
        layer.weight.normal_(generator=rng)
    return layer


def test_scaled_filters(rng):
    """All of the displacement is radial; each filter by its own factor."""
    layer = conv(rng)
    scale = torch.tensor([0.5, 1.0, 2.0, 3.0, 10.0], dtype=float64)
    end = {"weight": layer.weight.detach() * scale.view(5, 1, 1, 1)}
    (found,) = direction_displacement({"weight": layer.weight}, end).values()
    assert found.rotation.max() < 1e-30
    lengths = layer.weight.detach().flatten(1).norm(dim=1)
    assert_close(found.radial, (scale - 1).square() * lengths.square())


@pytest.mark.parametrize("angle", [1e-7, 0.1, pi / 2, 3.0])
def test_turned_filters(angle, rng):
    """By a known angle in a random plane: 1 - cos, to the last digits even where it is tiny."""
    start = torch.randn(6, 4, dtype=float64, generator=rng)
    across = torch.randn(6, 4, dtype=float64, generator=rng)
    lengths = start.norm(dim=1, keepdim=True)
    unit = start / lengths
    across -= (across * unit).sum(1, keepdim=True) * unit
    across /= across.norm(dim=1, keepdim=True)
    chord = 2 * torch.sin(torch.tensor(angle / 2, dtype=float64)) ** 2
    end = start - chord * start + torch.sin(torch.tensor(angle, dtype=float64)) * lengths * across
    (found,) = direction_displacement([start], [end]).values()
    assert_close(found.rotation, chord.expand(6), rtol=1e-7, atol=0.0)
    assert found.rotation[0].item() == pytest.approx(1 - cos(angle), abs=1e-15)
    assert found.radial.max() < 1e-25
    assert_close(found.turning, 2 * lengths[:, 0].square() * found.rotation)


def test_both_parts_add_up(rng):
    """|w' - w|^2 = (|w'| - |w|)^2 + 2 |w| |w'| (1 - cos), filter by filter."""
    start, end = torch.randn(2, 7, 9, dtype=float64, generator=rng)
    (found,) = direction_displacement([start], [end]).values()
    assert_close(found.radial + found.turning, (end - start).square().sum(1))
    assert found.displacement == pytest.approx((end - start).square().mean().item())
    cosine = nn.functional.cosine_similarity(start, end)
    assert_close(found.rotation, 1 - cosine)


def test_scale_invariant_training(rng):
    """Before batch norm a rescaled filter is the same function, and has not turned."""
    model = nn.Sequential(conv(rng, bias=False), nn.BatchNorm2d(5, dtype=float64), nn.ReLU())
    start = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(4, 3, 8, 8, dtype=float64, generator=rng)
    before = model(x)
    with torch.no_grad():
        model[0].weight.mul_(1000)
    assert_close(model(x), before, rtol=1e-3, atol=1e-3)
    found = direction_displacement(start, model)
    assert [*found] == ["0.weight"]
    assert found["0.weight"].rotation.max() < 1e-25
    assert found["0.weight"].displacement > 1e5


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions(groups, rng):
    """Their output filters lie along the second axis: one is turned round, and only that."""
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups, dtype=float64)
    start = {name: value.clone() for name, value in layer.state_dict().items()}
    with torch.no_grad():
        layer.weight[2:4, 1] *= -1  # the second half of the inputs
        if groups == 1:
            layer.weight[0:2, 1] *= -1
    turned = direction_displacement(start, layer)["weight"].rotation
    expected = torch.zeros(6, dtype=float64)
    expected[1 if groups == 1 else 4] = 2  # with two groups, outputs 3 to 5 see inputs 2 and 3
    assert_close(turned, expected)


def test_a_filter_of_zeros(rng):
    """It has no direction: what it does is radial."""
    start, end = torch.zeros(2, 3), torch.tensor([[0.0, 0, 0], [3, 0, 4]])
    (found,) = direction_displacement([start], [end]).values()
    assert found.rotation.tolist() == [0, 0]
    assert found.radial.tolist() == [0, 25]
    assert found.rms_angle == 0


def test_small_moves_of_float32(rng):
    """Differences are taken in float64: rotation by 1e-6 is seen to a percent."""
    start = torch.randn(50, 20, generator=rng)
    kick = 1e-5 * torch.randn(50, 20, generator=rng)
    end = start + kick
    (found,) = direction_displacement([start], [end]).values()
    exact = (end.double() - start.double()).square().sum(1) - found.radial
    assert_close(found.turning, exact, rtol=1e-6, atol=0.0)
    assert found.rms_angle == pytest.approx(sqrt(2 * found.rotation.mean()), rel=1e-12)


def test_bad_input(rng):
    with pytest.raises(ValueError, match="same tensors.*'0'.*'a'"):
        direction_displacement([torch.ones(2, 3)], {"a": torch.ones(2, 3)})
    with pytest.raises(ValueError, match=r"0 was \(2, 3\) and is \(3, 2\)"):
        direction_displacement([torch.ones(2, 3)], [torch.ones(3, 2)])
    with pytest.raises(ValueError, match="at least one tensor of two or more axes"):
        direction_displacement([torch.ones(3)], [torch.ones(3)])
    with pytest.raises(ValueError, match="must be finite; 0"):
        direction_displacement([torch.ones(2, 2)], [torch.full((2, 2), torch.nan)])
