"""Unbiased covariance traces and mean squares, from sums of gradients that come one by one."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.dynamics.draws import Draws
from lowland.training import all_sum, wide_type

__all__ = ["Found", "PairScatter", "Scatter"]

MAX_BYTES = 10**9  # gradients that are kept for the jackknife; beyond, sums of groups are
FEWEST_GROUPS = 8


@dataclass(frozen=True)
class Found:
    """Numbers of :class:`lowland.dynamics.GradientNoise`."""

    trace: float
    trace_se: float
    mean_square: float
    mean_square_se: float
    loss: float
    loss_variance: float
    count: int


class Scatter:
    r"""Sums of gradients in groups; a group is one batch while the gradients fit into memory.

    From n gradients of B' examples each, :math:`s^2 = (\sum |g|^2 - |\sum g|^2 / n) / (n - 1)`.
    Independent ones have :math:`D = s^2 B' / B` and :math:`G^2 = |\bar g|^2 - s^2 / n`. Parts of
    one epoch of P examples are correlated by :math:`-1 / (P - 1)` per example, which gives
    :math:`D = s^2 (1 - B / P) B' / B` and :math:`G^2 = |\bar g|^2 - s^2 (1 - n B' / P) / n`.

    Args:
        params: Coordinates of a gradient.
        draws: The batches.
        device: Where gradients are.
        unit: B', the examples of one gradient.

    Source:
        Specification, section 3.3; sampling without replacement is ours.
    """

    def __init__(self, params: int, draws: Draws, device: torch.device, *, unit: int):
        self.draws, self.unit, self.device = draws, unit, device
        self.groups = min(draws.count, max(FEWEST_GROUPS, MAX_BYTES // (8 * params)))
        self.sums: dict[int, Tensor] = {}
        self.none = torch.zeros(params, dtype=wide_type(device), device=device)
        # by group: number of gradients, and sum of their squared norms
        self.table = torch.zeros(self.groups, 2, dtype=torch.float64)
        self.losses = torch.zeros(draws.count, dtype=torch.float64)

    def add(self, number: int, loss: float, total: Tensor, squares: float, count: int) -> None:
        """Take the gradients of one batch.

        Args:
            number: Of the batch.
            loss: Its mean loss.
            total: Sum of the gradients.
            squares: Sum of their squared norms.
            count: How many they are.
        """
        group = number % self.groups
        self.losses[number] = loss
        self.table[group] += torch.tensor([count, squares], dtype=torch.float64)
        self.sums[group] = self.sums.get(group, self.none) + total

    def result(self) -> Found:
        """Compute both estimates, and their errors by leaving out each group in turn.

        Returns:
            The numbers.
        """
        whole = all_sum(sum(self.sums.values(), self.none))
        dots = torch.zeros(self.groups, 2, dtype=torch.float64)
        for group, part in self.sums.items():
            dots[group, 0], dots[group, 1] = part.dot(whole).item(), part.dot(part).item()
        table = all_sum(torch.cat([self.table, dots], 1), self.device)
        counts, squares, cross, own = table.T
        square = whole.dot(whole).item()
        trace, mean_square = self.estimates(counts.sum(), squares.sum(), square)
        left = self.estimates(
            counts.sum() - counts, squares.sum() - squares, square - 2 * cross + own
        )
        errors = [jackknife(values) for values in left]
        return Found(
            float(trace),
            errors[0],
            float(mean_square),
            errors[1],
            *mean_and_variance(all_sum(self.losses, self.device)),
            count=int(counts.sum()),
        )

    def estimates(self, n: Tensor, squares: Any, square: Any) -> tuple[Tensor, Tensor]:
        """D and G^2 from the number, the squared norms, and the squared norm of the sum."""
        draws = self.draws
        sample = (squares - square / n) / (n - 1)
        trace = sample * (1 - draws.batch_size / draws.examples) * self.unit / draws.batch_size
        return trace, square / n**2 - sample * (1 - n * self.unit / draws.examples) / n


class PairScatter:
    r"""Half the squared distance of two gradients, and their product, for pairs of batches.

    Args:
        draws: The batches.
        device: Where gradients are.

    Source:
        Specification, section 3.3.
    """

    def __init__(self, draws: Draws, device: torch.device):
        self.draws, self.device = draws, device
        self.table = torch.zeros(draws.count // 2, 2, dtype=torch.float64)
        self.losses = torch.zeros(draws.count // 2 * 2, dtype=torch.float64)
        self.first: Tensor | None = None

    def add(self, number: int, loss: float, gradient: Float[Tensor, " params"]) -> None:
        """Take the gradient of a batch; the two of a pair come one after the other.

        Args:
            number: Of the batch.
            loss: Its mean loss.
            gradient: The gradient.
        """
        if number >= len(self.losses):
            return
        self.losses[number] = loss
        if number % 2 == 0:
            self.first = gradient
        elif self.first is not None:
            apart = (gradient - self.first).dot(gradient - self.first).item() / 2
            both = torch.tensor([apart, gradient.dot(self.first).item()], dtype=torch.float64)
            self.table[number // 2] = both

    def result(self) -> Found:
        """Average over the pairs.

        Returns:
            The numbers.
        """
        share = self.draws.batch_size / self.draws.examples
        apart, product = all_sum(self.table, self.device).T
        traces, squares = apart * (1 - share), product + apart * share
        error = [(values.var() / len(values)).sqrt().item() for values in (traces, squares)]
        return Found(
            traces.mean().item(),
            error[0],
            squares.mean().item(),
            error[1],
            *mean_and_variance(all_sum(self.losses, self.device)),
            count=len(self.losses),
        )


def mean_and_variance(values: Float[Tensor, " values"]) -> tuple[float, float]:
    """Mean and unbiased variance."""
    return values.mean().item(), values.var().item()


def jackknife(left_out: Float[Tensor, " groups"]) -> float:
    """Standard error of an estimate, from the estimates with each group left out."""
    groups = len(left_out)
    return sqrt((groups - 1) / groups * (left_out - left_out.mean()).square().sum().item())
