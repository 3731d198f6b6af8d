"""Every driver that promises it, in two processes that work together, and in one."""

import torch
from torch import distributed as dist
from trials import TOGETHER, begin, end, numbers_in

from lowland.results import write_json
from small_networks import class_batches, group_norm, losses, seeded


def batches_of(seed=0):
    return class_batches(4, sizes=(8,) * 4, dtype=torch.float64, seed=seed)


SHARES = {
    "the same batches": lambda rank: batches_of(),
    "half of every batch": lambda rank: [(x[rank::2], y[rank::2]) for x, y in batches_of()],
    "batches of its own": batches_of,
}


def found(name, batches):
    """In float64, and without batch norm, which knows its own process only."""
    model = seeded(group_norm, 1).double()
    result = TOGETHER[name].call(model, losses, batches, **TOGETHER[name].options)
    weights = {name: value.tolist() for name, value in model.state_dict().items()}
    return {"record": numbers_in(result), "weights": weights}


def alone(name, out):
    write_json(out / "alone.json", found(name, batches_of()))


def one_of_two(name, out, rank):
    meeting = f"file://{out / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    batches = SHARES[TOGETHER[name].share](rank)
    write_json(out / f"{rank}.json", found(name, batches))
    dist.barrier()
    dist.destroy_process_group()


def main(out):
    """Leave in ``OUT/<driver>/<rank>.json`` what each found, and a single one in ``alone.json``."""
    for name in TOGETHER:
        folder = out / name
        folder.mkdir(parents=True)
        children = [begin(one_of_two, name, folder, rank) for rank in (0, 1)]
        children.append(begin(alone, name, folder))
        write_json(folder / "codes.json", [end(child) for child in children])
