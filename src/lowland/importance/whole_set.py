"""Any rows of a whole data set, for methods that choose among all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lowland.data import Batches
from lowland.importance.rows import take_apart
from lowland.params import call
from lowland.training import checked_losses, device_of, kept_mode, to_device
from lowland.training.evaluate import LossFn

__all__ = ["WholeSet", "all_losses", "note_losses", "sized", "whole_set"]


@dataclass(frozen=True)
class WholeSet:
    """A data set whose rows can be asked for.

    Attributes:
        count: Number of rows N.
        batch_size: Rows of a batch b.
        steps: Batches of a pass.
        rows: ``rows(index, draws)`` gives a batch of the rows at some positions; what augmentation
            it can, it draws from the generator, and does none without one.
    """

    count: int
    batch_size: int
    steps: int
    rows: Callable[[Tensor, Generator | None], Any]


def whole_set(batches: Any) -> WholeSet:
    """Find out how to get at the rows behind batches.

    Args:
        batches: :class:`lowland.data.Batches`, or a ``DataLoader`` over a map-style data set. Of
            the loader only the data set, ``collate_fn``, ``batch_size`` and ``drop_last`` are
            used: rows are read in this process, and random transforms draw from wherever they do.

    Returns:
        The data set.

    Raises:
        ValueError: If rows cannot be asked for.

    Source:
        Ours.
    """
    if isinstance(batches, Batches):
        count, size = len(batches.labels), batches.batch_size
        return WholeSet(
            count, size, len(batches), lambda index, draws: batches.rows(index, draws=draws)
        )
    if isinstance(batches, DataLoader) and batches.batch_size is not None:
        dataset: Any = batches.dataset
        if not isinstance(dataset, IterableDataset):
            return WholeSet(
                len(dataset),
                batches.batch_size,
                len(batches),
                lambda index, draws: batches.collate_fn(examples(dataset, index.tolist())),
            )
    raise ValueError(
        "a method that chooses among all rows needs a DataLoader with a batch_size over a data "
        f"set with positions, or lowland.data.Batches; got a {type(batches).__name__}. Methods "
        "that choose from a pool take any batches."
    )


def examples(dataset: Any, index: list[int]) -> list[Any]:
    """Read examples one by one, or together where the data set can do that."""
    together = getattr(dataset, "__getitems__", None)
    return [dataset[position] for position in index] if together is None else together(index)


@torch.no_grad()
def all_losses(model: nn.Module, loss_fn: LossFn, whole: WholeSet) -> Float[Tensor, " examples"]:
    """Compute the loss of every row, in evaluation mode and without augmentation.

    Args:
        model: Left as it was.
        loss_fn: One loss per example.
        whole: The data set.

    Returns:
        Losses in the unit of ``loss_fn``, float64 on the CPU.

    Source:
        Ours.
    """
    found = []
    with kept_mode(model):
        model.eval()
        for index in torch.arange(whole.count).split(whole.batch_size):
            batch = to_device(whole.rows(index, None), device_of(model))
            inputs, target = take_apart(batch)
            found.append(checked_losses(loss_fn, call(model, inputs), target))
    return torch.cat(found).double().cpu()


def sized(losses: Float[Tensor, " known"], count: int, fill: float) -> Float[Tensor, " examples"]:
    """Make a place for the last loss of each row, or check that there is one.

    Args:
        losses: Last losses of all rows; empty before the first batch.
        count: Number of rows N.
        fill: What stands for a loss that is not known.

    Returns:
        ``losses``, or ``fill`` N times, float64.

    Raises:
        ValueError: If the losses are those of another number of rows.

    Source:
        Ours.
    """
    if not len(losses):
        return torch.full((count,), fill, dtype=torch.float64)
    if len(losses) != count:
        raise ValueError(
            f"the data set must be the one that the losses are known of, {len(losses)} rows; got "
            f"{count}. Take a new sampling for other data."
        )
    return losses


def note_losses(
    known: Float[Tensor, " examples"],
    index: Int[Tensor, " rows"],
    losses: Float[Tensor, " rows"],
) -> None:
    """Write down the last loss of some rows, where it is finite.

    Args:
        known: Last losses of all rows, on the CPU; changed in place.
        index: Positions of the rows.
        losses: Their losses. One that is not finite goes to the user through the mean, not here.

    Raises:
        ValueError: If a loss is negative.

    Source:
        Ours.
    """
    values = losses.to("cpu", known.dtype)
    if (values < 0).any():
        raise ValueError(
            f"losses must not be negative to choose rows by them; got {values.min():.4g}."
        )
    good = values.isfinite()
    known[index[good]] = values[good]
