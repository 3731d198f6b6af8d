"""Sums over millions of coordinates: fast by pieces, accurate in float64, without waiting."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Number", "as_tensor", "number", "pieces_of", "power_sums", "square_sum", "wide"]

# On a CPU plain numbers; elsewhere scalars that nobody has waited for.
Number = float | Tensor

# Coordinates that are subtracted and squared at once: they stay in the cache of a processor.
PIECE = {"cpu": 2**16}
PIECE_ELSEWHERE = 2**24


def wide(device: torch.device) -> torch.dtype:
    """The type in which sums are added up: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


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


def power_sums(
    x: Float[Tensor, " params"], y: Float[Tensor, " params"], pieces: list[tuple[int, int, int]]
) -> tuple[list[Number], Number]:
    r"""Compute :math:`\sum_i (y_i - x_i)^2` by layer, and :math:`\sum_i (y_i - x_i)^4` of all.

    Differences and their powers are in the type of ``x`` and summed by pieces; the sums of the
    pieces are added up in float64.

    Args:
        x: A vector.
        y: Another, perhaps elsewhere.
        pieces: Of both, see :func:`pieces_of`.

    Returns:
        Both, as :data:`Number` where ``x`` is.

    Source:
        Ours.
    """
    second: list[Number] = [0.0] * (pieces[-1][0] + 1)
    fourth: Number = 0.0
    for layer, start, stop in pieces:
        powers = y[start:stop].to(x.device, non_blocking=True) - x[start:stop]
        second[layer] += number(powers.mul_(powers).sum())
        fourth += number(powers.dot(powers))
    return second, fourth


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
    return value.item() if value.device.type == "cpu" else value.to(wide(value.device))


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
        every = [torch.as_tensor(value, device=device, dtype=wide(device)) for value in numbers]
        return torch.stack(every)
    return torch.tensor(numbers, dtype=wide(device), device=device)
