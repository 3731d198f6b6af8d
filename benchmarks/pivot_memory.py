"""Peak memory of a relaxation against the number of its pivots, seen from outside the process.

python benchmarks/pivot_memory.py [--pivots 4 8 16 32] [--out pivot_memory.json]
"""

import argparse
import os
import subprocess
import sys
from itertools import repeat

import torch
from timing import table
from torch import Tensor
from torch.nn.functional import cross_entropy

from lowland.connectivity import insert_equal, relax
from lowland.connectivity.band import band_of
from lowland.connectivity.ends import read_ends
from lowland.models import build
from lowland.results import environment, write_json
from lowland.training import generator, mode

MODEL, IN_SHAPE, BATCH, STEPS = "mlp-64-900-900-10", (1, 8, 8), 64, 3


def main() -> None:
    """Measure every number of pivots in a process of its own, run both ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pivots", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--out", help="JSON file")
    parser.add_argument("--inside", nargs=2, metavar=("BACKEND", "PIVOTS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        relax_some(arguments.inside[0], int(arguments.inside[1]))
        return
    params = sum(p.numel() for p in build(MODEL, in_shape=IN_SHAPE, seed=0).parameters())
    rows = []
    for backend in ("loop", "vmap"):
        peaks = [peak_of(backend, pivots) for pivots in arguments.pivots]
        slope = slope_of(arguments.pivots, peaks)
        vectors = slope / (4 * params)
        rows.append({"backend": backend, "pivots": arguments.pivots, "peak_bytes": peaks})
        rows[-1] |= {"bytes_per_pivot": slope, "vectors_per_pivot": vectors}
    columns = ["backend", *(f"{p} [MiB]" for p in arguments.pivots), "per pivot [MiB]", "vectors"]
    lines = [
        [r["backend"], *(f"{peak / 2**20:.0f}" for peak in r["peak_bytes"])]
        + [f"{r['bytes_per_pivot'] / 2**20:.1f}", f"{r['vectors_per_pivot']:.1f}"]
        for r in rows
    ]
    print(f"{MODEL}, {params} parameters, batch {BATCH}, {STEPS} steps, one thread")
    print(table(columns, lines))
    if arguments.out:
        about = {"model": MODEL, "params": params, "batch": BATCH, "steps": STEPS}
        write_json(arguments.out, {"environment": environment()} | about | {"rows": rows})


def peak_of(backend: str, pivots: int) -> int:
    """Most resident bytes of a process that relaxes so many pivots."""
    command = [sys.executable, __file__, "--inside", backend, str(pivots)]
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"the run of {pivots} pivots must end well; it ended {status}.")
    return usage.ru_maxrss * 1024  # Linux counts in KiB


def slope_of(x: list[int], y: list[int]) -> float:
    """Least-squares slope."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)


def relax_some(backend: str, pivots: int) -> None:
    """What is measured."""
    torch.set_num_threads(1)
    model, other = (build(MODEL, in_shape=IN_SHAPE, seed=seed).train() for seed in (0, 1))
    draws = generator(0, "batch")
    inputs = torch.rand(BATCH, *IN_SHAPE, generator=draws)
    batch = inputs, torch.randint(10, (BATCH,), generator=draws)
    stack, start, end = read_ends(model, losses, model, other, batch_norm="recalibrate")
    line = torch.stack([start, end]), torch.ones(1, dtype=torch.float64)
    path, weights = insert_equal(*line, pivots)
    with mode(model, norm_trains=True):
        band = band_of(stack.with_backend(backend), repeat(batch), weight_decay=1e-4)
        relax(path, weights, band, steps=STEPS, learning_rate=0.01)


def losses(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each example."""
    return cross_entropy(output, target, reduction="none")


if __name__ == "__main__":
    main()
