r"""A convolution as one sum over shifted copies of a flattened, padded batch of images.

Along one axis of length L, with padding p, stride s and dilation d, output y is the sum over taps
t of the padded input at :math:`s y + d t`. Split the padded input by the remainder of its index
modulo s: output y then meets each tap at y plus a shift that depends on the tap alone. The zeros
behind a row serve as those before the next, so that a row takes
:math:`\lceil (L + p) / s \rceil` positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["Layout", "find_layout", "output_sizes"]

SLACK = 16  # positions that a kernel may read beyond the last one


@dataclass(frozen=True)
class Layout:
    """Where a convolution finds its inputs and leaves its outputs.

    Attributes:
        sizes: Of the output, for each axis.
        periods: Positions from one row to the next, for each axis.
        phases: Remainders modulo the stride that a tap meets, for each axis.
        length: Numbers held for each channel and phase.
        offsets: Of each column of a group: where its numbers start.
        stride: As given.
        padding: As given.
    """

    sizes: tuple[int, ...]
    periods: tuple[int, ...]
    phases: tuple[tuple[int, ...], ...]
    length: int
    offsets: Int64[Tensor, " columns"]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def place(self, x: Float[Tensor, "batch channels *pixels"]) -> Float[Tensor, "channels held"]:
        """Lay out a batch.

        Args:
            x: The images.

        Returns:
            The numbers of each channel.
        """
        batch, channels, *sizes = x.shape
        held = x.new_zeros(channels, prod(map(len, self.phases)), self.length)
        images = held[:, :, : batch * prod(self.periods)]
        images = images.view(channels, -1, batch, *self.periods)
        for i, phase in enumerate(product(*self.phases)):
            source, target = [slice(None), slice(None)], [slice(None), slice(None)]
            for a, size, s, p in zip(phase, sizes, self.stride, self.padding, strict=True):
                first = (a - p) % s
                begin = (first + p) // s
                source.append(slice(first, None, s))
                target.append(slice(begin, begin + len(range(first, size, s))))
            images[:, i][tuple(target)] = x[tuple(source)].transpose(0, 1)
        return held.view(channels, -1)

    def positions(self, batch: int) -> int:
        """Count the positions up to the last that is an output."""
        steps = steps_of(self.periods)
        last = sum((size - 1) * step for size, step in zip(self.sizes, steps[1:], strict=True))
        return (batch - 1) * steps[0] + last + 1

    def outputs(self, out: Float[Tensor, "rows positions"], batch: int) -> Tensor:
        """View the outputs among all positions: (batch, rows, *sizes)."""
        steps = steps_of(self.periods)
        return out.as_strided((batch, len(out), *self.sizes), (steps[0], out.stride(0), *steps[1:]))


def steps_of(periods: Sequence[int]) -> list[int]:
    """Count the positions from one image, then row, ..., to the next."""
    return [prod(periods[axis:]) for axis in range(len(periods) + 1)]


def output_sizes(
    sizes: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """Count the outputs along each axis.

    Args:
        sizes: Of the images.
        kernel_size: Of each axis, as the other sequences.
        stride: Step of the output.
        padding: Zeros on both sides.
        dilation: Step within the kernel.

    Returns:
        The sizes; below 1 where the kernel does not fit.
    """
    axes = zip(sizes, kernel_size, stride, padding, dilation, strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)


@lru_cache(maxsize=64)  # what a layer asks for again and again
def find_layout(
    shape: tuple[int, ...],
    channels: int,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Layout:
    """Lay out a convolution.

    Args:
        shape: Of the batch: images, channels, then the axes of an image.
        channels: Of one group.
        kernel_size: Of each axis, as the other sequences.
        stride: Step of the output.
        padding: Zeros on both sides.
        dilation: Step within the kernel.

    Returns:
        The layout.
    """
    sizes = output_sizes(shape[2:], kernel_size, stride, padding, dilation)
    periods = tuple(
        max(-(-(n + p) // s), size)
        for n, p, s, size in zip(shape[2:], padding, stride, sizes, strict=True)
    )
    taps = [[t * d for t in range(k)] for k, d in zip(kernel_size, dilation, strict=True)]
    phases = tuple(
        tuple(sorted({tap % s for tap in axis})) for axis, s in zip(taps, stride, strict=True)
    )
    steps = steps_of(periods)[1:]
    numbers = {phase: i for i, phase in enumerate(product(*phases))}
    found = []
    for tap in product(*taps):
        phase = tuple(t % s for t, s in zip(tap, stride, strict=True))
        shift = sum(t // s * step for t, s, step in zip(tap, stride, steps, strict=True))
        found.append((numbers[phase], shift))
    length = shape[0] * prod(periods) + max(shift for _, shift in found) + SLACK
    of_taps = torch.tensor([number * length + shift for number, shift in found], device="cpu")
    of_channels = torch.arange(channels, device="cpu") * (len(numbers) * length)
    offsets = (of_channels[:, None] + of_taps).view(-1)
    return Layout(sizes, periods, phases, length, offsets, tuple(stride), tuple(padding))
