"""Refuse numbers that cannot be counted with, in words: what must hold, what came, what to do."""

from collections.abc import Iterable
from math import inf
from numbers import Integral, Real
from typing import Any

__all__ = ["refuse_no_batches", "refuse_no_number", "refuse_no_rate", "refuse_no_whole"]


def refuse_no_whole(least: int, **values: Any) -> None:
    """Refuse counts that are no whole numbers.

    Args:
        least: The smallest that is allowed.
        **values: Values by the name of their argument.

    Raises:
        ValueError: If one of them is something else, or smaller.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(
                f"{name} must be a whole number, at least {least}; got {value!r}. Pass an int."
            )


def refuse_no_number(**values: Any) -> None:
    """Refuse amounts that are no numbers, not finite, or below zero.

    Args:
        **values: Values by the name of their argument.

    Raises:
        ValueError: If one of them is so.
    """
    for name, value in values.items():
        if not isinstance(value, Real) or not 0 <= float(value) < inf:
            raise ValueError(
                f"{name} must be a finite number, zero or more; got {value!r}. Pass a float."
            )


def refuse_no_rate(learning_rate: Any) -> None:
    """Refuse what no step can be taken with.

    Args:
        learning_rate: Must be above zero.

    Raises:
        ValueError: If it is not, or no finite number.
    """
    if not isinstance(learning_rate, Real) or not 0 < float(learning_rate) < inf:
        raise ValueError(
            f"learning_rate must be positive and finite; got {learning_rate!r}. Begin with 0.1."
        )


def refuse_no_batches(**values: Any) -> None:
    """Refuse data that cannot be gone through.

    Args:
        **values: Batches by the name of their argument.

    Raises:
        ValueError: If one of them is not iterable.
    """
    for name, value in values.items():
        if not isinstance(value, Iterable) and not hasattr(value, "__getitem__"):
            raise ValueError(
                f"{name} must be an iterable of (inputs, target), readable again and again; got a "
                f"{type(value).__name__}. Pass a list or a DataLoader."
            )
