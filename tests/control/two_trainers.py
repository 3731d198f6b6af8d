"""Two processes that train discrete weights together, each on half of every batch.

Each calls ``one_process`` and leaves its weights in ``out``.
"""

import torch
from torch import distributed as dist
from torch import nn

from lowland.control import train_msa
from lowland.results import write_json
from small_networks import class_batches, group_norm, seeded

loss_fn = nn.CrossEntropyLoss(reduction="none")


def train(batches):
    """Twenty steps with a target; without batch norm, which knows only its own process."""
    result = train_msa(
        seeded(group_norm, 1).double(), loss_fn, batches, steps=20, target_nonzero=0.4, skip=["3"]
    )
    return {name: value.tolist() for name, value in result.state.items()}


def data(part=slice(None)):
    return [(x[part], y[part]) for x, y in class_batches(4, sizes=(8,) * 5, dtype=torch.float64)]


def one_process(rank, out):
    meeting = f"file://{out / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    write_json(out / f"rank-{rank}.json", train(data(slice(4 * rank, 4 * rank + 4))))
    dist.destroy_process_group()
