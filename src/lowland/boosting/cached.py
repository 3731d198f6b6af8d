"""Features that are kept: every part of the chain runs once over the data, and never again."""

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lowland.boosting.feature_set import Chunk, Features, freeze
from lowland.boosting.storage import Storage
from lowland.training import generator, kept_mode

__all__ = ["CachedFeatures", "ShuffledBatches"]


class CachedFeatures(Features):
    """Features of all examples at one place; while a part is frozen, those of two layers.

    They are empty until :meth:`fill`.

    Args:
        place: See :class:`lowland.boosting.storage.Storage`.
        device: Where values are handed out.
        views: Versions of each example.
        chunk: Examples that go through a part at a time.
        dtype: What floating-point features are kept as; None keeps their type.
        folder: Of the files on disk; None takes the system's.

    Source:
        Huang et al., ICML 2018, Section 4.3; memory, views and places ours (specification
        section 3.5).
    """

    def __init__(
        self,
        place: str,
        device: torch.device,
        *,
        views: int = 1,
        chunk: int = 500,
        dtype: torch.dtype | None = None,
        folder: str | Path | None = None,
    ):
        super().__init__(place, device, views)
        self.chunk, self.dtype, self.folder = chunk, dtype, folder
        self.labels = self.target
        self.stores: tuple[Storage, ...] = ()

    def fill(self, labels: Int[Tensor, " rows"], stores: tuple[Storage, ...]) -> None:
        """Take the first layer.

        Args:
            labels: Classes of all rows, ``(views * examples,)``; those of a view come together.
            stores: The rows.
        """
        self.labels, self.stores = labels.to(self.device), stores
        self.target = self.labels[: len(labels) // self.views]

    def chunks(self, size: int | None = None) -> Iterator[Chunk]:
        """Go through the first view in its order.

        Args:
            size: Examples at a time; None takes as many as the largest of the user's batches.

        Yields:
            Values, target and weights (or None).
        """
        size = self.chunk if size is None else size
        for start in range(0, self.count, size):
            stop = min(start + size, self.count)
            weights = None if self.weights is None else self.weights[start:stop]
            values = tuple(store.slice(start, stop) for store in self.stores)
            yield values, self.target[start:stop], weights

    def batches(self, batch_size: int, *, seed: int) -> "ShuffledBatches":
        """Make shuffled batches; every epoch has one random view of each example.

        Args:
            batch_size: Examples of a batch.
            seed: Decides order and views, together with the epoch.

        Returns:
            The batches. Where views are kept of data that comes in another order in every pass,
            it is not known which rows are of one example: an epoch is then ``count`` of all rows
            at random, without repeats.

        Raises:
            ValueError: If the batch size is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
        return ShuffledBatches(self, batch_size, seed)

    def order(self, seed: int, epoch: int) -> Int[Tensor, " examples"]:
        """Draw the rows of an epoch, on the CPU.

        Args:
            seed: Of the batches.
            epoch: Its number.

        Returns:
            Positions of rows.
        """
        draws = generator(seed, "features", epoch)
        if self.views > 1 and not self.is_stable:
            return torch.randperm(len(self.labels), generator=draws)[: self.count]
        order = torch.randperm(self.count, generator=draws)
        if self.views > 1:
            order += self.count * torch.randint(self.views, (self.count,), generator=draws)
        return order

    @torch.no_grad()
    def advance(self, part: nn.Module) -> None:
        """Freeze a part; the old layer is let go when the new one is complete.

        Args:
            part: The part.

        Raises:
            FloatingPointError: If a feature is not finite; the data stays before the part.
        """
        total = len(self.labels)
        builder = Builder(self, total)
        with kept_mode(part):
            part.eval()
            for start in range(0, total, self.chunk):
                values = tuple(
                    store.slice(start, min(start + self.chunk, total)) for store in self.stores
                )
                builder.add(part(*values), values)
        self.stores = builder.stores(f"behind part {len(self.frozen) + 1} of the chain")
        freeze(part)
        self.frozen.append(part)

    def bytes(self) -> int:
        """Size of the current layer.

        Returns:
            Bytes, of all views.
        """
        return sum(store.bytes() for store in self.stores)

    def describe(self) -> str:
        """Say where the features are, and how large.

        Returns:
            One sentence.
        """
        where = {"device": f"on {self.device}", "host": "in host memory", "disk": "on disk"}
        kinds = sorted({str(store.data.dtype).removeprefix("torch.") for store in self.stores})
        views = f", {self.views} views of each" if self.views > 1 else ""
        return (
            f"features of {self.count} examples{views} are kept {where[self.cache]} as "
            f"{' and '.join(kinds)}: {self.bytes() / 2**20:.1f} MiB for this layer; two layers "
            "while a part is frozen."
        )


class Builder:
    """Writes the rows of a new layer, one chunk after the other.

    Args:
        features: Which place, type and folder.
        total: Number of rows.
    """

    def __init__(self, features: CachedFeatures, total: int):
        self.features, self.total, self.start = features, total, 0
        self.made: list[Storage] = []
        self.are_finite: list[Tensor] = []

    def add(self, outputs: tuple[Tensor, ...], values: tuple[Tensor, ...] = ()) -> None:
        """Write some rows.

        Args:
            outputs: Rows of each tensor of the new layer.
            values: What they were made from: a tensor that is handed on as it is, is not written.
        """
        if not self.made:
            self.made = [self.place_for(output, values) for output in outputs]
        for place, (store, output) in enumerate(zip(self.made, outputs, strict=True)):
            if store not in self.features.stores:
                is_finite = store.write(self.start, output)
                if not place:  # of the sides, masks hold minus infinity
                    self.are_finite.append(is_finite)
        self.start += len(outputs[0])

    def place_for(self, output: Tensor, values: tuple[Tensor, ...]) -> Storage:
        """Find the old storage of a tensor that stays, or make a new one."""
        for store, value in zip(self.features.stores, values, strict=False):
            if output is value and value._version == 0:  # not changed in place since it was read
                return store
        features = self.features
        return Storage(
            output,
            self.total,
            features.cache,
            device=features.device,
            dtype=features.dtype,
            folder=features.folder,
        )

    def stores(self, where: str) -> tuple[Storage, ...]:
        """Give the new layer, if it is good."""
        if self.are_finite and not torch.stack(self.are_finite).all():
            raise FloatingPointError(
                f"features must be finite as they are kept; got others {where}. Look at the "
                "weights before it; numbers beyond 65504 need bfloat16 or float32."
            )
        return tuple(self.made)


class ShuffledBatches:
    """Batches of kept features, in an order that only seed and epoch decide.

    Attributes:
        epoch: The one that the next pass goes through; each pass moves it on by one.

    Args:
        features: What to draw from: the layer that they hold when a pass begins.
        batch_size: Examples of a batch.
        seed: Decides the order.
    """

    def __init__(self, features: CachedFeatures, batch_size: int, seed: int):
        self.features, self.batch_size, self.seed, self.epoch = features, batch_size, seed, 0

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return -(-self.features.count // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next pass goes through.

        Args:
            epoch: Its number, counted from 0.
        """
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor | tuple[Tensor, Tensor]]]:
        """Go through the current epoch; the next call goes through the next one."""
        epoch = self.epoch
        self.epoch += 1
        return self.epoch_batches(epoch)

    def epoch_batches(
        self, epoch: int
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor | tuple[Tensor, Tensor]]]:
        """Go through an epoch without moving the current one.

        Args:
            epoch: Its number, counted from 0.

        Yields:
            Values and target, or values and ``(target, weights)``.
        """
        features, stores = self.features, self.features.stores
        order = features.order(self.seed, epoch)
        at_store, at_target = order.to(stores[0].place), order.to(features.device)
        pairs = zip(at_store.split(self.batch_size), at_target.split(self.batch_size), strict=True)
        for index, positions in pairs:
            values = tuple(store.rows(index) for store in stores)
            target = features.labels.index_select(0, positions)
            if features.weights is None:
                yield values, target
            else:
                yield values, (target, features.weights[positions % features.count])
