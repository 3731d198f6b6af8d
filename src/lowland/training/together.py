"""Processes of one job that begin together or not at all: none waits for one that has failed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed as dist

from lowland.training.batches import check_not_empty
from lowland.training.ranks import all_sum, rank_and_world
from lowland.training.settings import length_of

__all__ = ["check_given", "check_shares", "fail_together", "sum_of_all"]


def sum_of_all(numbers: list[float]) -> list[float]:
    """Add up numbers over all processes, wherever these exchange tensors.

    Args:
        numbers: Equally many everywhere.

    Returns:
        The sums, in float64.
    """
    if rank_and_world()[1] == 1:
        return numbers
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    return all_sum(torch.tensor(numbers, dtype=torch.float64), device).tolist()


@contextmanager
def fail_together() -> Iterator[None]:
    """End a block with an error on all processes if one of them fails in it.

    Inside of the block nothing may be exchanged between processes.

    Yields:
        Nothing.

    Raises:
        ValueError: If another process has failed.
    """
    try:
        yield
    except Exception:  # whatever it is, the others are not to wait
        sum_of_all([1.0])
        raise
    if failed := sum_of_all([0.0])[0]:
        raise ValueError(
            f"all processes must be able to begin; {failed:.0f} of {rank_and_world()[1]} cannot, "
            "though this one can. The error of the other says what to do."
        )


def check_given(**values: Any) -> None:
    """Refuse, on all processes, what only some of them are given.

    Args:
        **values: None where something is not given.

    Raises:
        ValueError: If one is None on some processes and not on others.
    """
    world = rank_and_world()[1]
    counts = sum_of_all([float(value is not None) for value in values.values()])
    for name, count in zip(values, counts, strict=True):
        if 0 < count < world:
            raise ValueError(
                f"{name} must be given on all processes or on none; got it on {count:.0f} of "
                f"{world}. Give each of them a share."
            )


def check_shares(**batches: Any) -> None:
    """Refuse, on all processes, batches of which one of them has none.

    Args:
        **batches: Batches, or None; those without a length are not looked at.

    Raises:
        ValueError: If some are missing, or empty, on some processes.
    """
    check_given(**batches)
    with fail_together():
        for name, shares in batches.items():
            if shares is not None:
                length = length_of(shares)
                check_not_empty(1 if length is None else length, name)
