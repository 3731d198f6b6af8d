"""Rows of a whole data set by the loss they had last: by its power, or by its rank."""

from collections.abc import Iterator
from math import log
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.importance.baselines import weighted_loss
from lowland.importance.resample import draw
from lowland.importance.state import set_state, settings_of, state_of
from lowland.importance.whole_set import all_losses, note_losses, sized, whole_set
from lowland.training import generator
from lowland.training.evaluate import LossFn

__all__ = ["HistorySampling", "RankSampling", "rank_probabilities"]


class HistorySampling:
    r"""Draw rows by the loss they had when they were last trained on.

    .. math:: p_i \propto (l_i + c)^\alpha, \qquad w_i = (N p_i)^{-\beta}

    over all N rows, with replacement. With :math:`\beta = 1` the mean of :math:`w_j l_j` over a
    batch is an unbiased estimate of the mean loss, however old the losses are. A row that was
    never trained on counts with the largest loss known.

    Args:
        loss_fn: ``loss_fn(output, target)`` returns one loss per example, not negative.
        alpha: Power of the loss; 0 is uniform.
        beta: Power of the weight; 0 is unweighted.
        offset: The constant c, in the unit of the loss. It bounds the weight of a row whose loss
            is almost zero; the sources print none, and at 0.01 rows of a mean loss of 0.1 with
            the default powers weigh at most 3.3.
        seed: Seed of the draws.

    Attributes:
        losses: Last loss of every row, float64; NaN where there is none yet.
        weight: Weights of the last batch.
        steps: Batches given.

    Raises:
        ValueError: If a number is out of range.

    Source:
        Schaul et al., ICLR 2016, Eq. (1) and Section 3.4; weights without their normalization by
        the largest one. Grid of Katharopoulos & Fleuret: alpha 0.1, 0.5, 1; beta 0.5, 1.
    """

    saved = ("steps", "left", "generator", "losses")
    choices = ("alpha", "beta", "offset", "seed")

    def __init__(
        self,
        loss_fn: LossFn,
        alpha: float = 0.5,
        beta: float = 1.0,
        offset: float = 0.01,
        seed: int = 0,
    ):
        if min(alpha, beta) < 0 or offset <= 0:
            raise ValueError(
                "alpha and beta must not be negative and offset be positive; got "
                f"{alpha}, {beta} and {offset}."
            )
        self.loss_fn = loss_fn
        self.alpha, self.beta, self.offset = alpha, beta, offset
        self.seed = seed
        self.generator = generator(seed, "history sampling")
        self.losses = torch.empty(0, dtype=torch.float64)
        self.index = torch.empty(0, dtype=torch.int64)
        self.weight: Tensor | None = None
        self.steps = 0
        self.left = 0

    def __call__(self, batches: Any) -> Iterator[Any]:
        """Give as many batches as a pass has; after a saved state, the rest of its pass.

        Args:
            batches: See :func:`lowland.importance.whole_set.whole_set`.

        Yields:
            Batches.
        """
        whole = whole_set(batches)
        self.losses = sized(self.losses, whole.count, float("nan"))
        self.left = self.left or whole.steps
        while self.left:
            self.index, weight = draw(
                self.priorities(), whole.batch_size, "multinomial", self.generator
            )
            self.weight = weight**self.beta
            self.steps += 1
            self.left -= 1
            yield whole.rows(self.index, self.generator)

    def priorities(self) -> Float[Tensor, " examples"]:
        """Give what rows are drawn in proportion to.

        Returns:
            Not normalized, float64.
        """
        unknown = self.losses.isnan()
        if unknown.all():
            return torch.ones_like(self.losses)
        largest = self.losses[~unknown].max()
        return (torch.where(unknown, largest, self.losses) + self.offset) ** self.alpha

    def loss(self, output: Any, target: Any) -> Float[Tensor, ""]:
        """Give the weighted mean loss of the batch, to back-propagate; note the losses."""
        loss, losses = weighted_loss(self.loss_fn, output, target, self.weight)
        note_losses(self.losses, self.index, losses)
        return loss

    def summary(self) -> str:
        """Say in a sentence what was done."""
        seen = int((~self.losses.isnan()).sum())
        return f"{self.steps} steps; the loss of {seen} of {len(self.losses)} rows is known"

    def settings(self) -> dict[str, Any]:
        """Give the choices that decide the numbers of a run, as plain values."""
        return settings_of(self, self.choices)

    def state_dict(self) -> dict[str, Any]:
        """Give what another one needs to go on."""
        return state_of(self, self.saved)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        set_state(self, self.saved, state)


