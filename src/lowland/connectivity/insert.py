"""Where a path needs more pivots: evenly at first, then on the bumps between pivots."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.checks import refuse_no_whole

__all__ = ["Inserted", "insert_equal", "insert_highest", "insertion_residuals"]


@dataclass(frozen=True)
class Inserted:
    """One new pivot.

    Attributes:
        segment: Segment of the old path, from 0.
        alpha: Where in the segment, between 0 and 1.
        residual: How far the loss there lay above the straight line between its pivots, in units
            of the range of losses over the pivots.
    """

    segment: int
    alpha: float
    residual: float


def insertion_residuals(
    losses: Float[Tensor, " points"], samples: int
) -> Float[Tensor, "segments samples"]:
    r"""How far the loss between pivots lies above the line through its two pivots.

    :math:`r_i(\alpha) = [L((1-\alpha) p_i + \alpha p_{i+1}) - (1-\alpha) L_i - \alpha L_{i+1}]
    / (\max_j L_j - \min_j L_j)`, with extremes over pivots only.

    Args:
        losses: Loss at the points of :func:`lowland.connectivity.path.points_between`.
        samples: Points strictly inside each segment, as there.

    Returns:
        Residuals; all zero where the pivots do not differ in loss.

    Raises:
        ValueError: If ``samples`` is no whole number, or the losses are not those of whole
            segments.

    Source:
        Draxler et al., ICML 2018, appendix, Eq. 4, with its inequality turned round.
    """
    refuse_no_whole(0, samples=samples)
    if len(losses) < 2 or (len(losses) - 1) % (samples + 1):
        raise ValueError(
            f"losses must hold the first pivot and {samples + 1} points for each segment; got "
            f"{len(losses)}. Evaluate at points_between(path, samples={samples})."
        )
    pivots = losses[:: samples + 1]
    between = losses[:-1].view(-1, samples + 1)[:, 1:]
    alpha = torch.arange(1, samples + 1, dtype=losses.dtype, device=losses.device) / (samples + 1)
    line = torch.lerp(pivots[:-1, None], pivots[1:, None], alpha[None])
    extent = pivots.max() - pivots.min()
    return torch.where(extent > 0, (between - line) / extent, torch.zeros_like(between))


def insert_equal(
    path: Float[Tensor, "pivots params"], weights: Float[Tensor, " segments"], count: int
) -> tuple[Float[Tensor, "new params"], Float[Tensor, " newsegments"]]:
    """Put pivots evenly into every segment.

    Args:
        path: Pivots, ends included.
        weights: Share of the arc length of each segment.
        count: New pivots per segment.

    Returns:
        The longer path and its weights.

    Raises:
        ValueError: If ``count`` is negative.
    """
    refuse_no_whole(0, count=count)
    alpha = torch.arange(count + 1, dtype=path.dtype, device=path.device) / (count + 1)
    points = torch.lerp(path[:-1, None], path[1:, None], alpha[None, :, None]).flatten(0, 1)
    return torch.cat([points, path[-1:]]), weights.repeat_interleave(count + 1) / (count + 1)


def insert_highest(
    path: Float[Tensor, "pivots params"],
    weights: Float[Tensor, " segments"],
    residuals: Float[Tensor, "segments samples"],
    *,
    count: int,
    threshold: float,
) -> tuple[Float[Tensor, "new params"], Float[Tensor, " newsegments"], tuple[Inserted, ...]]:
    """Put pivots on the highest bumps between pivots, at most one per segment.

    A split segment shares its weight, so that later redistribution keeps the density high where
    pivots were needed.

    Args:
        path: Pivots, ends included.
        weights: Share of the arc length of each segment.
        residuals: From :func:`insertion_residuals`, at evenly spaced points of each segment.
        count: Most pivots to insert.
        threshold: Insert only where the residual is larger.

    Returns:
        The longer path, its weights (sum 1), and what was inserted, highest first.

    Raises:
        ValueError: If ``count`` or ``threshold`` is negative, or the residuals are those of
            another path.
    """
    refuse_no_whole(0, count=count)
    if not threshold >= 0:
        raise ValueError(f"threshold must be zero or more; got {threshold}. Take 0.2.")
    if len(residuals) != len(weights):
        raise ValueError(
            f"residuals must hold a row for each of the {len(weights)} segments; got "
            f"{len(residuals)}. Take those of this path."
        )
    samples = residuals.shape[1]
    if samples == 0 or count == 0:
        return path, weights, ()
    highest, where = residuals.max(dim=1)
    order = highest.argsort(descending=True, stable=True)[:count].tolist()
    chosen = tuple(
        Inserted(i, (int(where[i]) + 1) / (samples + 1), float(highest[i]))
        for i in order
        if highest[i] > threshold
    )
    new_path, new_weights = list(path), weights.tolist()
    for new in sorted(chosen, key=lambda new: -new.segment):  # from the end: indices stay valid
        i = new.segment
        new_path.insert(i + 1, torch.lerp(path[i], path[i + 1], new.alpha))
        share = new_weights[i]
        new_weights[i : i + 1] = [new.alpha * share, (1 - new.alpha) * share]
    shares = torch.tensor(new_weights, dtype=weights.dtype, device=weights.device)
    return torch.stack(new_path), shares / shares.sum(), chosen
