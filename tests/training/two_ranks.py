"""What one of the processes that ``torchrun`` starts does in a test."""

import os

import torch
from torch import distributed as dist

from lowland.training import all_sum, broadcast, distributed, is_main_process


def add_up(rank, port, folder):
    """Join the others, add up the ranks from 1, and write what came out to a file."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with distributed("cpu") as (own, world):
        total = torch.tensor(float(own + 1))
        dist.all_reduce(total)
        assert all_sum(torch.tensor([own + 1.0])) == total
        assert broadcast(f"word {own}") == "word 0"
        assert is_main_process() == (rank == 0)
        backend = dist.get_backend()
        with distributed("cpu") as again:
            assert again == (own, world)
    assert not dist.is_initialized()
    (folder / f"{rank}.txt").write_text(f"{own} {world} {total.item()} {backend}")
