"""Products of packed weights with activations: compiled where that is possible, else in torch."""

from collections.abc import Mapping, Sequence
from math import prod

from jaxtyping import Float, Shaped
from torch import Tensor, arange, float32, get_num_threads

from lowland.control.packing.compiled import (
    Weight,
    available,
    expand,
    find_weight,
    force,
    is_plain,
    level,
    run,
    transpose,
)
from lowland.control.packing.integers import multiply_integers
from lowland.control.packing.portable import convolve_unpacked, multiply_unpacked
from lowland.control.packing.positions import SLACK, find_layout, output_sizes

__all__ = ["available", "convolve", "expand", "force", "level", "multiply"]

# Examples from which on the kernel is faster whose lanes are examples instead of rows; measured
# with 512 to 2048 rows and columns.
MANY = {"bits": 16, "lists": 8}
TOGETHER = 64  # examples: more of them side by side overflow the second level cache
PIXELS = 1024  # positions for each thread, likewise; buffers this small are not asked of the system


def multiply(
    format: str,
    tensors: Mapping[str, Tensor],
    rows: int,
    columns: int,
    x: Shaped[Tensor, "batch columns"],
) -> Shaped[Tensor, "batch rows"]:
    """Multiply signs -1, 0 and 1 with activations.

    Args:
        format: ``"bit1"``, ``"bit2planes"``, ``"sparse16"`` or ``"gaps"``, which is expanded at
            every call.
        tensors: What the format holds; ``formats.check_tensors`` has passed them.
        rows: Number of rows.
        columns: Number of columns.
        x: Floats, or integers, whose sums are exact. Gradients in it are torch's.

    Returns:
        The products, in the type of x: float64 computed in torch, all other floats in float32;
        int32 for integers.

    Raises:
        ValueError: If the shapes do not fit, or a product of integers leaves int32.

    Source:
        Specification section 9.
    """
    if x.ndim != 2 or x.shape[1] != columns:
        raise ValueError(f"x must have shape (batch, {columns}); got {tuple(x.shape)}.")
    if not x.is_floating_point():
        return multiply_integers(
            x, columns, lambda part: multiply(format, tensors, rows, columns, part)
        )
    weight = find_weight(format, tensors, rows, columns) if is_plain(x) else None
    if weight is None:
        return multiply_unpacked(format, tensors, rows, columns, x)
    plain = x.dtype == float32 and x.is_contiguous()
    values = x if plain else x.to(float32).contiguous()
    out = values.new_empty(len(x), rows)
    if len(x) < MANY[weight.kind]:
        run("vector", weight, values.data_ptr(), len(x), out.data_ptr())
    else:
        for some, result in zip(values.split(TOGETHER), out.split(TOGETHER), strict=True):
            multiply_columns(weight, some, result)
    return out if plain else out.to(x.dtype)


