r"""Weights as the gaps between the nonzero ones, entropy coded: the smallest file.

In a row-major walk over a matrix with a share p of nonzero weights, the number g of zeros before
each nonzero one is geometric. Rice's code writes :math:`g = q\,2^k + r` as q in unary and r in k
bits, which for the best k costs little more than the entropy. One bit holds the sign.
"""

import numpy as np
import torch
from jaxtyping import Int8
from numpy.typing import NDArray
from torch import Tensor

from lowland.control.packing.codes import CHUNK, row_chunks

__all__ = ["bytes_of_gaps", "check_gaps", "decode_gaps", "encode_gaps", "find_places"]

MOST_BITS = 32  # of a remainder


def encode_gaps(signs: Int8[Tensor, "rows columns"]) -> dict[str, Tensor]:
    """Write the gaps between nonzero weights in Rice's code, with the k that makes it shortest.

    Args:
        signs: -1, 0 and 1.

    Returns:
        Four streams, bits counted from the least of each byte and zeros to fill the last byte:
        ``quotients`` (for each gap q zeros, then a one, so the ones count the nonzero weights),
        ``remainders`` (k bits for each gap, the least first), ``signs`` (1 for +1) and
        ``gap_bits``, which is k.

    Source:
        Golomb, IEEE Trans. Inf. Theory 1966; Rice, JPL 79-22, 1979.
    """
    gaps, plus = gaps_and_signs(signs)
    k = best_bits(gaps)
    quotients, ends = gaps >> np.uint32(k), 0
    bits = np.zeros(int(quotients.sum(dtype=np.int64)) + len(gaps), np.uint8)
    remainders = []
    for first in range(0, len(gaps), CHUNK):  # a multiple of 8, so bytes are whole
        part = slice(first, first + CHUNK)
        places = ends + np.cumsum(quotients[part].astype(np.int64) + 1)
        bits[places - 1], ends = 1, places[-1]
        shifted = gaps[part, None] >> np.arange(k, dtype=np.uint32)
        remainders.append(np.packbits((shifted & np.uint32(1)).astype(np.uint8), bitorder="little"))
    streams = {
        "quotients": np.packbits(bits, bitorder="little"),
        "remainders": np.concatenate([*remainders, np.zeros(0, np.uint8)]),
        "signs": np.packbits(plus, bitorder="little"),
    }
    tensors = {name: torch.from_numpy(stream).to(signs.device) for name, stream in streams.items()}
    return tensors | {"gap_bits": torch.tensor([k], dtype=torch.int32, device=signs.device)}


