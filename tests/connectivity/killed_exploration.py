"""An exploration in a process of its own that dies by SIGKILL in the middle of a pair.

It calls ``killed`` and leaves its folder.
"""

import torch
from killed_search import Watched, die, later

from lowland.connectivity import connect_minima
from small_networks import SHORT, class_batches, losses, norm_mlp, seeded

# The second arm of the star: minima 3, 1, 2, 0 from the lowest to the highest.
SECOND = "2-3"


def minima(count=4):
    """Networks that have learned nothing: there are hills between them all the same."""
    with torch.random.fork_rng(devices=[]):
        return [seeded(norm_mlp, seed) for seed in range(count)]


def nothing():
    pass


def explore(out=None, before_batch=nothing, count=4, loss_fn=losses, **options):
    nets = minima(count)
    batches = Watched(before_batch)
    options = {"schedule": SHORT, "backend": "loop", "threads": 1, "suggest": "paper"} | options
    tests = class_batches(4, sizes=(5,), seed=7)
    return connect_minima(nets[0], loss_fn, batches, nets, test_batches=tests, out=out, **options)


def killed(folder):
    explore(folder, later(folder / "pairs" / SECOND, 1, die))
