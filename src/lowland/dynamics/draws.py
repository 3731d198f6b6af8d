"""The mini-batches on which gradient noise is measured, and how they depend on each other."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor

from lowland.training import (
    as_pair,
    batch_count,
    check_batches,
    generator,
    map_tensors,
    rank_and_world,
    tensors_in,
    to_device,
)

__all__ = ["Draws", "batches_to_measure"]


@dataclass(frozen=True)
class Draws:
    """Batches of equal size, made one by one; every process knows all of them.

    Attributes:
        make: From the number of a batch to ``(inputs, target)``.
        count: Number of batches.
        batch_size: Examples B of each.
        examples: Examples P that no two batches share; infinite for independent batches.
        drawn: Whether they were drawn here, and not taken as they came.
    """

    make: Callable[[int], tuple[Any, Any]]
    count: int
    batch_size: int
    examples: float
    drawn: bool

    def mine(self, together: int = 1) -> Iterator[tuple[int, Any, Any]]:
        """Make the batches of this process.

        Args:
            together: Neighbors that are made by the same process.

        Yields:
            Number, inputs and target.
        """
        rank, world = rank_and_world()
        for number in range(self.count):
            if number // together % world == rank:
                yield number, *self.make(number)


def batches_to_measure(
    batches: Iterable[Any],
    batch_size: int | None,
    count: int,
    sampling: str,
    device: torch.device,
    *,
    seed: int,
) -> Draws:
    """Draw batches, or take them as they come.

    Args:
        batches: Re-iterable of ``(inputs, target)``.
        batch_size: Examples of a batch to draw; None takes what there is.
        count: How many.
        sampling: ``"iid"`` or ``"epoch"``.
        device: Where examples are gathered that are not there yet.
        seed: Seed of the draws.

    Returns:
        The batches. Parts of an epoch are as many as there are, if these are fewer.

    Raises:
        ValueError: If there are too few examples or batches, or they cannot be read again.

    Source:
        Specification, section 3.3.
    """
    check_batches(batches)
    if batch_size is None:
        return taken(batches, count)
    inputs, target, size = all_examples(batches, device)
    if not 1 <= batch_size <= size:
        raise ValueError(
            f"batch_size must lie between 1 and the number of examples, {size}; got {batch_size}."
        )
    draws = generator(seed, "batches")
    if sampling == "iid":
        index = torch.randint(size, (count, batch_size), generator=draws)
        apart = inf
    else:
        count = min(count, size // batch_size)
        if count < 2:
            raise ValueError(
                f"an epoch must have at least 2 batches; {size} examples make {count} of "
                f'{batch_size}. Pass sampling="iid" or a smaller batch_size.'
            )
        index = torch.randperm(size, generator=draws)[: count * batch_size]
        index = index.reshape(count, batch_size)
        apart = float(size)

    def make(number: int) -> tuple[Any, Any]:
        chosen = index[number].to(device)
        return map_tensors(lambda tensor: tensor[chosen], (inputs, target))

    return Draws(make, count, batch_size, apart, drawn=True)


def taken(batches: Iterable[Any], count: int) -> Draws:
    """The first batches that are as large as the first."""
    kept: list[Any] = []
    size = 0
    for batch in batches:
        pair = as_pair(batch)
        size = size or batch_count(pair[1], pair[0])
        if batch_count(pair[1], pair[0]) == size:
            kept.append(pair)
        if len(kept) == count:
            break
    if len(kept) < 2:
        raise ValueError(
            f"batches must yield at least 2 batches of one size; got {len(kept)}. "
            "Pass batch_size to draw batches from the examples."
        )
    return Draws(kept.__getitem__, len(kept), size, inf, drawn=False)


def all_examples(batches: Iterable[Any], device: torch.device) -> tuple[Any, Any, int]:
    """All examples in one batch."""
    pairs = [to_device(as_pair(batch), device) for batch in batches]
    if not pairs:
        raise ValueError("batches must yield at least one example; got none. Is the loader empty?")
    for pair in pairs:
        count = batch_count(pair[1], pair[0])
        if any(t.ndim == 0 or len(t) != count for t in tensors_in(pair)):
            raise ValueError(
                "to draw examples every tensor of a batch must have one entry for each of them; "
                f"one of {count} has another first axis. Pass batch_size=None."
            )

    def join(*parts: Tensor) -> Tensor:
        return torch.cat(parts)

    inputs, target = map_tensors(join, *pairs)
    return inputs, target, batch_count(target, inputs)
