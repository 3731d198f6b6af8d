"""How the house tries the room ``importance``; see ``drive_connectivity.py`` for the names."""

import torch
from rooms import Together

from lowland.importance import (
    ImportanceSampling,
    diagnose,
    gradient_norms,
    rank_examples,
    train_with_importance,
)
from lowland.training import as_pair, isolated_rng


def train(model, loss_fn, batches, *, test_batches=None, **options):
    """On from the second step, with the scores' own variance as the only judge."""
    sampling = ImportanceSampling(
        model,
        loss_fn,
        presample=2,
        tau_threshold=1.0,
        smoothing=0.0,
        costs="modelled",
        seed=options.get("seed", 0),
    )
    return train_with_importance(
        model,
        loss_fn,
        batches,
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
        sampling=sampling,
        **{"steps": 6} | options,
    )


def look(model, loss_fn, batches, **options):
    return diagnose(model, loss_fn, batches, presample=1.5, pools=1)


def read(batches):
    """What a user has at hand; reading it is not what is tried here."""
    with isolated_rng(0, batches=batches):
        return [as_pair(batch) for batch in batches]


def rank(model, loss_fn, batches, **options):
    return rank_examples(model, loss_fn, read(batches))


def norms(model, loss_fn, batches, **options):
    return gradient_norms(model, loss_fn, *read(batches)[0])


DRIVERS = {train_with_importance: train}
PIECES = {"diagnose": look, "rank_examples": rank, "gradient_norms": norms}
TRAINS = (train_with_importance,)
BY_THE_CLOCK = ()
MEASURES = ()
SAVES_BY_THE_CLOCK = (train_with_importance,)
DIFFER = ("weights", "train_loss", "costs")
TOGETHER = {"train_with_importance": Together(train, "batches of its own", of_itself=DIFFER)}
