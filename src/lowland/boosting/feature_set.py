"""What the trainer of a block may ask of the data that enters it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["Chunk", "Features", "freeze"]

Chunk = tuple[tuple[Tensor, ...], Tensor, Tensor | None]


class Features(ABC):
    """One data set as it enters the next part of a chain.

    Made by :func:`lowland.boosting.features.read_features`.

    Args:
        cache: ``"device"``, ``"host"``, ``"disk"`` or ``"recompute"``.
        device: Where values are handed out.
        views: How many versions of each example are kept; 1 where data is not random.

    Attributes:
        target: Their classes on the device, in the order of :meth:`chunks`.
        weights: One weight for each, on the device, or None.
        is_random: Whether two passes over the user's batches gave different examples.
        is_stable: Whether examples come at the same places in every pass.
        frozen: The parts that the data has gone through.
    """

    def __init__(self, cache: str, device: torch.device, views: int = 1):
        self.cache, self.device, self.views = cache, device, views
        self.target: Int[Tensor, " examples"] = torch.empty(0, dtype=torch.int64, device=device)
        self.weights: Float[Tensor, " examples"] | None = None
        self.is_random, self.is_stable = False, True
        self.frozen: list[nn.Module] = []

    @property
    def count(self) -> int:
        """Number of examples m."""
        return len(self.target)

    @abstractmethod
    def chunks(self, size: int | None = None) -> Iterator[Chunk]:
        """Go through the whole set in a fixed order, each example once, for statistics.

        Args:
            size: Examples at a time; None takes as many as the largest of the user's batches.

        Returns:
            Iterator over values, target and weights (or None), on the device.
        """

    @abstractmethod
    def batches(self, batch_size: int, *, seed: int) -> Any:
        """Make batches to train on.

        Args:
            batch_size: Examples of a batch; the last batch of an epoch may be smaller.
            seed: Decides order and views, together with the epoch.

        Returns:
            Re-iterable of ``(values, target)`` with ``len`` and ``set_epoch``, as
            :func:`lowland.training.train` takes it; with sample weights the second is
            ``(target, weights)``.
        """

    @abstractmethod
    def advance(self, part: nn.Module) -> None:
        """Freeze a part and let the data go through it, in eval mode and without a graph.

        Args:
            part: ``part(*values)`` returns the next values. Its parameters do not require a
                gradient afterwards.

        Raises:
            FloatingPointError: If a feature is not finite; the data stays before the part.
        """

    @abstractmethod
    def bytes(self) -> int:
        """Size of what is kept of the current layer.

        Returns:
            Bytes; 0 where it is recomputed.
        """

    @abstractmethod
    def describe(self) -> str:
        """Say where the features are, and how large.

        Returns:
            One sentence.
        """


def freeze(part: nn.Module) -> None:
    """Keep a part as it is: no gradients, and eval mode.

    Args:
        part: Changed in place.
    """
    part.eval()
    part.requires_grad_(False)
