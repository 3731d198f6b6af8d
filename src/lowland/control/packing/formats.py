"""Four ways to hold signs -1, 0 and 1, and their sizes."""

from collections.abc import Mapping

import torch
from jaxtyping import Int8
from torch import Tensor

from lowland.control.packing.bits import check_padding, pack_bits, padded_words, unpack_bits
from lowland.control.packing.codes import check_signs
from lowland.control.packing.gaps import bytes_of_gaps, check_gaps, decode_gaps, encode_gaps
from lowland.control.packing.lists import (
    LONGEST,
    MOST_COLUMNS,
    check_lists,
    list_columns,
    signs_of_lists,
)

__all__ = [
    "FORMATS",
    "applicable",
    "bytes_of",
    "check_tensors",
    "decode",
    "encode",
    "sizes",
]

FORMATS = {
    "bit1": {"bits": torch.int32},
    "bit2planes": {"plus": torch.int32, "minus": torch.int32},
    "sparse16": {"columns": torch.uint16, "starts": torch.int32},
    "gaps": {
        "quotients": torch.uint8,
        "remainders": torch.uint8,
        "signs": torch.uint8,
        "gap_bits": torch.int32,
    },
}
MOST_WEIGHTS = 2**32  # of one layer: what a small file may make us allocate, in bytes


def encode(signs: Int8[Tensor, "rows columns"], format: str) -> dict[str, Tensor]:
    """Hold signs in a format.

    Args:
        signs: -1, 0 and 1.
        format: ``"bit1"``, ``"bit2planes"``, ``"sparse16"`` or ``"gaps"``.

    Returns:
        What the format holds, by name, on the device of the signs.

    Raises:
        ValueError: If the format cannot hold these signs, or is not known.

    Source:
        Specification section 9; ``gaps`` is ours.
    """
    check_format(format)
    if format not in (able := applicable(signs)):
        raise ValueError(
            f"{format} must fit the signs; this matrix of shape {tuple(signs.shape)} can be held "
            f"as {', '.join(able) or 'nothing: it has more than 2^32 weights'}."
        )
    if format == "bit1":
        return {"bits": pack_bits(signs > 0)}
    if format == "bit2planes":
        return {"plus": pack_bits(signs > 0), "minus": pack_bits(signs < 0)}
    if format == "sparse16":
        return dict(zip(("columns", "starts"), list_columns(signs), strict=True))
    return encode_gaps(signs)


def decode(
    tensors: Mapping[str, Tensor], format: str, rows: int, columns: int
) -> Int8[Tensor, "rows columns"]:
    """Give the signs back.

    Args:
        tensors: What the format holds, by name.
        format: Its name.
        rows: Number of rows.
        columns: Number of columns.

    Returns:
        The signs, on the device of the tensors.

    Raises:
        ValueError: If the tensors do not fit the format or the shape.
    """
    check_shapes(tensors, format, rows, columns)
    if format != "gaps":  # whose decoder checks on its way
        check_content(tensors, format, rows, columns)
    if format == "bit1":
        return unpack_bits(tensors["bits"], columns).to(torch.int8).mul_(2).sub_(1)
    if format == "bit2planes":
        signs = unpack_bits(tensors["plus"], columns).to(torch.int8)
        return signs.sub_(unpack_bits(tensors["minus"], columns).to(torch.int8))
    if format == "sparse16":
        return signs_of_lists(tensors["columns"], tensors["starts"], columns)
    return decode_gaps(dict(tensors), rows, columns)


def applicable(signs: Int8[Tensor, "rows columns"]) -> tuple[str, ...]:
    """Name the formats that can hold signs.

    Args:
        signs: -1, 0 and 1.

    Returns:
        ``bit1`` only without zeros, ``sparse16`` only up to 65,536 columns.

    Raises:
        ValueError: If the signs are not a matrix of -1, 0 and 1.
    """
    check_signs(signs)
    nonzero = int(signs.count_nonzero())
    fits = {
        "bit1": nonzero == signs.numel(),
        "bit2planes": True,
        "sparse16": signs.shape[1] <= MOST_COLUMNS and nonzero <= LONGEST,
        "gaps": True,
    }
    return tuple(name for name, does in fits.items() if does and signs.numel() <= MOST_WEIGHTS)


def sizes(signs: Int8[Tensor, "rows columns"]) -> dict[str, int]:
    """Count the bytes of every applicable format, without encoding.

    Args:
        signs: -1, 0 and 1.

    Returns:
        Bytes by name of the format.
    """
    rows, columns = signs.shape
    plane = 4 * padded_words(columns) * rows
    lists = 2 * int(signs.count_nonzero()) + 4 * (2 * rows + 1)
    known = {"bit1": plane, "bit2planes": 2 * plane, "sparse16": lists}
    return {n: known[n] if n in known else bytes_of_gaps(signs) for n in applicable(signs)}


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """Count the bytes of tensors, in memory and in a file.

    Args:
        tensors: By name.

    Returns:
        The number of bytes.
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def check_tensors(tensors: Mapping[str, Tensor], format: str, rows: int, columns: int) -> None:
    """Refuse tensors that no encoder made; what passes is safe to run and to decode.

    Args:
        tensors: What the format should hold, by name.
        format: Its name.
        rows: Number of rows.
        columns: Number of columns.

    Raises:
        ValueError: If a name, type, shape or value is wrong.
    """
    check_shapes(tensors, format, rows, columns)
    check_content(tensors, format, rows, columns)


def check_format(format: str) -> None:
    """Refuse an unknown name."""
    if format not in FORMATS:
        raise ValueError(f'the format must be one of {", ".join(FORMATS)}; got "{format}".')


def check_shapes(tensors: Mapping[str, Tensor], format: str, rows: int, columns: int) -> None:
    """Refuse other names, types and shapes, in a time that no size claimed can prolong."""
    check_format(format)
    if not (rows >= 1 and columns >= 1 and rows * columns <= MOST_WEIGHTS):
        raise ValueError(
            "rows and columns must be at least 1, and their product at most 2^32; got "
            f"{rows} and {columns}."
        )
    if format == "sparse16" and columns > MOST_COLUMNS:
        raise ValueError(f"sparse16 holds at most {MOST_COLUMNS} columns; got {columns}.")
    if set(tensors) != set(FORMATS[format]):
        raise ValueError(
            f"{format} must hold {', '.join(FORMATS[format])}; got {', '.join(tensors) or 'none'}."
        )
    plane = (padded_words(columns), rows)
    wanted = {"bits": plane, "plus": plane, "minus": plane, "gap_bits": (1,)}
    wanted["starts"] = (2 * rows + 1,)
    for name, dtype in FORMATS[format].items():
        shape = tuple(tensors[name].shape)
        if shape != wanted.get(name, (tensors[name].numel(),)) or tensors[name].dtype != dtype:
            raise ValueError(
                f"{name} of {format} must be {dtype} of shape {wanted.get(name, '(any,)')} for "
                f"{rows} rows and {columns} columns; got {tensors[name].dtype} of shape {shape}."
            )


def check_content(tensors: Mapping[str, Tensor], format: str, rows: int, columns: int) -> None:
    """Refuse values that mean nothing."""
    if format == "gaps":
        return check_gaps(dict(tensors), rows, columns)
    if format == "sparse16":
        return check_lists(tensors["columns"], tensors["starts"], columns)
    for words in tensors.values():
        check_padding(words, columns)
    if format == "bit2planes" and bool((tensors["plus"] & tensors["minus"]).any()):
        raise ValueError("a weight must not be both +1 and -1; one is.")
    return None
