"""What several processes of one ``torchrun`` job share: sums, choices, and who writes files."""

from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from lowland.training.floats import wide_type

__all__ = ["all_mean", "all_sum", "broadcast", "is_main_process", "rank_and_world"]

T = TypeVar("T")


def rank_and_world() -> tuple[int, int]:
    """Number of this process, and how many there are.

    Returns:
        ``(0, 1)`` where no process group is open.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def is_main_process() -> bool:
    """Whether this process writes files.

    Returns:
        True on rank 0, and without a process group.
    """
    return rank_and_world()[0] == 0


def all_sum(tensor: Tensor, device: torch.device | None = None) -> Tensor:
    """Add up a tensor over all processes.

    Args:
        tensor: The same shape everywhere.
        device: Where the processes exchange tensors, if that is not where ``tensor`` lies.

    Returns:
        The sum, on the device of ``tensor``; ``tensor`` itself where there is one process.
    """
    if rank_and_world()[1] == 1:
        return tensor
    total = tensor.to(device or tensor.device, copy=True)
    dist.all_reduce(total)
    return total.to(tensor.device)


def all_mean(means: list[float], count: int, device: torch.device) -> list[float]:
    """Make means over the examples of each process those over the examples of all.

    Args:
        means: The same number everywhere.
        count: Examples of this process.
        device: Where the processes exchange tensors.

    Returns:
        The means.
    """
    numbers = [mean * count for mean in means] + [count]
    *sums, total = all_sum(torch.tensor(numbers, dtype=wide_type(device), device=device)).tolist()
    return [value / total for value in sums]


def broadcast(value: T) -> T:
    """Let rank 0 decide.

    Args:
        value: A plain value; that of rank 0 counts.

    Returns:
        The value of rank 0.
    """
    if rank_and_world()[1] == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]
