"""Refuse what cannot be trained, and describe what decides the numbers of a run."""

from collections.abc import Mapping
from typing import Any

from lowland.training.batches import check_batches
from lowland.training.device import PRECISIONS
from lowland.training.ranks import rank_and_world
from lowland.training.run import Run

__all__ = ["check_arguments", "describe_run", "length_of"]


def check_arguments(
    batches: Any,
    optimizer: Any,
    precision: str,
    out: Any,
    *,
    epochs: int | None,
    steps: int | None,
    **counts: int | None,
) -> None:
    """Check the arguments of :func:`lowland.training.train`.

    Args:
        batches: Must be iterable more than once.
        optimizer: Must be a function.
        precision: Must be a known one.
        out: Must be None where several processes train together.
        epochs: Must be given if ``steps`` is not.
        steps: Must be given if ``epochs`` is not.
        **counts: Other numbers that must be at least 1, or None.

    Raises:
        ValueError: If one of them is not so.
    """
    if (epochs is None) == (steps is None):
        raise ValueError(
            f"exactly one of epochs and steps must be given; got epochs={epochs}, steps={steps}."
        )
    for name, count in {"epochs": epochs, "steps": steps, **counts}.items():
        if count is not None and (count < 1 or count != int(count)):
            raise ValueError(f"{name} must be a whole number, at least 1; got {count}.")
    check_batches(batches)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}; got {precision!r}.")
    if out is not None and rank_and_world()[1] > 1:
        raise ValueError(
            "out must be None where several processes train together, as one process cannot save "
            f"the random states of the others; got {out}. Save result.state on rank 0."
        )
    if not callable(optimizer):
        raise ValueError(
            "optimizer must be a function of the parameters; got "
            f"{type(optimizer).__name__}. Pass lambda params: torch.optim.SGD(params, lr=0.1)."
        )


def describe_run(run: Run, batches: Any) -> dict[str, Any]:
    """Describe the parts of a run by plain values, so that two runs can be told apart.

    Args:
        run: A run that has not begun.
        batches: Training data.

    Returns:
        Names of classes, sizes, and every plain value of optimizer and schedule.
    """
    schedule, average = run.schedule, run.average
    chosen = {} if run.sampling is None else {"sampling": run.sampling.settings()}
    if hasattr(run.observer, "settings"):
        chosen |= {"observer": run.observer.settings()}
    return chosen | {
        "model": type(run.model).__name__,
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "loss_fn": getattr(run.loss_fn, "__name__", type(run.loss_fn).__name__),
        "batches": length_of(batches),
        "optimizer": type(run.optimizer).__name__,
        "parameter_groups": [plain_items(group) for group in run.optimizer.param_groups],
        "schedule": None if schedule is None else type(schedule).__name__,
        "schedule_values": {} if schedule is None else plain_items(schedule.state_dict()),
        "weight_average": None if average is None else type(average).__name__,
    }


def length_of(batches: Any) -> int | None:
    """Count the batches of an epoch.

    Args:
        batches: Any iterable.

    Returns:
        How many; None if that is not known beforehand.
    """
    try:
        return len(batches)
    except TypeError:
        return None


def plain_items(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the entries that are plain values, or lists of them.

    Args:
        values: Any mapping.

    Returns:
        Those entries.
    """
    return {name: value for name, value in values.items() if is_plain(value)}


def is_plain(value: Any) -> bool:
    """Tell whether a value is a number, a word, nothing, or a list of these."""
    if isinstance(value, list | tuple):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
