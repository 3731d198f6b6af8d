"""Refuse batches that nothing can be trained or measured on."""

from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["check_batches", "check_not_empty"]


def check_batches(batches: Any, name: str = "batches") -> None:
    """Refuse what cannot be read more than once.

    Args:
        batches: Must be iterable, as a list and a ``DataLoader`` are, and no iterator.
        name: What the caller calls them.

    Raises:
        ValueError: If they end after one pass, or are no batches.
    """
    if isinstance(batches, Iterator):
        raise ValueError(
            f"{name} must be iterable more than once; got a {type(batches).__name__}, which ends "
            "after one pass. Pass a list, a DataLoader or lowland.data.Batches."
        )
    if not isinstance(batches, Iterable) and not hasattr(batches, "__getitem__"):
        raise ValueError(
            f"{name} must be an iterable of (inputs, target); got a {type(batches).__name__}. "
            "Pass a list, a DataLoader or lowland.data.Batches."
        )


def check_not_empty(count: int, name: str = "batches") -> None:
    """Refuse a pass over batches in which there was none.

    Args:
        count: Number of batches in it.
        name: What the caller calls them.

    Raises:
        ValueError: If it is 0.
    """
    if not count:
        raise ValueError(
            f"{name} must yield at least one batch; got none. Is the loader empty, or used up "
            "after one pass?"
        )
