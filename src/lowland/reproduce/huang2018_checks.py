"""What boosting costs and does without: saved bytes, time per update, blocks without gradient."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Adam

from lowland.boosting import (
    RandomFeatures,
    TreeBlock,
    as_chain,
    make_head,
    read_features,
    saved_bytes,
    train_boosted,
)
from lowland.boosting.gradient_free import fit_head
from lowland.models import build
from lowland.reproduce.huang2018_settings import Checks
from lowland.reproduce.images import Images, losses
from lowland.training import generator, kept_mode

__all__ = ["fitted_blocks", "saved_by_stage", "time_updates"]

BATCH = 100  # images that bytes are scaled to
HEADS = ("plain", "deep", "downstream")


def saved_by_stage(checks: Checks) -> list[dict[str, Any]]:
    """Count what autograd saves in one update: end to end, and for every part with each head.

    Args:
        checks: Names the network.

    Returns:
        One dict of MiB per 100 images for all parts together, then one for each part.
    """
    if checks.memory is None:
        return []
    model = build(checks.memory, seed=0).train()
    inputs = torch.randn(checks.images, 3, 32, 32, generator=generator(0, "memory"))
    target = torch.arange(checks.images) % 10
    scale = BATCH / checks.images / 2**20

    def count(output: Callable[[], Tensor], *modules: nn.Module) -> float:
        own = nn.ModuleList(modules)
        return scale * saved_bytes(lambda: losses(output(), target).mean(), own)

    found: list[dict[str, Any]] = [
        {"part": "end to end", "MiB": count(lambda: model(inputs), model)}
    ]
    chain = as_chain(model, inputs)
    values = chain.values(inputs)
    for index, part in enumerate(chain.parts):
        values = tuple(value.detach() for value in values)
        with torch.no_grad(), kept_mode(part):
            after = part.eval()(*values)
        row: dict[str, Any] = {"part": part.name}
        for kind in HEADS:
            head = make_head(kind, chain, index, after, 10).train()
            row[kind] = count(partial(through, part, head, values), part, head)
        found.append(row)
        values = after
    return found


def through(part: nn.Module, head: nn.Module, values: tuple[Tensor, ...]) -> Tensor:
    """Logits behind a part."""
    return head(*part(*values))


def time_updates(checks: Checks, images: Images) -> list[dict[str, Any]]:
    """Time the updates of a block at depth 2 and at a large depth, turn by turn.

    Args:
        checks: How deep, and how often.
        images: The digits.

    Returns:
        Seconds per update in the fastest epoch, which other work on the machine disturbs least,
        for each depth with kept and with recomputed features, and the ratio of the depths.
    """
    depths = (2, checks.timed)
    size = images.task.batch_size
    runs: dict[tuple[str, int], Callable[[], float]] = {}
    for cache in ("host", "recompute"):
        for depth in depths:
            model = build(f"res-mlp-64-128-10x{checks.timed}", seed=0, init=images.task.init)
            batches = images.training(0)
            chain = as_chain(model, next(iter(batches))[0])
            features = read_features(batches, chain.values, device=images.device, cache=cache)
            for part in chain.parts[: depth - 1]:
                features.advance(part)
            values, _, _ = next(iter(features.chunks()))
            part = chain.parts[depth - 1]
            head = make_head("plain", chain, depth - 1, part(*values), 10)
            optimizer = Adam([*part.parameters(), *head.parameters()], 1e-3)
            epoch = partial(one_epoch, features.batches(size, seed=0), part, head, optimizer)
            runs[cache, depth] = epoch
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in runs}
    for _ in range(checks.turns):
        for key, epoch in runs.items():
            seconds[key].append(epoch())
    found = []
    for cache in ("host", "recompute"):
        first, last = (seconds[cache, depth] for depth in depths)
        found.append(
            {"cache": cache, "depths": depths, "seconds": [min(first), min(last)]}
            | {"ratio": min(last) / min(first)}
        )
    return found


def one_epoch(
    batches: Any, part: nn.Module, head: nn.Module, optimizer: torch.optim.Optimizer
) -> float:
    """Train a block for an epoch; seconds per update."""
    begin, steps = perf_counter(), 0
    for values, target in batches:
        optimizer.zero_grad()
        cross_entropy(head(*part(*values)), target).backward()
        optimizer.step()
        steps += 1
    return (perf_counter() - begin) / steps


def fitted_blocks(checks: Checks, images: Images) -> list[dict[str, Any]]:
    """Grow networks of blocks without gradient, with a logistic head that is fitted anew.

    Args:
        checks: How many blocks.
        images: The digits.

    Returns:
        For each kind of block, cross-entropy on the training images and errors before the first
        block and after each.
    """
    kinds: dict[str, Callable[[torch.Generator], nn.Module]] = {
        "random features": lambda draws: RandomFeatures(64, 256, 1.0, generator=draws),
    }
    for step, part in checks.trees:
        kind = "trees" + (f", {step:g} of the step, {part:g} of the images" if step < 1 else "")
        kinds[kind] = partial(tree, step, part)
    whole = images.training(0, len(images.train[1])).evaluation()
    inputs, target = next(iter(whole))
    tests, labels = next(iter(images.testing))
    found = []
    for kind, make in kinds.items():
        draws = generator(0, kind)
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for number in range(checks.fitted):
            layers[f"block{number + 1}"] = make(draws)
        layers["linear"] = nn.Linear(64, images.classes)
        nn.init.zeros_(layers["linear"].weight)
        nn.init.zeros_(layers["linear"].bias)
        model = nn.Sequential(layers)
        fit_head(layers["linear"], (inputs.flatten(1),), target)
        first = row_of(
            model, inputs, target, tests, labels
        )  # no block is fitted yet: they do nothing
        blocks = [name for name in layers if name.startswith("block")]
        chain = as_chain(model, inputs, blocks=blocks)
        result = train_boosted(model, whole, chain=chain, exits=True, test_batches=images.testing)
        rows = [first | {"edge": None, "gamma": None}]
        for depth, (one, head) in enumerate(zip(result.rounds, result.exits, strict=True)):
            part = nn.Sequential(*list(model)[: depth + 2], head)
            row = row_of(part, inputs, target, tests, labels)
            rows.append(row | {"edge": one.edge, "gamma": one.gamma})
        found.append({"kind": kind, "rows": rows})
    return found


def tree(step: float, part: float, draws: torch.Generator) -> TreeBlock:
    """A block of one regression tree."""
    return TreeBlock(64, 8, 5, shrinkage=step, subsample=part, generator=draws)


@torch.no_grad()
def row_of(
    model: nn.Module, inputs: Tensor, target: Tensor, tests: Tensor, labels: Tensor
) -> dict[str, Any]:
    """Cross-entropy on the training images, and errors."""
    output = model(inputs)
    return {
        "train_loss": float(cross_entropy(output.double(), target)),
        "train_error": float((output.argmax(1) != target).double().mean()),
        "test_error": float((model(tests).argmax(1) != labels).double().mean()),
    }
