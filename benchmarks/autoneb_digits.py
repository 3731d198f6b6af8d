"""A whole AutoNEB run, 14 cycles at a tenth of the paper's steps, between two digit perceptrons.

python benchmarks/autoneb_digits.py [--threads 1 2] [--runs 3] [--out autoneb_digits.json]
"""

import argparse
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from timing import table
from torch import nn

from lowland.connectivity import PathResult, find_path
from lowland.reproduce.draxler2018_images import find_minimum, images_of, losses
from lowland.reproduce.draxler2018_settings import Settings, settings
from lowland.reproduce.images import Images
from lowland.results import environment, write_json

LIMIT = 15.0  # seconds on two cores


def main() -> None:
    """Train both ends once, then search again and again, threads in turns."""
    arguments = parse()
    chosen = settings("laptop")
    images = images_of(chosen, device=torch.device("cpu"))
    minima = train_ends(chosen, images)
    found = {threads: [] for threads in arguments.threads}
    for _ in range(arguments.runs):
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            found[threads].append(search(chosen, images, minima))
    rows, records = [], []
    for threads, runs in found.items():
        seconds = [run[0] for run in runs]
        last = runs[-1][1]
        rows.append(row(threads, seconds, last))
        records.append(
            {"threads": threads, "seconds": seconds, "limit": LIMIT, "saddle": last.saddle}
            | {"barrier_max": last.barrier_max, "pivots": len(last.path.pivots) - 2}
        )
    about = environment()
    print(f"{about['device']}, {about['cores']} cores; torch {about['torch']}")
    print(table(COLUMNS, rows))
    if arguments.out:
        write_json(arguments.out, {"environment": about, "rows": records})


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=3, help="searches per number of threads")
    parser.add_argument("--out", help="JSON file")
    return parser.parse_args()


def train_ends(chosen: Settings, images: Images) -> list[nn.Module]:
    """Train the first two networks of the recipe."""
    torch.set_num_threads(1)  # so small a network is not faster on more
    with TemporaryDirectory() as folder:
        return [
            find_minimum(chosen.networks[0].name, chosen, images, seed, Path(folder), False)[0]
            for seed in (0, 1)
        ]


def search(chosen: Settings, images: Images, minima: list[nn.Module]) -> tuple[float, PathResult]:
    """Find the path of the recipe's first pair; give the seconds too."""
    began = perf_counter()
    result = find_path(
        minima[0],
        losses,
        images.training(1, chosen.path_batch_size),
        *minima,
        schedule=chosen.schedule,
        backend=chosen.backend,
        evaluation_batches=images.reading,
        test_batches=images.testing,
    )
    return perf_counter() - began, result


COLUMNS = ["threads", "runs", "best [s]", "median [s]", "limit [s]", "saddle", "verdict"]


def row(threads: int, seconds: list[float], result: PathResult) -> list[object]:
    """Write the searches on one number of threads."""
    verdict = "met" if median(seconds) <= LIMIT else "missed"
    return [
        threads, len(seconds), f"{min(seconds):.1f}", f"{median(seconds):.1f}", LIMIT,
        f"{result.saddle:.4f}", verdict,
    ]  # fmt: skip


if __name__ == "__main__":
    main()
