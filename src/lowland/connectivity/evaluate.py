"""Evaluate any path again: on other data, or with batch-norm statistics found another way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.connectivity.checks import refuse_no_whole
from lowland.connectivity.path import Path
from lowland.connectivity.profile import Profile
from lowland.connectivity.stack import recalibrated
from lowland.connectivity.task import Task, make_task

__all__ = ["measure_path", "refuse_other"]


def measure_path(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    path: Path,
    *,
    samples: int = 9,
    test_batches: Any = None,
    evaluation_batches: Any = None,
    batch_norm: str = "recalibrate",
    calibration: int = 2000,
    backend: str = "loop",
    seed: int = 0,
) -> Profile:
    """Measure loss and error along a path that somebody has found.

    With ``batch_norm="interpolate"`` running statistics are recomputed at the pivots, unless they
    moved with the path, and interpolated linearly between them, as the published code does; with
    ``"recalibrate"`` they are recomputed at every point. The difference is what interpolated
    statistics add to a saddle.

    Args:
        model: The architecture; left as it is.
        loss_fn: From output and target to one loss per example, shape ``(batch,)``.
        batches: Training batches of (inputs, target).
        path: From :func:`lowland.connectivity.find_path` or a file.
        samples: Points strictly inside each segment.
        test_batches: Test batches, for test loss and error.
        evaluation_batches: Training data as the reported losses see it; by default
            ``batches.evaluation()`` if there is one (un-augmented), else ``batches``.
        batch_norm: ``"recalibrate"`` or ``"interpolate"``.
        calibration: Examples over which statistics are recomputed.
        backend: ``"vmap"`` or ``"loop"``.
        seed: Decides which examples are used where the batches draw from torch's generators.

    Returns:
        The profile.

    Raises:
        ValueError: If the path does not fit the model, or a batch or a setting is wrong.

    Source:
        The specification's section 4, row 5.
    """
    refuse_other(path)
    refuse_no_whole(0, samples=samples)
    task = make_task(
        model,
        loss_fn,
        batches,
        path.state_dict(0),
        path.state_dict(1),
        batch_norm=batch_norm,
        examples=1,
        calibration=calibration,
        test_batches=test_batches,
        evaluation_batches=evaluation_batches,
        seed=seed,
    )
    pivots = task.path(coordinates(task, path, backend), path.weights)
    return task.measure(pivots, samples, backend, everything=True)


def refuse_other(path: Any) -> None:
    """Refuse what holds a path but is none."""
    if not isinstance(path, Path):
        hint = "its .path" if hasattr(path, "path") else "Path.load(file)"
        raise TypeError(
            f"path must be a lowland.connectivity.Path; got a {type(path).__name__}. Pass {hint}."
        )


def coordinates(task: Task, path: Path, backend: str) -> Float[Tensor, "pivots params"]:
    """The pivots in the task's coordinates, with statistics behind the parameters if they move."""
    named = path.layout.views(path.pivots.to(task.start))
    missing = [name for name in task.stack.params.names if name not in named]
    if missing:
        raise ValueError(
            f"path must hold every trainable parameter of the model; {missing[0]} is missing. "
            "Pass the architecture that the path was found for, with the same parameters frozen."
        )
    if any(name not in named for name in task.stack.layout.names):  # statistics did not move
        still = replace(task.stack, statistics_move=False, backend=backend)
        params = joined(named, task.stack.params.names)
        named |= recalibrated(still, params, task.calibration)
    return joined(named, task.stack.layout.names)


def joined(named: Mapping[str, Tensor], names: Sequence[str]) -> Float[Tensor, "rows params"]:
    """Stacked tensors side by side in one row per network."""
    return torch.cat([named[name].reshape(len(named[name]), -1) for name in names], dim=1)
