"""Passes over a user's batches that repeat, and what two of them tell about the data."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lowland.training import as_pair, generator, isolated_rng, tensors_in
from lowland.training.seeds import has_generator, parts_of, rng_states, set_rng_states

__all__ = ["Fingerprints", "check_labels", "one_pass"]

PIECE = 2**20  # numbers hashed at a time, 8 MiB
END = object()


def one_pass(batches: Any, seed: int, *labels: int | str, epoch: int) -> Iterator[Any]:
    """Go once through batches, with randomness that belongs to this pass and to nobody else.

    What is drawn while a batch is made (order, augmentation) is a function of the seed and the
    labels; what is drawn between two batches by whoever uses them goes on as if nothing was read,
    and a generator of the user's own is afterwards where it was.

    Args:
        batches: The user's.
        seed: Seed of the run.
        *labels: Which pass it is; see :func:`lowland.training.isolated_rng`.
        epoch: Given to ``set_epoch`` where there is one.

    Yields:
        The batches.

    Source:
        Ours.
    """
    sources = [part.generator for part in parts_of(batches) if has_generator(part)]
    with isolated_rng(seed, *labels, batches=batches, epoch=epoch):
        stream = iter(batches)
        batch = next(stream, END)
        inside = states(sources)
    while batch is not END:
        yield batch
        outside = states(sources)
        set_states(sources, inside)
        try:
            batch = next(stream, END)
            inside = states(sources)
        finally:
            set_states(sources, outside)


def states(sources: list[torch.Generator]) -> tuple[dict[str, Any], list[Tensor]]:
    """Copy the states of the global generators and of some others."""
    return rng_states(), [source.get_state() for source in sources]


def set_states(sources: list[torch.Generator], kept: tuple[dict[str, Any], list[Tensor]]) -> None:
    """Put generators into states copied before."""
    set_rng_states(kept[0])
    for source, state in zip(sources, kept[1], strict=True):
        source.set_state(state)


@dataclass
class Fingerprints:
    """One number for each example of a pass, so that two passes can be compared.

    An example's number is a sum of its 32-bit words (bytes, for shorter types) with fixed random
    odd factors, modulo 2^64: two examples that differ share it with a chance below 2^-30.

    Attributes:
        keys: The numbers, batch by batch, on the CPU.
        targets: The labels, batch by batch, on the CPU.
        shapes: Shapes of one example's inputs that have come; more than one if batches are padded
            each to its own length.
        largest: Examples of the largest batch.

    Source:
        Ours.
    """

    keys: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    shapes: set[tuple[Any, ...]] = field(default_factory=set)
    largest: int = 0
    factors: dict[int, Tensor] = field(default_factory=dict)

    def add(self, batch: Any) -> None:
        """Note a batch.

        Args:
            batch: ``(inputs, target)``.

        Raises:
            ValueError: If it is no pair, or the target does not hold one class for each example.
        """
        inputs, target = as_pair(batch)
        check_labels(target)
        count = len(target)
        key = target.detach().to("cpu", torch.int64)
        for tensor in tensors_in(inputs):
            has_rows = tensor.ndim > 0 and len(tensor) == count
            key = key * 6364136223846793005 + self.row_keys(tensor if has_rows else tensor[None])
        self.keys.append(key)
        self.targets.append(target.detach().to("cpu", torch.int64))
        self.shapes.add(
            tuple(tuple(tensor.shape[1:]) for tensor in tensors_in(inputs) if tensor.ndim)
        )
        self.largest = max(self.largest, count)

    def row_keys(self, tensor: Tensor) -> Int[Tensor, " rows"]:
        """Hash each row of a tensor."""
        rows = tensor.detach().cpu().reshape(len(tensor), -1).resolve_conj().resolve_neg()
        rows = rows.contiguous().view(torch.uint8 if rows.element_size() < 4 else torch.int32)
        width = rows.shape[1]
        if width not in self.factors:
            draws = generator(0, "fingerprints")
            self.factors[width] = torch.randint(-(2**62), 2**62, (width,), generator=draws) * 2 + 1
        pieces = rows.split(max(1, PIECE // max(1, width)))
        return torch.cat([(piece.long() * self.factors[width]).sum(1) for piece in pieces])

    @property
    def target(self) -> Int[Tensor, " examples"]:
        """The labels of the pass, in its order."""
        return torch.cat(self.targets) if self.targets else torch.empty(0, dtype=torch.int64)

    @property
    def count(self) -> int:
        """Number of examples."""
        return sum(len(target) for target in self.targets)

    def has_same_examples(self, other: "Fingerprints") -> bool:
        """Compare with another pass, in whatever order.

        Args:
            other: The other pass.

        Returns:
            Whether both held the same examples.
        """
        if self.count != other.count or not self.count:
            return self.count == other.count
        mine, theirs = torch.cat(self.keys), torch.cat(other.keys)
        return torch.equal(mine.sort().values, theirs.sort().values)

    def has_same_order(self, other: "Fingerprints") -> bool:
        """Compare the order with that of another pass.

        Args:
            other: The other pass.

        Returns:
            Whether examples came at the same places; where the inputs are random, whether their
            labels did.
        """
        if self.has_same_examples(other):
            return all(map(torch.equal, self.keys, other.keys)) or torch.equal(
                torch.cat(self.keys), torch.cat(other.keys)
            )
        return torch.equal(self.target, other.target)


def check_labels(target: Any, classes: int | None = None) -> None:
    """Refuse targets that are not one class for each example.

    Args:
        target: Of one batch, or of a whole data set if ``classes`` is given.
        classes: Number of classes C.

    Raises:
        ValueError: If they are not integers of shape ``(batch,)``, if one lies outside of 0..C-1,
            or if there are fewer than two classes.
    """
    if not isinstance(target, Tensor) or target.ndim != 1 or not is_integer(target):
        got = type(target).__name__
        if isinstance(target, Tensor):
            got = f"{target.dtype} of shape {tuple(target.shape)}"
        raise ValueError(
            f"targets must be classes, integers of shape (batch,); got {got}. Take the arg max of "
            "one-hot rows, squeeze an extra axis."
        )
    if not len(target):
        return
    if (least := int(target.min())) < 0:
        raise ValueError(f"classes must be 0, 1, ..., C - 1; got {least}. Number them from 0.")
    if classes is None:
        return
    if (most := int(target.max())) >= classes:
        raise ValueError(
            f"classes must lie in 0..{classes - 1}, one for each output of the model; got {most}. "
            "Give the model more outputs, or number the classes from 0."
        )
    if classes < 2:
        raise ValueError(f"there must be at least two classes to tell apart; got {classes}.")
    if int(target.min()) == most:
        raise ValueError(
            f"the data must hold at least two classes; got class {most} only. Is it sorted, and "
            "cut off?"
        )


def is_integer(target: Tensor) -> bool:
    """Tell whether a tensor holds whole numbers."""
    return not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)
