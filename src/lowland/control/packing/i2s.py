"""bitnet.cpp's I2_S: 128 ternary weights in 32 bytes, and one factor behind them all."""

import struct

import torch
from jaxtyping import Int8
from torch import Tensor

from lowland.control.packing.codes import check_signs, row_chunks

__all__ = ["from_i2s", "to_i2s"]

BLOCK = 128  # weights; a row holds whole blocks
TAIL = 32  # bytes: the factor as float32, then zeros
SHIFTS = (6, 4, 2, 0)  # of the four quarters of a block


def to_i2s(signs: Int8[Tensor, "rows columns"], scale: float = 1.0) -> bytes:
    """Write a ternary matrix as x86 builds of bitnet.cpp with ``ACT_PARALLEL`` read it.

    The codes 0, 1 and 2 stand for -1, 0 and 1. Byte i of a block is
    ``w[i] << 6 | w[32 + i] << 4 | w[64 + i] << 2 | w[96 + i]``; blocks follow one another along
    the rows. Other builds hold 4 rows in a byte, those for ARM blocks of 64.

    Args:
        signs: -1, 0 and 1; a multiple of 128 columns.
        scale: The factor of all weights, rounded to float32; positive.

    Returns:
        A quarter of a byte for each weight, and 32 bytes.

    Raises:
        ValueError: If the signs, the number of columns or the factor are others.

    Source:
        Specification section 9.
    """
    check_signs(signs)
    check_columns(signs.shape[1])
    check_scale(scale)
    parts = []
    for rows in row_chunks(*signs.shape):
        quarters = (signs[rows].cpu() + 1).to(torch.uint8).reshape(-1, len(SHIFTS), BLOCK // 4)
        shifted = [quarters[:, i] << shift for i, shift in enumerate(SHIFTS)]
        parts.append((shifted[0] | shifted[1] | shifted[2] | shifted[3]).numpy().tobytes())
    return b"".join(parts) + struct.pack("<f", scale).ljust(TAIL, b"\0")


def from_i2s(data: bytes, rows: int, columns: int) -> tuple[Int8[Tensor, "rows columns"], float]:
    """Undo :func:`to_i2s`.

    Args:
        data: The bytes; of the tail only the factor counts.
        rows: Number of rows.
        columns: Number of columns.

    Returns:
        The signs, and their factor.

    Raises:
        ValueError: If the length is another, a code is 3, or the factor is not positive.

    Source:
        Specification section 9.
    """
    check_columns(columns)
    wanted = rows * columns // 4 + TAIL
    if rows < 1 or len(data) != wanted:
        raise ValueError(
            f"I2_S of {rows} rows and {columns} columns must have {wanted} bytes, and at least one "
            f"row; got {len(data)} bytes."
        )
    packed = torch.frombuffer(bytearray(data[:-TAIL]), dtype=torch.uint8).view(-1, 1, BLOCK // 4)
    codes = torch.cat([packed >> shift & 3 for shift in SHIFTS], 1).view(rows, columns)
    if bool((codes == 3).any()):
        raise ValueError("the codes of I2_S must be 0, 1 and 2; some are 3.")
    (scale,) = struct.unpack("<f", data[-TAIL : 4 - TAIL])
    check_scale(scale)
    return codes.to(torch.int8).sub_(1), scale


def check_columns(columns: int) -> None:
    """Refuse rows that are no whole blocks."""
    if columns < 1 or columns % BLOCK:
        raise ValueError(
            f"columns must be a multiple of {BLOCK} for I2_S; got {columns}. Pad with zeros."
        )


def check_scale(scale: float) -> None:
    """Refuse a factor that is no positive number of float32."""
    low, high = torch.finfo(torch.float32).smallest_normal, torch.finfo(torch.float32).max
    if not low <= scale <= high:
        raise ValueError(f"scale must lie in {low:.3g} to {high:.3g}; got {scale}.")
