"""Weights as lists of columns: for each row where the +1 are, and where the -1 are."""

from collections.abc import Iterator

import torch
from jaxtyping import Int, Int8, Int32, UInt16
from torch import Tensor

from lowland.control.packing.codes import row_chunks

__all__ = ["check_lists", "list_columns", "signs_of_lists"]

LONGEST = 2**31 - 1  # what int32 starts can count
MOST_COLUMNS = 2**16  # what uint16 can name


def list_columns(
    signs: Int8[Tensor, "rows columns"],
) -> tuple[UInt16[Tensor, " nonzero"], Int32[Tensor, " starts"]]:
    """List the columns of the weights that are not zero.

    Args:
        signs: -1, 0 and 1; at most 65,536 columns.

    Returns:
        Columns, and where the lists start: those of +1 in row r lie at ``starts[2 * r]`` up to
        ``starts[2 * r + 1]``, those of -1 from there to ``starts[2 * r + 2]``, each ascending.

    Raises:
        ValueError: If more than 2^31 - 1 weights are not zero.

    Source:
        Specification section 9, ``sparse16``.
    """
    rows, columns = signs.shape
    found, counts = [], []
    for part in row_chunks(rows, columns):
        lists = torch.stack([signs[part] > 0, signs[part] < 0], 1)
        counts.append(lists.sum(2).view(-1))
        found.append((lists.view(-1).nonzero().view(-1) % columns).to(torch.int32))
    starts = torch.nn.functional.pad(torch.cat(counts).cumsum(0), (1, 0))
    if int(starts[-1]) > LONGEST:
        raise ValueError(f"sparse16 holds at most {LONGEST} nonzero weights; got {starts[-1]}.")
    return torch.cat(found).to(torch.uint16), starts.to(torch.int32)


def signs_of_lists(
    listed: UInt16[Tensor, " nonzero"], starts: Int32[Tensor, " starts"], columns: int
) -> Int8[Tensor, "rows columns"]:
    """Undo :func:`list_columns`.

    Args:
        listed: Columns.
        starts: Where the lists start, twice the number of rows and one.
        columns: Number of columns.

    Returns:
        The signs.
    """
    rows = len(starts) // 2
    signs = torch.zeros(rows, columns, dtype=torch.int8, device=starts.device)
    for part, lists, values in by_rows(listed, starts, columns):
        place = (lists // 2) * columns + values
        signs[part].view(-1)[place] = (1 - 2 * (lists % 2)).to(torch.int8)
    return signs


def by_rows(
    listed: Tensor, starts: Tensor, columns: int
) -> Iterator[tuple[slice, Int[Tensor, " listed"], Int[Tensor, " listed"]]]:
    """Go through some rows at a time: which, for each entry its list among theirs, its column."""
    for part in row_chunks(len(starts) // 2, columns):
        bounds = starts[2 * part.start : 2 * part.stop + 1].long()
        lists = torch.arange(len(bounds) - 1, device=starts.device)
        values = listed[int(bounds[0]) : int(bounds[-1])].to(torch.int64)
        yield part, lists.repeat_interleave(bounds.diff()), values


def check_lists(listed: Tensor, starts: Tensor, columns: int) -> None:
    """Refuse lists that do not fit each other, or the number of columns.

    Args:
        listed: Columns, uint16.
        starts: Where the lists start, int32.
        columns: Number of columns.

    Raises:
        ValueError: If starts descend or leave the list, or if columns do not ascend, lie outside,
            or stand in both lists of a row.
    """
    counts = starts.long().diff()
    if int(starts[0]) != 0 or int(starts[-1]) != len(listed) or bool((counts < 0).any()):
        raise ValueError(
            f"starts must ascend from 0 to {len(listed)}, the number of listed columns; got "
            f"{int(starts[0])} to {int(starts[-1])}, or a step back between."
        )
    for part, lists, values in by_rows(listed, starts, columns):
        if len(values) and int(values.max()) >= columns:
            raise ValueError(f"listed columns must be less than {columns}; got {values.max()}.")
        if not bool(((values[1:] > values[:-1]) | (lists[1:] != lists[:-1])).all()):
            raise ValueError("the columns of a list must ascend; some do not.")
        size = (part.stop - part.start) * columns
        marks = torch.zeros(size, dtype=torch.bool, device=starts.device)
        marks[(lists // 2) * columns + values] = True
        if int(marks.count_nonzero()) != len(values):
            raise ValueError("a column must not stand in both lists of a row; one does.")
