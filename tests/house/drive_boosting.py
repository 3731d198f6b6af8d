"""How the house tries the room ``boosting``; see ``drive_connectivity.py`` for the names."""

import torch
from rooms import Together

from lowland.boosting import as_chain, certificate, refine, train_boosted
from lowland.training import as_pair, isolated_rng, kept_mode


def train(model, loss_fn, batches, *, test_batches=None, **options):
    return train_boosted(model, batches, test_batches=test_batches, **{"epochs": 2} | options)


def polish(model, loss_fn, batches, *, test_batches=None, **options):
    return refine(model, batches, test_batches=test_batches, **{"epochs": 2} | options)


def read(batches):
    """What a user has at hand; reading it is not what is tried here."""
    with isolated_rng(0, batches=batches):
        return [as_pair(batch) for batch in batches]


def look(model, loss_fn, batches, **options):
    """Cut the model, and certify what its chain says of each batch."""
    found = []
    for inputs, target in read(batches):
        chain = as_chain(model, inputs)
        with kept_mode(model), torch.no_grad():
            model.eval()
            logits = chain(inputs)
        loss_fn(logits, target)
        found.append(certificate(logits.double().softmax(1), target).record())
    return found


DRIVERS = {train_boosted: train, refine: polish}
PIECES = {"as_chain": look}
TRAINS = (train_boosted, refine)
BY_THE_CLOCK = ()
MEASURES = ()
SAVES_BY_THE_CLOCK = (train_boosted, refine)
HALF = "half of every batch"
TOGETHER = {
    "train_boosted": Together(train, HALF, {"cache": "recompute"}, of_itself=("cache", "bytes")),
    "refine": Together(polish, HALF),
}
