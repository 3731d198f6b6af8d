"""A batch on its way through the user's loop."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.importance.rows import count_rows

__all__ = ["Chosen", "uniform"]


@dataclass
class Chosen:
    """A batch on its way through the user's loop.

    Attributes:
        batch: What the loop gets.
        rows: Its examples.
        draws: Draws it stands for; more than rows where repeated draws were merged.
        weight: Of each row; None for a uniform batch.
        index: Rows of the pool, None for a uniform batch.
        is_scored: Whether its scores have been fed to the switch.
    """

    batch: Any
    rows: int
    draws: int
    weight: Tensor | None = None
    index: Tensor | None = None
    is_scored: bool = False

    @property
    def is_chosen(self) -> bool:
        """Whether its rows were drawn by their scores."""
        return self.weight is not None

    def mean(self, values: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
        """Estimate the mean of a per-example quantity over the pool, without bias.

        Args:
            values: One per row.

        Returns:
            The mean of a uniform batch, else the weighted sum over the number of draws, never
            over the sum of the weights.
        """
        if self.weight is None:
            return values.mean(dtype=torch.promote_types(values.dtype, torch.float32))
        return (values * self.weight).sum() / self.draws


def uniform(batch: Any, is_scored: bool = False) -> Chosen:
    """Wrap a batch that was not chosen.

    Args:
        batch: Its rows.
        is_scored: Whether their scores are known.

    Returns:
        The batch, with weights of 1.
    """
    rows = count_rows(batch)
    return Chosen(batch, rows, rows, is_scored=is_scored)
