"""What one of two processes says of a network that both train, each on rows of its own."""

import json

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lowland.training import train
from small_networks import class_batches, losses, mlp, seeded

ROWS = class_batches(4, sizes=(9, 9), dtype=torch.float64)


def share(rank):
    """Five rows of every batch, or four: the means must be weighted."""
    return [(x[rank::2], y[rank::2]) for x, y in ROWS]


def curve(model, batches):
    """At a learning rate of zero every row is about the same weights."""
    result = train(
        model,
        losses,
        batches,
        epochs=2,
        optimizer=lambda params: torch.optim.SGD(params, 0.0),
        test_batches=batches,
    )
    return [[row[name] for name in ("train_loss", "test_loss", "test_error")]
            for row in result.curve]  # fmt: skip


def tell(rank, folder):
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    model = seeded(mlp, 0).double()
    found = {
        "apart": curve(model, share(rank)),
        "together": curve(DistributedDataParallel(model), share(rank)),
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
