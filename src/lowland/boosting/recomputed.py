"""Features that are not kept: the frozen parts run again for every batch, without a graph."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lowland.boosting.feature_set import Chunk, Features, freeze
from lowland.boosting.reading import one_pass
from lowland.training import as_pair, to_device

__all__ = ["RecomputedFeatures"]


class RecomputedFeatures(Features):
    """The user's batches behind the frozen parts; an update costs a forward pass of all of them.

    Batches are those of the user: their size, their order, their augmentation, new in every epoch.

    Args:
        batches: The user's.
        values_of: From inputs to what enters the first part.
        target: Classes in the order of the first pass.
        reason: Why nothing is kept.
        device: Where to compute.
        seed: Of the pass for statistics.

    Source:
        Ours, specification section 3.5.
    """

    def __init__(
        self,
        batches: Any,
        values_of: Callable[[Any], tuple[Tensor, ...]],
        target: Int[Tensor, " examples"],
        reason: str,
        *,
        device: torch.device,
        seed: int,
    ):
        super().__init__("recompute", device)
        self.source, self.values_of, self.reason, self.seed = batches, values_of, reason, seed
        self.target = target.to(device)

    @torch.no_grad()
    def values(self, inputs: Any) -> tuple[Tensor, ...]:
        """Run the frozen parts.

        Args:
            inputs: Of the model, on the device.

        Returns:
            What enters the next part.
        """
        values = self.values_of(inputs)
        for part in self.frozen:
            part.eval()  # whatever model.train() was called since
            values = part(*values)
        return values

    def weighted(self, stream: Iterator[Any]) -> Iterator[Chunk]:
        """Run batches of the user, and find the weights of their examples."""
        start = 0
        for batch in stream:
            inputs, target = to_device(as_pair(batch), self.device)
            stop = start + len(target)
            weights = None if self.weights is None else self.weights[start:stop]
            yield self.values(inputs), target.long(), weights
            start = stop

    def chunks(self, size: int | None = None) -> Iterator[Chunk]:
        """Go through the first pass again.

        Args:
            size: Plays no part: chunks are the user's batches.

        Returns:
            Iterator over values, target and weights (or None).
        """
        return self.weighted(one_pass(self.source, self.seed, "features", 0, epoch=0))

    def batches(self, batch_size: int, *, seed: int) -> "RecomputedBatches":
        """Make batches to train on.

        Args:
            batch_size: Plays no part: batches are the user's.
            seed: Decides what is random in reading them, together with the epoch.

        Returns:
            The batches.
        """
        return RecomputedBatches(self, seed)

    def advance(self, part: nn.Module) -> None:
        """Freeze a part and put it behind the others.

        Args:
            part: The part.
        """
        freeze(part)
        self.frozen.append(part)

    def bytes(self) -> int:
        """Size of what is kept.

        Returns:
            0.
        """
        return 0

    def describe(self) -> str:
        """Say that nothing is kept, and why.

        Returns:
            One sentence.
        """
        return (
            f"features of {self.count} examples are not kept, as {self.reason}: for every batch "
            "all frozen parts run again, without a graph."
        )


class RecomputedBatches:
    """The user's batches behind the frozen parts.

    Attributes:
        epoch: The one that the next pass goes through; each pass moves it on by one.

    Args:
        features: What to read.
        seed: Decides what is random.
    """

    def __init__(self, features: RecomputedFeatures, seed: int):
        self.features, self.seed, self.epoch = features, seed, 0

    def __len__(self) -> int:
        """Number of batches, where the user's have one."""
        return len(self.features.source)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next pass goes through.

        Args:
            epoch: Its number, counted from 0.
        """
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Any]]:
        """Go through the current epoch; the next call goes through the next one."""
        epoch = self.epoch
        self.epoch += 1
        return self.epoch_batches(epoch)

    def epoch_batches(self, epoch: int) -> Iterator[tuple[tuple[Tensor, ...], Any]]:
        """Go through an epoch without moving the current one.

        Args:
            epoch: Its number, counted from 0.

        Yields:
            Values and target, or values and ``(target, weights)``.
        """
        stream = one_pass(self.features.source, self.seed, "features", epoch, epoch=epoch)
        for values, target, weights in self.features.weighted(stream):
            yield values, target if weights is None else (target, weights)
