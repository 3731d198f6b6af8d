"""CPU time of ``align`` against layer width, and the law it follows.

python benchmarks/align.py [--threads 1] [--widths 64 128 ... 4096] [--out align.json]
"""

import argparse
from math import log
from time import process_time

import torch
from timing import table

from lowland.connectivity import align
from lowland.models import build
from lowland.results import environment, write_json
from lowland.training import generator

WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
# Below, the watching of the forward pass and the overhead of calls hide the law.
FROM = 512


def main() -> None:
    """Align two independent networks of every width, and a network with a permuted copy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--out", help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows, about = [], environment()
    head = ["hidden units", "params", "CPU seconds", "passes", "cosine before", "after"]
    head += ["CPU s, permuted copy", "undone"]
    for width in arguments.widths:
        rows.append(measure(width))
        print(table(head, [cells(rows[-1])]), flush=True)
        laws = {key: law(rows, key) for key in ("seconds", "copy_seconds")}
        if arguments.out:  # after every row: the widest ones take minutes
            record = {"environment": about, "threads": arguments.threads, "from_width": FROM}
            write_json(arguments.out, {**record, "rows": rows, "slopes": laws})
    print(table(head, [cells(row) for row in rows]))
    for key, slope in laws.items():
        if slope is not None:
            print(f"{key} grows like width ** {slope:.2f} from width {FROM} on")
    print(f"{about['device']}, {arguments.threads} threads; torch {about['torch']}")


def measure(width: int) -> dict:
    """Align once with another network and once with a permuted copy."""
    name = f"mlp-64-{width}-{width}-10"
    model = build(name, in_shape=(1, 8, 8), seed=0)
    draws = generator(0, "batch")
    inputs = torch.rand(64, 1, 8, 8, generator=draws)
    batches = [(inputs, torch.randint(10, (64,), generator=draws))]
    start, end = model.state_dict(), build(name, in_shape=(1, 8, 8), seed=1).state_dict()
    # On one thread these are the seconds of an idle machine, whatever else runs on this one.
    began = process_time()
    found = align(model, batches, start, end)
    seconds = process_time() - began
    copy = shuffled(start, torch.randperm(width, generator=draws),
                    torch.randperm(width, generator=draws))  # fmt: skip
    began = process_time()
    undone = align(model, batches, start, copy)
    copy_seconds = process_time() - began
    exact = all(torch.equal(undone.state[key], start[key]) for key in start)
    return {
        "width": width,
        "params": sum(p.numel() for p in model.parameters()),
        "seconds": seconds,
        "passes": found.passes,
        "status": found.status,
        "cosine": found.objective,
        "copy_seconds": copy_seconds,
        "undone": exact,
    }


def shuffled(state: dict, first: torch.Tensor, second: torch.Tensor) -> dict:
    """Permute both hidden layers by hand."""
    new = dict(state)
    for layer, units in (("linear1", first), ("linear2", second)):
        for kind in ("weight", "bias"):
            new[f"{layer}.{kind}"] = new[f"{layer}.{kind}"][units]
    new["linear2.weight"] = new["linear2.weight"][:, first]
    new["linear3.weight"] = new["linear3.weight"][:, second]
    return new


def cells(row: dict) -> list[object]:
    """Write one row."""
    before, after = row["cosine"]
    return [
        row["width"], row["params"], f"{row['seconds']:.2f}", row["passes"], f"{before:.3f}",
        f"{after:.3f}", f"{row['copy_seconds']:.2f}", row["undone"],
    ]  # fmt: skip


def law(rows: list[dict], key: str) -> float | None:
    """Fit the exponent of a power of the width, by least squares of logarithms."""
    points = [(log(row["width"]), log(row[key])) for row in rows if row["width"] >= FROM]
    if len(points) < 2:
        return None
    x, y = (sum(column) / len(points) for column in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


if __name__ == "__main__":
    main()
