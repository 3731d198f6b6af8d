"""Batches drawn from a scored pool."""

from collections.abc import Callable
from math import isfinite
from typing import Any

from jaxtyping import Float
from torch import Generator, Tensor

from lowland.importance.chosen import Chosen
from lowland.importance.resample import check_options, draw, focus, merge
from lowland.importance.rows import select
from lowland.training import generator, rank_and_world, seed_from

__all__ = ["Drawer"]


class Drawer:
    """Draws batches in proportion to scores, each process with randomness of its own.

    Args:
        scheme: See :func:`lowland.importance.draw`.
        mixing: Likewise.
        amortize: Batches drawn from one pool.
        merge_duplicates: Whether repeated draws become one row.
        weight_power: See :func:`lowland.importance.focus`.
        on_sample: Called as ``on_sample(step, index, weight)`` with every draw.
        seed: Seed of the draws.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        scheme: str,
        mixing: float,
        amortize: int,
        merge_duplicates: bool,
        weight_power: float,
        on_sample: Callable[[int, Tensor, Tensor], None] | None,
        seed: int,
    ):
        check_options(scheme, mixing)
        if not isinstance(amortize, int) or amortize < 1:
            raise ValueError(f"amortize must be at least 1 batch per pool; got {amortize!r}.")
        if isinstance(weight_power, str) or not isfinite(weight_power):
            raise ValueError(f"weight_power must be a finite number; got {weight_power!r}.")
        seed_from(seed)  # refuses what is none
        self.scheme, self.mixing, self.amortize = scheme, mixing, amortize
        self.merge_duplicates, self.weight_power = merge_duplicates, weight_power
        self.on_sample, self.seed = on_sample, seed
        self.own: Generator | None = None

    @property
    def generator(self) -> Generator:
        """Source of the draws; made when it is first asked for, as ranks may form late."""
        if self.own is None:
            self.own = generator(self.seed, "importance", rank_and_world()[0])
        return self.own

    def draw(self, pool: Any, scores: Float[Tensor, " pool"], size: int, step: int) -> list[Chosen]:
        """Draw batches from a pool.

        Args:
            pool: Its rows.
            scores: Of each row.
            size: Draws per batch.
            step: Number of the update that the first batch is for.

        Returns:
            ``amortize`` batches.
        """
        found = []
        for number in range(self.amortize):
            index, weight = draw(scores, size, self.scheme, self.generator, mixing=self.mixing)
            weight = focus(weight, scores[index], self.weight_power)
            if self.on_sample is not None:
                self.on_sample(step + number, index, weight)
            if self.merge_duplicates:
                index, weight = merge(index, weight)
            rows = select(pool, index)
            found.append(Chosen(rows, len(index), size, weight, index, is_scored=True))
        return found

    def settings(self) -> dict[str, Any]:
        """Give the choices as plain values.

        Returns:
            Keyword arguments by name.
        """
        names = ("scheme", "mixing", "amortize", "merge_duplicates", "weight_power", "seed")
        return {name: getattr(self, name) for name in names}
