"""The batch that the user's loop has now, and whether the loss that comes back is of its rows."""

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.errors import FallbackWarning, NoEffectWarning
from lowland.importance.chosen import Chosen
from lowland.importance.pools import Pools

__all__ = ["Handed"]


class Handed:
    """Watches that a loop takes the loss of the rows that it was given, by their weights.

    Args:
        pools: Tell a batch's targets.

    Attributes:
        current: The batch handed out last, None between passes.
        before: The one before it, if its loss was not taken.
        is_used: Whether the loss or the weights of the current batch were asked for.
    """

    def __init__(self, pools: Pools):
        self.pools = pools
        self.current: Chosen | None = None
        self.before: Chosen | None = None
        self.is_used = False
        self.has_warned = False
        self.has_told = False

    def give(self, chosen: Chosen) -> None:
        """Take note of a batch that is handed out.

        Args:
            chosen: The batch.
        """
        self.before = None if self.is_used else self.current
        self.current, self.is_used = chosen, False

    def clear(self) -> None:
        """Forget the batch at the end of a pass."""
        self.current = self.before = None
        self.is_used = False

    def check_used(self, *, is_live: bool = True) -> None:
        """Look whether the loss was taken, when the next batch is asked for.

        Args:
            is_live: Whether the pass that asks is the one that began last.

        Raises:
            ValueError: If it is not; or if rows were chosen, and neither their loss nor their
                weights were asked for; after a uniform batch there is a warning, once.
        """
        if not is_live:
            raise ValueError(
                "a pass must end before the next one begins, as the weights are those of the batch "
                "handed out last; another one has begun. Take a sampling for each loop, or one "
                "loop over both loaders."
            )
        if self.current is None or self.is_used:
            return
        if self.current.is_chosen:
            raise ValueError(
                "loss must be called for every batch of chosen rows, as their plain mean loss is "
                "biased; the next batch was asked for without. Train on sampling.loss(output, "
                "target); whatever reads ahead belongs around the loader, not around the sampling."
            )
        if not self.has_warned:
            self.has_warned = True
            warnings.warn(
                "sampling.loss was not called before the next batch was asked for, so that "
                "nothing is learned about these rows: without it this is plain SGD for good. "
                "Train on sampling.loss(output, target); whatever reads ahead belongs around the "
                "loader, not around the sampling.",
                NoEffectWarning,
                stacklevel=3,
            )

    def check_loss(self, target: Any) -> tuple[Chosen, Any]:
        """Find the batch that a loss is for.

        Args:
            target: What the loss is computed with.

        Returns:
            The batch, and its inputs if they are still to be scored.

        Raises:
            ValueError: If no batch was handed out, or the targets are those of another one.
        """
        current = self.current
        if current is None:
            raise ValueError(
                "loss must be called for a batch that sampling(batches) has just handed out; there "
                "is none. Write: for x, y in sampling(loader): loss = sampling.loss(model(x), y)."
            )
        inputs, own = None, None
        if current.is_scored:
            own = self.pools.targets(current.batch)
        else:
            inputs, own = self.pools.pair(current.batch)
        if isinstance(target, Tensor) and isinstance(own, Tensor) and not is_same(target, own):
            self.check_other(target, own)
        self.is_used = True
        return current, inputs

    def check_other(self, target: Tensor, own: Tensor) -> None:
        """Refuse targets that are certainly those of other rows, and warn where they may be."""
        earlier = None if self.before is None else self.pools.targets(self.before.batch)
        if isinstance(earlier, Tensor) and is_same(target, earlier):
            raise ValueError(
                "loss must get the batch that was handed out last; got the one before it, which "
                "has other weights. Whatever reads ahead belongs around the loader: "
                "sampling(ahead(loader)), not ahead(sampling(loader))."
            )
        if own.device.type != "cpu" or (target.shape, target.dtype) != (own.shape, own.dtype):
            return  # somebody's transform of them; to compare would wait for the device
        if torch.equal(target, own):
            return
        if not own.is_floating_point():
            raise ValueError(
                "loss must get the targets of the rows that were handed out, in their order; "
                "got others of the same shape. If the loop is to change targets, "
                "do it in get_targets, so that the scores see it too."
            )
        if not self.has_told:
            self.has_told = True
            warnings.warn(
                "loss got other targets than were handed out. If these are other rows, the "
                "weights are wrong for them; if the loop changes targets, do it in get_targets, "
                "so that the scores see it too.",
                FallbackWarning,
                stacklevel=4,
            )

    def mean(self, values: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
        """Estimate the mean of a per-example quantity.

        Args:
            values: One per row; with a gradient they count as the loss.

        Returns:
            See :meth:`lowland.importance.chosen.Chosen.mean`.

        Raises:
            ValueError: If no batch was handed out.
        """
        if self.current is None:
            raise ValueError("mean must be called while sampling(batches) hands out batches.")
        self.is_used = self.is_used or values.requires_grad
        return self.current.mean(values)

    def weight(self, device: torch.device) -> Float[Tensor, " rows"]:
        """Give the weights, to somebody who weighs the rows.

        Args:
            device: Where ones are made.

        Returns:
            One per row.

        Raises:
            ValueError: If no batch was handed out.
        """
        if self.current is None:
            raise ValueError("there are weights only while sampling(batches) hands out batches.")
        self.is_used = True
        if self.current.weight is None:
            return torch.ones(self.current.rows, device=device)
        return self.current.weight


def is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one, or the same view of the same numbers."""
    if a is b:
        return True
    if a.layout != torch.strided or b.layout != torch.strided:
        return False
    return (a.data_ptr(), a.shape, a.stride()) == (b.data_ptr(), b.shape, b.stride())
