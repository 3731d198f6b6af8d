"""Selective backpropagation: rows of high loss, without weights."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lowland.importance.baselines import check_presample, weighted_loss
from lowland.importance.rows import count_rows, join, select, take_apart
from lowland.importance.state import set_state, settings_of, state_of
from lowland.params import call
from lowland.training import checked_losses, device_of, generator, kept_mode, to_device
from lowland.training.evaluate import LossFn

__all__ = ["SelectiveBackprop"]


class SelectiveBackprop:
    r"""Train on rows of high loss, found by a forward pass; no weights, so a biased gradient.

    A row of loss l is kept with probability

    .. math:: P(l) = F_R(l)^\beta

    where :math:`F_R` is the share of the last R losses that are not above l (half of those that
    equal it) and :math:`\beta` = ``presample - 1``, so one row in ``presample`` is kept. Rows that
    are kept wait until there are b of them.

    Args:
        model: Any module; scored in evaluation mode, without gradient.
        loss_fn: ``loss_fn(output, target)`` returns one loss per example.
        presample: Rows read for one that is trained on, more than 1; the paper's 33 % are 3.
        history: Number R of losses to compare with.
        seed: Seed of the draws.

    Attributes:
        weight: A one for each row of the last batch.
        steps: Batches given.
        rows_read: Rows that were read from the loader, and scored.

    Raises:
        ValueError: If ``presample`` is not above 1 or ``history`` not positive.

    Source:
        Jiang et al., 2019, arXiv 1910.00762, Section 3; the treatment of ties is ours.
    """

    saved = ("steps", "rows_read", "generator", "losses", "size", "waiting")
    choices = ("presample", "history", "seed")

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        presample: float = 3.0,
        history: int = 1024,
        seed: int = 0,
    ):
        check_presample(presample)
        if history < 1:
            raise ValueError(f"history must be at least 1 loss; got {history}.")
        self.model = model
        self.loss_fn = loss_fn
        self.presample = presample
        self.history = history
        self.seed = seed
        self.generator = generator(seed, "selective backprop")
        self.losses = torch.empty(0, dtype=torch.float64)
        self.weight: Tensor | None = None
        self.steps = 0
        self.rows_read = 0
        self.size = 0
        self.waiting: Any = None

    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Go once through the batches.

        Args:
            batches: Pairs ``(inputs, target)`` or mappings with ``"labels"``; the first has b rows.

        Yields:
            Batches of b rows, where the model is; what waits at the end is given as it is, and
            the last batch if none was kept at all.
        """
        before, batch = self.steps, None
        if self.waiting is None:
            self.size = 0
        for batch in batches:
            batch = to_device(batch, device_of(self.model))
            self.size = self.size or count_rows(batch)
            self.rows_read += count_rows(batch)
            kept = select(batch, self.keep(self.score(batch)))
            self.waiting = kept if self.waiting is None else join([self.waiting, kept])
            while count_rows(self.waiting) >= self.size:
                chosen = select(self.waiting, slice(0, self.size))
                self.waiting = select(self.waiting, slice(self.size, None))
                yield self.give(chosen)
        rest, self.waiting = self.waiting, None
        if rest is not None and count_rows(rest):
            yield self.give(rest)
        elif batch is not None and self.steps == before:
            yield self.give(to_device(batch, device_of(self.model)))

    def give(self, batch: Any) -> Any:
        """Count a batch before it is given."""
        self.weight = torch.ones(count_rows(batch))
        self.steps += 1
        return batch

    @torch.no_grad()
    def score(self, batch: Any) -> Float[Tensor, " rows"]:
        """Compute the loss of each row.

        Args:
            batch: Inputs and target, where the model is.

        Returns:
            Losses, on the CPU.
        """
        inputs, target = take_apart(batch)
        with kept_mode(self.model):
            self.model.eval()
            losses = checked_losses(self.loss_fn, call(self.model, inputs), target)
        return losses.double().cpu()

    def keep(self, losses: Float[Tensor, " rows"]) -> Int[Tensor, " kept"]:
        """Draw the rows to keep, after noting their losses.

        Args:
            losses: Loss of each row; one that is not finite is kept, so that training meets it.

        Returns:
            Positions, in rising order.
        """
        good = losses.isfinite()
        self.losses = torch.cat([self.losses, losses[good]])[-self.history :]
        known = self.losses.sort().values
        below = torch.searchsorted(known, losses)
        upto = torch.searchsorted(known, losses, right=True)
        rank = (below + upto + (upto > below)).double() / (2 * len(known))
        chance = torch.where(good, rank ** (self.presample - 1), 1.0)
        draws = torch.rand(len(losses), generator=self.generator, dtype=torch.float64)
        return (draws < chance).nonzero()[:, 0]

    def loss(self, output: Any, target: Any) -> Float[Tensor, ""]:
        """Give the mean loss of the batch, to back-propagate."""
        return weighted_loss(self.loss_fn, output, target, self.weight)[0]

    def summary(self) -> str:
        """Say in a sentence what was done."""
        return f"{self.steps} steps on rows of high loss; {self.rows_read} rows read and scored"

    def settings(self) -> dict[str, Any]:
        """Give the choices that decide the numbers of a run, as plain values."""
        return settings_of(self, self.choices)

    def state_dict(self) -> dict[str, Any]:
        """Give what another one needs to go on; where the loader stands is not part of it."""
        return state_of(self, self.saved)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        set_state(self, self.saved, state)
        self.waiting = to_device(self.waiting, device_of(self.model))