class RankSampling:
    r"""Draw rows by the rank of the loss they had last; no weights, so a biased gradient.

    The row with the largest loss has rank 0, and

    .. math:: p(\text{rank}) \propto \exp(-\log(s_e)\, \text{rank} / N)

    so the first is drawn about :math:`s_e` times as often as the last. The pressure :math:`s_e`
    moves geometrically from its first to its last value. Rows without a loss rank first, in an
    order drawn once.

    Args:
        loss_fn: ``loss_fn(output, target)`` returns one loss per example.
        steps: Batches until the pressure has its last value; it stays there.
        pressure: First and last :math:`s_e`, 1 or more; 1 is uniform.
        recompute_every: Batches between two computations of all N losses, None for never.
        model: Computes them, in evaluation mode.
        seed: Seed of the draws.

    Attributes:
        losses: Last loss of every row, float64; infinite where there is none yet.
        weight: A one for each row of the last batch.
        steps: Batches given.

    Raises:
        ValueError: If a number is out of range, or there is no model to compute losses.

    Source:
        Loshchilov & Hutter, 2015, arXiv 1511.06343, Section 3. Grid of Katharopoulos & Fleuret:
        pressures 1, 10, 100; all losses anew every 600, 1200 or 3600 updates.
    """

    saved = ("steps", "left", "generator", "losses", "first")
    choices = ("horizon", "pressure", "recompute_every", "seed")

    def __init__(
        self,
        loss_fn: LossFn,
        steps: int,
        pressure: tuple[float, float] = (100.0, 1.0),
        recompute_every: int | None = None,
        model: nn.Module | None = None,
        seed: int = 0,
    ):
        if steps < 1 or min(pressure) < 1:
            raise ValueError(
                f"steps and pressure must be at least 1; got steps {steps}, pressure {pressure}."
            )
        if recompute_every is not None and (recompute_every < 1 or model is None):
            given = "no model" if model is None else "a model"
            raise ValueError(
                "recompute_every must be positive and needs a model to compute losses; got "
                f"{recompute_every} and {given}."
            )
        self.loss_fn = loss_fn
        self.horizon, self.pressure = steps, pressure
        self.recompute_every = recompute_every
        self.model = model
        self.seed = seed
        self.generator = generator(seed, "rank sampling")
        self.losses = torch.empty(0, dtype=torch.float64)
        self.first = torch.empty(0, dtype=torch.int64)
        self.index = torch.empty(0, dtype=torch.int64)
        self.weight: Tensor | None = None
        self.steps = 0
        self.left = 0

    def __call__(self, batches: Any) -> Iterator[Any]:
        """Give as many batches as a pass has; after a saved state, the rest of its pass.

        Args:
            batches: See :func:`lowland.importance.whole_set.whole_set`.

        Yields:
            Batches.
        """
        whole = whole_set(batches)
        self.losses = sized(self.losses, whole.count, float("inf"))
        if not len(self.first):
            self.first = torch.randperm(whole.count, generator=self.generator)
        self.left = self.left or whole.steps
        while self.left:
            every, model = self.recompute_every, self.model
            if every and model and self.steps and self.steps % every == 0:
                everyone = torch.arange(whole.count)
                note_losses(self.losses, everyone, all_losses(model, self.loss_fn, whole))
            p = rank_probabilities(whole.count, self.pressure_now())
            ranks, _ = draw(p, whole.batch_size, "multinomial", self.generator)
            self.index = self.order()[ranks]
            self.weight = torch.ones(len(ranks))
            self.steps += 1
            self.left -= 1
            yield whole.rows(self.index, self.generator)

    def order(self) -> Tensor:
        """Sort rows from the largest to the smallest loss, equal ones in the order drawn once."""
        return self.first[self.losses[self.first].argsort(descending=True, stable=True)]

    def pressure_now(self) -> float:
        """Give the pressure of the next batch.

        Returns:
            :math:`s_e`, between the two.
        """
        first, last = self.pressure
        return first * (last / first) ** min(self.steps / self.horizon, 1)

    def loss(self, output: Any, target: Any) -> Float[Tensor, ""]:
        """Give the mean loss of the batch, to back-propagate; note the losses."""
        loss, losses = weighted_loss(self.loss_fn, output, target, self.weight)
        note_losses(self.losses, self.index, losses)
        return loss

    def summary(self) -> str:
        """Say in a sentence what was done."""
        seen = int(self.losses.isfinite().sum())
        return (
            f"{self.steps} steps; the loss of {seen} of {len(self.losses)} rows is known; "
            f"pressure {self.pressure_now():.3g}"
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


def rank_probabilities(count: int, pressure: float) -> Float[Tensor, " examples"]:
    r"""Compute the chance of each rank, :math:`\propto \exp(-\log(s_e)\, \text{rank} / N)`.

    Args:
        count: Number of rows N.
        pressure: :math:`s_e`.

    Returns:
        Probabilities of the ranks 0, 1, ..., float64.

    Source:
        Loshchilov & Hutter, 2015, Section 3.

    Example:
        >>> rank_probabilities(2, 4.0)
        tensor([0.6667, 0.3333], dtype=torch.float64)
    """
    p = torch.exp(-log(pressure) / count * torch.arange(count, dtype=torch.float64))
    return p / p.sum()
