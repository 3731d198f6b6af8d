"""Paths measured again: the profile the search found, and what interpolated statistics add."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lowland.connectivity import (
    find_path,
    linear_path,
    measure_ensemble,
    measure_path,
    measure_plane,
    recalibrate,
)
from small_networks import SHORT, class_batches, losses, mlp, norm_mlp, same, two

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")

OPTIONS = {"samples": SHORT.samples, "calibration": SHORT.calibration}


@pytest.mark.parametrize("make", [mlp, norm_mlp])
def test_the_profile_of_the_search(make):
    """Measured again it is the same to the bit, and the model is as it was."""
    model, end = two(make)
    before = deepcopy(model.state_dict())
    batches = class_batches(4)
    found = find_path(model, losses, batches, model, end, schedule=SHORT, backend="loop")
    again = measure_path(
        model, losses, batches, found.path, test_batches=class_batches(4, seed=1), **OPTIONS
    )
    assert torch.equal(again.train_loss, found.profile.train_loss)
    assert torch.equal(again.t, found.profile.t)
    assert again.test_loss is not None
    same(before, model.state_dict())


def test_interpolated_statistics_by_hand():
    """Between pivots the statistics are the mean of those recomputed at both; at pivots, theirs."""
    model, end = two(norm_mlp)
    batches = class_batches(4)
    path = find_path(model, losses, batches, model, end, schedule=SHORT, backend="loop").path
    found = measure_path(
        model, losses, batches, path, samples=1, batch_norm="interpolate", calibration=24
    )
    exact = measure_path(model, losses, batches, path, samples=1, calibration=24)
    assert_close(found.train_loss[::2], exact.train_loss[::2], rtol=1e-6, atol=0)
    assert not torch.allclose(found.train_loss[1::2], exact.train_loss[1::2], rtol=1e-4)
    corners = [at_pivot(deepcopy(model), path, row, batches) for row in range(len(path.pivots))]
    for row, (one, other) in enumerate(zip(corners[:-1], corners[1:], strict=True)):
        middle = deepcopy(model)
        mean = {
            name: (one[name] + other[name]) / 2 if one[name].is_floating_point() else one[name]
            for name in one
        }
        middle.load_state_dict(mean)
        middle.eval()
        with torch.no_grad():
            each = torch.cat([losses(middle(x), y) for x, y in batches])
        assert float(found.train_loss[2 * row + 1]) == pytest.approx(float(each.mean()), rel=1e-5)


def at_pivot(model, path, row, batches):
    """The network at a pivot, its statistics recomputed."""
    model.load_state_dict(path.layout.views(path.pivots[row]), strict=False)
    recalibrate(model, batches)
    return deepcopy(model.state_dict())


def test_statistics_that_moved_with_the_path():
    """They are taken from the path, or dropped and recomputed."""
    model, end = two(norm_mlp)
    batches = class_batches(4)
    line = linear_path(
        model, losses, batches, model, end, samples=2, batch_norm="interpolate", backend="loop"
    )
    moved = measure_path(model, losses, batches, line.path, samples=2, batch_norm="interpolate")
    assert_close(moved.train_loss, line.profile.train_loss, rtol=1e-6, atol=0)
    fresh = linear_path(model, losses, batches, model, end, samples=2, backend="loop")
    again = measure_path(model, losses, batches, line.path, samples=2)
    assert_close(again.train_loss, fresh.profile.train_loss, rtol=1e-6, atol=0)


def test_without_batch_norm_both_ways_agree():
    model, end = two(mlp)
    batches = class_batches(4)
    path = linear_path(model, losses, batches, model, end, backend="loop").path
    one, other = (
        measure_path(model, losses, batches, path, batch_norm=way)
        for way in ("recalibrate", "interpolate")
    )
    assert torch.equal(one.train_loss, other.train_loss)


def test_a_path_of_another_model():
    """One whose parameter is frozen now, one without a parameter that is to move, other shapes."""
    model, end = two(mlp)
    path = linear_path(model, losses, class_batches(4), model, end, backend="loop").path
    model[0].weight.requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="these differ: 0.weight"):
        measure_path(model, losses, class_batches(4), path)
    end[0].load_state_dict(model[0].state_dict())
    part = linear_path(model, losses, class_batches(4), model, end, backend="loop").path
    with pytest.raises(ValueError, match="0.weight is missing"):
        measure_path(mlp(), losses, class_batches(4), part)
    other = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    with pytest.raises(ValueError, match="shape"):
        measure_path(other, losses, class_batches(4), path)


class Crossed(nn.Module):
    """The same network whichever of its layers is registered first."""

    def __init__(self, *order: str):
        super().__init__()
        for name in order:
            setattr(self, name, {"inner": nn.Linear(4, 3), "outer": nn.Linear(3, 3)}[name])

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(x)))


def measures(path, batches):
    """Every way to measure a path, from a model to numbers."""
    measured = partial(measure_path, loss_fn=losses, batches=batches, path=path)
    plane = partial(measure_plane, loss_fn=losses, batches=batches, path=path, resolution=3)
    ensemble = partial(
        measure_ensemble, loss_fn=losses, batches=batches, path=path, test_batches=batches, points=3
    )
    return {
        "path": lambda model, backend="loop": measured(model, backend=backend).train_loss,
        "plane": lambda model, backend="loop": plane(model, backend=backend).loss,
        "ensemble": lambda model, backend="loop": ensemble(model, backend=backend).loss,
    }


@pytest.mark.parametrize("what", ["path", "plane", "ensemble"])
def test_layers_registered_in_another_order(what):
    """Coordinates are found by name, so the numbers are those of the model it was found for."""
    model, end = two(lambda: Crossed("inner", "outer"))
    other = Crossed("outer", "inner")
    batches = class_batches(4)
    path = find_path(model, losses, batches, model, end, schedule=SHORT, backend="loop").path
    found = measures(path, batches)[what]
    assert_close(found(other), found(model), rtol=1e-5, atol=1e-6)


class Subset(list):
    """Batches that can give their first examples, as those of ``lowland.data`` do."""

    def subset(self, number: int):
        inputs, target = (torch.cat(parts)[:number] for parts in zip(*self, strict=True))
        return [(inputs, target)]


@pytest.mark.parametrize("what", ["path", "plane", "ensemble"])
@pytest.mark.parametrize("backend", ["vmap", "auto"])
def test_backends_with_batch_norm(what, backend):
    """They are tried on several examples, as one alone has no variance."""
    model, end = two(norm_mlp)
    batches = Subset(class_batches(4))
    path = linear_path(model, losses, batches, model, end, samples=1, backend="loop").path
    found = measures(path, batches)[what]
    assert_close(found(model, backend), found(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("what", ["path", "plane", "ensemble"])
def test_an_unknown_backend(what):
    model, end = two(mlp)
    path = linear_path(model, losses, class_batches(4), model, end, backend="loop").path
    with pytest.raises(ValueError, match="must be 'auto', 'vmap' or 'loop'; got 'vamp'"):
        measures(path, class_batches(4))[what](model, "vamp")


@pytest.mark.untyped
@pytest.mark.parametrize("what", ["path", "plane", "ensemble"])
def test_a_result_in_the_place_of_its_path(what):
    model, end = two(mlp)
    batches = class_batches(4)
    line = linear_path(model, losses, batches, model, end, backend="loop")
    with pytest.raises(TypeError, match="got a PathResult. Pass its .path"):
        measures(line, batches)[what](model)