def bytes_of_gaps(signs: Int8[Tensor, "rows columns"]) -> int:
    """Count the bytes of :func:`encode_gaps` without writing them.

    Args:
        signs: -1, 0 and 1.

    Returns:
        The number of bytes.
    """
    gaps, _ = gaps_and_signs(signs)
    k = best_bits(gaps)
    return sum(-(-bits // 8) for bits in stream_bits(gaps, k)) + 4


def gaps_and_signs(signs: Tensor) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Find the zeros before each nonzero weight, and which of them are +1."""
    gaps, plus, last = [], [], -1
    for part in row_chunks(*signs.shape):
        flat = signs[part].cpu().contiguous().view(-1).numpy()
        places = np.flatnonzero(flat) + part.start * signs.shape[1]
        if len(places):
            gaps.append((np.diff(places, prepend=last) - 1).astype(np.uint32))
            plus.append(flat[flat != 0] > 0)
            last = places[-1]
    none = [np.zeros(0, np.uint32)], [np.zeros(0, np.bool_)]
    return np.concatenate(gaps or none[0]), np.concatenate(plus or none[1])


def best_bits(gaps: NDArray[np.uint32]) -> int:
    """Try every k."""
    return min(range(MOST_BITS), key=lambda k: sum(stream_bits(gaps, k)))


def stream_bits(gaps: NDArray[np.uint32], k: int) -> tuple[int, int, int]:
    """Count the bits of quotients, remainders and signs."""
    n = len(gaps)
    return int((gaps >> np.uint32(k)).sum(dtype=np.int64)) + n, k * n, n


def decode_gaps(
    tensors: dict[str, Tensor], rows: int, columns: int
) -> Int8[Tensor, "rows columns"]:
    """Undo :func:`encode_gaps`.

    Args:
        tensors: The four streams.
        rows: Number of rows.
        columns: Number of columns.

    Returns:
        The signs.
    """
    places, plus = find_places(tensors, rows * columns)
    signs = np.zeros(rows * columns, np.int8)
    signs[places] = plus.astype(np.int8) * 2 - 1
    return torch.from_numpy(signs).view(rows, columns).to(tensors["signs"].device)


def find_places(
    tensors: dict[str, Tensor], size: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Find where the nonzero weights stand in the row-major walk.

    Args:
        tensors: The four streams of :func:`encode_gaps`.
        size: Number of weights.

    Returns:
        Their places, ascending, and which of them are +1.

    Raises:
        ValueError: If the streams do not fit each other or the size.
    """
    streams = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    k = int(streams["gap_bits"][0])
    if not 0 <= k < MOST_BITS:
        raise ValueError(f"gap_bits must lie in 0 to {MOST_BITS - 1}; got {k}.")
    if len(streams["quotients"]) > size // 4 + 1:  # a one for each weight, a zero for each skipped
        raise ValueError(
            f"quotients of {size} weights must be shorter; got {len(streams['quotients'])} bytes."
        )
    ends = np.flatnonzero(np.unpackbits(streams["quotients"], bitorder="little"))
    n = len(ends)
    for name, bits in (
        ("quotients", ends[-1] + 1 if n else 0),
        ("remainders", k * n),
        ("signs", n),
    ):
        check_length(name, streams[name], int(bits))
    gaps = np.diff(ends, prepend=-1) - 1
    if int(gaps.sum()) > size >> k:  # before the shift, so that nothing overflows
        raise ValueError(f"gaps must end within {size} weights; the quotients lead beyond.")
    gaps <<= k
    gaps += remainders_of(streams["remainders"], n, k)
    places = np.cumsum(gaps + 1) - 1
    if n and int(places.max()) >= size:
        raise ValueError(f"gaps must end within {size} weights; got place {int(places.max())}.")
    return places, np.unpackbits(streams["signs"], count=n, bitorder="little").astype(np.bool_)


def check_length(name: str, stream: NDArray[np.uint8], bits: int) -> None:
    """Refuse a stream of another length, or with ones in the padding."""
    if len(stream) != -(-bits // 8) or (bits % 8 and stream[-1] >> bits % 8):
        raise ValueError(
            f"{name} must hold {bits} bits and zeros up to a whole byte; got {len(stream)} bytes, "
            "or ones behind the last bit."
        )


def remainders_of(stream: NDArray[np.uint8], n: int, k: int) -> NDArray[np.int64]:
    """Read n numbers of k bits."""
    numbers = np.zeros(n, np.int64)
    for first in range(0, n if k else 0, CHUNK):  # a multiple of 8, so bytes are whole
        count = min(CHUNK, n - first)
        part = stream[first * k // 8 : -(-(first + count) * k // 8)]
        bits = np.unpackbits(part, count=count * k, bitorder="little").reshape(count, k)
        for bit in range(k):
            numbers[first : first + count] |= bits[:, bit].astype(np.int64) << bit
    return numbers


def check_gaps(tensors: dict[str, Tensor], rows: int, columns: int) -> None:
    """Refuse streams that do not fit each other, or the shape.

    Args:
        tensors: The four streams.
        rows: Number of rows.
        columns: Number of columns.

    Raises:
        ValueError: If they do not.
    """
    find_places(tensors, rows * columns)
