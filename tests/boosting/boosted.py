"""Small chains and data to boost, and what is recomputed from a model alone."""

import torch
from torch import nn

from lowland.boosting import as_chain, certificate, train_boosted
from lowland.boosting.chain import logits_of
from lowland.params import call
from lowland.training import as_pair
from small_networks import seeded

CLASSES = 3


class Residual(nn.Module):
    """A residual block with batch norm; dropout on request."""

    def __init__(self, width=6, drop=0.0):
        super().__init__()
        self.linear1, self.norm = nn.Linear(width, 8), nn.BatchNorm1d(8)
        self.drop, self.linear2 = nn.Dropout(drop), nn.Linear(8, width)

    def forward(self, x):
        return x + self.linear2(self.drop(torch.relu(self.norm(self.linear1(x)))))


def tower(depth=3, seed=0, drop=0.0, classes=CLASSES, width=6):
    """Stem, equal blocks and a linear head, in float64."""

    def make():
        blocks = [Residual(width, drop) for _ in range(depth)]
        return nn.Sequential(nn.Linear(4, width), *blocks, nn.Linear(width, classes))

    return seeded(make, seed).double()


def examples(count=40, *shape, classes=CLASSES, seed=0, dtype=torch.float64):
    """Inputs whose class depends on them, but for some noise."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *(shape or (4,)), dtype=dtype, generator=draws)
    flat = x.flatten(1)[:, :4]
    y = (flat[:, 0] > 0).long() + (flat[:, 1] * flat[:, 2] > 0).long()
    return x, y.clamp(max=classes - 1)


def batched(x, y, size=8):
    return list(zip(x.split(size), y.split(size), strict=True))


def data(count=40, size=8, **options):
    return batched(*examples(count, **options), size)


def adam(rate=0.02):
    return lambda params: torch.optim.Adam(params, rate)


def boost(model, batches, **options):
    """Train with settings that are quick on small data."""
    return train_boosted(
        model, batches, **{"optimizer": adam(), "epochs": 4, "batch_size": 8} | options
    )


def still(params):
    """An optimizer that changes nothing."""
    return torch.optim.SGD(params, 0.0)


@torch.no_grad()
def outputs(model, batches):
    """Logits of a model and classes, over all batches."""
    training = model.training
    model.eval()
    pairs = [as_pair(batch) for batch in batches]
    logits = torch.cat([logits_of(call(model, inputs)) for inputs, _ in pairs])
    model.train(training)
    return logits.double(), torch.cat([target for _, target in pairs])


def certified(model, batches, result, **options):
    """The certificate of the model as it stands, with gamma measured from the round before."""
    logits, target = outputs(model, batches)
    return certificate(logits.softmax(1), target, **options)


def agrees(model, batches, result, weights=None, abs=0.0):
    """Whether the model has the error and loss of the last certified round."""
    import pytest

    found = certified(model, batches, result, alpha=result.certified.alpha, weights=weights)
    for name, value in (("error", result.certified.train_error), ("loss", result.certified.loss)):
        assert getattr(found, name) == pytest.approx(value, rel=1e-13 + abs, abs=abs), name
    b0 = result.certified.bounds["B0"]
    assert (b0 is None) == (found.bounds["B0"] is None)
    return found


def chain_of(model, batches):
    return as_chain(model, as_pair(batches[0])[0])
