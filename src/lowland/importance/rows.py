"""Rows of batches: count, choose and join them, whatever containers they come in."""

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lowland.importance.columns import arrays_in, is_column, join_column, same, select_column
from lowland.training import as_pair, tensors_in

__all__ = ["Rows", "count_rows", "join", "select", "take_apart"]


def count_rows(batch: Any) -> int:
    """Count the examples of a batch, and check that all its tensors agree.

    Args:
        batch: Tensors in tuples, lists and mappings; those without axes belong to no example.

    Returns:
        The size of the first axis.

    Raises:
        ValueError: If two tensors have another number of rows, or there is none.
    """
    tensors = [tensor for tensor in tensors_in(batch) if tensor.ndim]
    count = len(tensors[0]) if tensors else first_count(batch)
    if any(len(tensor) != count for tensor in tensors):
        shapes = [tuple(tensor.shape) for tensor in tensors]
        raise ValueError(
            f"the first axis of every tensor of a batch must count its examples; got {shapes}. "
            "Put what belongs to the whole batch into a tensor without axes."
        )
    return count


def first_count(batch: Any) -> int:
    """The first axis of the first tensor that has one, else of the first array."""
    for values in (tensors_in(batch), arrays_in(batch)):
        for value in values:
            if value.ndim:
                return len(value)
    raise ValueError(
        "a batch must hold a tensor whose first axis counts examples; got none. Make a tensor of "
        "the targets, or pass batches of tensors."
    )


