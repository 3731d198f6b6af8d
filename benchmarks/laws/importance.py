"""Laws of choosing: scores, draws and steps against pool, classes and weights."""

from collections.abc import Callable
from functools import partial
from itertools import repeat

import torch
from torch import nn

from laws.law import Law, Point, cpu_seconds, peak_bytes
from laws.networks import batch_of, perceptron, weights_of
from lowland.importance import ImportanceSampling, draw, scores
from lowland.importance.scorer import Scorer

__all__ = ["LAWS"]

BATCH, RATIO, POOL = 32, 3, 96
loss_fn = nn.CrossEntropyLoss(reduction="none")


def outputs(rows: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits and classes."""
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(rows, classes, generator=draws)
    return z, torch.randint(classes, (rows,), generator=draws)


def scores_of(what: str, rows: int, classes: int) -> float:
    """Scores from outputs that are there: time or memory."""
    z, y = outputs(rows, classes)
    work = partial(scores, loss_fn, z, y)
    return cpu_seconds(work) if what == "s" else peak_bytes(work)


def drawing(rows: int) -> Point:
    """A third of the pool, drawn systematically."""
    score = torch.rand(rows, generator=torch.Generator().manual_seed(0))
    source = torch.Generator().manual_seed(0)
    return rows, cpu_seconds(lambda: draw(score, rows // 3, generator=source))


def pool_of(rows: int) -> Point:
    """Most bytes while a pool is scored: no graph is there."""
    x, y = batch_of(rows)
    scorer = Scorer(perceptron(2000), loss_fn, "bound")
    return rows, peak_bytes(lambda: scorer.pool(x, y, rows))


def stepper(params: float, *, chosen: bool) -> tuple[nn.Module, Callable[[], None]]:
    """A model and its training step, on chosen rows or on the loader's batches."""
    model = perceptron(params)
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    on = ImportanceSampling(
        model, loss_fn, presample=RATIO, costs="modelled", replay=[[0, True]] if chosen else [],
        tau_threshold=1e9,
    )  # fmt: skip

    def steps():
        for x, y in on(repeat(batch_of(BATCH))):
            optimizer.zero_grad()
            on.loss(model(x), y).backward()
            optimizer.step()
            yield

    return model, partial(next, steps())


def step_by_params(chosen: bool, params: float) -> Point:
    """A whole step."""
    model, step = stepper(params, chosen=chosen)
    return weights_of(model), cpu_seconds(step)


def step_bytes(params: float) -> Point:
    """Most bytes that a step on chosen rows asks for."""
    model, step = stepper(params, chosen=True)
    step()
    return weights_of(model), peak_bytes(step)


SIZES = (1e5, 3e5, 1e6, 3e6, 1e7)
LARGE = (*SIZES[1:], 3e7)
POOLS = (1e3, 3e3, 1e4, 3e4, 1e5, 3e5)

LAWS = (
    Law(
        "importance-scores-pool", "scores from outputs, 10 classes", "pool B", "s", 1.0, POOLS,
        lambda b: (b, scores_of("s", int(b), 10)), lambda b: 10 * b, "seconds per output",
        "a softmax per row", first=3e3,
    ),
    Law(
        "importance-scores-classes", "scores from outputs, 32 rows", "classes C", "s", 1.0,
        (100, 1e3, 3e3, 1e4, 3e4, 1e5), lambda c: (c, scores_of("s", 32, int(c))),
        lambda c: 32 * c, "seconds per output", "the same", first=1e3,
    ),
    Law(
        "importance-scores-bytes", "bytes of scores, 30,000 classes", "pool B", "bytes", 0.0,
        (30, 100, 300, 1000, 3000), lambda b: (b, scores_of("bytes", int(b), 30_000)),
        lambda b: 4 * 30_000, "rows of logits", "large vocabularies go in pieces of some rows",
    ),
    Law(
        "importance-draw-pool", "drawing a third of a pool", "pool B", "s", 1.0, POOLS,
        lambda b: drawing(int(b)), lambda b: b, "seconds per row", "sums and a search", first=1e4,
    ),
    Law(
        "importance-pool-bytes", "bytes while a pool is scored, 2,000 weights", "pool B", "bytes",
        1.0, (100, 300, 1e3, 3e3, 1e4, 3e4), lambda b: pool_of(int(b)),
        lambda b: 4 * b, "numbers per row", "two layers at a time, no graph", first=300,
    ),
    Law(
        "importance-step-chosen", "a step on 32 of 96 rows", "weights D", "s", 1.0, LARGE,
        partial(step_by_params, True), lambda d: d, "seconds per weight",
        "2 D operations for each of 96 rows, 6 D for each of 32",
    ),
    Law(
        "importance-step-uniform", "a step on 32 rows", "weights D", "s", 1.0, LARGE,
        partial(step_by_params, False), lambda d: d, "seconds per weight",
        "6 D operations for each of 32 rows",
    ),
    Law(
        "importance-step-bytes", "bytes of a step on 32 of 96 rows", "weights D", "bytes", 1.0,
        SIZES, step_bytes, lambda d: 4 * d, "vectors of D floats",
        "the gradient, as in plain SGD; scores and draws are of the pool's size",
    ),
)  # fmt: skip
