"""A loop as a user writes it, and data that carry the scores they are to have."""

from itertools import islice

import torch
from torch import nn

from lowland.importance import ImportanceSampling
from small_networks import class_batches

ALWAYS = {"replay": [[0, True]]}  # as if tau had been large from the start
BATCHES = class_batches(4, sizes=(8,) * 12)


def distances(output, target):
    """Absolute error of each example: its slope is 1, so all scores are equal."""
    return (output.squeeze(1) - target).abs()


def carried(output, target):
    """A score that the data carry themselves."""
    return target


def scored(batches):
    """Batches of a regression whose targets are the scores that were wanted."""
    rows = [torch.tensor(b, dtype=torch.float64) for b in batches]
    return [(torch.ones(len(b), 1, dtype=torch.float64), b) for b in rows]


def regression(width=1):
    return nn.Linear(width, 1, dtype=torch.float64)


def squares(output, target):
    return (output.squeeze(1) - 0.1 * target).square()


def train(sampling, model, batches, optimizer, steps=None):
    """The loop of a user, with the three lines."""
    seen = []
    for x, y in islice(sampling(batches), steps):
        loss = sampling.loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append((sampling.is_active, sampling.tau, len(y), loss.item()))
    return seen


def taken(sampling, batches):
    """A pass of somebody who weighs the rows himself."""
    for batch in sampling(batches):
        assert len(sampling.weight)
        yield batch


def watched(batches, **options):
    """Run over scores known beforehand: which steps were active, and tau after each."""
    model = regression()
    sampling = ImportanceSampling(model, squares, score=carried, **options)
    seen = train(sampling, model, scored(batches), torch.optim.SGD(model.parameters(), lr=1e-3))
    return sampling, seen


class Notes:
    """What the callbacks tell."""

    def __init__(self):
        self.scores, self.draws = [], []

    def on_scores(self, step, scores):
        self.scores.append((step, scores.clone()))

    def on_sample(self, step, index, weight):
        self.draws.append((step, index.clone(), weight.clone()))

    def __call__(self):
        return {"on_scores": self.on_scores, "on_sample": self.on_sample}
