"""Growing a network block by block: what an update keeps and takes, by depth, and the caches.

python benchmarks/boosting_step.py [--threads 1] [--rounds 11] [--out boosting_step.json]
"""

import argparse
import tempfile
from collections.abc import Callable
from itertools import chain as joined
from time import perf_counter
from typing import Any

import torch
from timing import compare, table
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from lowland.boosting import as_chain, make_head, read_features, saved_bytes
from lowland.models import build
from lowland.results import environment, write_json

BATCH, MIB = 100, 2**20
DEPTHS = (2, 20)


def main() -> None:
    """Memory by depth, time by depth, caches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    memory = memory_by_depth("pad-resnet-50")
    show(["what is trained", "MiB that autograd saves"], memory, "what", "mib")
    times = []
    for name, shape, count in (
        ("res-mlp-64-128-10x24", (1, 8, 8), 2000),
        ("res-mlp-784-1024-10x24", (1, 28, 28), 2000),
        ("pad-resnet-52x15", (3, 32, 32), 400),
    ):
        for cache in ("device", "recompute"):
            found = time_by_depth(name, shape, count, cache, arguments.rounds)
            times.append({"network": name, "cache": cache, **vars(found)})
            low, high = found.quartiles
            row = [name, cache, f"{found.ratio:.2f}", f"{low:.2f} to {high:.2f}"]
            print(
                table(["network", "cache", "block 20 / block 2", "middle half"], [row]), flush=True
            )
    caches = [time_of_cache(*kind) for kind in CACHES]
    show(["cache", "MiB", "ms per batch"], caches, "cache", "mib", "ms")
    if arguments.out:
        record = {"memory": memory, "times": times, "caches": caches}
        write_json(arguments.out, {"environment": environment()} | record)


def show(columns: list[str], rows: list[dict[str, Any]], *names: str) -> None:
    """Print a table of words and numbers."""
    cells = [[row[names[0]], *(f"{row[name]:.1f}" for name in names[1:])] for row in rows]
    print(table(columns, cells))


def data(count: int, shape: tuple[int, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random images in batches."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(count, *shape, generator=draws)
    y = torch.randint(10, (count,), generator=draws)
    return list(zip(x.split(BATCH), y.split(BATCH), strict=True))


def memory_by_depth(name: str) -> list[dict[str, Any]]:
    """Bytes that autograd saves for one update of each part, of all, and with checkpoints."""
    model = build(name)
    (x, y), *_ = data(BATCH, (3, 32, 32))
    chain = as_chain(model, x)
    found = []

    def note(what: str, forward: Callable[[], torch.Tensor]) -> None:
        saved = saved_bytes(lambda: cross_entropy(forward(), y), model)
        found.append({"what": what, "mib": saved / MIB})

    values = chain.values(x)
    for index, part in enumerate(chain.parts):
        with torch.no_grad():
            after = part(*values)
        head = make_head("plain", chain, index, after, 10)
        note(part.name, lambda part=part, head=head, values=values: head(*part(*values)))
        values = tuple(value.detach() for value in after)
    note("end to end", lambda: model(x))
    note("end to end, every block checkpointed", lambda: checkpointed(chain, x))
    return found


def checkpointed(chain: Any, x: torch.Tensor) -> torch.Tensor:
    """A forward pass that keeps only what flows between parts."""
    values = chain.values(x)
    for part in chain.parts:
        values = checkpoint(part, *values, use_reentrant=False)
    return chain.head(*values)


def updates(
    name: str, shape: tuple[int, ...], count: int, cache: str, depth: int
) -> Callable[[int], None]:
    """Updates of the block at some depth."""
    model = build(name, in_shape=shape)
    batches = data(count, shape)
    chain = as_chain(model, batches[0][0])
    blocks = chain.parts[1:] if chain.has_stem else chain.parts
    features = read_features(batches, chain.values, device=torch.device("cpu"), cache=cache)
    for part in chain.parts[: chain.parts.index(blocks[depth - 1])]:
        features.advance(part)
    block = blocks[depth - 1]
    values, *_ = next(iter(features.chunks()))
    head = make_head("plain", chain, depth - 1, block(*values), 10)
    optimizer = torch.optim.Adam(joined(block.parameters(), head.parameters()), 1e-5)
    stream = endless(features.batches(BATCH, seed=0))

    def work(steps: int) -> None:
        for _ in range(steps):
            inputs, target = next(stream)
            optimizer.zero_grad()
            cross_entropy(head(*block(*inputs)), target).backward()
            optimizer.step()

    return work


def endless(batches: Any) -> Any:
    """Go through batches again and again."""
    while True:
        yield from batches


def time_by_depth(name: str, shape: tuple[int, ...], count: int, cache: str, rounds: int) -> Any:
    """The deep block against the shallow one."""
    shallow, deep = (updates(name, shape, count, cache, depth) for depth in DEPTHS)
    return compare(deep, shallow, rounds=rounds, block_seconds=0.3)


CACHES = (
    ("device", None), ("host", None), ("disk", None), ("device", "bfloat16"), ("recompute", None),
)  # fmt: skip


def time_of_cache(cache: str, dtype: str | None) -> dict[str, Any]:
    """Bytes of 4000 examples behind the first block of ResNet-50, and what a batch takes."""
    model: nn.Module = build("pad-resnet-50")
    batches = data(4000, (3, 32, 32))
    chain = as_chain(model, batches[0][0])
    with tempfile.TemporaryDirectory() as folder:
        where = {"device": torch.device("cpu"), "cache": cache, "folder": folder}
        features = read_features(batches, chain.values, dtype=dtype, **where)
        for part in chain.parts[:2]:
            features.advance(part)
        made = features.batches(BATCH, seed=0)
        for _ in made:
            pass
        began = perf_counter()
        for _ in made:
            pass
        milliseconds = 1000 * (perf_counter() - began) / len(made)
    name = cache if dtype is None else f"{cache}, {dtype}"
    return {"cache": name, "mib": features.bytes() / MIB, "ms": milliseconds}


if __name__ == "__main__":
    main()
