"""A search whose numbers leave the finite ones ends with its last good path, and says where."""

import json
from dataclasses import replace
from math import isfinite

import pytest
import torch
from torch import nn

from lowland.connectivity import (
    Cycle,
    PathResult,
    align,
    compare_paths,
    find_path,
    fit_curve,
    insert_equal,
    linear_path,
    relax,
)
from lowland.errors import OutcomeError
from lowland.results import Status
from small_networks import SHORT, class_batches, losses, mlp, two

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")


def search(*cycles, make=mlp, **options):
    model, end = two(make)
    options = {"schedule": replace(SHORT, cycles=cycles), "backend": "loop"} | options
    return find_path(model, losses, class_batches(4), model, end, **options)


GOOD = SHORT.cycles[0]


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_a_huge_learning_rate(backend, tmp_path):
    """Status and message name cycle, pivot and step; the path is that of the good cycle."""
    good = search(GOOD, backend=backend)
    bad = search(GOOD, Cycle(60, 1e38), Cycle(5, 0.1), backend=backend, out=tmp_path)
    assert bad.status is Status.NOT_FINITE
    assert [cycle.status for cycle in bad.cycles] == [Status.FINISHED] * 2 + [Status.NOT_FINITE]
    assert bad.message.startswith("cycle 2: the loss of pivot ")
    assert "was not finite at step 1; the last good path is kept" in bad.message
    assert torch.equal(bad.path.pivots, good.path.pivots)
    assert bad.best_cycle == good.best_cycle
    assert isfinite(bad.saddle)
    assert bad.profile.train_loss.isfinite().all()
    with pytest.raises(OutcomeError, match="a loss or a parameter is no longer finite; cycle 2"):
        bad.raise_for_status()
    assert good.raise_for_status() is good
    json.dumps(bad.record(), allow_nan=False)
    for file in tmp_path.glob("*.json"):
        assert "NaN" not in file.read_text()
    again = search(GOOD, Cycle(60, 1e38), Cycle(5, 0.1), backend=backend, out=tmp_path)
    assert again.record() == PathResult.load(tmp_path).record() == bad.record()
    assert again.status is Status.NOT_FINITE


class Overflows(nn.Module):
    """Steep: one large step and the next loss overflows, with parameters still finite."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.outer(self.inner(x)).exp()


def test_the_very_last_step():
    """No step comes after it to notice: the evaluation of the path does."""
    bad = search(GOOD, Cycle(1, 1e4, count=0), make=Overflows)
    assert bad.status is Status.NOT_FINITE
    assert "cycle 2: the loss of pivot " in bad.message
    assert bad.best_cycle < 2
    assert isfinite(bad.saddle)
    json.dumps(bad.record(), allow_nan=False)


def falls_off(edge):
    """A slope of 1 in the first coordinate that ends at an edge, behind which there is nothing."""

    def loss_and_grad(path):
        grads = torch.zeros_like(path[1:-1])
        grads[:, 0] = 1.0
        return torch.where(path[:, 0] < edge, torch.nan, path[:, 0]), grads

    return loss_and_grad


@pytest.mark.parametrize("bad_step", [1, 49, 50, 51, 99, 100, 101])
def test_the_kept_path_has_finite_losses(bad_step):
    """Whenever the edge is crossed: first bad step and pivot are named, the path kept is safe."""
    path, weights = insert_equal(torch.tensor([[0.0, 0.0], [0.0, 4.0]]), torch.ones(1), 3)
    loss_and_grad = falls_off(edge=0.5 - bad_step)
    settings = {"learning_rate": 1.0, "momentum": 0.0, "project_gradient": False}
    band = relax(path, weights, loss_and_grad, steps=130, spring_constant=0.0, **settings)
    assert (band.status, band.step, band.pivot) == (Status.NOT_FINITE, bad_step, 1)
    assert band.history.shape == (bad_step + 1, 5)
    assert band.history[:bad_step].isfinite().all()
    assert not band.history[bad_step, 1:-1].isfinite().any()
    assert loss_and_grad(band.path)[0].isfinite().all()
    assert torch.equal(loss_and_grad(band.path)[0], band.losses)
    assert torch.equal(band.path[[0, -1]], path[[0, -1]])


def test_a_parameter_that_leaves_first():
    """The loss does not see it: the position is what is not finite."""
    path, weights = insert_equal(torch.tensor([[0.0, 0.0], [0.0, 4.0]]), torch.ones(1), 1)

    def flat(path):
        return torch.zeros(3), torch.full((1, 2), torch.inf)

    band = relax(path, weights, flat, steps=3, learning_rate=1.0)
    assert (band.status, band.step, band.pivot) == (Status.NOT_FINITE, 2, 1)
    assert torch.equal(band.path, path)


def spoiled(number, which=1):
    """Batches of which one holds a number that is none."""
    batches = class_batches(4)
    batches[which][0][3, 2] = number
    return batches


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_a_line_over_bad_data(number, tmp_path):
    """The outcome names loss and place; the record holds no such number."""
    model, end = two(relu_net)
    data = spoiled(number)
    line = linear_path(model, losses, data, model, end, samples=3, out=tmp_path)
    assert line.status is Status.NOT_FINITE
    assert line.message.startswith("the training loss at t = 0.000 (point 1 of 5) is ")
    with pytest.raises(OutcomeError, match="no longer finite; the training loss at t"):
        line.raise_for_status()
    json.dumps(line.record(), allow_nan=False)
    assert line.record()["saddle"] is None
    assert PathResult.load(tmp_path).message == line.message
    good = class_batches(4)
    line = linear_path(model, losses, good, model, end, samples=3, test_batches=data)
    assert line.status is Status.NOT_FINITE
    assert line.message.startswith("the test loss at t = 0.000 ")
    assert isfinite(line.saddle)


def relu_net():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def test_where_a_line_leaves_the_numbers():
    """The root of a parameter that changes its sign on the way: the first point beyond zero."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x[:, :3] + self.value.sqrt()

    model, end = Root(), Root()
    end.value.data.fill_(-1.0)
    line = linear_path(model, losses, class_batches(4), model, end, samples=3)
    assert line.message.startswith("the training loss at t = 0.750 (point 4 of 5) is nan")


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_searches_whose_reported_data_are_bad(number):
    """The path stays; its status says why a loss is missing."""
    model, end = two(relu_net)
    good, data = class_batches(4), spoiled(number)
    path = find_path(model, losses, good, model, end, schedule=SHORT, test_batches=data)
    curve = fit_curve(model, losses, good, model, end, steps=5, test_batches=data)
    for found in (path, curve):
        assert found.status is Status.NOT_FINITE
        assert found.message.startswith("the test loss at t = 0.000 ")
        assert isfinite(found.saddle)
        json.dumps(found.record(), allow_nan=False)


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_five_ways_over_bad_data(number, which):
    """A sentence before anything is searched, and one from each kind of alignment."""
    model, end = two(relu_net)
    data = spoiled(number, which)
    with pytest.raises(ValueError, match="both ends must have a finite loss; that of start is "):
        compare_paths(model, losses, data, model, end, schedule=SHORT, steps=5)
    sentence = ("the model must give numbers on the first batch", "activations must be finite")
    with pytest.raises(ValueError, match=sentence[which]):
        align(model, data, model, end, method="activations")
