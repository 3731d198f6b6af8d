"""Laws of growing block by block: updates by depth, what autograd saves, caches by data."""

from functools import partial
from itertools import chain as joined

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from laws.law import Law, Point, cpu_seconds, held_bytes
from laws.networks import IN_SHAPE, batch_of
from lowland.boosting import as_chain, make_head, read_features, saved_bytes
from lowland.models import build

__all__ = ["LAWS"]

BATCH, EXAMPLES = 100, 200


def network(blocks: int, hidden: int = 64) -> nn.Module:
    """Equal residual blocks of width 64, so gentle that hundreds of them stay finite."""
    model = build(f"res-mlp-64-{hidden}-10x{blocks}", in_shape=IN_SHAPE)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(0.1 if "linear2" in name else 1.0)
    return model


def batches_of(examples: int) -> list[tuple[Tensor, Tensor]]:
    """Data in batches."""
    x, y = batch_of(examples)
    return list(zip(x.split(BATCH), y.split(BATCH), strict=True))


def update_seconds(cache: str, depth: int) -> float:
    """An update of the block at some depth."""
    batches, model = batches_of(EXAMPLES), network(depth)
    chain = as_chain(model, batches[0][0])
    features = read_features(batches, chain.values, device=torch.device("cpu"), cache=cache)
    blocks = chain.parts[1:] if chain.has_stem else chain.parts
    block = blocks[depth - 1]
    for part in chain.parts[: chain.parts.index(block)]:
        features.advance(part)
    values, *_ = next(iter(features.chunks()))
    head = make_head("plain", chain, depth - 1, block(*values), 10)
    optimizer = torch.optim.Adam(joined(block.parameters(), head.parameters()), 1e-5)

    def epoch() -> None:
        for inputs, target in features.batches(BATCH, seed=0):
            optimizer.zero_grad()
            cross_entropy(head(*block(*inputs)), target).backward()
            optimizer.step()

    return cpu_seconds(epoch) * BATCH / EXAMPLES


def recomputing(depth: int) -> Point:
    """What an update takes longer where nothing is kept, by the number of blocks before."""
    more = update_seconds("recompute", depth) - update_seconds("device", depth)
    return depth - 1, max(more, 1e-7)


def saved_by_depth(end_to_end: bool, depth: int) -> Point:
    """What autograd saves: of the block at some depth, or of all of them."""
    (x, y), *_ = batches_of(BATCH)
    model = network(depth)
    if end_to_end:
        return depth, saved_bytes(lambda: cross_entropy(model(x), y), model)
    chain = as_chain(model, x)
    values = chain.values(x)
    with torch.no_grad():
        for part in chain.parts[:-1]:
            values = part(*values)
        after = chain.parts[-1](*values)
    head = make_head("plain", chain, depth - 1, after, 10)
    return depth, saved_bytes(lambda: cross_entropy(head(*chain.parts[-1](*values)), y), model)


def held_by_data(cache: str, examples: int) -> Point:
    """Memory of features behind the first block; the file they may lie in is not memory."""
    model, batches, made = network(2), batches_of(examples), []
    chain = as_chain(model, batches[0][0])

    def work() -> None:
        features = read_features(batches, chain.values, device=torch.device("cpu"), cache=cache)
        features.advance(chain.parts[0])
        made.append(features)

    held = held_bytes(work)
    return examples, held - (made[0].bytes() if cache == "disk" else 0)


def cache_by_width(width: int) -> Point:
    """Bytes of 100 examples as wide as that."""
    x = torch.randn(BATCH, width)
    model = nn.Sequential(nn.Sequential(nn.Linear(width, 1), nn.Linear(1, width)),
                          nn.Sequential(nn.Linear(width, 1), nn.Linear(1, width)),
                          nn.Linear(width, 10))  # fmt: skip
    chain = as_chain(model, x)
    batches = [(x, torch.arange(BATCH) % 10)]
    features = read_features(batches, chain.values, device=torch.device("cpu"), cache="disk")
    features.advance(chain.parts[0])
    return width, features.bytes()


def freezing(examples: int) -> Point:
    """Time to send the data through one block."""
    model, batches = network(2), batches_of(examples)
    chain = as_chain(model, batches[0][0])
    features = read_features(batches, chain.values, device=torch.device("cpu"), cache="device")
    return examples, cpu_seconds(lambda: features.advance(chain.parts[0]))


DEPTHS = (1, 3, 10, 30, 100)
COUNTS = (1e3, 3e3, 1e4, 3e4, 1e5)

LAWS = (
    Law(
        "boosting-update-cached", "an update, features kept", "depth t", "s", 0.0, DEPTHS,
        lambda t: (t, update_seconds("device", t)), lambda t: 1, "seconds",
        "one block and its head, whatever is before it",
    ),
    Law(
        "boosting-update-recomputed", 'what cache="recompute" adds to it', "blocks before", "s",
        1.0, (31, 101, 301, 1001, 3001), recomputing, lambda t: t, "seconds per block",
        "a forward pass of all blocks before",
    ),
    Law(
        "boosting-saved-block", "bytes that autograd saves", "depth t", "bytes", 0.0, DEPTHS,
        partial(saved_by_depth, False), lambda t: 4 * BATCH, "numbers per example",
        "the activations of one block",
    ),
    Law(
        "boosting-saved-whole", "the same, end to end", "depth T", "bytes", 1.0,
        (3, 10, 30, 100, 300), partial(saved_by_depth, True), lambda t: 4 * BATCH * t,
        "numbers per example and block", "the activations of all blocks",
    ),
    Law(
        "boosting-cache-data", "memory of kept features, width 64", "examples N", "bytes", 1.0,
        COUNTS, lambda n: held_by_data("device", int(n)), lambda n: 4 * 64 * n,
        "layers of features", "one layer, and a label for each example",
    ),
    Law(
        "boosting-disk-data", 'memory with cache="disk"', "examples N", "bytes", 1.0, COUNTS,
        lambda n: held_by_data("disk", int(n)), lambda n: n, "bytes per example",
        "a label for each example; features lie in a file",
    ),
    Law(
        "boosting-cache-width", "features of 100 examples", "width", "bytes", 1.0,
        (64, 256, 1024, 4096, 16_384), cache_by_width, lambda w: 400 * w, "layers of features",
        "a float each",
    ),
    Law(
        "boosting-freeze-data", "freezing a block", "examples N", "s", 1.0, COUNTS,
        lambda n: freezing(int(n)), lambda n: n, "seconds per example of a block of 8,320 weights",
        "one forward pass over the data",
    ),
)  # fmt: skip
