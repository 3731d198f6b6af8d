"""Where the pivots lie, and how many are run together: decided by the memory there is."""

from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

import torch

from lowland.connectivity.checks import refuse_unknown
from lowland.connectivity.folder import kept_choice
from lowland.connectivity.probe import pass_bytes
from lowland.connectivity.schedule import Schedule
from lowland.connectivity.task import Task
from lowland.results import plain
from lowland.training import all_sum, rank_and_world
from lowland.training.memory import free_bytes

__all__ = ["Placement", "known_place", "place", "placed"]

PLACES = ("auto", "device", "cpu")

# Vectors per pivot beside the passes. A relaxation holds 9.1 of them: the path given, path, spare,
# gradient, velocity, last good path, and what a step computes together. Two more are the path of
# the cycle before and the best path.
KEPT = 12

# Vectors of one pivot in a pass besides its activations: the gradients of its tensors; and where
# it was brought from the host, itself and its gradient in one piece.
PASSING, BROUGHT = 1, 2

# Of the free memory. The rest is for workspaces, temporaries and holes.
SHARE = 0.5


@dataclass(frozen=True)
class Placement:
    """Where the pivots of a search lie.

    Attributes:
        pivots_on: ``"device"``, that of the network, or ``"cpu"``, from where they are brought.
        rows_at_once: Most of them that are run together; None where memory sets no limit.
    """

    pivots_on: str
    rows_at_once: int | None = None


def placed(
    asked: str, device: torch.device, free: int, pivots: int, vector: int, activations: int
) -> Placement:
    """Decide from bytes alone.

    Args:
        asked: ``"auto"``, ``"device"`` or ``"cpu"``.
        device: Of the network; next to a CPU there is no other memory to put pivots into.
        free: Bytes that can be had there.
        pivots: Most pivots of the band, ends included.
        vector: Bytes of one of them.
        activations: Bytes that one of them keeps for its way back.

    Returns:
        The placement.

    Raises:
        torch.OutOfMemoryError: If not even one pivot can be run.
    """
    brought, at_rest = (PASSING + BROUGHT) * vector, pivots * KEPT * vector
    each = PASSING * vector + activations
    room = SHARE * free
    where = asked
    if asked == "auto":
        where = "device" if device.type == "cpu" or at_rest + each <= room else "cpu"
    if where == "cpu":
        each, at_rest = brought + activations, 0
    if each > free:
        raise torch.OutOfMemoryError(
            f"one pivot at a time must fit into the memory of {device}; it takes at least "
            f"{in_words(each)}, {in_words(activations)} of them for the activations of a batch, "
            f"and {in_words(free)} are free. Pass smaller batches, or make room there."
        )
    rows = max(1, int((room - at_rest) // each))
    return Placement(where, rows if rows < pivots else None)


def in_words(count: int) -> str:
    """Write a number of bytes."""
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.2f} GiB"


def place(
    task: Task, schedule: Schedule, pivots_on: str, folder: FilePath | None
) -> tuple[Task, dict[str, Any]]:
    """Put the ends of a task where the pivots are to lie.

    With several processes the one with the least memory decides.

    Args:
        task: With its ends on the device of the network.
        schedule: Says how many pivots there may be.
        pivots_on: ``"auto"``, ``"device"`` or ``"cpu"``.
        folder: Keeps the choice, so that a search that goes on after a kill decides the same.

    Returns:
        The task, and the placement as plain values for the record.

    Raises:
        torch.OutOfMemoryError: If not even one pivot can be run.
    """

    def decide() -> dict[str, Any]:
        device, size = task.stack.device, task.start.nbytes
        free = least(free_bytes(device), device)
        try:
            activations = pass_bytes(task.stack, task.start, task.calibration[0])
        except torch.OutOfMemoryError:  # told in words below
            activations = free
        found = placed(pivots_on, device, free, most_pivots(schedule), size, activations)
        return {"asked": pivots_on} | plain(found)

    file = None if folder is None else folder / "placement.json"
    choice = kept_choice(file, decide, lambda kept: kept["asked"] == pivots_on)
    stack = replace(
        task.stack, streams=choice["pivots_on"] == "cpu", rows_at_once=choice["rows_at_once"]
    )
    found = {name: choice[name] for name in ("pivots_on", "rows_at_once")}
    if not stack.streams:
        return replace(task, stack=stack), found
    return replace(task, stack=stack, start=task.start.cpu(), end=task.end.cpu()), found


def least(value: int, device: torch.device) -> int:
    """The smallest of the values that the processes bring."""
    rank, world = rank_and_world()
    values = torch.zeros(world, dtype=torch.int64)
    values[rank] = value
    return int(all_sum(values, device).min())


def most_pivots(schedule: Schedule) -> int:
    """How many pivots a schedule can come to, ends included."""
    segments = 1
    for cycle in schedule.cycles:
        segments += cycle.count * (segments if cycle.insert == "equal" else 1)
    return segments + 1


def known_place(pivots_on: str) -> str:
    """Refuse a name that is none."""
    refuse_unknown(PLACES, pivots_on=pivots_on)
    return pivots_on
