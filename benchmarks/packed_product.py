"""Products of packed weights, and of other libraries, against torch's float32 product.

python benchmarks/packed_product.py [--threads 1 2] [--sizes 512 1024 2048 4096] [--batches 1 64]
    [--rounds 7] [--out packed_product.json]
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from packed_peers import peers
from timing import compare, table
from torch import Tensor
from torch.nn.functional import linear

from lowland.control.packing import kernels
from lowland.control.packing.formats import bytes_of, encode
from lowland.results import environment, write_json
from lowland.training import generator

LIMITS = {"bit1": 3.0, "sparse16 2 %": 8.0}  # times faster: 2048 x 2048, batch 1, one thread
AIMS = {"bit1": 6.0, "sparse16 2 %": 20.0}


@dataclass(frozen=True)
class Weight:
    """One packed weight: its name, format and share of nonzero entries."""

    name: str
    format: str
    share: float


WEIGHTS = (
    Weight("bit1", "bit1", 1.0),
    Weight("bit2planes", "bit2planes", 0.5),
    Weight("sparse16 2 %", "sparse16", 0.02),
    Weight("sparse16 4 %", "sparse16", 0.04),
    Weight("gaps 2 %, expanded at every call", "gaps", 0.02),
)


@dataclass(frozen=True)
class Row:
    """One product, measured."""

    size: int
    batch: int
    threads: int
    name: str
    level: str
    times_faster: float
    between: tuple[float, float]
    seconds: float
    torch_seconds: float
    error: float
    bytes: int | None


def main() -> None:
    """Measure every product."""
    arguments = parse()
    rows = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for size in arguments.sizes:
            for batch in arguments.batches:
                rows += list(measure(size, batch, threads, arguments.rounds))
    about = environment()
    print(f"{about['device']}, {about['cores']} cores; torch {about['torch']}")
    print(table(["size", "batch", "threads", "product", "times faster than torch float32",
                 "middle half", "us", "error"], [cells(row) for row in rows]))  # fmt: skip
    if arguments.out:
        found = {"environment": about, "levels": kernels.available(), "limits": LIMITS}
        write_json(arguments.out, found | {"aims": AIMS, "rows": [asdict(row) for row in rows]})


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--rounds", type=int, default=7, help="ratios per row")
    parser.add_argument("--out", help="JSON file")
    return parser.parse_args()


def draw(size: int, share: float) -> Tensor:
    """Draw square signs of which a share is not zero."""
    draws = generator(0, "signs")
    signs = torch.randint(2, (size, size), generator=draws) * 2 - 1
    return signs * (torch.rand(size, size, generator=draws) < share)


def measure(size: int, batch: int, threads: int, rounds: int) -> Iterator[Row]:
    """Measure all products of one shape."""
    x = torch.randn(batch, size, generator=generator(0, "inputs"))

    def row(name: str, level: str, signs: Tensor, run: Callable, held: int | None) -> Row:
        torch.set_num_threads(threads)  # as numba resets what OpenMP, and so torch, takes
        dense = signs.float()
        found = compare(
            lambda count: [run() for _ in range(count)],
            lambda count: [linear(x, dense) for _ in range(count)],
            rounds=rounds,
            block_seconds=0.03,
        )
        exact = x.double() @ signs.double().T
        error = float((torch.as_tensor(run()) - exact).abs().max() / exact.abs().max())
        low, high = sorted(1 / ratio for ratio in found.quartiles)
        return Row(size, batch, threads, name, level, 1 / found.ratio, (low, high), found.seconds,
                   found.peer_seconds, error, held)  # fmt: skip

    for weight in WEIGHTS:
        signs = draw(size, weight.share)
        held = encode(signs.to(torch.int8), weight.format)

        def run(weight=weight, held=held):
            return kernels.multiply(weight.format, held, size, size, x)

        for level in kernels.available():
            if level == "portable" and batch > 1:
                continue
            kernels.force(level)
            yield row(weight.name, level, signs, run, bytes_of(held))
        kernels.force(None)
    for share in (1.0, 0.02):
        signs = draw(size, share)
        for name, run in peers(signs, x, threads):
            if share == 1.0 or name.startswith("numba"):
                yield row(name, "", signs, run, None)


def cells(row: Row) -> list[object]:
    """Write a row of the table."""
    low, high = row.between
    name = f"{row.name} ({row.level})" if row.level else row.name
    return [row.size, row.batch, row.threads, name, f"{row.times_faster:.2f}",
            f"{low:.2f} to {high:.2f}", f"{1e6 * row.seconds:.0f}", f"{row.error:.0e}"]  # fmt: skip


if __name__ == "__main__":
    with torch.inference_mode():
        main()
