"""One exploration in two processes: ranks that share the pivots out, or machines that share pairs.

Each calls ``as_rank`` or ``as_machine`` and leaves its result in ``out``.
"""

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
