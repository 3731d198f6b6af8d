"""Laws of exchange: what a process hands to its group, counted where it is handed over.

One process stands for one of 64: a counter takes the place of torch's collectives, and gives every
tensor back as it was. Nothing is sent, and what comes out is not used.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
from torch import distributed as dist

from laws.connectivity import relaxing
from laws.law import Law, Point
from laws.networks import batch_of, losses, perceptron, weights_of
from lowland.boosting.fitting import average_gradients
from lowland.control import DiscreteMSA, discrete_parameters, discretize
from lowland.control.together import Together
from lowland.dynamics import TwoTimeRecorder, gradient_noise
from lowland.importance.switch import Switch

__all__ = ["LAWS", "counted"]


@contextmanager
def counted(world: int, rank: int = 0) -> Iterator[list[int]]:
    """Pretend to be one of some processes.

    Args:
        world: How many.
        rank: Which.

    Yields:
        Bytes of every tensor that is handed over, in order.
    """
    handed: list[int] = []

    def note(tensor: torch.Tensor, *_: object, **__: object) -> None:
        handed.append(tensor.numel() * tensor.element_size())

    with (
        patch.object(dist, "is_initialized", lambda: True),
        patch.object(dist, "get_rank", lambda *_: rank),
        patch.object(dist, "get_world_size", lambda *_: world),
        patch.object(dist, "all_reduce", note),
        patch.object(dist, "broadcast_object_list", lambda *_: None),
    ):
        yield handed


def handed(work: Callable[[], object], world: int = 64) -> int:
    """Bytes that some work hands over."""
    with counted(world) as found:
        work()
    return max(1, sum(found))


def band_bytes(params: float, pivots: int, world: int = 64) -> int:
    """A NEB step."""
    return handed(relaxing(params, pivots), world)


def noise(params: float) -> Point:
    """Gradient noise of 128 batches; this process has two of them."""
    model, data = perceptron(params), [batch_of(4)] * 128
    work = partial(gradient_noise, model, losses, data, n_batches=128)
    return weights_of(model), handed(work)


def look(waits: int, params: float) -> int:
    """One instant of a recorder whose weights are shared out, at which all waits are compared."""
    model = perceptron(params)
    with counted(64) as found:
        recorder = TwoTimeRecorder(
            model, waits=range(waits), lags=range(1, waits + 1), memory="exact", ranks="sharded"
        )
        for step in range(waits):
            recorder.record(step)
        found.clear()
        recorder.store.measure(list(range(waits)))
    return max(1, sum(found))


def pool(rows: int) -> Point:
    """What the switch adds up after a pool was scored."""
    switch = Switch(3)
    score = torch.rand(rows, generator=torch.Generator().manual_seed(0))
    return rows, handed(lambda: switch.feed(score))


def gradients(params: float) -> Point:
    """An update of a block: the mean of its gradients."""
    model = perceptron(params)
    return weights_of(model), handed(lambda: average_gradients(list(model.parameters())))


def discrete(params: float) -> Point:
    """A step of ``train_msa``: the mean of all gradients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no norm follows, as nothing is trained here
        model = discretize(perceptron(params), values=(-1, 1))
    both = Together(DiscreteMSA(discrete_parameters(model)), None)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    size = sum(w.numel() for group in both.param_groups for w in group["params"])
    return size, handed(both.share_gradients)


SIZES, COUNTS = (1e4, 1e5, 1e6), (2, 6, 20, 60, 200)

LAWS = (
    Law(
        "ranks-band-params", "a NEB step, 4 pivots: all_reduce of losses and gradients",
        "weights D", "bytes", 1.0, SIZES,
        lambda d: (weights_of(perceptron(d)), band_bytes(d, 4)), lambda d: 4 * 4 * d,
        "vectors of D floats per pivot", "every process gets the gradients of all pivots",
    ),
    Law(
        "ranks-band-pivots", "a NEB step, 2,000 weights", "pivots P", "bytes", 1.0, COUNTS,
        lambda p: (p, band_bytes(2000, p)), lambda p: 4 * p * weights_of(perceptron(2000)),
        "vectors of D floats per pivot", "the same",
    ),
    Law(
        "ranks-band-world", "a NEB step, 4 pivots, 2,000 weights", "processes", "bytes", 0.0,
        (2, 8, 32, 128, 512), lambda w: (w, band_bytes(2000, 4, w)),
        lambda w: 16 * weights_of(perceptron(2000)), "vectors of D floats per pivot",
        "whole gradients, mostly zeros, whoever made them",
    ),
    Law(
        "ranks-noise-params", "gradient_noise: all_reduce of the sum of gradients", "weights D",
        "bytes", 1.0, SIZES, noise, lambda d: 8 * d, "float64 vectors", "once per measurement",
    ),
    Law(
        "ranks-look-waits", 'an instant of a recorder, ranks="sharded"', "waiting times W",
        "bytes", 1.0, COUNTS, lambda w: (w, look(w, 2000)), lambda w: w, "bytes per waiting time",
        "some sums for each",
    ),
    Law(
        "ranks-look-params", "the same, 4 waiting times", "weights D", "bytes", 0.0, SIZES,
        lambda d: (weights_of(perceptron(d)), look(4, d)), lambda d: 1, "bytes",
        "sums do not grow with what is summed",
    ),
    Law(
        "ranks-pool", "scores of a pool: all_reduce of their sums", "pool B", "bytes", 0.0,
        (100, 1000, 10_000), pool, lambda b: 1, "bytes", "four sums and a cost",
    ),
    Law(
        "ranks-block", "an update of a block: all_reduce of its gradients", "weights of the block",
        "bytes", 1.0, SIZES, gradients, lambda d: 4 * d, "vectors of the block's floats",
        "one mean gradient; other blocks send nothing",
    ),
    Law(
        "ranks-discrete", "a step of train_msa: all_reduce of gradients", "weights D", "bytes",
        1.0, SIZES, discrete, lambda d: 4 * d, "vectors of D floats", "one mean gradient",
    ),
)  # fmt: skip
