"""How the house tries the room ``connectivity``.

``DRIVERS`` keep the whole contract (seed, progress, out; status, save, record), ``PIECES`` at least
leave the model as it was. ``TRAINS`` names what promises to change it, ``BY_THE_CLOCK`` what
chooses by measured times, so that two runs may differ in rounding.
"""

from copy import deepcopy

import torch

from lowland.connectivity import find_path, linear_path, measure_plane
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


def plane(model, loss_fn, batches, **options):
    path = line(model, loss_fn, batches).path
    options = {"resolution": 2, "examples": 16, "backend": "loop"}
    return measure_plane(model, loss_fn, batches, path, **options)


DRIVERS = {find_path: find, linear_path: line}
PIECES = {
    "find_path, auto": find_batched,
    "find_path, interpolate": find_as_published,
    measure_plane: plane,
}
TRAINS = ()
BY_THE_CLOCK = ("find_path, auto",)
