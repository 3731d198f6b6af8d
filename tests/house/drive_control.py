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


def read(batches):
    """What a user has at hand; reading it is not what is tried here."""
    with isolated_rng(0, batches=batches):
        return [as_pair(batch) for batch in batches]


def look(model, loss_fn, batches, **options):
    return [states_and_costates(model, loss_fn, x, y).loss for x, y in read(batches)]


def residual(model, loss_fn, batches, **options):
    found = [states_and_costates(model, loss_fn, x, y) for x, y in read(batches)]
    return [maximum_principle_residual(trajectory) for trajectory in found]


def estimate(model, loss_fn, batches, **options):
    moved = {name: value.detach() * 1.01 for name, value in model.named_parameters()}
    return [error_estimate(model, loss_fn, x, y, moved).change for x, y in read(batches)]


DRIVERS = {train_msa: train, basic_msa: basic}
PIECES = {"states_and_costates": look, "residual": residual, "error_estimate": estimate}
TRAINS = (train_msa, basic_msa)
BY_THE_CLOCK = ()
