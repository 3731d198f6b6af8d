"""The loop that the methods of the maximum principle share: look, choose, write, and say why."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowland.control.result import MSAResult
from lowland.results import Status, open_folder, plain
from lowland.training import (
    Log,
    Progress,
    autocast,
    check_batches,
    device_of,
    interruptible,
    kept_mode,
    open_progress,
)

__all__ = ["Ended", "as_result", "checked_run", "refuse_infinite", "sweep"]


@dataclass(frozen=True)
class Ended:
    """How a loop ended.

    Attributes:
        status: As in the result.
        curve: One row per set of weights that was looked at.
        steps: Updates that made the weights.
        message: A sentence.
    """

    status: Status
    curve: list[dict[str, Any]]
    steps: int
    message: str


def sweep(
    model: nn.Module,
    look: Callable[[], tuple[float, Any]],
    choose: Callable[[Any], tuple[dict[str, Tensor], dict[str, Any]]],
    steps: int | None,
    progress: bool | None | Progress,
    description: str,
    log: Log | None = None,
) -> Ended:
    """Look at the present weights, choose new ones, write them; again and again.

    Args:
        model: Its parameters are written in place. It is in train mode meanwhile.
        look: Measures the loss at the present weights; what it found besides goes to ``choose``.
        choose: Gives new weights by name, and further plain values for the row of the curve.
        steps: Largest number of updates; None goes on until nothing changes.
        progress: See :func:`lowland.training.open_progress`.
        description: What the display says.
        log: Called with every row of the curve and its step, when the row is whole; None for none.

    Returns:
        How it ended. A loss or a weight that is not finite leaves the last weights whose loss was.
    """  # noqa: DOC501
    curve: list[dict[str, Any]] = []
    good: dict[str, Tensor] = {}
    named = dict(model.named_parameters())
    with (
        kept_mode(model),
        autocast(device_of(model), "float32"),
        open_progress(progress) as display,
        display.task(description, steps) as task,
        interruptible() as interrupt,
    ):
        model.train()
        while True:
            step = len(curve)
            try:
                loss, seen = look()
                if not isfinite(loss):
                    raise FloatingPointError(f"the loss must be finite; got {loss}.")
            except FloatingPointError as error:
                write(named, good)
                return broken(curve, step - 1, str(error))
            row = {"step": step, "loss": loss}
            curve.append(row)
            if step == steps:
                tell(log, row)
                return Ended(Status.FINISHED, curve, step, f"did all {step} steps.")
            if interrupt.requested:
                tell(log, row)
                return Ended(Status.INTERRUPTED, curve, step, f"stopped after step {step}.")
            try:
                new, more = choose(seen)
                check_shapes(named, new)
                refuse_infinite(new, "new value")
            except FloatingPointError as error:
                return broken(curve, step, str(error))
            row |= more
            row["changed"] = changed_entries(named, new)
            tell(log, row)
            if not row["changed"]:
                return Ended(
                    Status.CONVERGED, curve, step, f"no weight changes any more after step {step}."
                )
            good = {name: named[name].detach().clone() for name in new}
            write(named, new)
            task.advance(note=f"loss {loss:.4g}")


def tell(log: Log | None, row: dict[str, Any]) -> None:
    """Give a row to the user's log, if there is one."""
    if log is not None:
        log(plain(row), row["step"])


def refuse_infinite(named: Mapping[str, Tensor], what: str) -> None:
    """Name the first tensor that is not finite.

    Args:
        named: Tensors by the names of parameters.
        what: What the tensors are.

    Raises:
        FloatingPointError: If there is one; the loop makes a status of it.
    """
    for name, value in named.items():
        if not value.isfinite().all():
            raise FloatingPointError(f"the {what} of {name} must be finite; it is not.")


def broken(curve: list[dict[str, Any]], step: int, why: str) -> Ended:
    """End where something is not finite, and say which weights are left."""
    left = f"The weights are those of step {step}." if step >= 0 else "The weights are as given."
    return Ended(Status.NOT_FINITE, curve, max(step, 0), f"{why} {left}")


def check_shapes(named: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
    """Refuse new controls that do not fit the model."""
    for name, value in new.items():
        if name not in named or named[name].shape != value.shape:
            wanted = f"shape {tuple(named[name].shape)}" if name in named else "none of this name"
            raise ValueError(
                f"new controls must fit the parameters of the model; got {name!r} of shape "
                f"{tuple(value.shape)}, but the model has {wanted}."
            )


@torch.no_grad()
def write(named: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
    """Write new values into parameters."""
    for name, value in new.items():
        named[name].copy_(value)


def changed_entries(named: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> int:
    """Count the entries that would change."""
    return sum(int((named[name] != value).sum()) for name, value in new.items())


def as_result(
    model: nn.Module,
    ended: Ended,
    folder: Path | None,
    *,
    discrete: Iterable[str] = (),
    message: str = "",
    summary: Mapping[str, Any] | None = None,
) -> MSAResult:
    """Make the result of a loop, and save it if there is a folder.

    Args:
        model: The model.
        ended: How the loop ended.
        folder: Where to save it, or None.
        discrete: Names of the discrete weights.
        message: Further sentence.
        summary: Further plain values.

    Returns:
        The result.
    """
    named = dict(model.named_parameters())
    weights = [named[name].detach() for name in discrete]
    total = sum(weight.numel() for weight in weights)
    result = MSAResult(
        ended.status,
        ended.curve,
        ended.steps,
        f"{ended.message} {message}".strip(),
        sum(int(weight.count_nonzero()) for weight in weights) / total if total else None,
        dict(summary or {}),
        {name: value.detach().clone() for name, value in model.state_dict().items()},
    )
    if folder is not None:
        result.save(folder)
    return result


def checked_run(
    batches: Any, out: str | Path | None, settings: Mapping[str, Any], steps: int | None
) -> Path | None:
    """Check what all these drivers take, before anything is computed.

    Args:
        batches: Must be iterable more than once.
        out: Folder for the result, or None.
        settings: What decides the numbers of the run.
        steps: Must be a whole number, at least 1, or None.

    Returns:
        The folder, opened, or None.

    Raises:
        ValueError: If an argument is not what it must be.
    """
    if steps is not None and not (steps >= 1 and steps % 1 == 0):
        raise ValueError(f"steps must be a whole number, at least 1; got {steps}.")
    check_batches(batches)
    return None if out is None else open_folder(out, {**settings, "steps": steps})
