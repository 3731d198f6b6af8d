"""What a batch holds beside tensors: lists and arrays with an entry for each example, or not."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from lowland.training import tensors_in

__all__ = ["arrays_in", "is_column", "join_column", "same", "select_column"]


def arrays_in(value: Any) -> Iterator[np.ndarray]:
    """Go through the NumPy arrays of nested containers.

    Args:
        value: Tuples, lists and mappings; anything else is passed over.

    Yields:
        The arrays.

    Source:
        Ours.
    """
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from arrays_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from arrays_in(item)


def is_column(name: str, value: Any, count: int) -> bool:
    """Tell whether a value that is no tensor has an entry for each example.

    Args:
        name: What the user knows it by.
        value: An array, or a list or tuple without tensors or arrays that have axes.
        count: Number of examples.

    Returns:
        Whether its length is that number.

    Raises:
        ValueError: If it cannot be told, or it is of a kind that rows cannot be chosen from.

    Source:
        Ours.
    """
    if isinstance(value, np.ndarray):
        return value.ndim > 0 and len(value) == count
    if isinstance(value, Tensor | Mapping | str | bytes) or hasattr(value, "_fields"):
        return False
    if not isinstance(value, tuple | list):
        check_opaque(name, value, count)
        return False
    if len(value) != count or holds_axes(value):
        return False
    if count > 1 and all(isinstance(item, tuple | list) and len(item) == count for item in value):
        raise ValueError(
            f"{name} must say which of its axes counts the examples; got {count} times "
            f"{count} entries for {count} examples. Make a tensor or an array of it."
        )
    return True


def check_opaque(name: str, value: Any, count: int) -> None:
    """Refuse what may have an entry for each example in a way that we do not know."""
    try:
        length = len(value)
    except TypeError:
        return
    if length == count:
        raise ValueError(
            f"{name} must be a tensor, a list, a tuple or a NumPy array, to be chosen from by "
            f"examples; got a {type(value).__name__} of {count} entries for {count} examples. "
            "Convert it where batches are made."
        )


def holds_axes(value: Any) -> bool:
    """Whether a tensor or an array with axes is inside."""
    return any(part.ndim for part in tensors_in(value)) or any(
        part.ndim for part in arrays_in(value)
    )


def select_column(value: Any, index: slice | Int[Tensor, " chosen"]) -> Any:
    """Choose entries.

    Args:
        value: A column.
        index: Positions, or a slice.

    Returns:
        These, as the same kind.

    Source:
        Ours.
    """
    if isinstance(index, slice):
        return value[index]
    if isinstance(value, np.ndarray):
        return value[index.cpu().numpy()]
    return type(value)(value[position] for position in index.tolist())


def join_column(parts: list[Any]) -> Any:
    """Put columns behind one another.

    Args:
        parts: At least one.

    Returns:
        One column, of the kind of the first.

    Source:
        Ours.
    """
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return type(parts[0])(entry for part in parts for entry in part)


def same(a: Any, b: Any) -> bool:
    """Whether two values that belong to no example are equal.

    Args:
        a: Anything.
        b: Anything.

    Returns:
        False too where they cannot be compared.

    Source:
        Ours.
    """
    if a is b:
        return True
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool((a == b.to(a.device)).all())
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    try:
        return bool(a == b)
    except (TypeError, ValueError, RuntimeError):
        return False
