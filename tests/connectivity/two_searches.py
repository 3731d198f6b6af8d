"""Search for paths in two processes that share the pivots out.

Each calls ``one_process`` and leaves its results in ``out``.
"""

from dataclasses import replace

import torch
from torch import distributed as dist

from lowland.connectivity import find_path
from small_networks import SHORT, class_batches, losses, norm_mlp, two

CASES = {
    "loop": {"backend": "loop"},
    "vmap": {"backend": "vmap"},
    "auto": {"backend": "auto"},
    "interpolate": {"backend": "loop", "batch_norm": "interpolate"},
    "host": {"backend": "loop", "batch_norm": "interpolate", "pivots_on": "cpu"},
    "published": {"backend": "loop", "schedule": replace(SHORT, shared_batch=False)},
}


def search(case, **options):
    batches = class_batches(4, sizes=(8, 8, 5), dtype=torch.float64)
    model, end = two(norm_mlp, torch.float64)
    options = {"schedule": SHORT, "test_batches": batches[1:]} | CASES[case] | options
    return find_path(model, losses, batches, model, end, **options)


def one_process(rank, out):
    meeting = f"file://{out / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    for case in CASES:
        search(case, out=out / f"run-{rank}" / case).save(out / f"rank-{rank}" / case)
    again = search("loop", out=out / "run-0" / "loop")  # finished: both read what rank 0 wrote
    again.save(out / f"rank-{rank}" / "again")
    dist.barrier()
    dist.destroy_process_group()
