"""What each rule spends until the spanning tree is within 5 % of that of all pairs.

python benchmarks/exploration.py [--models mlp-64-32-32-10] [--cycles 4 14] [--seeds 5]

The paths of all pairs of minima of the digits are found once per seed; every rule is then replayed
on their saddles. Costs are gradient evaluations, steps times interior pivots, as a share of those
of all pairs.
"""

import argparse
from itertools import combinations
from math import inf
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR

from lowland.connectivity import (
    RULES,
    Cycle,
    Known,
    Landscape,
    Schedule,
    connect_minima,
    spanning_tree,
    suggest_pair,
)
from lowland.connectivity.schedule import fourteen_cycles
from lowland.connectivity.suggest import BEGUN
from lowland.data import Batches, load
from lowland.models import build
from lowland.results import environment, write_json
from lowland.training import train

EPOCHS, BATCH = 60, 128
RATES = (0.1, 0.1, 0.1, 0.01)
STEPS = {4: 40, 14: 10}
CLOSE = 1.05


class Explored(NamedTuple):
    """All pairs of a set of minima: saddles, and gradient evaluations, of whole and first cycle."""

    saddles: Tensor
    early: Tensor
    cost: Tensor
    early_cost: Tensor


def main() -> None:
    """Measure every model, print a table, and write the numbers down."""
    arguments = parse()
    torch.set_num_threads(1)
    rows, records = [], []
    for model in arguments.models:
        for cycles in arguments.cycles:
            sets = [explored(model, cycles, seed, arguments.minima) for seed in arguments.seeds]
            for rule in RULES:
                courses = [course(rule, found) for found in sets]
                ends = [summary(*pair) for pair in zip(courses, sets, strict=True)]
                spent, at_half = zip(*ends, strict=True)
                rows.append(
                    f"{model:16} {cycles:6} {rule:8} {percent(spent)} | "
                    f"{percent(value - 1 for value in at_half)}"
                )
                records.append(
                    {"model": model, "cycles": cycles, "rule": rule, "seeds": arguments.seeds}
                    | {"cost_until_close": spent, "at_half_cost": at_half, "courses": courses}
                )
            records.append({"model": model, "cycles": cycles, "sets": [s._asdict() for s in sets]})
    print(f"{'model':16} cycles {'rule':8} cost until within 5 % | tree mean too high at half cost")
    print("\n".join(rows))
    if arguments.out:
        write_json(arguments.out, {"environment": environment(), "rows": records})


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["mlp-64-32-32-10"])
    parser.add_argument("--cycles", nargs="+", type=int, choices=STEPS, default=[4, 14])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--minima", type=int, default=8)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def percent(values) -> str:
    """Write shares in percent."""
    return " ".join(f"{100 * value:5.1f}" for value in values)


def losses(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each example, in nats."""
    return cross_entropy(output, target, reduction="none")


def explored(name: str, cycles: int, seed: int, count: int) -> Explored:
    """Train the minima of a seed and find the path of every pair."""
    found = load("digits")
    batches = Batches(found.images, found.labels, BATCH, seed=seed)
    ordered = Batches(found.images, found.labels, len(found.labels), shuffle=False)
    nets = [minimum(name, batches, 1000 * seed + k, found) for k in range(count)]
    landscape = connect_minima(
        nets[0], losses, batches, nets, schedule=schedule(cycles), suggest="lowest",
        evaluation_batches=ordered, backend="vmap", seed=seed,
    )  # fmt: skip
    print(f"{name}, {cycles} cycles, seed {seed}: {landscape.seconds:.0f} s")
    return tables(landscape)


def schedule(cycles: int) -> Schedule:
    """A short schedule of four cycles, or the paper's fourteen with fewer steps."""
    if cycles == len(RATES):
        first, *others = (Cycle(STEPS[cycles], rate) for rate in RATES)
        first = Cycle(first.steps, first.learning_rate, insert="equal", count=3)
        return Schedule((first, *others), samples=4)
    return Schedule(fourteen_cycles(STEPS[cycles]), samples=4)


def tables(landscape: Landscape) -> Explored:
    """Saddles and gradient evaluations of all pairs, after all cycles and after the first."""
    saddles = landscape.saddles()
    early, cost, early_cost = saddles.clone(), *torch.zeros(2, *saddles.shape).double()
    for a, b in combinations(range(len(saddles)), 2):
        cycles = landscape.path(a, b).cycles
        early[a, b] = early[b, a] = min(cycle.profile.saddle() for cycle in cycles[:2])
        cost[a, b] = sum(cycle.steps * cycle.num_pivots for cycle in cycles)
        early_cost[a, b] = cycles[1].steps * cycles[1].num_pivots
    return Explored(saddles, early, cost, early_cost)


def minimum(name: str, batches: Batches, seed: int, found) -> nn.Module:
    """Train one network."""
    model = build(name, classes=len(found.classes), in_shape=found.in_shape, seed=seed)
    steps = EPOCHS * len(batches)
    train(
        model, losses, batches, epochs=EPOCHS, seed=seed,
        optimizer=lambda params: SGD(params, 0.1, 0.9),
        schedule=lambda optimizer: MultiStepLR(optimizer, [steps // 2, 3 * steps // 4]),
    )  # fmt: skip
    return model


def course(rule: str, found: Explored) -> list[tuple[float, float]]:
    """Share of the cost, and mean saddle of the tree, after each pair that a rule finishes."""
    known = torch.full_like(found.saddles, inf)
    known.diagonal().copy_(found.saddles.diagonal())
    tried, steps = torch.eye(len(known), dtype=torch.bool), []
    begun = found.early_cost if rule in BEGUN else torch.zeros_like(found.cost)
    spent, whole = float(begun.sum()), float(found.cost.sum())
    while (pair := suggest_pair(rule, Known(known, tried, early=found.early))) is not None:
        a, b = pair
        known[a, b] = known[b, a] = found.saddles[a, b]
        tried[a, b] = tried[b, a] = True
        spent += float(found.cost[a, b] - begun[a, b])
        steps.append((spent / whole, tree_mean(known)))
    return steps


def tree_mean(saddles: Tensor) -> float:
    """Mean saddle of the spanning tree, infinite where it is a forest."""
    heights = [float(saddles[pair]) for pair in spanning_tree(saddles)]
    return mean(heights) if len(heights) == len(saddles) - 1 else inf


def summary(steps: list[tuple[float, float]], found: Explored) -> tuple[float, float]:
    """Cost until the tree is close to that of all pairs, and its mean over that at half cost."""
    best = tree_mean(found.saddles)
    close = next(spent for spent, value in steps if value <= CLOSE * best)
    return close, min((value for spent, value in steps if spent <= 0.5), default=inf) / best


if __name__ == "__main__":
    main()
