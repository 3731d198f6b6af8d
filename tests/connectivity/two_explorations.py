"""One exploration in two processes: ranks that share the pivots out, or machines that share pairs.

``python two_explorations.py OUT ranks|machines`` starts both and waits; each leaves its result in
``OUT``.
"""

import os
import sys
from pathlib import Path

import torch
from killed_exploration import explore
from torch import distributed as dist

# Both are in flight at once, so that each machine finds one to work on.
IN_FLIGHT = 2


def as_rank(number, out):
    meeting = f"file://{out / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=number, world_size=2)
    explore(out / "shared", count=3, budget=1).save(out / f"result-{number}")
    dist.barrier()
    dist.destroy_process_group()


def as_machine(number, out):
    for rule in ("paper", "early"):
        shared = explore(out / "shared" / rule, in_flight=IN_FLIGHT, budget=3, suggest=rule)
        shared.save(out / f"{rule}-{number}")


if __name__ == "__main__":
    work = {"ranks": as_rank, "machines": as_machine}[sys.argv[2]]
    children = []
    for number in range(2):
        children.append(os.fork())  # torch has computed nothing yet
        if not children[-1]:
            torch.set_num_threads(1)
            work(number, Path(sys.argv[1]).resolve())
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
