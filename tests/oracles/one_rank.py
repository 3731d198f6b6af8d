"""What each of several processes does in the test of sharded pivots."""

import os

import torch

from lowland.connectivity import Cycle, Schedule, find_path
from lowland.training import distributed
from small_networks import class_batches, losses, mlp, two

SCHEDULE = Schedule((Cycle(15, 0.1, insert="equal", count=4), Cycle(15, 0.1)), threshold=0.0)


def search(rank, world, port, folder):
    """Join the others, search together, and write the pivots found to a file."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    with distributed("cpu"):
        start, end = two(mlp, torch.float64)
        batches = class_batches(4, dtype=torch.float64)
        result = find_path(start, losses, batches, start, end, schedule=SCHEDULE, backend="loop")
        result.path.save(folder / f"{rank}.safetensors")
