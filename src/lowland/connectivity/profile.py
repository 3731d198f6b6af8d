"""Loss and error all along a path, densely enough to say what its highest point is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.path import arc_fractions, points_between, wide_type
from lowland.connectivity.quiet import quiet_vmap
from lowland.connectivity.stack import Stack, per_example, recalibrated
from lowland.training import (
    all_sum,
    as_pair,
    batch_count,
    check_not_empty,
    isolated_rng,
    mode,
    rank_and_world,
    to_device,
)

__all__ = ["Profile", "measure_points", "measure_profile"]

# Coordinates of evaluated points held at once, 256 MiB in float32.
COORDINATES_AT_ONCE = 2**26


@dataclass(frozen=True, eq=False)
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

    def trouble(self) -> str | None:
        """Name the first place whose loss is no finite number.

        Returns:
            A sentence, or None if all are finite.
        """
        for name, what in (("train_loss", "training loss"), ("test_loss", "test loss")):
            values = getattr(self, name)
            if values is not None and not torch.isfinite(values).all():
                at = int((~torch.isfinite(values)).nonzero()[0])
                return (
                    f"the {what} at t = {float(self.t[at]):.3f} (point {at + 1} of {len(self.t)}) "
                    f"is {float(values[at])}. Look for such a number in the data."
                )
        return None

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
    seed: int = 0,
) -> Profile:
    """Evaluate densely along a path, in evaluation mode.

    Args:
        stack: What the networks of the path have in common.
        path: Pivots, ends included.
        samples: Points strictly inside each segment.
        batches: Training data as it is to be reported on.
        calibration: Batches over which batch-norm statistics are recomputed at every point.
        test_batches: Test data, or None.
        seed: Seed of what is random in the batches; every pass draws the same.

    Returns:
        The profile, points evenly spaced in each segment.
    """
    t = arc_fractions(path, samples)
    columns = measure_points(
        stack,
        lambda rows: points_between(path, samples, rows),
        len(t),
        [batches] if test_batches is None else [batches, test_batches],
        calibration=calibration,
        seed=seed,
    )
    (train_loss, train_error), *test = columns
    return Profile(t.cpu().double(), train_loss, train_error, *(test[0] if test else ()))


@quiet_vmap()
def measure_points(
    stack: Stack,
    points_of: Callable[[range], Float[Tensor, "points params"]],
    number: int,
    data: Sequence[Any],
    *,
    calibration: Sequence[tuple[Any, Any]],
    seed: int,
) -> list[tuple[Tensor, Tensor | None]]:
    """Mean loss and error of many networks on some data sets.

    With several processes each takes every so many points.

    Args:
        stack: What the networks have in common.
        points_of: From numbers of points to their parameter vectors.
        number: How many points there are.
        data: Data sets, each a re-iterable of inputs and targets.
        calibration: Batches over which batch-norm statistics are recomputed at every point.
        seed: Seed of what is random in the batches; every pass draws the same.

    Returns:
        For each data set the losses of all points, and their errors or None; in float64 on the
        host.
    """
    rank, world = rank_and_world()
    size = max(1, COORDINATES_AT_ONCE // stack.layout.size)
    if stack.streams:
        size = min(size, stack.rows_at_once or size)
    here = replace(stack, streams=False)  # points are brought once for all batches
    found = torch.zeros(len(data), 2, number, dtype=torch.float64)
    classified = torch.zeros(len(data))
    mine = range(rank, number, world)
    for rows in (mine[i : i + size] for i in range(0, len(mine), size)):
        points = stack.fetch(points_of(rows))
        moves = stack.statistics_move
        statistics = {} if moves else recalibrated(here, points, calibration)
        for index, batches in enumerate(data):
            with isolated_rng(seed, "evaluation", batches=batches):
                columns = losses_at(here, points, batches, statistics)
            classified[index] += len(columns) == 2
            for kind, column in enumerate(columns):
                found[index, kind, rows.start : rows.stop : world] = column
        del points  # before the next are drawn
    found, classified = all_sum(found, stack.device), all_sum(classified, stack.device)
    return [
        (losses, errors if known else None)
        for (losses, errors), known in zip(found, classified, strict=True)
    ]


def losses_at(
    stack: Stack,
    points: Float[Tensor, "points params"],
    batches: Any,
    statistics: dict[str, Tensor],
) -> list[Tensor]:
    """Mean loss of every point, and its error if it classifies, from sums and counts."""
    sums, count = [], 0
    with mode(stack.model, norm_trains=False):
        for batch in batches:
            inputs, target = to_device(as_pair(batch), points.device)
            metrics = per_example(stack, points, inputs, target, statistics)
            added = [total(metric) for metric in metrics]
            sums = [a + b for a, b in zip(sums, added, strict=True)] if count else added
            count += batch_count(target)
    check_not_empty(len(sums))
    return [column.cpu().double() / count for column in sums]


def total(metric: Tensor) -> Tensor:
    """Sum over a batch, in float64 where the device has it."""
    return metric.sum(1, dtype=wide_type(metric.device))
