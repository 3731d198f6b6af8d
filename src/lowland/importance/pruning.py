"""InfoBatch: leave out a part of the rows that are learned well, epoch by epoch."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.importance.baselines import weighted_loss
from lowland.importance.state import set_state, settings_of, state_of
from lowland.importance.whole_set import note_losses, sized, whole_set
from lowland.training import generator
from lowland.training.evaluate import LossFn

__all__ = ["InfoBatchPruning"]


class InfoBatchPruning:
    r"""Train an epoch without a random part of the rows whose last loss is below the mean.

    Of the m rows below the mean of all last losses, :math:`k = (1 - r) m` (rounded, at least 1)
    are kept, and their losses weighted by

    .. math:: w = m / k \approx 1 / (1 - r);

    all other rows are kept with weight 1. So the sum of :math:`w_i l_i` over an epoch has the sum
    of all losses as its expectation. A batch is averaged over its rows, as published: there are
    fewer steps than in a full epoch, and each is longer. The first epoch, where no loss is known,
    and the last ones are full.

    Args:
        loss_fn: ``loss_fn(output, target)`` returns one loss per example, not negative.
        epochs: Planned number of passes.
        prune: Share r of the rows below the mean that is left out, 0 or more, below 1.
        anneal: Share of the epochs after which nothing is left out, and weights are 1.
        seed: Seed of choice and order.

    Attributes:
        losses: Last loss of every row, float64; NaN where there is none yet.
        weight: Weights of the last batch.
        steps: Batches given.
        epoch: Passes begun.

    Raises:
        ValueError: If a number is out of range.

    Source:
        Qin et al., ICLR 2024, arXiv 2303.04947, Section 2; a fixed number of rows instead of
        independent choices, as in its code.
    """

    saved = ("steps", "epoch", "place", "generator", "losses", "order", "weights")
    choices = ("epochs", "prune", "anneal", "seed")

    def __init__(
        self,
        loss_fn: LossFn,
        epochs: int,
        prune: float = 0.5,
        anneal: float = 0.875,
        seed: int = 0,
    ):
        if epochs < 1 or not 0 <= prune < 1 or not 0 <= anneal <= 1:
            raise ValueError(
                "epochs must be at least 1, prune lie in [0, 1) and anneal in [0, 1]; got "
                f"{epochs}, {prune} and {anneal}."
            )
        self.loss_fn = loss_fn
        self.epochs, self.prune, self.anneal = epochs, prune, anneal
        self.seed = seed
        self.generator = generator(seed, "pruning")
        self.losses = torch.empty(0, dtype=torch.float64)
        self.order = torch.empty(0, dtype=torch.int64)
        self.weights = torch.empty(0, dtype=torch.float64)
        self.index = torch.empty(0, dtype=torch.int64)
        self.weight: Tensor | None = None
        self.steps = self.epoch = self.place = 0

    @property
    def kept(self) -> int:
        """Number of rows of the present pass."""
        return len(self.order)

    def __call__(self, batches: Any) -> Iterator[Any]:
        """Go through one epoch; after a saved state, through the rest of it.

        Args:
            batches: See :func:`lowland.importance.whole_set.whole_set`.

        Yields:
            Batches, the last one perhaps smaller.
        """
        whole = whole_set(batches)
        self.losses = sized(self.losses, whole.count, float("nan"))
        if self.place == self.kept:
            self.plan()
        while self.place < self.kept:
            part = slice(self.place, self.place + whole.batch_size)
            self.index, self.weight = self.order[part], self.weights[part]
            self.place += len(self.index)
            self.steps += 1
            yield whole.rows(self.index, self.generator)

    def plan(self) -> None:
        """Choose the rows of an epoch, their order and their weights."""
        below = self.losses < self.losses.nanmean()
        if self.epoch >= int(self.anneal * self.epochs):
            below[:] = False
        easy, others = below.nonzero()[:, 0], (~below).nonzero()[:, 0]
        count = max(round((1 - self.prune) * len(easy)), min(1, len(easy)))
        chosen = easy[torch.randperm(len(easy), generator=self.generator)[:count]]
        order = torch.cat([others, chosen])
        weights = torch.ones(len(order), dtype=torch.float64)
        weights[len(others) :] = len(easy) / max(count, 1)
        mixed = torch.randperm(len(order), generator=self.generator)
        self.order, self.weights = order[mixed], weights[mixed]
        self.epoch, self.place = self.epoch + 1, 0

    def loss(self, output: Any, target: Any) -> Float[Tensor, ""]:
        """Give the weighted mean loss of the batch, to back-propagate; note the losses."""
        loss, losses = weighted_loss(self.loss_fn, output, target, self.weight)
        note_losses(self.losses, self.index, losses)
        return loss

    def summary(self) -> str:
        """Say in a sentence what was done."""
        return (
            f"{self.steps} steps in {self.epoch} epochs; "
            f"{self.kept} of {len(self.losses)} rows in the last one"
        )

    def settings(self) -> dict[str, Any]:
        """Give the choices that decide the numbers of a run, as plain values."""
        return settings_of(self, self.choices)

    def state_dict(self) -> dict[str, Any]:
        """Give what another one needs to go on."""
        return state_of(self, self.saved)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        set_state(self, self.saved, state)
