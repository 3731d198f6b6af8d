"""Laws of paths: a band's memory and time, evaluation, curves, and which pairs are searched."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from unittest.mock import patch

import torch

from laws.law import Law, Point, cpu_seconds, peak_bytes
from laws.networks import batch_of, losses, perceptron, weights_of
from lowland.connectivity import (
    fit_curve,
    insert_equal,
    linear_path,
    measure_path,
    neb,
    path,
    profile,
    sweep,
)
from lowland.connectivity.band import band_of
from lowland.connectivity.ends import read_ends
from lowland.connectivity.minima import gather
from lowland.connectivity.path import Path
from lowland.connectivity.schedule import schedule_named
from lowland.connectivity.suggest import Known, suggest_pair
from lowland.training import mode

__all__ = ["LAWS", "relaxing"]

SMALL = 2_000  # weights, where something else grows
WIDE = 20_000  # so many that seven pivots already go one by one on a CPU


def relaxing(params: float, pivots: int, batch: int = 16, steps: int = 1) -> Callable[[], object]:
    """A relaxation from the straight line, with so many interior pivots."""
    model, other = perceptron(params).train(), perceptron(params, seed=1)
    stack, start, end = read_ends(model, losses, model, other, batch_norm="recalibrate")
    line, whole = torch.stack([start, end]), torch.ones(1, dtype=torch.float64)
    band = band_of(stack.with_backend("loop"), repeat(batch_of(batch)), weight_decay=1e-4)

    def work() -> object:
        pivoted, weights = insert_equal(line, whole, pivots)
        with mode(model, norm_trains=True):
            return neb.relax(pivoted, weights, band, steps=steps, learning_rate=1e-3)

    return work


def band_bytes(params: float, pivots: int) -> int:
    """Most bytes of a band, with the copy of the last good path that is made every 50 steps."""
    with patch.object(neb, "STEPS_BETWEEN_CHECKS", 1):
        return peak_bytes(relaxing(params, pivots, steps=2))


def memory_by_pivots(together: bool, pivots: int) -> Point:
    """Many pivots, one by one as on a CPU, or together as on a GPU."""
    with patch.object(sweep, "goes_together", lambda _: together):
        return pivots, band_bytes(WIDE, pivots)


def memory_by_params(params: float) -> Point:
    """Four pivots."""
    return weights_of(perceptron(params)), band_bytes(params, 4)


def step_seconds(params: float, pivots: int) -> float:
    """One step, without what is done once per relaxation."""
    few, more = (cpu_seconds(relaxing(params, pivots, 64, k), repeats=2) for k in (1, 2))
    return max(more - few, 1e-7)


def time_by_pivots(pivots: int) -> Point:
    """Small networks, many pivots."""
    return pivots, step_seconds(SMALL, pivots)


def time_by_params(params: float) -> Point:
    """Two pivots."""
    return weights_of(perceptron(params)), step_seconds(params, 2)


def evaluation_by_data(examples: int) -> Point:
    """Three points of a straight line on so many examples."""
    model, other = perceptron(SMALL), perceptron(SMALL, seed=1)
    stack, start, end = read_ends(model, losses, model, other, batch_norm="recalibrate")
    line = Path(torch.stack([start, end]), torch.ones(1), stack.layout, {}, {})
    inputs, target = batch_of(examples)
    batches = list(zip(inputs.split(500), target.split(500), strict=True))
    return examples, cpu_seconds(lambda: measure_path(model, losses, batches, line, samples=1))


@contextmanager
def one_by_one() -> Iterator[None]:
    """Points and differences are handled one by one, as those of huge networks."""
    with (
        patch.object(profile, "COORDINATES_AT_ONCE", 1),
        patch.object(path, "DIFFERENCES_AT_ONCE", 1),
    ):
        yield


def curve_by_params(kind: str, params: float) -> Point:
    """A curve with one bend, whole; its points are evaluated one by one, as for huge networks."""
    model, other = perceptron(params), perceptron(params, seed=1)

    def work() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # three steps need not beat the line
            return fit_curve(
                model, losses, [batch_of(16)], model, other, kind=kind, bends=1, steps=3,
                points=3, learning_rate=1e-3, backend="loop",
            )  # fmt: skip

    with one_by_one():
        return weights_of(model), peak_bytes(work)


def line_by_params(params: float) -> Point:
    """The straight line at five points, one by one."""
    model, other = perceptron(params), perceptron(params, seed=1)
    work = partial(
        linear_path, model, losses, [batch_of(16)], model, other, samples=3, backend="loop"
    )
    with one_by_one():
        return weights_of(model), peak_bytes(work)


def gathered(minima: int) -> Point:
    """What ``connect_minima`` lays out before its first search."""
    model, data = perceptron(WIDE), [batch_of(16)]
    state = model.state_dict()
    work = partial(
        gather, model, losses, data, [state] * minima, schedule_named("laptop"),
        test_batches=None, evaluation_batches=None, seed=0,
    )  # fmt: skip
    return minima, peak_bytes(work)


def landscape(minima: int) -> torch.Tensor:
    """Saddles of all pairs with losses on the diagonal; three pairs in ten have no barrier."""
    draws = torch.Generator().manual_seed(0)
    low = torch.rand(minima, generator=draws, dtype=torch.float64)
    above = torch.rand(minima, minima, generator=draws, dtype=torch.float64)
    above = torch.triu((above - 0.3).clamp_min(0), 1)
    return torch.maximum(low[:, None], low) + above + above.T


def searched(rule: str, minima: int) -> Point:
    """Let a rule choose until it expects nothing more."""
    saddles = landscape(minima)
    known = torch.full_like(saddles, torch.inf)
    known.diagonal().copy_(saddles.diagonal())
    tried = torch.eye(minima, dtype=torch.bool)
    count = 0
    while (pair := suggest_pair(rule, Known(known, tried))) is not None:
        a, b = pair
        known[a, b] = known[b, a] = saddles[a, b]
        tried[a, b] = tried[b, a] = True
        count += 1
    return minima * (minima - 1) / 2, count


def suggestion(minima: int) -> Point:
    """What the rule of the paper takes to find that all pairs are tried."""
    known = Known(landscape(minima), torch.ones(minima, minima, dtype=torch.bool))
    return minima, cpu_seconds(lambda: suggest_pair("paper", known), repeats=1)


LAWS = (
    *(
        Law(
            f"connectivity-memory-{how}", f"bytes of a relaxation, pivots {how}", "pivots P",
            "bytes", 1.0, (8, 24, 80, 240, 800), partial(memory_by_pivots, how == "together"),
            lambda p: 4 * p * weights_of(perceptron(WIDE)), "vectors of D floats per pivot",
            f"path, spare path, last good path, momentum, gradients{more}",
        )
        for how, more in (("apart", ""), ("together", "; differences and directions, on a GPU"))
    ),
    Law(
        "connectivity-memory-params", "bytes of a relaxation, 4 pivots", "weights D", "bytes", 1.0,
        (1e4, 3e4, 1e5, 3e5, 1e6, 3e6), memory_by_params, lambda d: 4 * 4 * d,
        "vectors per pivot, with two ends for four pivots",
        "the same", first=3e4,
    ),
    Law(
        "connectivity-time-pivots", "a NEB step", "pivots P", "s", 1.0,
        (10, 30, 100, 300, 1000), time_by_pivots, lambda p: p,
        "seconds per pivot of 2,000 weights, batch 64",
        "one gradient per pivot; everything else goes along the path once",
    ),
    Law(
        "connectivity-time-params", "a NEB step, 2 pivots", "weights D", "s", 1.0,
        (1e5, 3e5, 1e6, 3e6, 1e7), time_by_params, lambda d: 2 * 6 * 64 * d,
        "seconds per floating-point operation of the gradients",
        "6 D operations per example and pivot, and a few passes over D",
    ),
    Law(
        "connectivity-evaluation-data", "evaluating three points", "examples N", "s", 1.0,
        (6e3, 2e4, 6e4, 2e5, 6e5), lambda n: evaluation_by_data(int(n)), lambda n: 3 * n,
        "seconds per point and example of 2,000 weights",
        "one forward pass per point",
    ),
    *(
        Law(
            f"connectivity-curve-{kind}", f'bytes of fit_curve(kind="{kind}", bends=1)',
            "weights D", "bytes", 1.0, (1e4, 3e4, 1e5, 3e5, 1e6, 3e6),
            partial(curve_by_params, kind), lambda d: 4 * d, "vectors of D floats", why, first=3e4,
        )
        for kind, why in (
            ("bezier", "control points, momentum, last good copy, and a path of 21 pivots"),
            ("polychain", "both ends, control points, momentum, last good copy, and a gradient"),
        )
    ),
    Law(
        "connectivity-line-params", "bytes of linear_path", "weights D", "bytes", 1.0,
        (1e4, 3e4, 1e5, 3e5, 1e6, 3e6), line_by_params, lambda d: 4 * d, "vectors of D floats",
        "both ends, their path, and a point at a time", first=3e4,
    ),
    Law(
        "connectivity-minima-bytes", "bytes before the first search", "minima n", "bytes", 1.0,
        (4, 12, 40, 120, 400), gathered, lambda n: 4 * n * weights_of(perceptron(WIDE)),
        "vectors of D floats per minimum", "all minima side by side", first=4,
    ),
    Law(
        "connectivity-pairs-paper", 'paths searched, suggest="paper"', "pairs n (n - 1) / 2",
        "paths", 1.0, (3, 5, 8, 12, 18, 25), partial(searched, "paper"), lambda m: m,
        "share of all pairs", "the paper's rule ends when all pairs are tried",
    ),
    Law(
        "connectivity-pairs-bounded", 'paths searched, suggest="bounded"', "pairs n (n - 1) / 2",
        "paths", 0.5, (3, 5, 8, 12, 18, 25), partial(searched, "bounded"), lambda m: m,
        "share of all pairs", "at least n - 1 paths, at most all, by how many have no barrier",
    ),
    Law(
        "connectivity-suggestion-minima", "choosing a pair when most are tried", "minima n", "s",
        3.0, (3, 10, 30, 100, 300), suggestion, lambda n: n**3, "seconds per n³",
        "every edge of the tree is looked at, with the n² pairs that go round it",
    ),
)  # fmt: skip
