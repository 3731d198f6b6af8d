"""A random linear map to few numbers that keeps squared distances, for models of any size."""

from collections.abc import Sequence
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.training import generator

__all__ = ["CountSketch", "relative_error"]


class CountSketch:
    r"""Block-cyclic count sketch :math:`S` with :math:`E|Sv|^2 = |v|^2`.

    Every tensor is multiplied by random signs and cut into rows of ``width`` numbers; each row is
    rotated by a random shift, and the rows are added up. That reads the tensor once, in order, and
    adds without atomics, so it repeats on every device. Rotation is a sum into a buffer of twice
    the width, folded at the end. Signs and shifts are functions of the seed and the name of the
    tensor, and the map is linear: sketches of shards, and of tensors, add up.

    Args:
        names: Of the tensors.
        sizes: Their numbers of coordinates.
        width: Numbers of a sketch.
        seed: Seed of signs and shifts.
        per_layer: Sketch every tensor by itself; else their sum.
        labels: What else tells this sketch from others: the number of a shard.
        device: Where vectors will be.

    Raises:
        ValueError: If the width is below 2.

    Source:
        Specification, section 3.2; after Charikar, Chen and Farach-Colton (2002).
    """

    def __init__(
        self,
        names: Sequence[str],
        sizes: Sequence[int],
        width: int,
        *,
        seed: int,
        per_layer: bool = False,
        labels: tuple[int | str, ...] = (),
        device: torch.device | str = "cpu",
    ):
        if width < 2:
            raise ValueError(f"a sketch must have at least 2 numbers; got {width}.")
        self.sizes, self.width, self.per_layer = tuple(sizes), width, per_layer
        signs, self.shifts = [], []
        for name, size in zip(names, sizes, strict=True):
            source = generator(seed, "sketch", *labels, name)
            bits = torch.randint(2, (size,), generator=source, dtype=torch.int8)
            signs.append(bits.mul_(2).sub_(1))
            rows = -(-size // width)
            self.shifts.append(torch.randint(width, (rows,), generator=source).tolist())
        self.signs = torch.cat(signs).to(device)

    def __call__(self, vector: Float[Tensor, " params"]) -> Float[Tensor, "layers width"]:
        """Sketch a vector.

        Args:
            vector: The tensors, one after the other.

        Returns:
            A sketch for each tensor, or one of all: the sum of these.
        """
        parts = self.signs.to(vector.dtype).mul_(vector).split(self.sizes)
        wide = vector.new_zeros(len(parts) if self.per_layer else 1, 2 * self.width)
        for number, (part, shifts) in enumerate(zip(parts, self.shifts, strict=True)):
            total = wide[number if self.per_layer else 0]
            for row, shift in zip(part.split(self.width), shifts, strict=False):
                total[shift : shift + len(row)].add_(row)
        return wide[:, : self.width] + wide[:, self.width :]


def relative_error(width: int) -> float:
    r"""Bound the relative standard deviation of :math:`|Sv|^2`, whatever the shape of :math:`v`.

    .. math:: \mathrm{Var}|Sv|^2 \le \tfrac2k \left( |v|^4 - \sum_i v_i^4 \right)

    Args:
        width: Numbers k of a sketch.

    Returns:
        :math:`\sqrt{2/k}`.

    Source:
        Specification, section 3.2.
    """
    return sqrt(2 / width)
