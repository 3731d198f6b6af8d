"""A search for a path in a process of its own that dies by SIGKILL in its third cycle.

It calls ``killed`` and leaves its folder.
"""

import os
import signal
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from lowland.connectivity import find_path
from small_networks import SHORT, class_batches, losses, norm_mlp, two

BACKENDS = ("loop", "auto")


class Watched:
    """A shuffling loader that says when a batch is taken."""

    def __init__(self, before_batch):
        parts = zip(*class_batches(4, sizes=(8, 8, 8, 6)), strict=True)
        self.loader = DataLoader(TensorDataset(*map(torch.cat, parts)), 8, shuffle=True)
        self.before_batch = before_batch

    def __iter__(self):
        for batch in self.loader:
            self.before_batch()
            yield batch


def search(out, backend="loop", before_batch=lambda: None, loss_fn=losses, **options):
    model, end = two(norm_mlp)
    batches = Watched(before_batch)
    options = {"schedule": SHORT, "test_batches": class_batches(4, sizes=(5,), seed=7)} | options
    return find_path(model, loss_fn, batches, model, end, backend=backend, out=out, **options)


def later(folder, cycle, act, batches=2):
    """Make a function that acts when some batches were taken after a cycle was put on disk."""
    left = iter(range(batches))

    def before_batch():
        if (Path(folder) / f"cycle-{cycle:02d}.json").exists() and next(left, None) is None:
            act()

    return before_batch


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed(folder, backend):
    search(folder, backend, later(folder, 2, die))
