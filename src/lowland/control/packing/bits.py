"""Weights as bit planes: 32 columns of a row in a word, words of neighboring rows side by side."""

import torch
from jaxtyping import Bool, Int32
from torch import Tensor

from lowland.control.packing.codes import row_chunks

__all__ = ["check_padding", "pack_bits", "padded_words", "unpack_bits"]

WORD = 32
PADDING = 64  # columns of a row are filled up to a multiple of this


def padded_words(columns: int) -> int:
    """Count the words of a row.

    Args:
        columns: Number of columns.

    Returns:
        An even number.
    """
    return -(-columns // PADDING) * (PADDING // WORD)


def pack_bits(bits: Bool[Tensor, "rows columns"]) -> Int32[Tensor, "words rows"]:
    """Pack 32 columns into each word.

    Args:
        bits: A matrix of truth values.

    Returns:
        Word w of row r holds columns 32 w to 32 w + 31; column 32 w + j is bit j, counted from the
        least. Columns beyond the last are 0.

    Source:
        Specification section 9, ``bit1``.
    """
    rows, columns = bits.shape
    words = padded_words(columns)
    packed = torch.empty(words, rows, dtype=torch.int32, device=bits.device)
    powers = powers_of_two(bits.device)
    for part in row_chunks(rows, columns):
        padded = torch.nn.functional.pad(bits[part], (0, words * WORD - columns))
        values = padded.view(-1, words, WORD) * powers
        packed[:, part] = values.sum(-1, dtype=torch.int32).T
    return packed


def unpack_bits(words: Int32[Tensor, "words rows"], columns: int) -> Bool[Tensor, "rows columns"]:
    """Undo :func:`pack_bits`.

    Args:
        words: The packed bits, or some rows ``words[:, first:last]`` of them.
        columns: Number of columns.

    Returns:
        The truth values.
    """
    rows = words.shape[1]
    bits = torch.empty(rows, columns, dtype=torch.bool, device=words.device)
    powers = powers_of_two(words.device)
    for part in row_chunks(rows, columns):
        whole = (words[:, part].T.contiguous().unsqueeze(-1) & powers) != 0
        bits[part] = whole.flatten(1)[:, :columns]
    return bits


def powers_of_two(device: torch.device) -> Int32[Tensor, " 32"]:
    """Give the value of each bit of a word; the highest is the sign, so no sum overflows."""
    values = [2**bit for bit in range(WORD - 1)] + [-(2 ** (WORD - 1))]
    return torch.tensor(values, dtype=torch.int32, device=device)


def check_padding(words: Int32[Tensor, "words rows"], columns: int) -> None:
    """Refuse ones beyond the last column.

    Args:
        words: The packed bits.
        columns: Number of columns.

    Raises:
        ValueError: If there are any.
    """
    full, rest = divmod(columns, WORD)
    beyond = words[full:]
    if rest:
        beyond = torch.cat([words[full : full + 1] >> rest, words[full + 1 :]])
    if bool(beyond.any()):
        raise ValueError(f"bits beyond column {columns - 1} must be 0; some are 1.")
