"""Two processes that choose examples together, each from pools of its own.

Each calls ``one_process`` and leaves what it did in ``out``.
"""

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lowland.importance import ImportanceSampling
from lowland.results import write_json
from small_networks import class_batches, mlp, seeded

SIZES = (4,) * 9
loss_fn = nn.CrossEntropyLoss(reduction="none")


def train(batches, wrap=lambda model: model, **options):
    """Ten passes; everything that decides, and everything that is drawn."""
    model = wrap(seeded(mlp, 1).double())
    drawn, settings = [], {"presample": 2, "tau_threshold": 1.05, "costs": "modelled"} | options
    sampling = ImportanceSampling(
        model,
        loss_fn,
        on_sample=lambda step, index, weight: drawn.append(index.tolist()),
        **settings,
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    taus = []
    for _ in range(10):
        for x, y in sampling(batches):
            optimizer.zero_grad()
            sampling.loss(model(x), y).backward()
            optimizer.step()
            taus.append(sampling.switch.estimate)
    params = [value.tolist() for value in model.parameters()]
    return {"taus": taus, "switches": sampling.switches, "drawn": drawn, "params": params}


def data(rank):
    """What a process reads: a shard of its own."""
    return class_batches(4, sizes=SIZES, dtype=torch.float64, seed=rank)


def one_process(rank, out):
    meeting = f"file://{out / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    write_json(out / f"rank-{rank}.json", train(data(rank), DistributedDataParallel))
    clock = train(data(rank), DistributedDataParallel, tau_threshold=None, costs="measured")
    write_json(out / f"clock-{rank}.json", clock)
    dist.destroy_process_group()
