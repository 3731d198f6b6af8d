"""A path that somebody has found, read as one of a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.connectivity.path import Path
from lowland.connectivity.stack import recalibrated
from lowland.connectivity.task import TRIED, Task, make_task

__all__ = ["read_path"]


def read_path(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    path: Path,
    *,
    calibration: int,
    seed: int,
    batch_norm: str | None = None,
    examples: int = TRIED,
    test_batches: Any = None,
    evaluation_batches: Any = None,
) -> tuple[Task, Path]:
    """Check that a path is one of a model, and write it in the coordinates of that model.

    Pivots that lie on the host stay there, and are brought to the model a few at a time.

    Args:
        model: The architecture; stays as it is.
        loss_fn: From output and target to one loss per example.
        batches: Training batches.
        path: The path.
        calibration: Examples over which batch-norm statistics are recomputed.
        seed: Decides which examples are used.
        batch_norm: ``"recalibrate"`` or ``"interpolate"``; None takes statistics that moved with
            the path, and recomputes them for any other.
        examples: Fixed training examples, for what does not need all.
        test_batches: Test batches, or None.
        evaluation_batches: As for :func:`lowland.connectivity.task.make_task`.

    Returns:
        The task of its ends, and the path.

    Raises:
        TypeError: If the path is none.
        ValueError: If it does not fit the model, or a batch or a setting is wrong.
    """
    refuse_other(path)
    moved = any(name.endswith("running_mean") for name in path.layout.names)
    task = make_task(
        model,
        loss_fn,
        batches,
        path.state_dict(0),
        path.state_dict(1),
        batch_norm=batch_norm or ("interpolate" if moved else "recalibrate"),
        examples=examples,
        calibration=calibration,
        test_batches=test_batches,
        evaluation_batches=evaluation_batches,
        seed=seed,
    )
    on_host = path.pivots.device.type == "cpu" and task.stack.device.type != "cpu"
    task = replace(task, stack=replace(task.stack, streams=on_host))
    return task, task.path(coordinates(task, path), path.weights)


def refuse_other(path: Any) -> None:
    """Refuse what holds a path but is none."""
    if not isinstance(path, Path):
        hint = "its .path" if hasattr(path, "path") else "Path.load(file)"
        raise TypeError(
            f"path must be a lowland.connectivity.Path; got a {type(path).__name__}. Pass {hint}."
        )


def coordinates(task: Task, path: Path) -> Float[Tensor, "pivots params"]:
    """The pivots in the task's coordinates, with statistics behind the parameters if they move."""
    home = path.pivots.device if task.stack.streams else task.stack.device
    pivots = path.pivots.to(home, task.start.dtype)
    named = path.layout.views(pivots)
    missing = [name for name in task.stack.params.names if name not in named]
    if missing:
        raise ValueError(
            f"path must hold every trainable parameter of the model; {missing[0]} is missing. "
            "Pass the architecture that the path was found for, with the same parameters frozen."
        )
    wanted = task.stack.layout.names
    if path.layout.names == wanted:  # no second copy of a large path
        return pivots
    if any(name not in named for name in wanted):  # statistics did not move
        still = replace(task.stack, statistics_move=False)
        params = joined(named, task.stack.params.names)
        found = recalibrated(still, params, task.calibration)
        named |= {name: value.to(home) for name, value in found.items()}
    return joined(named, wanted)


def joined(named: Mapping[str, Tensor], names: Sequence[str]) -> Float[Tensor, "rows params"]:
    """Stacked tensors side by side in one row per network."""
    return torch.cat([named[name].reshape(len(named[name]), -1) for name in names], dim=1)
