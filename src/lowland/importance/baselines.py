"""What importance sampling must beat with the same rows: larger batches and random subsets."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.importance.rows import Rows, count_rows, join, select
from lowland.importance.state import set_state, settings_of, state_of
from lowland.training import checked_losses, generator
from lowland.training.evaluate import LossFn
from lowland.training.floats import raised

__all__ = ["RandomSubset", "UniformSampling", "check_presample", "weighted_loss"]


def weighted_loss(
    loss_fn: LossFn, output: Any, target: Any, weight: Tensor | None
) -> tuple[Float[Tensor, ""], Float[Tensor, " rows"]]:
    r"""Compute :math:`\tfrac1b \sum_j w_j l_j` over the rows that a sampling has just given.

    Args:
        loss_fn: One loss per example.
        output: What the model returned for these rows.
        target: What they ask for.
        weight: Weight of each row, None before the first batch.

    Returns:
        The scalar to back-propagate, in float32 or wider, and the loss of each row, detached.

    Raises:
        ValueError: If the losses do not belong to the rows that were given.

    Source:
        Ours.
    """
    losses = checked_losses(loss_fn, output, target)
    if weight is None or len(weight) != len(losses):
        given = "none" if weight is None else f"{len(weight)} rows"
        raise ValueError(
            "loss must be called with the output for the batch that the sampling has just given; "
            f"it gave {given}, got {len(losses)} losses. Iterate over sampling(batches)."
        )
    wide = raised(losses)
    return (weight.to(wide) * wide).mean(), losses.detach()


class UniformSampling:
    """Plain SGD, with as many of the loader's batches in one as asked for.

    Args:
        loss_fn: ``loss_fn(output, target)`` returns one loss per example.
        multiple: Batches that are joined to one; at the end of a pass it may be fewer.

    Attributes:
        weight: A one for each row of the last batch.
        steps: Batches given.
        rows_read: Rows that were read from the loader.

    Raises:
        ValueError: If ``multiple`` is not positive.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 4 ("uniform"); the multiple is ours.
    """

    saved = ("steps", "rows_read")
    choices = ("multiple",)

    def __init__(self, loss_fn: LossFn, multiple: int = 1):
        if multiple < 1:
            raise ValueError(f"multiple must be at least 1 batch; got {multiple}.")
        self.loss_fn = loss_fn
        self.multiple = multiple
        self.weight: Tensor | None = None
        self.steps = 0
        self.rows_read = 0

    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Go once through the batches.

        Args:
            batches: Tensors in tuples, lists and mappings.

        Yields:
            Joined batches.
        """
        stream = iter(batches)
        while parts := list(islice(stream, self.multiple)):
            batch = join(parts)
            count = count_rows(batch)
            self.weight = torch.ones(count)
            self.steps += 1
            self.rows_read += count
            yield batch

    def loss(self, output: Any, target: Any) -> Float[Tensor, ""]:
        """Give the mean loss of the batch, to back-propagate."""
        return weighted_loss(self.loss_fn, output, target, self.weight)[0]

    def summary(self) -> str:
        """Say in a sentence what was done."""
        return f"{self.steps} uniform steps; {self.rows_read} rows read"

    def settings(self) -> dict[str, Any]:
        """Give the choices that decide the numbers of a run, as plain values."""
        return settings_of(self, self.choices)

    def state_dict(self) -> dict[str, Any]:
        """Give what another one needs to go on; where the loader stands is not part of it."""
        return state_of(self, self.saved)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        set_state(self, self.saved, state)


class RandomSubset:
    r"""A random part of every pool: all the reading of importance sampling, and no scores.

    From a pool of :math:`B = r b` rows, b are drawn uniformly without replacement; the estimate of
    the pool mean is the plain mean of their losses. Selection methods must beat this.

    Args:
        loss_fn: ``loss_fn(output, target)`` returns one loss per example.
        presample: Pool over batch, r; more than 1.
        seed: Seed of the draws.

    Attributes:
        weight: A one for each row of the last batch.
        steps: Batches given.
        rows_read: Rows that were read from the loader.

    Raises:
        ValueError: If ``presample`` is not above 1.

    Source:
        Okanovic et al., ICLR 2024 (repeated sampling of random subsets), within a pool.
    """

    saved = ("steps", "rows_read", "generator", "size", "held")
    choices = ("presample", "seed")

    def __init__(self, loss_fn: LossFn, presample: float = 3.0, seed: int = 0):
        check_presample(presample)
        self.loss_fn = loss_fn
        self.presample = presample
        self.seed = seed
        self.generator = generator(seed, "random subset")
        self.weight: Tensor | None = None
        self.steps = 0
        self.rows_read = 0
        self.size = 0
        self.held: Any = None

    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Go once through the batches.

        Args:
            batches: Tensors in tuples, lists and mappings; the first one has b rows.

        Yields:
            Batches of b rows; a last pool that is not larger is given whole.
        """
        rows = Rows(iter(batches), lambda batch: batch, self.held)
        if self.held is None:  # a new pass, and not one that a saved state is in the middle of
            rows.held = rows.take()
            self.size = count_rows(rows.held) if rows.held is not None else 0
        while (pool := rows.take(round(self.presample * self.size))) is not None:
            count = count_rows(pool)
            index = torch.randperm(count, generator=self.generator)[: self.size]
            batch = pool if count <= self.size else select(pool, index)
            self.weight = torch.ones(len(index))
            self.steps += 1
            self.rows_read += count
            self.held = rows.held
            yield batch
        self.held = None

    def loss(self, output: Any, target: Any) -> Float[Tensor, ""]:
        """Give the mean loss of the batch, to back-propagate."""
        return weighted_loss(self.loss_fn, output, target, self.weight)[0]

    def summary(self) -> str:
        """Say in a sentence what was done."""
        return f"{self.steps} steps on a random part of each pool; {self.rows_read} rows read"

    def settings(self) -> dict[str, Any]:
        """Give the choices that decide the numbers of a run, as plain values."""
        return settings_of(self, self.choices)

    def state_dict(self) -> dict[str, Any]:
        """Give what another one needs to go on; where the loader stands is not part of it."""
        return state_of(self, self.saved)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        set_state(self, self.saved, state)


def check_presample(presample: float) -> None:
    """Refuse a pool that is not larger than a batch.

    Args:
        presample: Pool over batch.

    Raises:
        ValueError: If it is not above 1.

    Source:
        Ours.
    """
    if not presample > 1:
        raise ValueError(f"presample must be above 1, pool over batch; got {presample}.")
