"""What no curve can be fitted to meets a sentence, and a fit that diverges keeps its last curve."""

import json
from math import inf, isfinite, nan

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lowland.connectivity import PathResult, fit_curve
from lowland.errors import OutcomeError, UnsupportedModelError
from lowland.results import Status
from small_networks import Branching, class_batches, losses, mlp, two

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")


def fit(start=None, end=None, loss_fn=losses, batches=None, make=mlp, **options):
    a, b = two(make)
    return fit_curve(
        a,
        loss_fn,
        class_batches(4) if batches is None else batches,
        a if start is None else start,
        b if end is None else end,
        **{"steps": 120, "points": 5, "backend": "loop"} | options,
    )


SETTINGS = [
    ({"kind": "spline"}, "kind must be 'bezier' or 'polychain'; got 'spline'"),
    ({"bends": 0}, "bends must be a whole number, at least 1; got 0"),
    ({"bends": 1.5}, "bends must be a whole number, at least 1; got 1.5"),
    ({"steps": -1}, "steps must be a whole number, at least 0; got -1"),
    ({"steps": 2.5}, "steps must be a whole number, at least 0; got 2.5"),
    ({"learning_rate": 0.0}, "learning_rate must be positive and finite; got 0.0"),
    ({"learning_rate": nan}, "learning_rate must be positive and finite; got nan"),
    ({"learning_rate": inf}, "learning_rate must be positive and finite; got inf"),
    ({"momentum": 1.0}, r"momentum must lie in \[0, 1\); got 1.0"),
    ({"weight_decay": -0.1}, "weight_decay must be a finite number, zero or more; got -0.1"),
    ({"weight_decay": inf}, "weight_decay must be a finite number, zero or more; got inf"),
    ({"points": 1}, "points must be a whole number, at least 2; got 1"),
    ({"examples": 0}, "examples must be a whole number, at least 1; got 0"),
    ({"calibration": 0}, "calibration must be a whole number, at least 1; got 0"),
    ({"backend": "jit"}, "backend must be 'auto', 'vmap' or 'loop'; got 'jit'"),
]


@pytest.mark.parametrize(("options", "sentence"), SETTINGS)
def test_settings(options, sentence, tmp_path):
    """They are refused before a folder is made for them."""
    with pytest.raises(ValueError, match=sentence):
        fit(**options, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ends_and_data():
    """As in ``find_path``: the same task is made."""
    bad = mlp().state_dict()
    bad["2.bias"] = torch.tensor([nan, 0.0, 0.0])
    with pytest.raises(ValueError, match="start must hold finite parameters; 2.bias does not"):
        fit(start=bad)
    bad["2.bias"] = torch.tensor([3e38, -3e38, 0.0])
    with pytest.raises(ValueError, match="must have a finite loss; that of end is inf. Check"):
        fit(end=bad)
    with pytest.raises(ValueError, match="end must fit the model"):
        fit(end=nn.Linear(2, 2))
    with pytest.raises(ValueError, match="one loss per example.*got a scalar"):
        fit(loss_fn=cross_entropy)
    with pytest.raises(ValueError, match="at least one batch.*got none"):
        fit(batches=[])
    with pytest.raises(ValueError, match="iterable more than once; got a list_iterator"):
        fit(batches=iter(class_batches(4)))
    with pytest.raises(UnsupportedModelError, match="backend='vmap' needs a model"):
        fit(make=lambda: nn.Sequential(nn.Linear(4, 3), Branching()), backend="vmap")


class Fading:
    """Batches that are there when the fit begins, and gone in a later pass."""

    def __init__(self, passes):
        self.left = passes

    def __iter__(self):
        self.left -= 1
        return iter(class_batches(4) if self.left >= 0 else [])


def test_batches_that_fade():
    with pytest.raises(ValueError, match="at least one batch; got none"):
        fit(batches=Fading(4), evaluation_batches=class_batches(4))


@pytest.mark.parametrize("kind", ["bezier", "polychain"])
def test_a_huge_learning_rate(kind, tmp_path):
    """Status and message name the step; what is kept is the curve of the last check: the line."""
    bad = fit(learning_rate=1e38, kind=kind, out=tmp_path)
    assert bad.status is Status.NOT_FINITE
    assert bad.message.startswith("the loss was not finite at step ")
    assert bad.message.endswith("; the last good curve is kept. Lower the learning rate.")
    assert isfinite(bad.saddle)
    assert bad.profile.train_loss.isfinite().all()
    assert bad.length_ratio == pytest.approx(1, abs=1e-5)
    assert bad.cycles[1].status is Status.NOT_FINITE
    with pytest.raises(OutcomeError, match="no longer finite; the loss was not finite at step"):
        bad.raise_for_status()
    json.dumps(bad.record(), allow_nan=False)
    again = fit(learning_rate=1e38, kind=kind, out=tmp_path)
    assert again.record() == PathResult.load(tmp_path).record() == bad.record()


def poisoned(number):
    """Batches whose one, of this number over all passes, has an input that is no number."""

    class Poisoned:
        count = 0

        def __iter__(self):
            for inputs, target in class_batches(4):
                Poisoned.count += 1
                yield (inputs * nan if Poisoned.count == number else inputs), target

    return Poisoned()


@pytest.mark.parametrize("step", [49, 50, 51, 119])
def test_the_kept_curve_is_that_of_the_last_check(step):
    """Checks come every 50 steps: the kept curve has as many steps as a multiple of that."""
    clean = {"evaluation_batches": class_batches(4), "learning_rate": 1e-3, "momentum": 0.0}
    bad = fit(batches=poisoned(step + 2), **clean)  # one batch is read before: calibration
    assert bad.status is Status.NOT_FINITE
    assert f"not finite at step {step};" in bad.message
    assert bad.cycles[1].steps == step // 50 * 50
    assert torch.equal(bad.path.pivots[[0, -1]], torch.stack(ends()))
    assert bad.profile.train_loss.isfinite().all()


def ends():
    return [torch.cat([p.detach().flatten() for p in net.parameters()]) for net in two(mlp)]


class Overflows(nn.Module):
    """Steep: one large step and the next loss overflows, with parameters still finite."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.outer(self.inner(x)).exp()


def test_the_very_last_step():
    """No step comes after it to notice: the evaluation does, and the line is left."""
    bad = fit(make=Overflows, steps=1, learning_rate=1e4)
    assert bad.status is bad.cycles[1].status is Status.NOT_FINITE
    assert "along the curve was not finite after step 1; the last good curve is kept" in bad.message
    assert isfinite(bad.saddle)
    json.dumps(bad.record(), allow_nan=False)
