"""Boosting theory by loops over lists of numbers, as the paper's page has it.

Nothing here is shared with the library: weights come from the recursion over rounds, never from
its closed form, and a hypothesis is a list of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, fsum, log, sqrt

Rows = Sequence[Sequence[float]]
Pairs = dict[tuple[int, int], float]


@dataclass
class SlowRound:
    """What the paper's Algorithm 3 knows after a round."""

    edge: float
    alpha: float
    gamma_squared: float
    weights: Pairs
    score: list[list[float]]
    loss: float
    step_ratio: float
    covariance: float
    bound: float
    error: float


def slow_pairs(target: Sequence[int], classes: int) -> list[tuple[int, int]]:
    """Every example with every wrong class."""
    return [(i, c) for i, y in enumerate(target) for c in range(classes) if c != y]


def slow_margins(output: Rows, target: Sequence[int]) -> Pairs:
    """Right output minus wrong output."""
    pairs = slow_pairs(target, len(output[0]))
    return {(i, c): output[i][target[i]] - output[i][c] for i, c in pairs}


def slow_loss(output: Rows, target: Sequence[int], alpha: float) -> float:
    """Mean over examples of the sum over wrong classes."""
    return fsum(exp(-alpha * r) for r in slow_margins(output, target).values()) / len(target)


def slow_chain(
    outputs: Sequence[Rows], target: Sequence[int], alphas: Sequence[float] | None = None
) -> list[SlowRound]:
    """Algorithm 3 over given hypotheses, with the closed-form alpha unless others are given."""
    m, classes = len(target), len(outputs[0][0])
    pairs = slow_pairs(target, classes)
    score = [[0.0] * classes for _ in range(m)]
    weights = {p: 1 / len(pairs) for p in pairs}
    last, last_alpha, last_edge, loss = [[0.0] * classes] * m, 0.0, 0.0, float(classes - 1)
    rounds = []
    for k, output in enumerate(outputs):
        r, old = slow_margins(output, target), slow_margins(last, target)
        edge = fsum(weights[p] * r[p] for p in pairs)
        alpha = alphas[k] if alphas else log((1 + edge) / (1 - edge)) / 2
        a = {p: exp(-alpha * r[p]) for p in pairs}
        b = {p: exp(last_alpha * old[p]) for p in pairs}
        mean_a, mean_b, mean_ab = (
            fsum(weights[p] * x for p, x in values)
            for values in (a.items(), b.items(), [(p, a[p] * b[p]) for p in pairs])
        )
        h = [
            [alpha * new - last_alpha * was for new, was in zip(*rows, strict=True)]
            for rows in zip(output, last, strict=True)
        ]
        score = [[s + x for s, x in zip(*rows, strict=True)] for rows in zip(score, h, strict=True)]
        grown = {(i, c): weights[i, c] * exp(h[i][c] - h[i][target[i]]) for i, c in pairs}
        ratio = fsum(grown.values())
        weights = {p: x / ratio for p, x in grown.items()}
        gamma_squared = (edge**2 - last_edge**2) / (1 - last_edge**2)
        wrong = sum(min(r[p] for p in pairs if p[0] == i) <= 0 for i in range(m))
        loss = loss * ratio
        bound = (classes - 1) * sqrt(1 - edge**2)
        covariance = mean_ab - mean_a * mean_b
        rounds.append(
            SlowRound(edge, alpha, gamma_squared, weights, score, loss, ratio, covariance, bound,
                      wrong / m)
        )  # fmt: skip
        last, last_alpha, last_edge = output, alpha, edge
    return rounds


def slow_costs(score: Rows, target: Sequence[int]) -> list[list[float]]:
    """Lemma F.1, entry by entry."""
    costs = []
    for row, y in zip(score, target, strict=True):
        line = [exp(s - row[y]) for s in row]
        line[y] = -fsum(x for c, x in enumerate(line) if c != y)
        costs.append(line)
    return costs


def slow_cost_edge(costs: Rows, output: Rows, target: Sequence[int]) -> float:
    """Edge as the paper has it: minus the cost of the outputs over the sum of positive costs."""
    above = fsum(
        c * o for lines in zip(costs, output, strict=True) for c, o in zip(*lines, strict=True)
    )
    below = fsum(costs[i][c] for i, c in slow_pairs(target, len(costs[0])))
    return -above / below


def slow_line_search(output: Rows, target: Sequence[int], largest: float) -> float:
    """The alpha of least loss, by thirds."""
    low, high = 0.0, largest
    for _ in range(200):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if slow_loss(output, target, left) <= slow_loss(output, target, right):
            high = right
        else:
            low = left
    return (low + high) / 2


def slow_stumps(inputs: Rows, labels: Sequence[int], rounds: int):
    """AdaBoost with decision stumps: votes c in {-1, 1}, errors, coefficients b, weights."""
    m = len(labels)
    weights, found = [1 / m] * m, []
    for _ in range(rounds):
        best: tuple[float, list[int]] = (2.0, [])
        for axis in range(len(inputs[0])):
            values = sorted({row[axis] for row in inputs})
            for cut in [(u + v) / 2 for u, v in pairwise(values)]:
                for sign in (-1, 1):
                    votes = [sign if row[axis] > cut else -sign for row in inputs]
                    wrong = fsum(
                        w for w, v, y in zip(weights, votes, labels, strict=True) if v != y
                    )
                    best = min(best, (wrong, votes))
        error, votes = best
        coefficient = log((1 - error) / error) / 2
        grown = [
            w * exp(-coefficient * v * y) for w, v, y in zip(weights, votes, labels, strict=True)
        ]
        weights = [w / fsum(grown) for w in grown]
        found.append((votes, error, coefficient, weights))
    return found


def slow_project_l1(row: Sequence[float], radius: float) -> list[float]:
    """Nearest point of the l1 ball: lower all sizes alike, by as much as bisection says."""
    if fsum(abs(x) for x in row) <= radius:
        return list(row)
    low, high = 0.0, max(abs(x) for x in row)
    for _ in range(200):
        cut = (low + high) / 2
        left = fsum(max(abs(x) - cut, 0.0) for x in row)
        low, high = (cut, high) if left > radius else (low, cut)
    return [max(abs(x) - low, 0.0) * (1 if x > 0 else -1) for x in row]
