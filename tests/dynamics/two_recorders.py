"""Two processes that record together: each a part of the weights, or both the same.

Each calls ``one_process`` and leaves what it saw in ``out``.
"""

import torch
from torch import distributed as dist

from lowland.dynamics.recorder import TwoTimeRecorder
from lowland.results import write_json

SIZES = (700, 40)
OPTIONS = {
    "exact": {"memory": "exact", "per_layer": True, "path_length": True},
    "sketch": {"memory": "sketch", "sketch_size": 4096},
}


def places():
    """Where both tensors are after every update, whole."""
    draws = torch.Generator().manual_seed(0)
    moves = [torch.randn(31, size, generator=draws, dtype=torch.float64) for size in SIZES]
    return [move.cumsum(0) for move in moves]


def record(part=lambda tensor: tensor, spoil=None, **options):
    """Thirty updates of the part of this process."""
    every = [part(place) for place in places()]
    tensors = {name: place[0].clone() for name, place in zip("ab", every, strict=True)}
    recorder = TwoTimeRecorder(tensors, waits=[0, 4, 9], lags=[0, 1, 7, 20], **options)
    for n in range(31):
        for tensor, place in zip(tensors.values(), every, strict=True):
            tensor.copy_(place[n])
        if spoil is not None and n > spoil:
            tensors["a"].add_(1)
        recorder.record(n)
    return recorder.result().record()


def one_process(rank, out):
    meeting = f"file://{out / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)

    def part(tensor):
        return tensor[:, : tensor.shape[1] // 3] if rank == 0 else tensor[:, tensor.shape[1] // 3 :]

    for name, options in OPTIONS.items():
        found = record(part, ranks="sharded", **options)
        write_json(out / f"{name}-{rank}.json", found)
    write_json(out / f"same-{rank}.json", record(ranks="replicated"))
    try:
        record(ranks="replicated", spoil=5 if rank == 1 else None)
    except ValueError as error:
        write_json(out / f"apart-{rank}.json", str(error))
    dist.destroy_process_group()
