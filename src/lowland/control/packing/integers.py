"""Exact products of integers by float32 arithmetic, which is exact below 2^24."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

__all__ = ["multiply_integers"]

EXACT = 2**24 - 1  # float32 holds every integer up to here
# Of a digit: so small that a matrix product in TF32 or bfloat16, which torch may have been told to
# use for float32, holds it exactly too.
LARGEST_DIGIT = 255
LARGEST = {torch.bool: 1, torch.uint8: 255, torch.int8: 128}


def multiply_integers(
    x: Shaped[Tensor, "batch ..."],
    columns: int,
    product: Callable[[Float[Tensor, "parts ..."]], Float[Tensor, "parts ..."]],
) -> Int[Tensor, "batch ..."]:
    """Multiply integers with signs.

    Args:
        x: Integers of any type within int32, or truth values.
        columns: How many of them are summed in one product.
        product: The sums, for float32 inputs along the same first axis.

    Returns:
        The products, int32.

    Raises:
        TypeError: If the inputs are complex.
        ValueError: If an input or a product leaves int32, or if 2^24 or more are summed.

    Source:
        Ours: integers too large for exact float32 sums are written in digits of a smaller base.
    """
    if x.is_complex():
        raise TypeError(f"x must hold floats or integers; got {x.dtype}.")
    digit = min(EXACT // columns, LARGEST_DIGIT)
    if digit < 1:
        raise ValueError(f"at most {EXACT} columns sum exactly in float32; got {columns}.")
    largest = LARGEST.get(x.dtype)
    if largest is None:
        largest = largest_of(x)
    if largest <= digit:
        return product(x.to(torch.float32)).to(torch.int32)
    bits = (digit + 1).bit_length() - 1
    parts = digits_of(x.to(torch.int64), largest, bits)
    sums = product(torch.cat(parts).to(torch.float32)).to(torch.int64).chunk(len(parts))
    total = sum((part << (bits * i) for i, part in enumerate(sums[1:], 1)), sums[0])
    if total.numel() and int(total.abs().max()) >= 2**31:
        raise ValueError(
            f"products must fit int32; got {int(total.abs().max())}. Pass floats, or smaller "
            "integers."
        )
    return total.to(torch.int32)


def largest_of(x: Tensor) -> int:
    """Find the largest magnitude, and refuse what is no int32."""
    low, high = (int(value) for value in x.to(torch.int64).aminmax()) if x.numel() else (0, 0)
    if max(-low, high + 1) > 2**31:
        raise ValueError(f"integers must lie within int32; got {low} to {high}.")
    return max(-low, high)


def digits_of(x: Tensor, largest: int, bits: int) -> list[Tensor]:
    """Write integers in digits, the least first, all but the last of them non-negative."""
    parts = []
    while largest >= 1 << bits:
        parts.append(x & ((1 << bits) - 1))
        x, largest = x >> bits, -(-largest >> bits)
    return [*parts, x]
