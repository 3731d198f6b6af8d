"""Products of packed weights in plain torch: any device, any type, gradients in the input."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, conv3d, linear

from lowland.control.packing.bits import unpack_bits
from lowland.control.packing.codes import row_chunks
from lowland.control.packing.gaps import decode_gaps
from lowland.control.packing.lists import signs_of_lists

__all__ = ["convolve_unpacked", "multiply_unpacked"]

CONVOLUTIONS = {1: conv1d, 2: conv2d, 3: conv3d}


def multiply_unpacked(
    format: str,
    tensors: Mapping[str, Tensor],
    rows: int,
    columns: int,
    x: Float[Tensor, "batch columns"],
) -> Float[Tensor, "batch rows"]:
    """Multiply with about a million unpacked weights at a time.

    Args:
        format: Name of the format.
        tensors: What it holds.
        rows: Number of rows.
        columns: Number of columns.
        x: Floats.

    Returns:
        The products.
    """
    if format == "gaps":  # which cannot be entered in the middle
        signs = decode_gaps(dict(tensors), rows, columns)
        return torch.cat([linear(x, signs[p].to(x.dtype)) for p in row_chunks(rows, columns)], 1)
    parts = (unpack_rows(format, tensors, columns, p) for p in row_chunks(rows, columns))
    return torch.cat([linear(x, part.to(x.dtype)) for part in parts], 1)


def convolve_unpacked(
    format: str,
    tensors: Mapping[str, Tensor],
    rows: int,
    columns: int,
    x: Float[Tensor, "batch channels *pixels"],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Float[Tensor, "batch rows *pixels"]:
    """Convolve with the unpacked weight.

    Args:
        format: Name of the format.
        tensors: What it holds.
        rows: Number of rows.
        columns: Number of columns.
        x: Images of one to three axes.
        kernel_size: Of each axis, as the other sequences.
        stride: Step of the output.
        padding: Zeros on both sides.
        dilation: Step within the kernel.
        groups: Of channels.

    Returns:
        The convolution.
    """
    if format == "gaps":
        signs = decode_gaps(dict(tensors), rows, columns)
    else:
        parts = (unpack_rows(format, tensors, columns, p) for p in row_chunks(rows, columns))
        signs = torch.cat([part.to(torch.int8) for part in parts])
    weight = signs.to(x.dtype).view(rows, -1, *kernel_size)
    run = CONVOLUTIONS[len(kernel_size)]
    return run(x, weight, None, tuple(stride), tuple(padding), tuple(dilation), groups)


def unpack_rows(format: str, tensors: Mapping[str, Tensor], columns: int, part: slice) -> Tensor:
    """Give the signs of some rows."""
    if format == "bit1":
        return unpack_bits(tensors["bits"][:, part], columns).to(torch.int8).mul_(2).sub_(1)
    if format == "bit2planes":
        plus = unpack_bits(tensors["plus"][:, part], columns).to(torch.int8)
        return plus.sub_(unpack_bits(tensors["minus"][:, part], columns).to(torch.int8))
    starts = tensors["starts"][2 * part.start : 2 * part.stop + 1]
    listed = tensors["columns"][int(starts[0]) : int(starts[-1])]
    return signs_of_lists(listed, starts - starts[0], columns)
