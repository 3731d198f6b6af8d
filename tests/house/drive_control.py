"""How the house tries the room ``control``; see ``drive_connectivity.py`` for the names."""

from warnings import catch_warnings, simplefilter

from rooms import Together

from lowland.control import (
    basic_msa,
    discretize,
    error_estimate,
    extended_msa,
    gradient_step,
    maximum_principle_residual,
    monotone_msa,
    states_and_costates,
    train_msa,
    values_of,
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


def extended(model, loss_fn, batches, *, test_batches=None, **options):
    settings = {"rho": 0.1, "steps": 2, "inner_steps": 2}
    return extended_msa(model, loss_fn, batches, **settings | options)


def monotone(model, loss_fn, batches, *, test_batches=None, **options):
    """It moves weights that are discrete already."""
    if not values_of(model):
        quietly(discretize, model, seed=options.get("seed", 0))
    return monotone_msa(model, loss_fn, batches, **{"steps": 4} | options)


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


DRIVERS = {train_msa: train, basic_msa: basic, monotone_msa: monotone, extended_msa: extended}
PIECES = {"states_and_costates": look, "residual": residual, "error_estimate": estimate}
TRAINS = (train_msa, basic_msa, monotone_msa, extended_msa)
BY_THE_CLOCK = ()
MEASURES = ()
SAVES_BY_THE_CLOCK = (train_msa,)
TOGETHER = {"train_msa": Together(train, "half of every batch")}
