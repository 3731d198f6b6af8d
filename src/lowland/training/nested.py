"""Batches of any shape: tensors inside tuples, lists and mappings."""

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor

__all__ = ["batch_count", "map_tensors", "tensors_in", "to_device"]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Go through the tensors of nested containers.

    Args:
        value: A tensor, or tuples, lists and mappings of tensors; anything else is passed over.

    Yields:
        The tensors.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)


def map_tensors(function: Callable[..., Any], value: Any, *others: Any) -> Any:
    """Rebuild nested containers with another value in the place of each tensor.

    Args:
        function: From a tensor, and those at the same place of the others, to the new value.
        value: A tensor, or tuples, lists and mappings of tensors; anything else stays.
        *others: Values nested in the same way.

    Returns:
        Containers of the same kinds, where these can be made from their items.
    """
    if isinstance(value, Tensor):
        return function(value, *others)
    if isinstance(value, Mapping):
        mapped = {
            key: map_tensors(function, item, *(other[key] for other in others))
            for key, item in value.items()
        }
        if type(value) is dict or not hasattr(value, "__setitem__"):
            return mapped
        rebuilt: Any = copy(value)  # keeps what a mapping of the user's own also is
        for key, item in mapped.items():
            rebuilt[key] = item
        return rebuilt
    if isinstance(value, tuple | list):
        items = [map_tensors(function, *parts) for parts in zip(value, *others, strict=True)]
        if hasattr(value, "_fields"):  # a named tuple
            return type(value)(*items)
        return items if isinstance(value, list) else tuple(items)
    return value


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors of a batch.

    Args:
        batch: A tensor, or tuples, lists and mappings of tensors; anything else stays.
        device: Where to.

    Returns:
        The batch there; tensors that are there already are not copied.
    """
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), batch)


def batch_count(*values: Any) -> int:
    """Count the examples of a batch.

    Args:
        *values: Target, inputs or outputs, by preference; tensors or containers of tensors.

    Returns:
        The first axis of the first tensor that has one.

    Raises:
        ValueError: If there is no such tensor.
    """
    for tensor in tensors_in(values):
        if tensor.ndim > 0:
            return len(tensor)
    raise ValueError("a batch must hold a tensor whose first axis counts examples; got none.")
