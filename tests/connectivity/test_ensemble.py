"""``measure_ensemble``: averaged probabilities as an explicit loop over state dicts has them."""

from copy import deepcopy

import pytest
import torch
from torch import float64, nn
from torch.testing import assert_close

from lowland.connectivity import find_path, fit_curve, linear_path, measure_ensemble
from lowland.training import recalibrate
from small_networks import SHORT, class_batches, losses, norm_mlp, squared, two

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")
BATCHES = class_batches(4, dtype=float64)
TESTS = class_batches(4, sizes=(7, 7, 4), dtype=float64, seed=5)


def predictions(model, state, calibrate):
    """Probabilities of all test examples by one network."""
    own = deepcopy(model)
    own.load_state_dict(state)
    if calibrate:
        recalibrate(own, BATCHES)
    own.eval()
    with torch.no_grad():
        return torch.cat([own(inputs).softmax(1) for inputs, _ in TESTS])


def by_hand(probabilities):
    """Mean negative log-probability of the right class, and the share of wrong arg maxes."""
    target = torch.cat([target for _, target in TESTS])
    right = probabilities[torch.arange(len(target)), target]
    return float(-right.log().mean()), float((probabilities.argmax(1) != target).double().mean())


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize("kind", ["recalibrate", "interpolate", "curve"])
def test_by_hand(kind, backend):
    """Every network alone, all together, and both ends, to 1e-12."""
    model, end = two(norm_mlp, float64, BATCHES)
    given = (model, losses, BATCHES, model, end)
    if kind == "curve":
        path = fit_curve(*given, steps=20, points=5, backend="loop").path
    else:
        path = find_path(*given, schedule=SHORT, backend="loop", batch_norm=kind).path
    found = measure_ensemble(model, losses, BATCHES, path, TESTS, points=5, backend=backend)
    singles = [
        predictions(model, path.state_dict(t), kind != "interpolate")
        for t in (0, 0.25, 0.5, 0.75, 1)
    ]
    rows = [by_hand(one) for one in singles]
    close = {"rtol": 0, "atol": 1e-12}
    assert found.t.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert_close(found.loss, torch.tensor([loss for loss, _ in rows], dtype=float64), **close)
    assert_close(found.error, torch.tensor([error for _, error in rows], dtype=float64), **close)
    everyone = by_hand(torch.stack(singles).mean(0))
    ends = by_hand((singles[0] + singles[-1]) / 2)
    assert (found.ensemble_loss, found.ensemble_error) == pytest.approx(everyone, abs=1e-12)
    assert (found.ends_loss, found.ends_error) == pytest.approx(ends, abs=1e-12)


def line(**options):
    model, end = two(norm_mlp, float64, BATCHES)
    path = linear_path(model, losses, BATCHES, model, end, samples=1, backend="loop").path
    options = {"points": 3, "backend": "loop"} | options
    given = options.pop("model", model), options.pop("loss_fn", losses), BATCHES, path
    return measure_ensemble(*given, options.pop("tests", TESTS), **options)


def test_two_points_are_the_two_ends():
    found = line(points=2)
    assert (found.ensemble_loss, found.ensemble_error) == (found.ends_loss, found.ends_error)


def test_never_worse_than_the_mean():
    """Jensen: the loss of averaged probabilities is at most the mean of the losses."""
    found = line(points=7)
    assert found.ensemble_loss <= float(found.loss.mean())
    assert found.ends_loss <= float(found.loss[[0, -1]].mean())
    assert found.record()["loss"] == found.loss.tolist()


def test_networks_in_groups(monkeypatch):
    """Few at a time when they are large: the same numbers."""
    whole = line(points=5)
    monkeypatch.setattr("lowland.connectivity.ensemble.COORDINATES_AT_ONCE", 1)
    parts = line(points=5)
    assert_close(parts.loss, whole.loss, rtol=0, atol=1e-12)
    assert parts.ensemble_loss == pytest.approx(whole.ensemble_loss, abs=1e-12)
    assert parts.ends_loss == pytest.approx(whole.ends_loss, abs=1e-12)


def test_bad_input():
    with pytest.raises(ValueError, match="points must be a whole number, at least 2; got 1"):
        line(points=1)
    with pytest.raises(ValueError, match="at least one batch.*got none"):
        line(tests=[])
    regression = [(inputs, target.double()) for inputs, target in TESTS]
    with pytest.raises(ValueError, match=r"shape \(batch, classes\) and targets that are class"):
        line(tests=regression, loss_fn=lambda output, target: squared(output[:, :1], target))
    with pytest.raises(ValueError, match="must fit the model"):
        line(model=nn.Linear(4, 3).double())
    with pytest.raises(ValueError, match="one loss per example.*got a scalar"):
        line(loss_fn=nn.functional.cross_entropy)
