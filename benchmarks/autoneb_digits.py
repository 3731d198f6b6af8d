"""The whole 14-cycle AutoNEB on the digits, a tenth of the paper's steps: seconds.

python benchmarks/autoneb_digits.py [--threads 1 2] [--repetitions 3] [--out autoneb_digits.json]
"""

import argparse
from statistics import median

import torch
from neb_step import losses, machine
from timing import table

from lowland.connectivity import find_path
from lowland.data import Batches, load
from lowland.models import build
from lowland.results import environment, write_json
from lowland.training import train

LIMIT = 15.0


def main() -> None:
    """Time the same search several times on every number of threads."""
    arguments = parse()
    digits = load("digits")
    batches = Batches(digits.images, digits.labels, 128)
    start, end = (minimum(seed, batches) for seed in (0, 1))
    rows, records = [], []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        found = [
            find_path(start, losses, batches, start, end, schedule="laptop", backend="vmap")
            for _ in range(arguments.repetitions)
        ]
        seconds = [result.seconds for result in found]
        best, middle = min(seconds), median(seconds)
        judged = "met" if best <= LIMIT else "missed"
        rows.append([threads, f"{best:.1f}", f"{middle:.1f}", f"{found[0].saddle:.4f}", judged])
        records.append({"threads": threads, "seconds": seconds, "saddle": found[0].saddle})
    print(machine())
    columns = ["threads", "fastest [s]", "median [s]", "saddle [nats]", f"limit {LIMIT:g} s"]
    print(table(columns, rows))
    if arguments.out:
        write_json(arguments.out, {"environment": environment(), "rows": records})


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", help="JSON file")
    return parser.parse_args()


def minimum(seed: int, batches: Batches) -> torch.nn.Module:
    """Train one perceptron."""
    model = build("mlp-64-32-32-10", in_shape=(1, 8, 8), seed=seed)
    train(
        model,
        losses,
        batches,
        epochs=60,
        optimizer=lambda params: torch.optim.SGD(params, 0.1, momentum=0.9),
        seed=seed,
    )
    return model


if __name__ == "__main__":
    main()
