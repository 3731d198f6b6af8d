"""How the house tries the room ``control``; see ``drive_connectivity.py`` for the names."""

from warnings import catch_warnings, simplefilter

from lowland.control import (
    basic_msa,
    error_estimate,
    gradient_step,
    maximum_principle_residual,
    states_and_costates,
    train_msa,
)
from lowland.training import as_pair, isolated_rng


def quietly(driver, *given, **options):
    """The house's networks have layers that no norm follows, and say so."""
    with catch_warnings():
        simplefilter("ignore", UserWarning)
        return driver(*given, **options)


def train(model, loss_fn, batches, *, test_batches=None, **options):
    return quietly(train_msa, model, loss_fn, batches, **{"steps": 6, "rho": 0.3} | options)


def basic(model, loss_fn, batches, *, test_batches=None, **options):
    return basic_msa(model, loss_fn, batches, argmax=gradient_step(0.1), **{"steps": 2} | options)


def trajectory(model, loss_fn, batches):
    with isolated_rng(0, batches=batches):
        inputs, target = as_pair(next(iter(batches)))
    return states_and_costates(model, loss_fn, inputs, target), inputs, target


def look(model, loss_fn, batches, **options):
    return trajectory(model, loss_fn, batches)[0].loss


def residual(model, loss_fn, batches, **options):
    return maximum_principle_residual(trajectory(model, loss_fn, batches)[0])


def estimate(model, loss_fn, batches, **options):
    found, inputs, target = trajectory(model, loss_fn, batches)
    moved = {name: value * 1.01 for name, value in found.params.items()}
    return error_estimate(model, loss_fn, inputs, target, moved).change


DRIVERS = {train_msa: train, basic_msa: basic}
PIECES = {"states_and_costates": look, "residual": residual, "error_estimate": estimate}
TRAINS = (train_msa, basic_msa)
BY_THE_CLOCK = ()
