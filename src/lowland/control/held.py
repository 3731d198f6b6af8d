"""One discrete weight in one step: average, penalty, rule, in blocks that stay in the cache."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lowland.control.rules import binary_rule, finite_set_rule, largest_wrong, ternary_rule

__all__ = ["BINARY", "TERNARY", "Held", "apply_rule", "average_type", "smallest_gap"]

BINARY, TERNARY = (-1.0, 1.0), (-1.0, 0.0, 1.0)
BLOCK = 2**16  # numbers; their temporaries fit in the cache of one core
FINE_GAMMA = 1e-5  # below it an increment is a few units in the last place of a float32 average


@dataclass
class Held:
    """A weight, its gradient, its average and its penalty.

    Attributes:
        group: Settings of its group.
        weight: The parameter.
        gradient: What is averaged.
        average: M, changed in place.
        name: What to call it.
        alive: Which rows have a gradient that counts, as that of others is taken for zero; None
            for all.
        rho: Penalty on a move, in the units of the average, once it is known.
        lam: Price of a squared weight, likewise.
        is_right: No weight is wrong, so none will change.
    """

    group: dict[str, Any]
    weight: Tensor
    gradient: Tensor
    average: Tensor
    name: str
    alive: Tensor | None = None
    rho: float = 0.0
    lam: float = 0.0
    is_right: bool = False

    def __post_init__(self) -> None:
        """Cut weight, average and gradient into flat blocks; on a GPU they stay whole."""
        whole = self.weight.detach()
        self.flat_weight = whole.reshape(-1)  # a copy where the weight is not contiguous
        parts = self.flat_weight, self.average.view(-1), self.gradient.reshape(-1)
        if self.weight.numel() <= BLOCK or self.weight.device.type != "cpu":
            self.blocks = [parts]
        else:
            self.blocks = list(zip(*(tensor.split(BLOCK) for tensor in parts), strict=True))

    def accumulate(self, gamma: float) -> Tensor:
        """Update the average, and find the largest of it among the wrong weights.

        Args:
            gamma: Weight of the new gradient.

        Returns:
            m, 0-dim.
        """
        values, group = self.group["values"], self.group
        lam = 0.0 if group["lam_relative"] else group["lam"]
        found = []
        for number, (weight, average, whole) in enumerate(self.blocks):
            gradient = self.counting(whole, number * BLOCK)
            average.mul_(1 - gamma).add_(gradient, alpha=-gamma)
            if group["threshold"] == "relative":
                found.append(largest_wrong(weight, average, values, lam))
        if not found:
            return self.average.new_zeros(())
        return found[0] if len(found) == 1 else torch.stack(found).amax()

    def counting(self, gradient: Tensor, start: int) -> Tensor:
        """Take the gradient of rows that do not count for zero, in a copy of one block.

        Args:
            gradient: Of a flat block.
            start: Where in the weight it begins.

        Returns:
            The gradient, or the block itself where all of its rows count.
        """
        if self.alive is None:
            return gradient
        width, stop = self.weight.numel() // len(self.alive), start + len(gradient)
        first = start // width
        alive = self.alive[first : -(-stop // width)]
        if gradient.device.type == "cpu" and alive.all():
            return gradient
        head = min(-start % width, len(gradient))  # of a row that began in the block before
        tail = (stop - start - head) % width
        found = gradient.clone()
        found[:head] *= alive[0]
        rows = found[head : len(found) - tail].view(-1, width)
        rows *= alive[bool(head) : bool(head) + len(rows)].unsqueeze(1)
        found[len(found) - tail :] *= alive[-1]
        return found

    def set_penalty(self, m: float) -> None:
        """Set rho and lambda in the units of the average.

        Args:
            m: What ``accumulate`` found, as a number.
        """
        group = self.group
        is_relative = group["threshold"] == "relative"
        self.rho = group["rho"] * m / smallest_gap(group["values"]) if is_relative else group["rho"]
        self.is_right = is_relative and m == 0 and group["lam"] == 0
        scale = self.average.square().mean().sqrt().item() if group["lam_relative"] else 1.0
        self.lam = group["lam"] * scale

    @torch.no_grad()
    def apply(self, price: float | None = None) -> None:
        """Change the weight by the rule of its set.

        Args:
            price: Lambda, if a target sets it.
        """
        if self.is_right and price is None:
            return
        lam = self.lam if price is None else price
        for weight, average, _ in self.blocks:
            new = apply_rule(weight.to(average.dtype), average, self.group["values"], self.rho, lam)
            weight.copy_(new)
        if not self.weight.is_contiguous():
            self.weight.copy_(self.flat_weight.view(self.weight.shape))


def apply_rule(
    weight: Tensor, average: Tensor, values: tuple[float, ...], rho: float, lam: float
) -> Tensor:
    """Apply the rule of a set.

    Args:
        weight: Present weights.
        average: M, of the same shape.
        values: The set.
        rho: Penalty on a move.
        lam: Price of a squared weight.

    Returns:
        New weights.
    """
    if values == BINARY:
        return binary_rule(weight, average, rho)
    if values == TERNARY:
        return ternary_rule(weight, average, rho, lam)
    return finite_set_rule(weight, average, values, rho, lam)


def average_type(weight: Tensor, gamma: float) -> torch.dtype:
    """Choose the type of an average that holds its next increment.

    Args:
        weight: What is trained.
        gamma: ``1 - alpha`` of the next step.

    Returns:
        That of the weight, but at least float32, and float64 below 1e-5.
    """
    if 0 < gamma < FINE_GAMMA:
        return torch.float64
    return torch.promote_types(weight.dtype, torch.float32)


def smallest_gap(values: tuple[float, ...]) -> float:
    """Find the distance of the closest two values.

    Args:
        values: Ascending.

    Returns:
        The gap, 1 for a single value.
    """
    return min(b - a for a, b in pairwise(values)) if len(values) > 1 else 1.0
