"""How many rows fit into memory together: found by trying, halved where it runs out."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Room", "in_chunks"]


@dataclass
class Room:
    """What was learned about the memory.

    Attributes:
        too_many: Rows times examples for which it was too short; None as long as it never was.
    """

    too_many: int | None = None


def in_chunks(
    rows: int, examples: int, most: int, room: Room, run: Callable[[slice], None]
) -> None:
    """Run some rows together, then the next ones; half as many after memory ran out.

    Args:
        rows: Number of rows.
        examples: Examples of the batch that every row sees.
        most: Rows times examples to run at once, if memory allows; at least one row is run.
        room: What was learned before; written.
        run: Does the work of some rows. It is called again, with fewer, where it ran out of
            memory, and must have left nothing behind then.

    Raises:
        torch.OutOfMemoryError: If a single row is too large.
    """
    start = 0
    while start < rows:
        stop = min(start + rows_at_once(examples, most, room), rows)
        if fits(run, slice(start, stop)):
            start = stop
        else:
            room.too_many = (stop - start) * examples


def rows_at_once(examples: int, most: int, room: Room) -> int:
    """Number of rows to try: at most half of what was too many."""
    if room.too_many is not None:
        most = min(most, room.too_many // 2)
    return max(1, most // examples)


def fits(run: Callable[[slice], None], rows: slice) -> bool:
    """Run some rows, unless memory is too short; a single row that is too large is an error."""
    try:
        run(rows)
    except torch.OutOfMemoryError:
        if rows.stop - rows.start == 1:
            raise
        return False
    return True
