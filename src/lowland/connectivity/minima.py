"""Many minima: read, laid out as vectors, and measured."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor, nn

from lowland.connectivity.band import chosen_backend
from lowland.connectivity.checks import refuse_no_model
from lowland.connectivity.ends import read_ends
from lowland.connectivity.profile import measure_points
from lowland.connectivity.schedule import Schedule
from lowland.connectivity.task import Task, digest, make_task
from lowland.results import read_json, write_json
from lowland.training import Source, broadcast, is_main_process, match_state, read_state

__all__ = ["fingerprint", "gather", "measured", "read_minima"]


def read_minima(model: nn.Module, minima: Sequence[Source]) -> list[dict[str, Tensor]]:
    """Read all minima; what is wrong with one is told with its number."""
    refuse_no_model(model, "minima")
    if not isinstance(minima, Sequence | Mapping | FilePath | nn.Module):
        raise TypeError(
            "minima must be a list of state dicts, modules or checkpoint files; got a "
            f"{type(minima).__name__}."
        )
    one = isinstance(minima, str | FilePath | Mapping | nn.Module)
    if one or len(minima) < 2:
        count = 1 if one else len(minima)
        raise ValueError(
            f"a landscape needs at least 2 minima to connect; got {count}. Pass a list of state "
            "dicts, modules or checkpoint files."
        )
    return [match_state(model, read_state(m), f"minima[{k}]") for k, m in enumerate(minima)]


def gather(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    states: list[dict[str, Tensor]],
    schedule: Schedule,
    **options: Any,
) -> tuple[Task, Tensor]:
    """Make the task of the first pair, and lay all minima out as vectors."""
    vectors = []
    for number, state in enumerate(states[1:], start=1):
        try:
            _, start, end = read_ends(
                model, loss_fn, states[0], state, batch_norm=schedule.batch_norm
            )
        except ValueError as error:
            raise ValueError(f"minima[0] (start) and minima[{number}] (end): {error}") from error
        vectors += [end] if vectors else [start, end]
    task = make_task(
        model, loss_fn, batches, states[0], states[1],
        batch_norm=schedule.batch_norm, examples=schedule.examples,
        calibration=schedule.calibration, **options,
    )  # fmt: skip
    return task, torch.stack(vectors)


def fingerprint(task: Task, vectors: Tensor) -> dict[str, Any]:
    """What tells this exploration from another, whatever its order and budget."""
    values = task.fingerprint()
    first, _ = values.pop("start"), values.pop("end")
    return values | {"minima": [first, *map(digest, vectors[1:])]}


def measured(
    task: Task, vectors: Tensor, backend: str, folder: FilePath | None
) -> dict[str, Tensor]:
    """Losses and errors of the minima, on everything that is to be reported."""
    file = None if folder is None else folder / "minima.json"
    if file is not None and broadcast(file.exists()):
        values = read_json(file)
        return {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()}
    data = [task.reported] if task.test_batches is None else [task.reported, task.test_batches]
    backend = chosen_backend(backend, task.stack, vectors, task.deciding[0])
    columns = measure_points(
        task.stack.with_backend(backend), lambda rows: vectors[list(rows)], len(vectors), data,
        calibration=task.calibration, seed=task.seed,
    )  # fmt: skip
    found: dict[str, Tensor] = {}
    for name, (losses, errors) in zip(("train", "test"), columns, strict=False):
        found[f"{name}_loss"] = losses
        if errors is not None:
            found[f"{name}_error"] = errors
    bad = (~found["train_loss"].isfinite()).nonzero()
    if len(bad):
        raise ValueError(
            f"every minimum must have a finite loss; that of minima[{int(bad[0])}] is "
            f"{float(found['train_loss'][bad[0]])}. Check the checkpoint, the model and how the "
            "inputs are normalized."
        )
    if file is not None and is_main_process():
        write_json(file, found)
    return found
