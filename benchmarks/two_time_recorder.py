"""The two-time recorder: training with it against the same without, and the memory of sketches.

python benchmarks/two_time_recorder.py [--only mlp] [--out two_time_recorder.json]

Both are trained in turns, piece by piece, by SGD with momentum, through the whole plan of 50
waiting times and 100 lags. The extra time is that inside ``record``, and its share of the time of
the same pieces without; the ratio of the whole pieces is beside it.
"""

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch
from timing import quartiles, table
from torch import nn
from torch.nn.functional import cross_entropy

from lowland.dynamics.clock import plan
from lowland.dynamics.recorder import TwoTimeRecorder
from lowland.dynamics.sketches import exact_bytes, sketch_bytes
from lowland.models import build
from lowland.results import environment, write_json

MIB = 2**20
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "mlp 64-128-10": (lambda: build("mlp-64-128-10"), (64,), 32),
    "resnet-8": (lambda: build("resnet-8"), (3, 32, 32), 128),
    "mlp, a million weights": (lambda: build("mlp-784-784-500-10"), (784,), 128),
}


def main() -> None:
    """Overhead for three networks, then memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, nargs="+", default=[10_000, 40_000], help="of a run")
    parser.add_argument("--pieces", type=int, default=40, help="pieces that are timed in turns")
    parser.add_argument("--updates", type=int, default=1000, help="trained in a piece, at most")
    parser.add_argument("--only", default="", help="networks whose name has this")
    parser.add_argument("--out", help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = []
    columns = ["network", "steps", "memory", "mode", "overhead", "ratio of pieces", "ms/step"]
    for name, steps, memory, mode in (
        (name, steps, memory, mode)
        for name in NETWORKS
        if arguments.only in name
        for steps in arguments.steps
        for memory, mode in (("exact", "pairs"), ("exact", "shared"), ("sketch", "shared"))
        if memory == "exact" or name == "mlp, a million weights"
    ):
        row = overhead(name, memory, mode, steps, arguments.pieces, arguments.updates)
        found.append(row)
        low, high = row["quartiles"]
        cells = [name, steps, memory, mode, f"{row['overhead']:.4f}"]
        ratio = f"{row['ratio']:.3f} ({low:.3f} to {high:.3f})"
        print(table(columns, [[*cells, ratio, f"{row['ms']:.3f}"]]), flush=True)
    memory = [memory_of(size) for size in (56_890, 11_181_642, 10**9)]
    cells = [[row["weights"], f"{row['exact']:.1f}", f"{row['sketch']:.1f}"] for row in memory]
    print(table(["weights", "MiB of copies", "MiB of sketches"], cells))
    if arguments.out:
        settings = {"threads": arguments.threads, "pieces": arguments.pieces}
        record = {"overhead": found, "memory": memory, "updates": arguments.updates} | settings
        write_json(arguments.out, {"environment": environment()} | record)


def trainer(name: str) -> tuple[nn.Module, Callable[[], None]]:
    """A network and one update of it."""
    make, shape, batch = NETWORKS[name]
    torch.manual_seed(0)
    model = make()
    x, y = torch.randn(8, batch, *shape), torch.randint(10, (8, batch))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    count = 0

    def update() -> None:
        nonlocal count
        optimizer.zero_grad()
        cross_entropy(model(x[count % 8]), y[count % 8]).backward()
        optimizer.step()
        count += 1

    return model, update


def overhead(
    name: str, memory: str, mode: str, steps: int, pieces: int, updates: int
) -> dict[str, Any]:
    """Train twins in turns, one of them recorded.

    A slow network is not trained through the whole run, but is recorded at every instant of the
    clock, and an update is taken to last what the timed ones do.
    """
    (watched, step), (_, plain) = trainer(name), trainer(name)
    clock = plan(steps, mode=mode)
    recorder = TwoTimeRecorder(watched, clock=clock, memory=memory)
    for _ in range(3):
        step()
        plain()
    bounds = [round(steps * k / pieces) for k in range(pieces + 1)]
    inside, without, ratios = 0.0, 0.0, []
    recorder.record(0)
    for number, (first, last) in enumerate(zip(bounds, bounds[1:], strict=False)):
        run = range(first + 1, last + 1)
        train = min(len(run), updates)

        def recorded(run: range = run, train: int = train) -> tuple[float, float]:
            spent, began = 0.0, perf_counter()
            for k, n in enumerate(run):
                if k < train:
                    step()
                before = perf_counter()
                recorder.record(n)
                spent += perf_counter() - before
            return perf_counter() - began, spent

        def bare(train: int = train) -> float:
            began = perf_counter()
            for _ in range(train):
                plain()
            return perf_counter() - began

        if number % 2:
            (whole, spent), peer = recorded(), bare()
        else:
            peer, (whole, spent) = bare(), recorded()
        peer /= train / len(run)
        inside, without = inside + spent, without + peer
        ratios.append((whole - spent) / (train / len(run)) / peer + spent / peer)
    return {
        "network": name,
        "weights": sum(p.numel() for p in watched.parameters()),
        "memory": memory,
        "mode": mode,
        "steps": steps,
        "pairs": len(clock.pairs),
        "instants": len(clock.instants),
        "overhead": 1 + inside / without,
        "ratio": median(ratios),
        "quartiles": quartiles(ratios),
        "ms": 1000 * without / steps,
        "bytes": recorder.bytes,
    }


def memory_of(size: int) -> dict[str, Any]:
    """MiB of both kinds for 50 waiting times in float32."""
    sketched = sketch_bytes(size, 16_384, 1, 50, 4)
    return {
        "weights": size,
        "exact": exact_bytes(size, 50, 4) / MIB,
        "sketch": sketched / MIB,
        "sketch_without_start": (sketched - 5 * size) / MIB,
    }


if __name__ == "__main__":
    main()
