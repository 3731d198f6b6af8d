"""An axis written as stretches, each a product of factors that can be permuted."""

from lowland.connectivity.axes import Axes

__all__ = ["Factor", "Segment", "Stretches", "labels_in", "stretches_of"]

# A label, or None where units have to stay, and how many units.
Factor = tuple[int | None, int]
# A stretch of an axis: a product of factors, the first one slowest.
Segment = tuple[Factor, ...]
# An axis: its stretches, one after the other.
Stretches = tuple[Segment, ...]


def stretches_of(axes: Axes, label: int) -> Stretches:
    """Write an axis as stretches of products of atomic labels.

    Args:
        axes: All labels.
        label: The axis.

    Returns:
        Its stretches, in order. An axis that cannot be written so is frozen.
    """
    label = axes.find(label)
    kind, parts = axes.parts.get(label, ("", ()))
    if kind == "blocks":
        return tuple(segment for part in parts for segment in stretches_of(axes, part))
    if kind == "product":
        outer, *inner = (stretches_of(axes, part) for part in parts)
        if all(len(found) == 1 for found in inner):
            tail = tuple(factor for found in inner for factor in found[0])
            return tuple(without_ones(segment + tail) for segment in outer)
        axes.freeze([label], "has blocks inside of a product")
        return (((None, axes.sizes[label]),),)
    fixed = label in axes.reasons or axes.sizes[label] == 1
    return (((None if fixed else label, axes.sizes[label]),),)


def without_ones(segment: Segment) -> Segment:
    """Leave out factors of a single unit."""
    return tuple(factor for factor in segment if factor[1] != 1) or segment[:1]


def labels_in(segments: Stretches) -> set[int]:
    """Collect the labels that move an axis.

    Args:
        segments: Its stretches.

    Returns:
        The labels.
    """
    return {label for segment in segments for label, _ in segment if label is not None}
