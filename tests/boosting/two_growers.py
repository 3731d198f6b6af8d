"""Two processes that boost together, each with its own batches.

Each calls ``one_process`` and leaves what it found in ``out``.
"""

import torch
from boosted import adam, batched, examples, tower
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F

from lowland.boosting import RandomFeatures, refine, train_boosted
from lowland.results import write_json

COUNT, SIZE = 48, 8


class Smooth(nn.Module):
    """A block without batch norm, which knows only its own process."""

    def __init__(self):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x):
        return x + self.linear2(F.gelu(self.linear1(x)))


def net():
    model = tower(2)
    return nn.Sequential(model[0], Smooth().double(), Smooth().double(), model[-1])


def share(rank=None):
    """Half of every batch, so that both halves are one batch of the whole."""
    x, y = examples(COUNT)
    weights = 0.5 + torch.arange(COUNT, dtype=torch.float64) / COUNT
    if rank is not None:
        mine = torch.arange(COUNT).view(-1, 2, SIZE // 2)[:, rank].flatten()
        x, y, weights = x[mine], y[mine], weights[mine]
    return batched(x, y, SIZE if rank is None else SIZE // 2), weights


RUNS = {
    "plain": {"init": "default", "optimizer": lambda p: torch.optim.SGD(p, 0.3)},
    "paper": {"stop": "paper", "gamma_threshold": 0.2, "alpha": "line_search", "epochs": 8},
    "plateau": {"stop": "plateau", "epochs": 12, "l1": 2.0},
    "validation": {"stop": "validation", "epochs": 5, "head": "deep"},
    "parallel": {"schedule": "parallel", "recalibrate": True},
}


def grow(model, batches, weights, name):
    """Recomputed features, so that batches are those of the user."""
    options = {"epochs": 3, "cache": "recompute", "optimizer": adam()} | RUNS[name]
    extra = {"validation_batches": batches} if name == "validation" else {}
    result = train_boosted(model, batches, sample_weights=weights, **options, **extra)
    keep = ("name", "status", "edge", "gamma", "alpha", "loss", "covariance", "bounds",
            "train_error", "updates", "margins")  # fmt: skip
    return {
        "weights": {key: value.tolist() for key, value in model.state_dict().items()},
        "rounds": [{key: getattr(found, key) for key in keep} for found in result.rounds],
    }


def refused(rank):
    """What is said where the two could only wait for each other, or would drift apart."""
    batches, _ = share(rank)
    last = RandomFeatures(6, 8, generator=torch.Generator().manual_seed(0)).double()
    fitted = nn.Sequential(net()[0], Smooth().double(), last, net()[-1])
    calls = {
        "unequal": lambda: train_boosted(net(), batches[rank:], batch_size=4),
        "unequal refinement": lambda: refine(net(), batches[rank:], epochs=1),
        "out": lambda: train_boosted(net(), batches, out="somewhere"),
        "oracle": lambda: train_boosted(net(), batches, oracle=print),
        "fitted": lambda: train_boosted(fitted, batches),
    }
    found = {}
    for name, call in calls.items():
        try:
            call()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def one_process(rank, out):
    meeting = f"file://{out / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    found = {}
    for name in RUNS:
        torch.manual_seed(rank if name == "paper" else 0)  # rank 0 gives the weights in any case
        found[name] = grow(net(), *share(rank), name)
    torch.manual_seed(0)
    model = net()
    refine(model, share(rank)[0], epochs=2, optimizer=lambda p: torch.optim.SGD(p, 0.3))
    found["refined"] = {key: value.tolist() for key, value in model.state_dict().items()}
    found["refused"] = refused(rank)
    write_json(out / f"rank-{rank}.json", found)
    dist.destroy_process_group()
