"""Bad arguments of cycles, schedules, bands and pieces meet a sentence; flat losses are none."""

from dataclasses import replace
from math import inf, nan

import pytest
import torch

from lowland.connectivity import (
    Cycle,
    arc_fractions,
    curve_weights,
    insert_highest,
    insertion_residuals,
    points_between,
    redistribute,
    relax,
    route,
    tangents,
)
from lowland.connectivity.neb import from_potential
from small_networks import SHORT

UNTYPED = pytest.mark.untyped
BAD_CYCLES = [
    ({"steps": 0}, "steps must be a whole number, at least 1; got 0. Pass an int"),
    pytest.param({"steps": True}, "steps must be a whole .*; got True", marks=UNTYPED),
    ({"learning_rate": 0.0}, "learning_rate must be positive and finite; got 0.0"),
    ({"learning_rate": nan}, "learning_rate must be positive and finite; got nan"),
    ({"learning_rate": inf}, "learning_rate must be positive and finite; got inf"),
    ({"count": -1}, "count must be a whole number, at least 0; got -1"),
    ({"insert": "all"}, "insert must be 'equal' or 'highest'; got 'all'"),
]


@pytest.mark.parametrize(("bad", "sentence"), BAD_CYCLES)
def test_bad_numbers_of_a_cycle(bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        Cycle(**{"steps": 1, "learning_rate": 0.1} | bad)


BAD_SCHEDULES = [
    ({"cycles": ()}, "first cycle must insert at least one pivot"),
    ({"cycles": (Cycle(1, 0.1),)}, r"insert='equal', count=3\); got"),
    ({"cycles": (Cycle(1, 0.1, "equal", 0),)}, "at least one pivot"),
    ({"threshold": -0.1}, "threshold must be a number, zero or more .*; got -0.1"),
    ({"threshold": nan}, "threshold must be a number, zero or more .*; got nan"),
    ({"samples": -1}, "samples must be a whole number, at least 0; got -1. Pass an int"),
    pytest.param({"samples": 1.5}, "samples must be a whole .*; got 1.5", marks=UNTYPED),
    pytest.param({"samples": True}, "samples must be a whole .*; got True", marks=UNTYPED),
    pytest.param({"examples": 24.0}, "examples must be a whole .*; got 24.0", marks=UNTYPED),
    pytest.param({"calibration": "all"}, "calibration must be a .*; got 'all'", marks=UNTYPED),
    pytest.param({"momentum": None}, "momentum must be a finite .*; got None", marks=UNTYPED),
    ({"spring_constant": inf}, "spring_constant must be a finite .*; got inf. Pass a float"),
    ({"spring_constant": nan}, "spring_constant must be a finite number, zero or more; got nan"),
    ({"weight_decay": inf}, "weight_decay must be a finite number, zero or more; got inf"),
    ({"weight_decay": -1.0}, "weight_decay must be a finite number, zero or more; got -1.0"),
    ({"examples": 0}, "examples must be a whole number, at least 1; got 0"),
    ({"calibration": 0}, "calibration must be a whole number, at least 1; got 0"),
    ({"momentum": 1.0}, r"momentum must lie in \[0, 1\); got 1.0"),
    ({"tangent": "x"}, "tangent must be 'paper', 'improved' or 'official'; got 'x'"),
    ({"batch_norm": "x"}, "batch_norm must be 'recalibrate' or 'interpolate'; got 'x'"),
]


@pytest.mark.parametrize(("bad", "sentence"), BAD_SCHEDULES)
def test_bad_numbers_of_a_schedule(bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(SHORT, **bad)


def bowl(points):
    return points.square().sum(1)


BAD_BANDS = [
    ({"path": torch.ones(2, 2), "weights": torch.ones(1)}, r"one pivot between .*\(2, 2\)"),
    pytest.param(
        {"path": torch.ones(4), "weights": torch.ones(3)},
        r"got shape \(4,\). Insert pivots first",
        marks=pytest.mark.untyped,
    ),
    ({"weights": torch.ones(3)}, r"a positive share for each of the 2 segments; got \[1.0, 1"),
    ({"weights": torch.tensor([1.0, 0.0])}, r"got \[1.0, 0.0\]"),
    ({"weights": torch.tensor([nan, 1.0])}, "a positive share"),
    ({"weights": torch.ones(2)}, r"each segment, sum 1; got \[1.0, 1.0\]. Divide them by their"),
    ({"steps": 0}, "steps must be a whole number, at least 1; got 0"),
    pytest.param({"steps": 2.0}, "steps must be a whole number.*; got 2.0", marks=UNTYPED),
    ({"spring_constant": inf}, "spring_constant must be a finite number, zero or more; got inf"),
    ({"spring_constant": -1.0}, "spring_constant must be a finite .*; got -1.0"),
    ({"learning_rate": 0.0}, "learning_rate must be positive and finite; got 0.0"),
    ({"learning_rate": nan}, "learning_rate must be positive and finite; got nan"),
    ({"momentum": 1.0}, r"momentum must lie in \[0, 1\); got 1.0"),
    ({"weight_decay": -1.0}, "weight_decay must be a finite number, zero or more; got -1.0"),
    ({"tangent": "x"}, "tangent must be"),
    ({"loss_and_grad": lambda p: (p[:, 0], p)}, r"of the interior ones, shape \(1, 2\); got \(3,"),
    ({"loss_and_grad": lambda p: (p[1:, 0], p[1:-1])}, r"of all pivots, shape \(3,\)"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "sentence"), BAD_BANDS)
def test_bad_bands(bad, sentence):
    good = {
        "path": torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]),
        "weights": torch.full((2,), 0.5),
        "loss_and_grad": from_potential(bowl),
        "steps": 1,
        "learning_rate": 0.1,
    }
    relax(**good)
    with pytest.raises(ValueError, match=sentence):
        relax(**good | bad)


