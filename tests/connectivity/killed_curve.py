"""A fit of a curve in a process of its own that dies by SIGKILL in mid-epoch.

It calls ``killed`` and leaves its folder.
"""

from killed_search import Watched, die

from lowland.connectivity import fit_curve
from small_networks import class_batches, losses, norm_mlp, two

KINDS = ("bezier", "polychain")


def fit(out, kind="bezier", before_batch=lambda: None, loss_fn=losses, **options):
    """130 steps; states are saved after 50, 100 and 130."""
    model, end = two(norm_mlp)
    tests = class_batches(4, sizes=(5,), seed=7)
    options = {"steps": 130, "points": 13, "backend": "loop", "test_batches": tests} | options
    return fit_curve(
        model, loss_fn, Watched(before_batch), model, end, kind=kind, bends=2, out=out, **options
    )


def at_batch(number, act):
    """Act when the batch of this number, counted from 1, is about to be taken."""
    count = iter(range(1, 10**9))

    def before_batch():
        if next(count) == number:
            act()

    return before_batch


def killed(folder, kind):
    fit(folder, kind, at_batch(160, die))
