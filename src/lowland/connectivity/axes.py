"""Labels of tensor axes: which are one and the same, which consist of others, which are fixed."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from math import prod

__all__ = ["Axes"]


class Axes:
    """Labels that learn, as operations are watched, what they have in common.

    A label is the units of an axis. It is atomic, or consists of others: a *product* (an axis of
    heads times channels, flattened) or *blocks* one after the other (a concatenation). Labels that
    must be permuted alike are unified; where the order of units matters they are frozen.

    Source:
        Ours; unification of terms (Robinson, 1965) over sums and products of sizes.
    """

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.sizes: list[int] = []
        self.parts: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.reasons: dict[int, str] = {}

    def new(self, size: int, reason: str = "") -> int:
        """Make a label.

        Args:
            size: Number of units.
            reason: Why they have to stay in their order, if they have.

        Returns:
            The label.
        """
        self.parent.append(len(self.parent))
        self.sizes.append(size)
        if reason:
            self.reasons[len(self.parent) - 1] = reason
        return len(self.parent) - 1

    def find(self, label: int) -> int:
        """Look up who speaks for a label.

        Args:
            label: Any label.

        Returns:
            The representative of all labels unified with it.
        """
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def freeze(self, labels: Iterable[int], reason: str) -> None:
        """Keep units in their order.

        Args:
            labels: Axes.
            reason: Why, in a few words; the first reason stays.
        """
        for label in map(self.find, labels):
            if label in self.parts:
                self.freeze(self.parts[label][1], reason)
            else:
                self.reasons.setdefault(label, reason)

    def why(self, label: int) -> str:
        """Tell why an axis is frozen.

        Args:
            label: The axis.

        Returns:
            The first reason found, empty if there is none.
        """
        label = self.find(label)
        parts = self.parts.get(label, ("", ()))[1]
        reasons = [self.reasons.get(label, ""), *map(self.why, parts)]
        return next((reason for reason in reasons if reason), "")

    def product(self, factors: Sequence[int]) -> int:
        """Flatten axes into one.

        Args:
            factors: Labels, the slowest first.

        Returns:
            Label of the flattened axis.
        """
        factors = [f for f in factors if self.sizes[f] != 1]
        if len(factors) < 2:
            return factors[0] if factors else self.new(1)
        label = self.new(prod(self.sizes[f] for f in factors))
        self.parts[label] = "product", tuple(factors)
        return label

    def blocks(self, parts: Sequence[int]) -> int:
        """Put axes one behind the other.

        Args:
            parts: Labels.

        Returns:
            Label of the joined axis.
        """
        parts = [p for p in parts if self.sizes[p]]
        if len(parts) < 2:
            return parts[0] if parts else self.new(0)
        label = self.new(sum(self.sizes[p] for p in parts))
        self.parts[label] = "blocks", tuple(parts)
        return label

    def factor(self, label: int, sizes: Sequence[int]) -> list[int]:
        """See an axis as several, as ``view`` does.

        Args:
            label: The axis.
            sizes: Sizes of the new axes, the slowest first.

        Returns:
            Their labels.
        """
        fresh = [self.new(size) for size in sizes]
        self.unify(label, self.product(fresh))
        return fresh

    def split(self, label: int, sizes: Sequence[int]) -> list[int]:
        """Cut an axis into blocks.

        Args:
            label: The axis.
            sizes: Sizes of the blocks, in order.

        Returns:
            Their labels.
        """
        label, sizes = self.find(label), [*sizes]
        if len([size for size in sizes if size]) < 2:
            return [label if size else self.new(0) for size in sizes]
        kind, parts = self.parts.get(label, ("", ()))
        if kind != "blocks":
            cut = [self.new(size, self.reasons.get(label, "")) for size in sizes]
            if kind == "product":
                cut = self.split_product(label, parts, sizes)
            self.parts[label] = "blocks", tuple(c for c in cut if self.sizes[c])
            return cut
        edges = [*accumulate(sizes, initial=0)]
        parts = self.refine(label, edges)
        starts = [*accumulate((self.sizes[p] for p in parts), initial=0)][:-1]
        return [
            self.blocks([p for p, at in zip(parts, starts, strict=True) if low <= at < high])
            for low, high in pairwise(edges)
        ]

    def split_product(self, label: int, parts: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """Cut a flattened axis between units of its slowest factor, or freeze it."""
        outer, *inner = parts
        step = prod(self.sizes[p] for p in inner)
        if any(size % step for size in sizes):
            reason = "is cut in the middle of a block"
            self.freeze([label], reason)
            return [self.new(size, reason) for size in sizes]
        outers = self.split(outer, [size // step for size in sizes])
        return [self.product([part, *inner]) if self.sizes[part] else part for part in outers]

    def refine(self, label: int, edges: Sequence[int]) -> list[int]:
        """Cut blocks further until all edges are between two of them."""
        fine, at = [], 0
        for part in self.parts[label][1]:
            stop = at + self.sizes[part]
            inside = [at, *(edge for edge in edges if at < edge < stop), stop]
            fine += self.split(part, [b - a for a, b in pairwise(inside)])
            at = stop
        self.parts[label] = "blocks", tuple(fine)
        return fine

    def unify(self, one: int, other: int) -> int:
        """Say that two axes are permuted alike.

        Args:
            one: A label.
            other: A label of the same size.

        Returns:
            The label of both.
        """
        one, other = self.find(one), self.find(other)
        if one == other:
            return one
        if one in self.parts and other in self.parts:
            self.unify_parts(one, other)
        elif one in self.parts:
            one, other = other, one
        one, other = self.find(one), self.find(other)
        if one != other:
            reason = self.reasons.pop(one, "")
            self.parent[one] = other
            if reason:
                self.freeze([other], reason)
        return other

    def unify_parts(self, one: int, other: int) -> None:
        """Unify axes that both consist of others, part by part."""
        kinds = self.parts[one][0], self.parts[other][0]
        if kinds == ("product", "product"):
            self.unify_products(one, other)
            return
        whole, cut = (one, other) if kinds[0] == "blocks" else (other, one)
        sizes = [self.sizes[p] for p in self.parts[whole][1]]
        for part, piece in zip(self.parts[whole][1], self.split(cut, sizes), strict=True):
            self.unify(part, piece)

    def unify_products(self, one: int, other: int) -> None:
        """Walk along both, factor by factor, and split the larger where it can be."""
        left, right = [*self.parts[one][1]], [*self.parts[other][1]]
        while left and right:
            a, b = left.pop(0), right.pop(0)
            if self.sizes[a] == self.sizes[b]:
                self.unify(a, b)
                continue
            if self.sizes[a] < self.sizes[b]:
                a, b, left, right = b, a, right, left
            large, small = self.sizes[a], self.sizes[b]
            if large % small:
                self.freeze([one, other], "is seen as products that do not fit each other")
                return
            head, tail = self.factor(a, [small, large // small])
            self.unify(head, b)
            left.insert(0, tail)