PATH, THIRDS = torch.rand(4, 2), torch.full((3,), 1 / 3)
BAD_PIECES = {
    "shares": (lambda: redistribute(PATH, torch.ones(3)), "sum 1; got .*Divide them by their sum"),
    "rows": (lambda: redistribute(PATH, THIRDS[None]), "positive share"),
    "signs": (lambda: redistribute(PATH, THIRDS * torch.tensor([1, 3, -1])), "positive share"),
    "points": (lambda: points_between(PATH, -1), "samples must be a whole .*; got -1"),
    "fractions": (lambda: arc_fractions(PATH, -1), "samples must be a whole .*; got -1"),
    "samples": (lambda: insertion_residuals(torch.rand(4), -1), "samples must be a .*; got -1"),
    "losses": (
        lambda: insertion_residuals(torch.rand(8), 2),
        r"first pivot and 3 points for each segment; got 8. Evaluate at points_between",
    ),
    "residuals": (
        lambda: insert_highest(PATH, THIRDS, torch.ones(2, 1), count=1, threshold=0.2),
        "a row for each of the 3 segments; got 2",
    ),
    "curve": (
        lambda: curve_weights("polychain", torch.tensor([1.5]), 3),
        r"t must lie between 0 \(start\) and 1 \(end\); got \[1.5\]",
    ),
    "minima": (lambda: route(torch.zeros(3, 3), 0, 7), "numbers from 0 to 2; got 0 and 7"),
}


@pytest.mark.parametrize(("call", "sentence"), BAD_PIECES.values(), ids=BAD_PIECES.keys())
def test_bad_arguments_of_a_piece(call, sentence):
    """Of those functions that a user's own loop calls."""
    with pytest.raises(ValueError, match=sentence):
        call()


def test_flat_losses_give_no_nan():
    """Equal neighbors, coinciding pivots: tangents stay finite, zero where there is no way."""
    path = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [2.0, 1.0]])
    for kind in ("paper", "improved", "official"):
        for losses_ in (torch.zeros(4), torch.tensor([0.0, 1.0, 1.0, 0.0])):
            assert tangents(path, losses_, kind).isfinite().all()
    same = torch.ones(4, 2)
    assert tangents(same, torch.zeros(4)).eq(0).all()
    band = relax(same, torch.full((3,), 1 / 3), from_potential(bowl), steps=3, learning_rate=0.1)
    assert band.path.isfinite().all()
