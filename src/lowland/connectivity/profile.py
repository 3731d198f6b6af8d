"""Loss and error all along a path, densely enough to say what its highest point is."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.path import arc_fractions, points_between
from lowland.connectivity.stack import Stack, mode, per_example, recalibrated
from lowland.training import all_sum, as_pair, batch_count, rank_and_world, to_device

__all__ = ["Profile", "losses_at", "measure_profile"]

# Coordinates of evaluated points held at once, 256 MiB in float32.
COORDINATES_AT_ONCE = 2**26


@dataclass(frozen=True)
class Profile:
    """Metrics at points along a path, in float64 on the host.

    Attributes:
        t: Fraction of the arc length of each point.
        train_loss: Mean training loss, in nats per example for a cross-entropy.
        train_error: Share of wrong top-1 predictions on the training set, or None.
        test_loss: Mean test loss, or None without test data.
        test_error: Likewise.
    """

    t: Float[Tensor, " points"]
    train_loss: Float[Tensor, " points"]
    train_error: Float[Tensor, " points"] | None = None
    test_loss: Float[Tensor, " points"] | None = None
    test_error: Float[Tensor, " points"] | None = None

    def values(self, metric: str) -> Float[Tensor, " points"]:
        """Look up a metric.

        Args:
            metric: Its name.

        Returns:
            Its value at every point; infinite where it is not a number.

        Raises:
            KeyError: If the profile does not have it.
        """
        known = [
            f.name for f in fields(self) if f.name != "t" and getattr(self, f.name) is not None
        ]
        if metric not in known:
            raise KeyError(f"metric must be one of {', '.join(known)}; got {metric!r}.")
        return torch.nan_to_num(getattr(self, metric), nan=float("inf"), posinf=float("inf"))

    def saddle(self, metric: str = "train_loss") -> float:
        """Highest value along the path, ends included; every metric takes its own maximum.

        Args:
            metric: Its name.

        Returns:
            The maximum over all points.
        """
        return float(self.values(metric).max())

    def barrier_max(self, metric: str = "train_loss") -> float:
        """Saddle above the higher end.

        Args:
            metric: Its name.

        Returns:
            Zero if an end is the highest point.
        """
        values = self.values(metric)
        return float(values.max() - torch.maximum(values[0], values[-1]))

    def barrier_mid(self, metric: str = "train_loss") -> float:
        """Saddle above the mean of both ends.

        Args:
            metric: Its name.

        Returns:
            The difference.
        """
        values = self.values(metric)
        return float(values.max() - (values[0] + values[-1]) / 2)

    def barrier_lin(self, metric: str = "train_loss") -> float:
        """Largest excess over the line that joins the values of both ends.

        Args:
            metric: Its name.

        Returns:
            The maximum over t of L(t) - (1 - t) L(0) - t L(1).
        """
        values = self.values(metric)
        return float((values - torch.lerp(values[0], values[-1], self.t)).max())


def measure_profile(
    stack: Stack,
    path: Float[Tensor, "pivots params"],
    samples: int,
    batches: Any,
    *,
    calibration: Sequence[tuple[Any, Any]],
    test_batches: Any = None,
) -> Profile:
    """Evaluate densely along a path, in evaluation mode.

    Args:
        stack: What the networks of the path have in common.
        path: Pivots, ends included.
        samples: Points strictly inside each segment.
        batches: Training data as it is to be reported on.
        calibration: Batches over which batch-norm statistics are recomputed at every point.
        test_batches: Test data, or None.

    Returns:
        The profile, points evenly spaced in each segment.
    """
    t = arc_fractions(path, samples)
    rows = max(1, COORDINATES_AT_ONCE // path.shape[1])
    found = []
    for start in range(0, len(t), rows):
        points = points_between(path, samples, range(start, min(start + rows, len(t))))
        statistics = None if stack.statistics_move else recalibrated(stack, points, calibration)
        columns = losses_at(stack, points, batches, statistics)
        if test_batches is not None:
            columns += losses_at(stack, points, test_batches, statistics)
        found.append(columns)
    joined = [None if part[0] is None else torch.cat(part) for part in zip(*found, strict=True)]
    train_loss, *others = joined
    assert train_loss is not None  # every chunk has losses
    return Profile(t.double().cpu(), train_loss, *others)


def losses_at(
    stack: Stack,
    points: Float[Tensor, "points params"],
    batches: Any,
    statistics: dict[str, Tensor] | None,
) -> tuple[Tensor, Tensor | None]:
    """Mean loss and error of every point over some batches, from sums and counts.

    With several processes each takes every so many points.

    Args:
        stack: What the points have in common.
        points: Parameter vectors.
        batches: Re-iterable of inputs and targets.
        statistics: Batch-norm statistics of every point, stacked.

    Returns:
        Losses, and errors or None; in float64 on the host.

    Raises:
        ValueError: If there is no batch.
    """
    rank, world = rank_and_world()
    mine = slice(rank, None, world)
    given = {name: value[mine] for name, value in (statistics or {}).items()}
    sums, count = torch.zeros(2, len(points), dtype=torch.float64), 0
    classifies = False
    with mode(stack.model, norm_trains=False):
        for batch in batches:
            inputs, target = to_device(as_pair(batch), points.device)
            metrics = per_example(stack, points[mine], inputs, target, given)
            count += batch_count(target)
            classifies = len(metrics) == 2
            for total, metric in zip(sums, metrics, strict=False):
                total[mine] += metric.double().sum(1).cpu()
    if not count:
        raise ValueError("batches must hold at least one batch; got none. Is the data set empty?")
    sums = all_sum(sums, points.device) / count
    return sums[0], sums[1] if classifies else None
