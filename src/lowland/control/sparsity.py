r"""Sparsity as a setting: the share of nonzero weights is a constraint, lambda its multiplier.

Maximizing :math:`\sum_t \langle W_t, \bar M_t\rangle - \rho_t \|W_t - W_t^k\|^2` over ternary
weights of which at most K are nonzero is exact and elementwise: rank the weights by what being
nonzero gains, and keep the K first. The K-th gain is the price lambda at which the ternary rule
gives the same answer.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["nonzero_schedule", "price_of_share"]

SAMPLE = 2**15  # weights that are ranked; at 2 % nonzero the share is off by 0.1 points (deviation)


def price_of_share(
    weights: Sequence[tuple[Tensor, Tensor, float]], share: float, *, offset: int = 0
) -> Tensor:
    r"""Find the lambda at which the ternary rule leaves a given share of weights nonzero.

    A nonzero weight gains :math:`|\bar M + 2\rho w| - \rho` over a zero one.

    Args:
        weights: Weight, average and penalty rho of every tensor; the share is over all together.
        share: Of nonzero weights, 0 to 1.
        offset: With more than 2^15 weights every n-th is ranked, from this one on: a step number.

    Returns:
        The price, at least 0, shape ``()``: there may be fewer nonzero weights if more do not pay.

    Source:
        Ours.
    """
    stride = max(1, sum(weight.numel() for weight, _, _ in weights) // SAMPLE)
    gains = []
    for weight, average, rho in weights:
        part = slice(offset % stride, None, stride)
        m, w = average.reshape(-1)[part], weight.reshape(-1)[part].to(average.dtype)
        gains.append((m + 2 * rho * w).abs() - rho)
    ranked = torch.cat(gains)
    k = round(len(ranked) * (1 - share))
    if k < 1 or not len(ranked):
        return ranked.new_zeros(())
    # just above the k-th gain, as a tie would keep its weight
    return ranked.kthvalue(k).values.clamp_(min=0) * (1 + 1e-6)


def nonzero_schedule(
    target: float, steps: int, *, start: float = 2 / 3, until: float = 0.25
) -> Callable[[int], float]:
    """Lower the share of nonzero weights along a cubic to its target, then hold it.

    Args:
        target: Share at the end.
        steps: Of the whole run.
        start: Share at its beginning; 2/3 for weights drawn from -1, 0, 1.
        until: Share of the run after which the target is reached.

    Returns:
        The share as a function of the step.

    Source:
        The cubic of Zhu & Gupta, 2017 (arXiv 1710.01878).
    """

    def share(step: int) -> float:
        left = max(0.0, 1 - step / max(1.0, until * steps))
        return target + (start - target) * left**3

    return share
