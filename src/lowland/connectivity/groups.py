"""From watched axes to groups of axes that are permuted together."""

from collections.abc import Iterable, Mapping
from math import prod

from lowland.connectivity.permutations import Symmetry
from lowland.connectivity.segments import Stretches, labels_in, stretches_of
from lowland.connectivity.watching import Watch

__all__ = ["read_symmetry"]


def read_symmetry(watch: Watch, params: Iterable[str]) -> Symmetry:
    """Gather what was watched.

    Args:
        watch: A finished forward pass.
        params: Names of the parameters; axes that lie in none of them are left alone.

    Returns:
        The groups of axes.
    """
    dims = watch.labels()
    for labels in dims.values():  # what cannot be written as stretches is frozen here
        for label in labels:
            stretches_of(watch.axes, label)
    tensors = {
        name: tuple(stretches_of(watch.axes, label) for label in labels)
        for name, labels in dims.items()
    }
    names: dict[int, str] = {}
    sizes: dict[int, int] = {}
    kept: dict[str, str] = {}
    for name in [n for n in params if n in tensors]:
        for axis, segments in enumerate(tensors[name]):
            found = [factor for segment in segments for factor in segment]
            for label, size in found:
                if label is not None and label not in sizes:
                    sizes[label] = size
                    names[label] = unused(f"{name}[{axis}]", names.values())
            if not labels_in(segments) and sum(prod(n for _, n in s) for s in segments) > 1:
                kept[f"{name}[{axis}]"] = watch.axes.why(dims[name][axis])
    tensors = {
        name: tuple(
            tuple(
                tuple((label if label in sizes else None, n) for label, n in segment)
                for segment in segments
            )
            for segments in axes
        )
        for name, axes in tensors.items()
    }
    return Symmetry(tensors, sizes, names, nested(tensors, sizes), kept)


def unused(name: str, names: Iterable[str]) -> str:
    """Number the second and further labels of the same axis."""
    taken, number, found = set(names), 2, name
    while found in taken:
        found, number = f"{name}#{number}", number + 1
    return found


def nested(
    tensors: Mapping[str, tuple[Stretches, ...]], sizes: Mapping[int, int]
) -> dict[int, int]:
    """Find labels that always lie in the blocks of another one, so that each block has its own."""
    stretches = [
        [label for label, _ in segment]
        for dims in tensors.values()
        for segments in dims
        for segment in segments
    ]
    before: dict[int, set[int]] = {}
    for labels in stretches:
        for at, label in enumerate(labels):
            if label is not None:
                outers = {o for o in labels[:at] if o is not None and labels.count(o) == 1}
                before[label] = before.get(label, outers) & outers - {label}
    free = {label for label, outers in before.items() if not outers}
    within: dict[int, int] = {}
    for label in sorted(before, key=lambda label: (-sizes[label], label)):
        outer = min(before[label] & free, default=None)
        beside = {other for labels in stretches if label in labels for other in labels}
        rivals = [other for other in within if other in beside and within[other] == outer]
        if outer is not None and not rivals:
            within[label] = outer
    return within
