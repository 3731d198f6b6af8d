"""A NEB step of P pivots against P bare forward and backward passes of the same model and batch.

On one thread in CPU time, which other processes do not lengthen; on more in wall time.

python benchmarks/neb_step.py [--threads 1 2] [--rounds 15] [--only mlp]
    [--precision bf16] [--out neb_step.json]
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import repeat
from time import perf_counter, process_time

import torch
from timing import Comparison, compare, table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lowland.connectivity import insert_equal, relax
from lowland.connectivity.band import band_of, faster_backend
from lowland.connectivity.ends import read_ends
from lowland.connectivity.stack import mode
from lowland.models import build
from lowland.results import environment, write_json
from lowland.training import generator, isolated_rng

LIMIT = 1.15

# Seconds of a block: a hundred steps of a small network and more, as many as a cycle has, whose
# first step alone looks for a symmetric start.
BLOCK = 1.0


@dataclass(frozen=True)
class Case:
    """One row: ``pivots`` counts the interior ones, the two ends are evaluated on top of them."""

    model: str
    in_shape: tuple[int, ...]
    batch: int
    pivots: int


DIGITS, IMAGES = (1, 8, 8), (3, 32, 32)
CASES = (
    Case("mlp-64-32-32-10", DIGITS, 128, 9),
    Case("mlp-64-32-32-10", DIGITS, 128, 21),
    Case("mlp-64-128-128-10", DIGITS, 128, 9),
    Case("mlp-64-128-128-10", DIGITS, 128, 21),
    Case("resnet-8", IMAGES, 128, 7),
    Case("resnet-8", IMAGES, 128, 9),
    Case("resnet-20", IMAGES, 32, 9),
    Case("transformer", DIGITS, 128, 7),
)


class Attention(nn.Module):
    """Multi-head self-attention over patches, without a mask."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix patches; ``x`` is (batch, patches, width)."""
        parts = self.read(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        share = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
        return self.write((share @ value).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """A vision transformer for 8x8 images: 16 patches, two layers of width 64, 102 k parameters."""

    def __init__(self, width: int = 64, layers: int = 2, patch: int = 2, classes: int = 10):
        super().__init__()
        self.embed = nn.Conv2d(1, width, patch, patch)
        self.place = nn.Parameter(0.02 * torch.randn((8 // patch) ** 2, width))
        self.mix = nn.ModuleList(Attention(width, 4) for _ in range(layers))
        self.think = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers + 1))
        self.classify = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the classes for ``images`` of shape (batch, 1, 8, 8)."""
        x = self.embed(images).flatten(2).mT + self.place
        for i, (mix, think) in enumerate(zip(self.mix, self.think, strict=True)):
            x = x + mix(self.norms[2 * i](x))
            x = x + think(self.norms[2 * i + 1](x))
        return self.classify(self.norms[-1](x).mean(1))


def network(case: Case, seed: int) -> nn.Module:
    """Build the model of a case."""
    if case.model != "transformer":
        return build(case.model, in_shape=case.in_shape, seed=seed)
    with isolated_rng(seed, "model"):
        return Transformer()


def main() -> None:
    """Measure every case on every number of threads."""
    arguments = parse()
    rows, records = [], []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for case in CASES:
            if arguments.only not in case.model:
                continue
            backend, params, found = measure(
                case, arguments.rounds, arguments.backend, arguments.precision
            )
            rows.append(row(case, threads, backend, params, found))
            records.append(
                {"case": case, "threads": threads, "backend": backend, "params": params}
                | {"precision": arguments.precision, "found": found, "limit": LIMIT}
            )
    print(machine())
    print(table(COLUMNS, rows))
    if arguments.out:
        write_json(arguments.out, {"environment": environment(), "rows": records})


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15, help="ratios per row")
    parser.add_argument("--only", default="", help="rows whose model's name contains this")
    parser.add_argument("--backend", default="auto", choices=("auto", "vmap", "loop"))
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"), help="ours")
    parser.add_argument("--out", help="JSON file")
    return parser.parse_args()


def measure(case: Case, rounds: int, backend: str, precision: str) -> tuple[str, int, Comparison]:
    """Compare one step with its bare passes; give the backend taken and the size too."""
    model, other = network(case, 0).train(), network(case, 1)
    draws = generator(0, "batch")
    inputs = torch.rand(case.batch, *case.in_shape, generator=draws)
    batch = inputs, torch.randint(10, (case.batch,), generator=draws)
    stack, start, end = read_ends(model, losses, model, other, batch_norm="recalibrate")
    stack = replace(stack, precision=precision)
    line = torch.stack([start, end]), torch.ones(1, dtype=torch.float64)
    path, weights = insert_equal(*line, case.pivots)
    if backend == "auto":
        with mode(model, norm_trains=True):
            backend = faster_backend(stack, path[1:-1], batch)
    band = band_of(stack.with_backend(backend), repeat(batch), weight_decay=1e-4)

    def steps(count: int) -> None:
        with mode(model, norm_trains=True):
            relax(path, weights, band, steps=count, learning_rate=0.01)

    passes = bare_passes(model, *batch)
    clock = process_time if torch.get_num_threads() == 1 else perf_counter
    bare = lambda count: passes(case.pivots * count)  # noqa: E731
    found = compare(steps, bare, rounds=rounds, block_seconds=BLOCK, clock=clock)
    return backend, len(start), found


def losses(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each example."""
    return cross_entropy(output, target, reduction="none")


def bare_passes(model: nn.Module, inputs: Tensor, target: Tensor) -> Callable[[int], None]:
    """What every training loop does, without its optimizer."""

    def passes(count: int) -> None:
        for _ in range(count):
            model.zero_grad()
            losses(model(inputs), target).mean().backward()

    return passes


COLUMNS = ["model", "batch", "params", "pivots", "threads", "backend", "step [ms]", "P bare [ms]"]
COLUMNS += ["ratio (quartiles)", f"limit {LIMIT}"]


def row(case: Case, threads: int, backend: str, params: int, found: Comparison) -> list[object]:
    """Write one comparison."""
    return [
        case.model, case.batch, params, case.pivots, threads, backend,
        f"{1e3 * found.seconds:.2f}", f"{1e3 * found.peer_seconds:.2f}",
        "{:.2f} ({:.2f} to {:.2f})".format(found.ratio, *found.quartiles),
        "met" if found.ratio <= LIMIT else "missed",
    ]  # fmt: skip


def machine() -> str:
    """Name what was measured on."""
    about = environment()
    return f"{about['device']}, {about['cores']} cores; torch {about['torch']}"


if __name__ == "__main__":
    main()
