"""Match units by what they do: correlations of activations over some batches."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.forward import Forward
from lowland.connectivity.matching import Pairs
from lowland.connectivity.permutations import Permutations, Symmetry, index_of
from lowland.connectivity.segments import Segment, Stretches, labels_in, stretches_of
from lowland.connectivity.weight_similarity import joined
from lowland.training import as_pair, batch_count

__all__ = ["ActivationSimilarity", "correlate"]


@dataclass(frozen=True)
class ActivationSimilarity:
    """Correlations between the activations of two networks, wherever a product reads them.

    Attributes:
        symmetry: What may be permuted.
        places: For each place its units and how they correlate, shape ``(units, units)``: row a
            unit of the start, column one of the end. A unit that never changes correlates with
            none.

    Source:
        Li et al., ICLR 2016 (convergent learning); Ainsworth et al., ICLR 2023, Section 3.1.
    """

    symmetry: Symmetry
    places: tuple[tuple[Stretches, Tensor], ...]

    @property
    def roots(self) -> set[int]:
        """Labels whose units were seen."""
        within = self.symmetry.within
        return {within.get(la, la) for units, _ in self.places for la in labels_in(units)}

    def of(self, roots: set[int]) -> list[tuple[Stretches, Tensor]]:
        """Places that some labels, or labels within them, move."""
        labels = {label for root in roots for label in self.symmetry.family(root)}
        return [place for place in self.places if labels_in(place[0]) & labels]

    def pairs(self, root: int, permutations: Permutations) -> Pairs:
        """See :class:`Similarity`."""
        sizes, inner = self.symmetry.sizes, self.symmetry.inner(root)
        count = sizes[root]
        whole = torch.zeros(count, count, dtype=torch.float64)
        inside = {i: torch.zeros([count, sizes[i]] * 2, dtype=torch.float64) for i in inner}
        for units, values in self.of({root}):
            moved = values[:, index_of(units, permutations, self.symmetry.within)]
            offset = 0
            for segment in units:
                size = prod(n for _, n in segment)
                block = moved[offset : offset + size, offset : offset + size]
                offset += size
                labels = [label for label, _ in segment]
                below = [at for at, label in enumerate(labels) if label in inner][:1]
                for at in [at for at, label in enumerate(labels) if label == root]:
                    into = inside[labels[below[0]] or 0] if below else whole
                    into += diagonal(block, segment, [at, *below])
        return Pairs(whole, inside)

    def total(self, permutations: Permutations, roots: set[int]) -> tuple[float, float]:
        """See :class:`Similarity`."""
        found, bound = 0.0, 0
        for units, values in self.of(roots):
            index = index_of(units, permutations, self.symmetry.within)
            found += float(values[torch.arange(len(index)), index].sum())
            bound += len(index)
        return found, float(bound)

    def neighbors(self, root: int) -> set[int]:
        """See :class:`Similarity`."""
        return joined(root, self.symmetry, [(units,) for units, _ in self.of({root})])


def diagonal(block: Tensor, segment: Segment, places: list[int]) -> Tensor:
    """Sum a matrix of flattened units over the factors that are the same on both sides."""
    sizes, rank = [n for _, n in segment], len(segment)
    letters = "abcdefghijklmnopqrstuvwxyz"
    left = letters[:rank]
    right = "".join(letters[rank + at] if at in places else left[at] for at in range(rank))
    kept = "".join(left[at] for at in places) + "".join(right[at] for at in places)
    return torch.einsum(f"{left}{right}->{kept}", block.reshape(sizes * 2))


def correlate(
    forward: Forward,
    symmetry: Symmetry,
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    batches: Iterable[Any],
    examples: int,
) -> ActivationSimilarity:
    """Run two networks on the same data and correlate what their products read.

    Args:
        forward: The network as a function.
        symmetry: What may be permuted.
        start: Full state dict of one.
        end: Of the other.
        batches: Data of (inputs, target).
        examples: Stop after the batch that brings the number of examples to this.

    Returns:
        The correlations, from sums in float64.

    Raises:
        ValueError: If the networks do not do the same operations, or one does not stay finite.
    """
    sums: list[Moments] = []
    seen = 0
    for batch in batches:
        inputs, target = as_pair(batch)
        seen += batch_count(target)
        given = forward.convert(inputs)
        one, other = (rows_read(forward, symmetry, state, given) for state in (start, end))
        sums = sums or [Moments(units) for units, _ in one]
        kinds = [m.units for m in sums], [units for units, _ in one], [units for units, _ in other]
        if kinds[0] != kinds[1] or kinds[0] != kinds[2]:
            raise ValueError(
                "both networks must do the same operations on every batch, so that their "
                f"activations can be compared; got {len(kinds[1])} and {len(kinds[2])} products "
                f'after {len(sums)} at first. Take method="weights".'
            )
        for moments, (_, a), (_, b) in zip(sums, one, other, strict=True):
            moments.add(a, b)
        if seen >= examples:
            break
    if not all(torch.isfinite(moments.mixed).all() for moments in sums):
        raise ValueError(
            f"activations must be finite on the first {seen} examples, to be compared; some are "
            'not. Look for inputs that are not finite, or take method="weights".'
        )
    return ActivationSimilarity(symmetry, tuple((m.units, m.correlation()) for m in sums))


def rows_read(
    forward: Forward, symmetry: Symmetry, state: Mapping[str, Tensor], inputs: Any
) -> list[tuple[Stretches, Tensor]]:
    """Run one network and list what its products read, a row for every unit."""
    watch = forward.watch(state, inputs)
    ours: dict[int, int] = {}  # labels of this pass to those of the symmetry
    for name, dims in watch.labels().items():
        for label, segments in zip(dims, symmetry.tensors[name], strict=True):
            for mine, known in zip(stretches_of(watch.axes, label), segments, strict=True):
                pairs = zip(mine, known, strict=True)
                ours |= {a: b for (a, _), (b, _) in pairs if a is not None and b is not None}
    found = []
    for tensor, dims in watch.factors:
        stretches = [
            tuple(
                tuple((ours.get(la) if la is not None else None, n) for la, n in segment)
                for segment in stretches_of(watch.axes, label)
            )
            for label in dims
        ]
        rows = as_rows(tensor, stretches, symmetry)
        found += [] if rows is None else [rows]
    return found


def as_rows(
    tensor: Tensor, dims: list[Stretches], symmetry: Symmetry
) -> tuple[Stretches, Float[Tensor, "units values"]] | None:
    """Gather all units that may be permuted in one axis and everything else behind it."""
    moving = [axis for axis, segments in enumerate(dims) if labels_in(segments)]
    if any(len(dims[axis]) > 1 for axis in moving):
        if len(moving) > 1:
            return None
        units, axis = dims[moving[0]], moving[0]
        rows = tensor.movedim(axis, 0).flatten(1)
    else:
        factors = [
            factor
            for segments, size in zip(dims, tensor.shape, strict=True)
            for factor in (segments[0] if labels_in(segments) else ((None, size),))
        ]
        front = tuple(at for at, (label, _) in enumerate(factors) if label is not None)
        units = (tuple(factors[at] for at in front),)
        count = prod(n for _, n in units[0])
        shaped = tensor.reshape([n for _, n in factors])
        rows = shaped.movedim(front, tuple(range(len(front)))).reshape(count, -1)
    if not moving or not all(readable(segment, symmetry) for segment in units):
        return None
    return units, rows.double()


def readable(segment: Segment, symmetry: Symmetry) -> bool:
    """Whether each label is there once, together with the one that it lies within."""
    labels = [label for label, _ in segment if label is not None]
    outers = {symmetry.within[label] for label in labels if label in symmetry.within}
    return len(set(labels)) == len(labels) and outers <= {*labels}


class Moments:
    """Sums over batches, from which correlations follow."""

    def __init__(self, units: Stretches) -> None:
        self.units = units
        size = sum(prod(n for _, n in segment) for segment in units)
        self.count = 0
        self.first = torch.zeros(2, size, dtype=torch.float64)
        self.second = torch.zeros(2, size, dtype=torch.float64)
        self.mixed = torch.zeros(size, size, dtype=torch.float64)

    def add(self, one: Float[Tensor, "units values"], other: Float[Tensor, "units values"]) -> None:
        """Take in the activations of one batch."""
        self.count += one.shape[1]
        self.first += torch.stack([one.sum(1), other.sum(1)]).cpu()
        self.second += torch.stack([one.square().sum(1), other.square().sum(1)]).cpu()
        self.mixed += (one @ other.T).cpu()

    def correlation(self) -> Float[Tensor, "units units"]:
        """Correlate; a unit without variance correlates with none."""
        mean, square = self.first / self.count, self.second / self.count
        variance = square - mean.square()
        scale = torch.where(variance > 1e-12 * square, variance, torch.inf).rsqrt()
        covariance = self.mixed / self.count - mean[0][:, None] * mean[1]
        return covariance * scale[0][:, None] * scale[1]
