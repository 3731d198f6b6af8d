"""The paper's XOR cartoon as an experiment: two hidden units make a barrier, more remove it."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity import (
    arc_fractions,
    from_potential,
    insert_equal,
    points_between,
    relax,
)
from lowland.params import trainable
from lowland.problems import XorNetwork, xor_ends, xor_scores, xor_targets
from lowland.training import generator

__all__ = ["Xor", "measure_xor"]

# Points inside each of the 22 segments where loss and error are looked at.
SAMPLES = 9


@dataclass(frozen=True)
class Xor:
    """A tanh network with two inputs and one output, its two units swapped along a path.

    Attributes:
        hidden: Numbers of hidden units to try.
        repetitions: Paths for each, from different noise.
        pivots: Interior pivots.
        steps: Full-batch steps.
        learning_rate: Of SGD.
        momentum: Of SGD.
        noise: Standard deviation of the noise that leaves the straight line.
    """

    hidden: tuple[int, ...]
    repetitions: int
    pivots: int = 21
    steps: int = 3000
    learning_rate: float = 0.1
    momentum: float = 0.9
    noise: float = 0.3


def measure_xor(xor: Xor, display: Any) -> list[dict[str, Any]]:
    """Relax paths between a minimum and the same with two units swapped.

    Args:
        xor: The experiment.
        display: Progress display.

    Returns:
        For each number of hidden units and repetition: loss and error of the ends and saddle, and
        the loss along the path.
    """
    found = []
    with display.task("XOR", len(xor.hidden) * xor.repetitions) as bar:
        for hidden in xor.hidden:
            layout = trainable(XorNetwork(hidden))
            a, b = (layout.flatten(state) for state in xor_ends(hidden))
            line, weights = insert_equal(
                torch.stack([a, b]), torch.ones(1, dtype=a.dtype), xor.pivots
            )
            for repetition in range(xor.repetitions):
                draws = generator(repetition, "xor", hidden)
                start = line.clone()
                start[1:-1] += xor.noise * torch.randn(
                    start[1:-1].shape, generator=draws, dtype=start.dtype
                )
                relaxed = relax(
                    start,
                    weights,
                    from_potential(lambda points, hidden=hidden: xor_losses(points, hidden)),
                    steps=xor.steps,
                    learning_rate=xor.learning_rate,
                    momentum=xor.momentum,
                )
                found.append(describe(relaxed.path, line, hidden, repetition))
                bar.advance()
    return found


def xor_losses(points: Float[Tensor, "points params"], hidden: int) -> Float[Tensor, " points"]:
    """Mean logistic loss over the four inputs, in nats."""
    return torch.nn.functional.softplus(-xor_targets() * xor_scores(points, hidden)).mean(1)


def describe(path: Tensor, line: Tensor, hidden: int, repetition: int) -> dict[str, Any]:
    """Loss and error along a relaxed path and along the straight line."""
    points = points_between(path, SAMPLES)
    losses = xor_losses(points, hidden)
    errors = 100 * ((xor_targets() * xor_scores(points, hidden)) <= 0).double().mean(1)
    straight = xor_losses(points_between(line, SAMPLES), hidden)
    return {
        "hidden": hidden,
        "repetition": repetition,
        "end": float(losses[0]),
        "saddle": float(losses.max()),
        "saddle_error": float(errors.max()),
        "line_saddle": float(straight.max()),
        "t": arc_fractions(path, SAMPLES).tolist(),
        "loss": losses.tolist(),
    }
