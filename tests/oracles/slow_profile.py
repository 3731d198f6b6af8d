"""Losses along a path by loops over state dicts and examples, with no cleverness at all."""

import torch

from lowland.params import call


def state_dicts_along(path, samples):
    """The path walked by hand: for every segment, pivots mixed name by name."""
    rows = [path.layout.views(pivot) for pivot in path.pivots]
    for one, other in zip(rows[:-1], rows[1:], strict=True):
        for j in range(samples + 1):
            alpha = j / (samples + 1)
            yield {name: (1 - alpha) * one[name] + alpha * other[name] for name in one}
    yield rows[-1]


def by_hand(model, path, samples, batches, loss_fn):
    """Mean loss at every point, one example after the other."""
    model.eval()
    found = []
    for state in state_dicts_along(path, samples):
        model.load_state_dict(state, strict=False)
        with torch.no_grad():
            each = [loss_fn(call(model, inputs), target) for inputs, target in batches]
        found.append(sum(float(value) for part in each for value in part) / sum(map(len, each)))
    return torch.tensor(found, dtype=torch.float64)
