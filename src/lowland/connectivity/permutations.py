"""Groups of axes that are permuted together, and state dicts with permuted units."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

import torch
from jaxtyping import Int
from torch import Tensor

from lowland.connectivity.segments import Stretches, labels_in

__all__ = [
    "Permutations",
    "Symmetry",
    "compose",
    "identity",
    "index_of",
    "permuted",
    "shuffled",
]

# A label to the units that come to its places: (units,), or (outer units, units) inside of blocks.
Permutations = Mapping[int, Int[Tensor, "..."]]


@dataclass(frozen=True)
class Symmetry:
    """Which axes of which tensors may be permuted, and which of them together.

    Attributes:
        tensors: By name, for each axis its stretches.
        sizes: Number of units of each label that moves.
        names: A name for each label: the first axis it lies in.
        within: A label that is permuted inside of each unit of another one (the channels of an
            attention head), to that other label.
        kept: Axes whose units stay, and why.
    """

    tensors: dict[str, tuple[Stretches, ...]]
    sizes: dict[int, int]
    names: dict[int, str]
    within: dict[int, int] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def roots(self) -> list[int]:
        """Labels that lie within no other one."""
        return [label for label in self.sizes if label not in self.within]

    def inner(self, root: int) -> list[int]:
        """Labels within one."""
        return [label for label, outer in self.within.items() if outer == root]

    def family(self, root: int) -> set[int]:
        """A label and those within it."""
        return {root, *self.inner(root)}

    def places(self) -> dict[int, tuple[tuple[str, int], ...]]:
        """Where labels lie.

        Returns:
            For each label the tensors and axes.
        """
        found: dict[int, dict[tuple[str, int], None]] = {label: {} for label in self.sizes}
        for name, dims in self.tensors.items():
            for axis, segments in enumerate(dims):
                for label in labels_in(segments):
                    found[label][name, axis] = None
        return {label: tuple(where) for label, where in found.items()}

    def without(self, roots: Iterable[int], reason: str) -> "Symmetry":
        """Leave some labels, and those within them, alone.

        Args:
            roots: The labels.
            reason: Why, in a few words.

        Returns:
            What is left.
        """
        gone = {label for root in roots for label in self.family(root)}
        places = self.places()
        kept = {f"{n}[{axis}]": reason for label in gone for n, axis in places[label]}
        left = {label: size for label, size in self.sizes.items() if label not in gone}
        tensors = {
            name: tuple(
                tuple(
                    tuple((None if label in gone else label, n) for label, n in segment)
                    for segment in segments
                )
                for segments in dims
            )
            for name, dims in self.tensors.items()
        }
        within = {a: b for a, b in self.within.items() if a in left}
        return replace(self, tensors=tensors, sizes=left, within=within, kept=self.kept | kept)

    def permute(self, state: Mapping[str, Tensor], permutations: Permutations) -> dict[str, Tensor]:
        """Permute the units of a state.

        Args:
            state: Tensors by name; those the symmetry does not know stay as they are.
            permutations: For each label the units that come to its places.

        Returns:
            The permuted tensors.
        """
        return {
            name: permuted(value, self.tensors[name], permutations, self.within)
            if name in self.tensors
            else value
            for name, value in state.items()
        }


def permuted(
    value: Tensor,
    dims: tuple[Stretches, ...],
    permutations: Permutations,
    within: Mapping[int, int],
) -> Tensor:
    """Permute the axes of one tensor.

    Args:
        value: The tensor.
        dims: Stretches of its axes.
        permutations: For each label the units that come to its places; others stay.
        within: Labels that are permuted inside of each unit of another one.

    Returns:
        The permuted tensor.
    """
    for axis, segments in enumerate(dims):
        if labels_in(segments) & permutations.keys():
            index = index_of(segments, permutations, within)
            value = value.index_select(axis, index.to(value.device))
    return value


def index_of(
    segments: Stretches, permutations: Permutations, within: Mapping[int, int]
) -> Int[Tensor, " units"]:
    """Find which unit of an axis comes to each place.

    Args:
        segments: Stretches of the axis.
        permutations: As for :func:`permuted`.
        within: Likewise.

    Returns:
        Numbers of units.
    """
    parts, offset = [], 0
    for segment in segments:
        sizes = [size for _, size in segment]
        labels = [label for label, _ in segment]
        total, stride = torch.full(sizes, offset), prod(sizes)
        for at, (label, size) in enumerate(segment):
            stride //= size
            table = torch.arange(size) if label is None else permutations.get(label)
            table = torch.arange(size) if table is None else table.cpu()
            shape = [1] * len(sizes)
            shape[at] = size
            if table.ndim == 2 and label is not None:  # one permutation for every outer unit
                shape[labels.index(within[label])] = len(table)
            total = total + stride * table.view(shape)
        parts.append(total.flatten())
        offset += prod(sizes)
    return torch.cat(parts)


def identity(symmetry: Symmetry) -> dict[int, Int[Tensor, "..."]]:
    """Every unit in its place.

    Args:
        symmetry: What may be permuted.

    Returns:
        The permutations.
    """
    found = {}
    for label, size in symmetry.sizes.items():
        shape = (symmetry.sizes[symmetry.within[label]], 1) if label in symmetry.within else ()
        found[label] = torch.arange(size).repeat(shape) if shape else torch.arange(size)
    return found


def shuffled(
    symmetry: Symmetry, generator: torch.Generator, roots: Iterable[int] | None = None
) -> dict[int, Int[Tensor, "..."]]:
    """Draw permutations at random.

    Args:
        symmetry: What may be permuted.
        generator: Source of randomness.
        roots: Labels to permute, with those within them; all of them if None.

    Returns:
        The permutations.
    """
    roots = symmetry.roots if roots is None else roots
    some = {label for root in roots for label in symmetry.family(root)}
    still = {label: table for label, table in identity(symmetry).items() if label in some}
    return {
        label: table.gather(-1, torch.rand(table.shape, generator=generator).argsort(-1))
        for label, table in still.items()
    }


def compose(
    symmetry: Symmetry, first: Permutations, second: Permutations
) -> dict[int, Int[Tensor, "..."]]:
    """Permute, and permute again.

    Args:
        symmetry: What may be permuted.
        first: The permutations that are applied first.
        second: Those that are applied to the result; labels that are not there stay.

    Returns:
        One permutation for each label of ``first``.
    """
    result = dict(first)
    for label, table in second.items():
        outer = symmetry.within.get(label)
        before = first[label]
        if outer is None:
            result[label] = before[table]
            continue
        if outer in second:
            before = before[second[outer]]
        result[label] = before.gather(1, table)
    for label, outer in symmetry.within.items():
        if outer in second and label not in second:
            result[label] = first[label][second[outer]]
    return result