def select(batch: Any, index: slice | Int[Tensor, " chosen"], count: int | None = None) -> Any:
    """Choose examples of a batch.

    Args:
        batch: As for :func:`count_rows`. Lists, tuples and arrays with an entry for each example
            are chosen from too; every tensor with axes is taken to be such.
        index: Their positions, with repetitions, or a slice, which copies no tensor.
        count: Examples of the batch; None counts them.

    Returns:
        The batch of these, in the same containers.

    Raises:
        ValueError: If it cannot be told what belongs to which example.
    """
    count = first_count(batch) if count is None else count

    def choose(name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            if not value.ndim:
                return value
            if isinstance(index, slice):
                return value[index]
            return value.index_select(0, index.to(value.device))
        if is_column(name, value, count):
            return select_column(value, index)
        if is_container(value):
            return rebuilt(value, [choose(f"{name}[{key!r}]", part) for key, part in items(value)])
        return value

    return choose("batch", batch)


def join(batches: list[Any]) -> Any:
    """Put batches behind one another.

    Args:
        batches: At least one, all nested in the same way. What belongs to no example must be the
            same in all of them.

    Returns:
        One batch; a single one is returned as it is.

    Raises:
        ValueError: If their examples have different shapes, or what belongs to no example differs.
    """
    if len(batches) == 1:
        return batches[0]
    counts = [first_count(batch) for batch in batches]

    def together(name: str, parts: list[Any]) -> Any:
        first = parts[0]
        if all(isinstance(part, Tensor) and part.ndim for part in parts):
            return cat(parts)
        if all(is_column(name, part, count) for part, count in zip(parts, counts, strict=True)):
            return join_column(parts)
        if is_container(first) and all(keys_of(part) == keys_of(first) for part in parts):
            inside = zip(*(items(part) for part in parts), strict=True)
            return rebuilt(
                first,
                [
                    together(f"{name}[{pairs[0][0]!r}]", [part for _, part in pairs])
                    for pairs in inside
                ],
            )
        for part in parts:
            if not same(first, part):
                raise ValueError(
                    f"{name} belongs to no single example, so it must be the same in all batches "
                    f"of a pool; got {str(first)[:60]} and {str(part)[:60]}. Give it once for "
                    "each example, as a tensor, a list or an array, or leave it out."
                )
        return first

    return together("batch", batches)


def cat(parts: list[Tensor]) -> Tensor:
    """Put tensors behind one another."""
    if any(part.shape[1:] != parts[0].shape[1:] for part in parts):
        raise ValueError(
            "all batches of a pool must hold examples of one shape; got "
            f"{[tuple(part.shape) for part in parts]}. Pad to one length, or let the loader "
            "make whole pools and pass batch_size."
        )
    return torch.cat(parts)


def shapes_of(batch: Any) -> list[tuple[int, ...]]:
    """Shapes of the examples in the tensors of a batch."""
    return [tuple(tensor.shape[1:]) for tensor in tensors_in(batch)]


def can_join(one: Any, other: Any) -> bool:
    """Whether two batches go into one, for rows that another pass has left."""
    try:
        join([one, other])
    except ValueError:
        return False
    return True


def is_container(value: Any) -> bool:
    """Whether there are parts of a batch inside."""
    return isinstance(value, Mapping | tuple | list)


def items(container: Any) -> list[tuple[Any, Any]]:
    """Keys or positions, and what is there, in the order of :func:`keys_of`."""
    return [(key, container[key]) for key in keys_of(container) or ()]


def keys_of(value: Any) -> list[Any] | None:
    """Keys of a mapping, positions of a list or tuple, None of anything else."""
    if isinstance(value, Mapping):
        return sorted(value, key=str)
    return list(range(len(value))) if isinstance(value, tuple | list) else None


def rebuilt(container: Any, parts: list[Any]) -> Any:
    """Make a container of the same kind with other parts, in the order of :func:`items`."""
    if isinstance(container, Mapping):
        found = dict(zip(keys_of(container) or (), parts, strict=True))
        mapped = {key: found[key] for key in container}
        if type(container) is dict or not hasattr(container, "__setitem__"):
            return mapped
        own: Any = copy(container)  # keeps what a mapping of the user's own also is
        for key, item in mapped.items():
            own[key] = item
        return own
    if hasattr(container, "_fields"):  # a named tuple
        return type(container)(*parts)
    return parts if isinstance(container, list) else tuple(parts)


def take_apart(
    batch: Any,
    get_inputs: Callable[[Any], Any] | None = None,
    get_targets: Callable[[Any], Any] | None = None,
) -> tuple[Any, Any]:
    """Find a batch's inputs and targets.

    Args:
        batch: By default ``(inputs, target)``, or a mapping whose ``"labels"`` are the targets
            and whose rest are the inputs.
        get_inputs: From a batch of another kind to the model's inputs.
        get_targets: Likewise to the targets.

    Returns:
        Inputs and targets.
    """
    if get_inputs is not None and get_targets is not None:
        return get_inputs(batch), get_targets(batch)
    if isinstance(batch, Mapping) and "labels" in batch:
        pair = {name: v for name, v in batch.items() if name != "labels"}, batch["labels"]
    else:
        pair = as_pair(batch)
    inputs = pair[0] if get_inputs is None else get_inputs(batch)
    return inputs, pair[1] if get_targets is None else get_targets(batch)


class Rows:
    """A stream of batches, to be read in pieces of any size.

    Args:
        stream: Batches.
        place: What is done to each batch first, for instance moving it to a device.
        held: Rows that come before the stream, from an earlier reader.

    Attributes:
        count: Rows read from the stream so far.
        is_rest: Whether what is held is a part of a batch, and not a whole one.
        is_even: Whether all examples of the stream had the same shapes so far.
    """

    def __init__(self, stream: Iterator[Any], place: Callable[[Any], Any], held: Any | None = None):
        self.stream = stream
        self.place = place
        self.held = held
        self.count = 0
        self.is_rest = held is not None
        self.is_even = True
        self.shapes: list[tuple[int, ...]] | None = None  # of the last batch

    def take(self, count: int | None = None) -> Any | None:
        """Read some rows.

        Args:
            count: How many; None for the next batch as it comes.

        Returns:
            So many rows, fewer at the end of the stream, or of a batch whose rows have another
            shape than those of the next one, or where an earlier reader's do not fit; None
            behind the stream.
        """
        if count is None:
            self.is_rest = False
            return self.next_part()
        is_earlier = self.count == 0
        parts, found = [], 0
        while found < count:
            part = self.next_part()
            if part is None:
                break
            if self.is_rest and len(parts) == 1:
                fits = shapes_of(part) == shapes_of(parts[0])  # else padded to another length
                if not fits or (is_earlier and not can_join(parts[0], part)):
                    self.held = part  # the rest of a batch is for itself
                    break
            parts.append(part)
            found += count_rows(part)
        self.is_rest = False
        if not parts:
            return None
        batch = join(parts)
        if found > count:
            self.is_rest = True
            self.held = select(batch, slice(count, found), found)
            batch = select(batch, slice(0, count), found)
        return batch

    def next_part(self) -> Any | None:
        """What is held, else the next batch, None at the end."""
        if self.held is not None:
            part, self.held = self.held, None
            return part
        for batch in self.stream:
            self.count += count_rows(batch)
            shapes = shapes_of(batch)
            self.is_even = self.is_even and self.shapes in (None, shapes)
            self.shapes = shapes
            return self.place(batch)
        return None
