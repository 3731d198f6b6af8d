"""How alike the weights of two networks are, unit by unit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.matching import Pairs
from lowland.connectivity.permutations import Permutations, Symmetry, permuted
from lowland.connectivity.segments import Segment, Stretches, labels_in

__all__ = ["WeightSimilarity", "differences", "joined", "sorted_products"]


def products(one: Float[Tensor, "a n"], other: Float[Tensor, "b n"]) -> Float[Tensor, "a b"]:
    """Inner products of all rows with all rows."""
    return one @ other.T


def sorted_products(one: Float[Tensor, "a n"], other: Float[Tensor, "b n"]) -> Float[Tensor, "a b"]:
    """Inner products of sorted rows, whatever the order of the units they are joined to.

    Between two permutations of one network they are largest for the same unit, exactly.

    Args:
        one: A row for each unit of one network.
        other: Of the other.

    Returns:
        A number for each pair.

    Source:
        Ours.
    """
    return one.sort(1).values @ other.sort(1).values.T


def differences(one: Float[Tensor, "a n"], other: Float[Tensor, "b n"]) -> Float[Tensor, "a b"]:
    """One for two rows that differ anywhere, zero for equal ones."""
    _, number = torch.unique(torch.cat([one, other]), dim=0, return_inverse=True)
    return (number[: len(one), None] != number[None, len(one) :]).double()


@dataclass(frozen=True)
class WeightSimilarity:
    r"""Inner products of the weights of two networks.

    The sum over all tensors of :math:`\langle A, P(B) \rangle`: the larger it is, the smaller the
    Euclidean distance of the networks.

    Attributes:
        symmetry: What may be permuted.
        start: Parameters of one network, float64.
        end: Of the other.
        compare: From the weights of units, a row each, to how alike they are.

    Source:
        Ainsworth et al., ICLR 2023 (Git Re-Basin), Section 3.2.
    """

    symmetry: Symmetry
    start: Mapping[str, Tensor]
    end: Mapping[str, Tensor]
    compare: Callable[[Tensor, Tensor], Tensor] = products

    def names_of(self, roots: set[int]) -> list[str]:
        """Tensors that some labels, or labels within them, move."""
        labels = {label for root in roots for label in self.symmetry.family(root)}
        dims = self.symmetry.tensors
        return [n for n in self.start if any(labels_in(s) & labels for s in dims.get(n, ()))]

    def pairs(self, root: int, permutations: Permutations) -> Pairs:
        """See :class:`Similarity`."""
        sizes, inner = self.symmetry.sizes, self.symmetry.inner(root)
        count = sizes[root]
        whole = torch.zeros(count, count, dtype=torch.float64)
        inside = {i: torch.zeros([count, sizes[i]] * 2, dtype=torch.float64) for i in inner}
        for name in self.names_of({root}):
            dims = self.symmetry.tensors[name]
            moved = permuted(self.end[name], dims, permutations, self.symmetry.within)
            both = self.start[name], moved
            for axis, segments in enumerate(dims):
                offset = 0
                for segment in segments:
                    size = prod(n for _, n in segment)
                    for places in self.occurrences(segment, root, inner):
                        a, b = (
                            self.rows(value.narrow(axis, offset, size), axis, segment, places)
                            for value in both
                        )
                        into = inside[segment[places[1]][0] or 0] if len(places) > 1 else whole
                        into += self.compare(a, b).cpu().view(into.shape)
                    offset += size
        return Pairs(whole, inside)

    def occurrences(self, segment: Segment, root: int, inner: list[int]) -> list[tuple[int, ...]]:
        """Where in a product a label stands, together with one within it if there is one."""
        labels = [label for label, _ in segment]
        below = [place for place, label in enumerate(labels) if label in inner]
        return [(at, *below[:1]) for at, label in enumerate(labels) if label == root]

    def rows(
        self, part: Tensor, axis: int, segment: Segment, places: tuple[int, ...]
    ) -> Float[Tensor, "units others"]:
        """Bring units to the front and all that they are joined to behind them."""
        shaped = part.movedim(axis, 0).reshape([n for _, n in segment] + [-1])
        units = prod(segment[place][1] for place in places)
        return shaped.movedim(places, tuple(range(len(places)))).reshape(units, -1)

    def total(self, permutations: Permutations, roots: set[int]) -> tuple[float, float]:
        """See :class:`Similarity`."""
        found = bound = 0.0
        for name in self.names_of(roots):
            one, other = self.start[name], self.end[name]
            moved = permuted(other, self.symmetry.tensors[name], permutations, self.symmetry.within)
            found += float(torch.linalg.vecdot(one.flatten(), moved.flatten()))
            bound += float(torch.linalg.vector_norm(one) * torch.linalg.vector_norm(other))
        return found, bound

    def neighbors(self, root: int) -> set[int]:
        """See :class:`Similarity`."""
        return joined(
            root, self.symmetry, [self.symmetry.tensors[n] for n in self.names_of({root})]
        )


def joined(root: int, symmetry: Symmetry, tensors: list[tuple[Stretches, ...]]) -> set[int]:
    """Roots of the labels that share tensors with one, itself if it is there twice."""
    found: set[int] = set()
    for dims in tensors:
        labels = [
            symmetry.within.get(label, label)
            for segments in dims
            for segment in segments
            for label in {label for label, _ in segment if label is not None}
        ]
        found |= {label for label in labels if label != root or labels.count(root) > 1}
    return found
