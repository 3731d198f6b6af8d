"""A fit of a curve in two processes that share its evaluation out.

Each calls ``one_process`` and leaves its results in ``out``.
"""

import torch
from torch import distributed as dist

from lowland.connectivity import fit_curve
from small_networks import class_batches, losses, norm_mlp, two


def fit(**options):
    batches = class_batches(4, sizes=(8, 8, 5), dtype=torch.float64)
    model, end = two(norm_mlp, torch.float64, batches)
    options = {"steps": 60, "points": 7, "backend": "loop", "test_batches": batches[1:]} | options
    return fit_curve(model, losses, batches, model, end, kind="polychain", **options)


def one_process(rank, out):
    meeting = f"file://{out / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    fit(out=out / f"run-{rank}").save(out / f"rank-{rank}")
    fit(out=out / "run-0").save(out / f"again-{rank}")  # finished: both read what rank 0 wrote
    dist.barrier()
    dist.destroy_process_group()
