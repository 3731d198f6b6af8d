"""Batches and pools, read from whatever the user's loop goes through."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch

from lowland.errors import FallbackWarning
from lowland.importance.rows import Rows, count_rows, take_apart
from lowland.training import to_device

__all__ = ["Pools"]


class Pools:
    """Reads the next batch or pool, and knows how large a batch is.

    Args:
        presample: Pool over batch.
        batch_size: Rows of a batch; None takes the first batch's.
        device: Tells where rows are put; asked at every batch, as a model may move.
        get_inputs: See :func:`lowland.importance.rows.take_apart`.
        get_targets: Likewise.

    Raises:
        ValueError: If the pool would be no larger than the batch.
    """

    def __init__(
        self,
        presample: float,
        batch_size: int | None,
        device: Callable[[], torch.device],
        get_inputs: Callable[[Any], Any] | None,
        get_targets: Callable[[Any], Any] | None,
    ):
        self.presample, self.batch_size, self.device = presample, batch_size, device
        self.get_inputs, self.get_targets = get_inputs, get_targets
        self.rows: Rows | None = None
        self.held: Any = None  # for the next pass to begin with
        self.left: Any = None  # by a pass that was broken off; for a saved state only
        self.is_middle = False  # whether a pass that began elsewhere goes on
        self.size: int | None = None
        self.has_warned = False
        if batch_size is not None:
            self.know_size(batch_size)

    def know_size(self, size: int) -> None:
        """Settle the batch size.

        Args:
            size: Rows of a batch.

        Raises:
            ValueError: If the pool would be no larger than that.
        """
        if not isinstance(size, int) or size < 1:
            raise ValueError(
                f"batch_size must be a whole number of rows, at least 1; got {size!r}."
            )
        if round(self.presample * size) <= size:
            raise ValueError(
                "presample must make a pool larger than the batch; got "
                f"{self.presample} times {size} rows. Take 2 to 6."
            )
        self.size = size

    def open(self, batches: Iterable[Any]) -> Rows:
        """Begin a pass, with the rows that an interrupted one has left.

        Args:
            batches: What to go through.

        Returns:
            The stream of rows.
        """
        self.rows = Rows(iter(batches), self.place, self.held)
        self.held = self.left = None
        if self.size is None and (batch := self.rows.take()) is not None:
            self.know_size(count_rows(batch))
            self.rows.held = batch
        return self.rows

    def close(self) -> None:
        """End a pass."""
        self.left = None if self.rows is None else self.rows.held
        self.rows, self.is_middle = None, False

    def batch(self, rows: Rows) -> Any | None:
        """Read a batch, as it comes where nothing speaks against it.

        Args:
            rows: The stream.

        Returns:
            The batch, None at the end.
        """
        is_whole = rows.held is None and self.batch_size is None
        return rows.take() if is_whole else self.unless_alone(rows.take(self.size), rows)

    def pool(self, rows: Rows, size: int) -> Any | None:
        """Read a pool, and warn once if the whole data set is smaller.

        Args:
            rows: The stream.
            size: Rows wanted.

        Returns:
            The pool, smaller at the end, None behind it.
        """
        pool = self.unless_alone(rows.take(size), rows)
        if pool is None:
            return None
        found = count_rows(pool)
        is_whole = found == rows.count and not self.is_middle
        if found < size and is_whole and not self.has_warned:
            self.has_warned = True
            warnings.warn(
                f"the data set has {found} examples, fewer than a pool of {size}; the whole set "
                "is the pool. Lower presample or batch_size.",
                FallbackWarning,
                stacklevel=4,
            )
        return pool

    def unless_alone(self, batch: Any | None, rows: Rows) -> Any | None:
        """Keep a single row that is left at the end for the next pass to begin with.

        Alone it has no variance for a batch norm, and a whole step would be of one row. To drop it
        would be biased where the order is always the same. In the middle of a pass, and where
        batches are padded to many lengths, it has no others to go with and is handed out.

        Args:
            batch: Rows that were read together, None behind the end.
            rows: Where they come from.

        Returns:
            The same, also if there is no other row at all; or None at the end of the pass.
        """
        if batch is None or 1 in (self.size, rows.count) or count_rows(batch) > 1:
            return batch
        if rows.held is not None or not rows.is_even:
            return batch
        self.held = batch
        return None

    def place(self, batch: Any) -> Any:
        """Move a batch to the model.

        Args:
            batch: The user's.

        Returns:
            The same there.
        """
        return to_device(batch, self.device())

    def pair(self, batch: Any) -> tuple[Any, Any]:
        """Find a batch's inputs and targets.

        Args:
            batch: The user's.

        Returns:
            Inputs and targets.
        """
        return take_apart(batch, self.get_inputs, self.get_targets)

    def targets(self, batch: Any) -> Any:
        """Find a batch's targets, without a word to ``get_inputs``.

        Args:
            batch: The user's.

        Returns:
            Its targets.
        """
        return take_apart(batch, lambda _: None, self.get_targets)[1]

    def state(self) -> Any:
        """Give the rows that were read but not handed out.

        Returns:
            A batch, or None.
        """
        if self.rows is not None:
            return self.rows.held
        return self.left if self.held is None else self.held

    def load(self, held: Any, size: int | None) -> None:
        """Begin the next pass in the middle of one.

        Args:
            held: Rows that were read but not handed out, or None.
            size: Rows of a batch, None if that is not known yet.
        """
        self.held, self.left, self.size, self.is_middle = self.place(held), None, size, True