def multiply_columns(
    weight: Weight, x: Float[Tensor, "batch columns"], out: Float[Tensor, "batch rows"]
) -> None:
    """Multiply with examples side by side in memory, up to whole registers of them."""
    batch, wide = len(x), -(-len(x) // SLACK) * SLACK
    empty = x.new_zeros if wide > batch else x.new_empty
    held = empty(weight.columns, wide)
    transpose(x, held)
    offsets = arange(0, weight.columns * wide, wide, device="cpu")
    sums = x.new_empty(weight.rows, wide)
    run("columns", weight, 1, 0, held.data_ptr(), offsets.data_ptr(), batch, sums.data_ptr(), wide)
    transpose(sums[:, :batch], out)


def convolve(
    format: str,
    tensors: Mapping[str, Tensor],
    rows: int,
    columns: int,
    x: Shaped[Tensor, "batch channels *pixels"],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Shaped[Tensor, "batch rows *outputs"]:
    """Convolve images with filters of signs -1, 0 and 1.

    Args:
        format: As for :func:`multiply`.
        tensors: What the format holds; ``formats.check_tensors`` has passed them.
        rows: Number of filters.
        columns: Number of weights of a filter.
        x: Images of one to three axes: floats, or integers, whose sums are exact.
        kernel_size: Of each axis, as the other sequences.
        stride: Step of the output.
        padding: Zeros on both sides.
        dilation: Step within the kernel.
        groups: Of channels.

    Returns:
        The convolution, in the type of x; int32 for integers.

    Raises:
        ValueError: If the shapes do not fit, or a sum of integers leaves int32.

    Source:
        Specification section 9.
    """
    kernel = tuple(kernel_size), tuple(stride), tuple(padding), tuple(dilation)
    check_images(x, rows, columns, *kernel, groups)
    if not x.is_floating_point():
        return multiply_integers(
            x,
            columns,
            lambda part: convolve(format, tensors, rows, columns, part, *kernel, groups),
        )
    weight = find_weight(format, tensors, rows, columns) if is_plain(x) else None
    if weight is None or not len(x):
        return convolve_unpacked(format, tensors, rows, columns, x, *kernel, groups)
    images = images_together(x.shape, *kernel)
    sizes = output_sizes(x.shape[2:], *kernel)
    result = x.new_empty(len(x), rows, *sizes)
    for some, target in zip(x.split(images), result.split(images), strict=True):
        convolve_images(weight, some, target, kernel, groups)
    return result


def images_together(shape: Sequence[int], *kernel: tuple[int, ...]) -> int:
    """Count the images whose sums stay in the second level cache."""
    of_one = find_layout((1, *shape[1:]), 1, *kernel)
    return max(1, PIXELS * get_num_threads() // prod(of_one.periods))


def convolve_images(
    weight: Weight,
    x: Shaped[Tensor, "batch channels *pixels"],
    result: Shaped[Tensor, "batch rows *outputs"],
    kernel: tuple[tuple[int, ...], ...],
    groups: int,
) -> None:
    """Convolve a few images."""
    channels = x.shape[1] // groups
    layout = find_layout(tuple(x.shape), channels, *kernel)
    held = layout.place(x.to(float32))
    positions = layout.positions(len(x))
    out = held.new_empty(weight.rows, -(-positions // SLACK) * SLACK)
    run(
        "columns", weight, groups, channels * held.stride(0), held.data_ptr(),
        layout.offsets.data_ptr(), positions, out.data_ptr(), out.stride(0),
    )  # fmt: skip
    result.copy_(layout.outputs(out, len(x)))


def check_images(
    x: Tensor,
    rows: int,
    columns: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> None:
    """Refuse what the kernels must not see."""
    settings = kernel_size, stride, padding, dilation
    axes = len(kernel_size)
    if not 1 <= axes <= 3 or any(len(setting) != axes for setting in settings):
        raise ValueError(
            "kernel_size, stride, padding and dilation must name the same one to three axes; got "
            f"{kernel_size}, {stride}, {padding} and {dilation}."
        )
    if min(*kernel_size, *stride, *dilation, groups) < 1 or min(padding) < 0:
        raise ValueError(
            "kernel_size, stride, dilation and groups must be at least 1 and padding at least 0; "
            f"got {kernel_size}, {stride}, {dilation}, {groups} and {padding}."
        )
    if x.ndim != axes + 2 or x.shape[1] * prod(kernel_size) != columns * groups or rows % groups:
        raise ValueError(
            f"x must have {axes + 2} axes and {columns * groups // prod(kernel_size)} channels, "
            f"and {groups} groups share out {rows} rows; got shape {tuple(x.shape)}."
        )
    if min(output_sizes(x.shape[2:], *settings)) < 1:
        raise ValueError(
            f"the kernel {kernel_size}, dilated by {dilation}, must fit the padded image; got "
            f"shape {tuple(x.shape)} and padding {padding}."
        )
