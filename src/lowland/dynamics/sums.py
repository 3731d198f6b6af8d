"""Sums over millions of coordinates: fast by pieces, accurate in float64, without waiting."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.training import wide_type

__all__ = ["Number", "as_tensor", "cut", "number", "pieces_of", "power_sums", "square_sum"]

# On a CPU plain numbers; elsewhere scalars that nobody has waited for.
Number = float | Tensor

# Coordinates that are subtracted and squared at once: they stay in the cache of a processor.
PIECE = {"cpu": 2**16}
PIECE_ELSEWHERE = 2**24
# One pass instead of two; F.mse_loss does the same after checks that take half as long as a piece.
squared_difference = torch.ops.aten.mse_loss.default


def pieces_of(
    sizes: Iterable[int], per_layer: bool, device: torch.device
) -> list[tuple[int, int, int]]:
    """Cut a vector into pieces.

    Args:
        sizes: Number of coordinates of each tensor.
        per_layer: Whether a piece must not reach over the end of a tensor.
        device: Where the vector is.

    Returns:
        ``(layer, start, stop)`` of each piece; the layer is 0 unless ``per_layer``.

    Source:
        Ours.
    """
    longest = PIECE.get(device.type, PIECE_ELSEWHERE)
    pieces, start = [], 0
    for layer, size in enumerate(sizes if per_layer else [sum(sizes)]):
        cuts = range(start, start + size, longest)
        pieces += [(layer, cut, min(cut + longest, start + size)) for cut in cuts]
        start += size
    return pieces


def cut(
    parts: Sequence[Float[Tensor, " _part"]], pieces: list[tuple[int, int, int]]
) -> list[list[Tensor]]:
    """Find the pieces of a vector that lies in parts.

    Args:
        parts: The vector, one part after the other.
        pieces: Of the whole, see :func:`pieces_of`.

    Returns:
        For each piece the views of the parts that make it up.

    Source:
        Ours.
    """
    starts = [0, *accumulate(map(len, parts))]
    return [
        [
            part[max(start - begin, 0) : stop - begin]
            for begin, end, part in zip(starts, starts[1:], parts, strict=False)
            if begin < stop and start < end
        ]
        for _, start, stop in pieces
    ]


@torch.inference_mode()
def power_sums(
    now: Sequence[Sequence[Float[Tensor, " _part"]]],
    past: Sequence[Sequence[Float[Tensor, " _piece"]]],
    layers: Sequence[int],
    count: int,
) -> tuple[Number, list[list[Number]]]:
    r"""Compute :math:`|x|^2`, and for every y its squared distance and the fourth powers.

    A piece of ``x`` is read once and compared with all others while it is in the cache.
    Differences and their powers are in the type of ``x`` and summed by pieces; the sums of the
    pieces are added up in float64.

    Args:
        now: What the pieces of x consist of, see :func:`cut`.
        past: Of each y the pieces, perhaps elsewhere.
        layers: The layer of each piece.
        count: Number of layers.

    Returns:
        The square of x; for each y :math:`\sum_i (y_i - x_i)^2` by layer, and
        :math:`\sum_i (y_i - x_i)^4` of all; as :data:`Number` where x is.

    Source:
        Ours.
    """
    square: Number = 0.0
    rows: list[list[Number]] = [[0.0] * (count + 1) for _ in past]
    for layer, parts, *others in zip(layers, now, *past, strict=True):
        piece = parts[0] if len(parts) == 1 else torch.cat(parts)
        square += number(piece.dot(piece))
        for row, other in zip(rows, others, strict=True):
            powers = squared_difference(other.to(piece.device, non_blocking=True), piece, 0)
            row[layer] += number(powers.sum())
            row[-1] += number(powers.dot(powers))
    return square, rows


def square_sum(x: Float[Tensor, " params"], pieces: list[tuple[int, int, int]]) -> Number:
    """Sum the squares of a vector: by pieces, and these in float64.

    Args:
        x: The vector.
        pieces: Of it.

    Returns:
        The sum.

    Source:
        Ours.
    """
    total: Number = 0.0
    for _, start, stop in pieces:
        piece = x[start:stop]
        total += number(piece.dot(piece))
    return total


def number(value: Float[Tensor, ""]) -> Number:
    """A plain number; on a device that would have to be waited for, a tensor of float64."""
    return value.item() if value.device.type == "cpu" else value.to(wide_type(value.device))


def as_tensor(numbers: Sequence[Number], device: torch.device) -> Float[Tensor, " numbers"]:
    """Put numbers into one tensor, without waiting for the device.

    Args:
        numbers: The numbers.
        device: Where those are that are tensors.

    Returns:
        The tensor, in float64 where the device has it.

    Source:
        Ours.
    """
    if any(isinstance(value, Tensor) for value in numbers):
        every = [
            torch.as_tensor(value, device=device, dtype=wide_type(device)) for value in numbers
        ]
        return torch.stack(every)
    return torch.tensor(numbers, dtype=wide_type(device), device=device)
