"""Binary and ternary weights as signs and one factor per row, found in any float matrix."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8
from torch import Tensor

__all__ = ["Codes", "check_signs", "find_codes", "row_chunks"]

CHUNK = 2**20  # weights treated at once, so that int64 intermediates stay at 8 MiB


@dataclass(frozen=True)
class Codes:
    """A weight as ``scale[:, None] * signs``.

    Attributes:
        signs: -1, 0 and 1; rows are outputs.
        scale: Positive factor of each row; None for all ones.

    Raises:
        ValueError: If the signs hold another value, or a shape is wrong.

    Source:
        Specification sections 9 and 10 (a scale for each row).
    """

    signs: Int8[Tensor, "rows columns"]
    scale: Float[Tensor, " rows"] | None = None

    def __post_init__(self):
        check_signs(self.signs)
        if self.scale is not None and self.scale.shape != self.signs.shape[:1]:
            raise ValueError(
                f"scale must hold one factor for each of {len(self.signs)} rows; got shape "
                f"{tuple(self.scale.shape)}."
            )

    @property
    def kind(self) -> str:
        """``"binary"`` without zeros, else ``"ternary"``."""
        return "binary" if bool(self.signs.all()) else "ternary"

    @property
    def nonzero(self) -> float:
        """Share of the weights that are not zero, 0 to 1."""
        return int(self.signs.count_nonzero()) / self.signs.numel()

    def weight(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "rows columns"]:
        """Give the dense weight.

        Args:
            dtype: Type of the result.

        Returns:
            The signs times the scale.
        """
        dense = self.signs.to(dtype)
        return dense if self.scale is None else dense.mul_(self.scale.to(dtype).unsqueeze(1))


def find_codes(weight: Float[Tensor, "rows columns"], *, tolerance: float = 0.0) -> Codes | None:
    """Find signs and factors in a float matrix whose rows have one magnitude each, besides zero.

    Sets like {-1, 1}, {0, 1} and {-a, 0, a} meet this, and so do latent-weight networks whose
    quantized weights are a scale times -1, 0 and 1, for the whole tensor or for each row.

    Args:
        weight: The matrix; rows are outputs.
        tolerance: How far magnitudes of one row may lie apart, relative to the largest.

    Returns:
        The codes, with the factors in float32 (those of a float64 matrix are rounded) halfway
        between the smallest and the largest magnitude of a row, and 1 for a row of zeros; None if
        a row has two magnitudes, a number is not finite, or a factor is too large or too small for
        float32.

    Raises:
        ValueError: If the matrix is empty, or the tolerance is not in 0 to 1.

    Source:
        Ours.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be at least 0 and less than 1; got {tolerance}.")
    check_matrix(weight)
    parts, scales = [], []
    for rows in row_chunks(*weight.shape):
        found = codes_of_rows(weight.detach()[rows], tolerance)
        if found is None:
            return None
        parts.append(found[0])
        scales.append(found[1])
    scale = torch.cat(scales)
    return Codes(torch.cat(parts), None if bool((scale == 1).all()) else scale)


def codes_of_rows(weight: Tensor, tolerance: float) -> tuple[Tensor, Tensor] | None:
    """Find the codes of some rows."""
    size = weight.abs()
    largest = size.amax(1)
    if not bool(largest.isfinite().all()):
        return None
    smallest = size.masked_fill_(size == 0, torch.inf).amin(1).minimum(largest)
    if bool((largest - smallest > tolerance * largest).any()):
        return None
    scale = torch.where(largest > 0, smallest + (largest - smallest) / 2, 1).float()
    if not bool((scale.isfinite() & (scale > 0)).all()):
        return None
    return weight.sign().to(torch.int8), scale


def check_signs(signs: Tensor) -> None:
    """Refuse what is not a matrix of -1, 0 and 1.

    Args:
        signs: Hopefully such a matrix, int8.

    Raises:
        ValueError: If it is not.
    """
    check_matrix(signs)
    if signs.dtype != torch.int8:
        raise ValueError(f"signs must be int8; got {signs.dtype}. Call signs.to(torch.int8).")
    low, high = (int(value) for value in signs.aminmax())
    if low < -1 or high > 1:
        raise ValueError(f"signs must be -1, 0 and 1; got values from {low} to {high}.")


def check_matrix(matrix: Tensor) -> None:
    """Refuse what has no rows or no columns."""
    if matrix.ndim != 2 or matrix.numel() == 0:
        raise ValueError(
            "a weight must be a matrix with at least one row and one column; got shape "
            f"{tuple(matrix.shape)}."
        )


def row_chunks(rows: int, columns: int) -> list[slice]:
    """Split rows so that intermediates stay small.

    Args:
        rows: Number of rows.
        columns: Number of columns.

    Returns:
        Slices of neighboring rows, of about a million weights each.
    """
    step = max(CHUNK // columns, 1)
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]
