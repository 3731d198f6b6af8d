"""Two processes that measure gradient noise together.

Each calls ``one_process`` and leaves its numbers in ``out``.
"""

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lowland.dynamics.noise import gradient_noise
from lowland.results import write_json
from small_networks import class_batches, losses, mlp, seeded

OPTIONS = {
    "given": {"n_batches": 5},
    "iid": {"n_batches": 7, "batch_size": 4},
    "epoch": {"n_batches": 7, "batch_size": 4, "sampling": "epoch", "per_sample": True},
    "pair": {"n_batches": 7, "batch_size": 4, "pair": True},
}


def measure(wrap=lambda model: model, **options):
    batches = class_batches(4, sizes=(8,) * 5, dtype=torch.float64)
    return gradient_noise(wrap(seeded(mlp, 1).double()), losses, batches, **options)


def one_process(rank, out):
    meeting = f"file://{out / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    for name, options in OPTIONS.items():
        write_json(out / f"{name}-{rank}.json", measure(DistributedDataParallel, **options))
    dist.destroy_process_group()
