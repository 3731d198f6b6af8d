"""How the house tries the room ``connectivity``.

``DRIVERS`` keep the whole contract (seed, progress, out; status, save, record), ``PIECES`` at least
leave the model as it was. ``TRAINS`` names what promises to change it, ``BY_THE_CLOCK`` what
chooses by measured times, so that two runs may differ in rounding, ``MEASURES`` what says of each
point whether it is finite, ``SAVES_BY_THE_CLOCK`` what takes ``save_every``, and ``TOGETHER`` what
two processes do together.
"""

from copy import deepcopy
from unittest.mock import patch

import torch
from rooms import Together

from lowland.connectivity import (
    compare_paths,
    connect_minima,
    find_path,
    fit_curve,
    linear_path,
    measure_ensemble,
    measure_plane,
)
from small_networks import SHORT

SCHEDULE = {"schedule": SHORT, "backend": "loop"}


def other(model):
    """A second minimum: the weights mirrored, which is far away; what is frozen stays."""
    end = deepcopy(model)
    with torch.no_grad():
        for value in end.parameters():
            if value.requires_grad:
                value.neg_()
    return end


def find(model, loss_fn, batches, **options):
    return find_path(model, loss_fn, batches, model, other(model), **SCHEDULE | options)


def find_batched(model, loss_fn, batches, **options):
    return find(model, loss_fn, batches, **options | {"backend": "auto"})


def find_as_published(model, loss_fn, batches, **options):
    return find(model, loss_fn, batches, **options | {"batch_norm": "interpolate"})


def line(model, loss_fn, batches, **options):
    options = {"samples": 2, "backend": "loop"} | options
    return linear_path(model, loss_fn, batches, model, other(model), **options)


def curve(model, loss_fn, batches, **options):
    options = {"steps": 8, "points": 4, "backend": "loop"} | options
    return fit_curve(model, loss_fn, batches, model, other(model), **options)


def compare(model, loss_fn, batches, **options):
    """On five points of each line and curve, since 61 of them take most of its time."""
    options = SCHEDULE | {"steps": 4} | options
    with patch("lowland.connectivity.compare.POINTS", 5):
        return compare_paths(model, loss_fn, batches, model, other(model), **options)


def explore(model, loss_fn, batches, **options):
    minima = [model, other(model), other(other(model))]
    with torch.no_grad():
        for value in minima[2].parameters():
            value.mul_(0.5 if value.requires_grad else 1)
    return connect_minima(model, loss_fn, batches, minima, **SCHEDULE | options)


def ensemble(model, loss_fn, batches, *, test_batches=None, **options):
    path = line(model, loss_fn, batches).path
    tests = batches if test_batches is None else test_batches
    given = {"points": 3, "backend": "loop"}
    return measure_ensemble(model, loss_fn, batches, path, tests, **given)


def plane(model, loss_fn, batches, **options):
    path = line(model, loss_fn, batches).path
    options = {"resolution": 2, "examples": 16, "backend": "loop"}
    return measure_plane(model, loss_fn, batches, path, **options)


DRIVERS = {
    find_path: find,
    linear_path: line,
    fit_curve: curve,
    compare_paths: compare,
    connect_minima: explore,
}
PIECES = {
    "find_path, auto": find_batched,
    "find_path, interpolate": find_as_published,
    measure_plane: plane,
    measure_ensemble: ensemble,
}
TRAINS = ()
BY_THE_CLOCK = ("find_path, auto",)
MEASURES = (linear_path,)
SAVES_BY_THE_CLOCK = ()
TOGETHER = {
    name: Together(call, "the same batches")
    for name, call in {
        "find_path": find,
        "linear_path": line,
        "fit_curve": curve,
        "compare_paths": compare,
        "connect_minima": explore,
        "measure_plane": plane,
        "measure_ensemble": ensemble,
    }.items()
}
