"""Rows of batches: count, choose and join them, whatever containers they come in."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lowland.training import as_pair, batch_count, map_tensors, tensors_in

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
    count = batch_count(batch)
    shapes = [tuple(tensor.shape) for tensor in tensors_in(batch) if tensor.ndim]
    if any(shape[0] != count for shape in shapes):
        raise ValueError(
            f"the first axis of every tensor of a batch must count its examples; got {shapes}. "
            "Put what belongs to the whole batch into a tensor without axes."
        )
    return count


def select(batch: Any, index: slice | Int[Tensor, " chosen"]) -> Any:
    """Choose examples of a batch.

    Args:
        batch: As for :func:`count_rows`.
        index: Their positions, with repetitions, or a slice, which copies nothing.

    Returns:
        The batch of these, in the same containers.
    """

    def rows(tensor: Tensor) -> Tensor:
        if not tensor.ndim:
            return tensor
        if isinstance(index, slice):
            return tensor[index]
        return tensor.index_select(0, index.to(tensor.device))

    return map_tensors(rows, batch)


def join(batches: list[Any]) -> Any:
    """Put batches behind one another.

    Args:
        batches: At least one, all nested in the same way.

    Returns:
        One batch; a single one is returned as it is.

    Raises:
        ValueError: If their examples have different shapes.
    """
    if len(batches) == 1:
        return batches[0]

    def cat(*parts: Tensor) -> Tensor:
        if not parts[0].ndim:
            return parts[0]
        if any(part.shape[1:] != parts[0].shape[1:] for part in parts):
            raise ValueError(
                "all batches of a pool must hold examples of one shape; got "
                f"{[tuple(part.shape) for part in parts]}. Pad to one length, or let the loader "
                "make whole pools and pass batch_size."
            )
        return torch.cat(parts)

    return map_tensors(cat, *batches)


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
    """

    def __init__(self, stream: Iterator[Any], place: Callable[[Any], Any], held: Any | None = None):
        self.stream = stream
        self.place = place
        self.held = held
        self.count = 0

    def take(self, count: int | None = None) -> Any | None:
        """Read some rows.

        Args:
            count: How many; None for the next batch as it comes.

        Returns:
            So many rows, fewer at the end of the stream, None behind it.
        """
        parts, found = [], 0
        while count is None or found < count:
            part = self.next_part()
            if part is None:
                break
            parts.append(part)
            found += count_rows(part)
            if count is None:
                count = found
        if not parts:
            return None
        batch = join(parts)
        if count is not None and found > count:
            self.held = select(batch, slice(count, found))
            batch = select(batch, slice(0, count))
        return batch

    def next_part(self) -> Any | None:
        """What is held, else the next batch, None at the end."""
        if self.held is not None:
            part, self.held = self.held, None
            return part
        for batch in self.stream:
            self.count += count_rows(batch)
            return self.place(batch)
        return None
