"""What an operation says about the axes of its tensors: which are tied, moved, cut or fixed."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from lowland.connectivity.axes import Axes
from lowland.connectivity.view_rules import VIEWS, Dims, Rule, cut

__all__ = ["RULES", "SPATIAL", "elementwise"]

SPATIAL = "is a place (a pixel, a step in time)"


def elementwise(axes: Axes, of: Callable[[Tensor], Dims], tensors: Sequence[Tensor]) -> Dims:
    """Tie the axes of tensors that are combined entry by entry.

    Args:
        axes: All labels.
        of: Labels of a tensor.
        tensors: At least one; they broadcast.

    Returns:
        Labels of the result.
    """
    every = [of(tensor) for tensor in tensors]
    result: Dims = []
    for place in range(1, 1 + max(map(len, every))):
        here = [dims[-place] for dims in every if len(dims) >= place]
        whole = [label for label in here if axes.sizes[label] != 1] or here[:1]
        for label in whole[1:]:
            axes.unify(whole[0], label)
        result.insert(0, whole[0])
    return result


def same(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Keep all axes: copies, and what treats all units of an axis alike (softmax)."""
    return of(a["self"])


def in_order(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims | list[Dims]:
    """Keep all axes, but one of them in its order: cumulative sums, sorting, flips."""
    dims = of(a["self"])
    where = a["dims"] if "dims" in a else a["dim"]
    places = where if isinstance(where, list | tuple) else [where]
    axes.freeze([dims[place] for place in places], "is read in its order")
    return [dims for _ in out] if isinstance(out, tuple | list) else dims


def triangle(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Keep a triangle of a matrix."""
    axes.freeze(of(a["self"])[-2:], "is read in its order")
    return of(a["self"])


def reduction(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims | list[Dims]:
    """Drop axes; sums and maxima do not depend on the order of units, places of maxima do."""
    dims, where = of(a["self"]), a.get("dim")
    places = where if isinstance(where, list | tuple) else [where]
    gone = {p % max(len(dims), 1) for p in places if p is not None} or {*range(len(dims))}
    outs = out if isinstance(out, tuple | list) else [out]
    if any(not o.is_floating_point() and o.dtype != a["self"].dtype for o in outs):
        axes.freeze([dims[p] for p in gone], "is asked for a position")
    keep = bool(a.get("keepdim"))
    left = [axes.new(1) if p in gone else d for p, d in enumerate(dims) if keep or p not in gone]
    return [left for _ in out] if isinstance(out, tuple | list) else left


def pooling(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims | list[Dims]:
    """Fix the places of an image, keep its channels."""
    dims = of(a["self"])
    outs = [*out] if isinstance(out, tuple | list) else [out]
    size = a.get("kernel_size") or a.get("output_size")
    spatial = len(size) if size else len(dims) - 2
    axes.freeze(dims[-spatial:], SPATIAL)
    found = [dims[:-spatial] + [axes.new(n, SPATIAL) for n in o.shape[-spatial:]] for o in outs]
    return found if isinstance(out, tuple | list) else found[0]


def cat(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Put tensors one behind the other; their other axes are tied."""
    every = [of(t) for t in a["tensors"] if len(t.shape) == len(out.shape)]
    place = (a.get("dim") or 0) % len(out.shape)
    result = [*every[0]]
    for dims in every[1:]:
        for p in range(len(dims)):
            if p != place:
                axes.unify(result[p], dims[p])
    result[place] = axes.blocks([dims[place] for dims in every])
    return result


def pad(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Put equal numbers around axes; among each other these may stand in any order."""
    dims, sizes = [*of(a["self"])], a["pad"]
    if min(sizes) < 0:
        raise ValueError("cropping is no padding.")
    for number in range(len(sizes) // 2):
        place, (low, high) = len(dims) - 1 - number, sizes[2 * number : 2 * number + 2]
        dims[place] = axes.blocks([axes.new(low), dims[place], axes.new(high)])
    return dims


def glu(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Multiply the halves of an axis."""
    dims = of(a["self"])
    place = a.get("dim", -1) % len(dims)
    one, two = cut(axes, dims, place, [out.shape[place]] * 2)
    axes.unify(one[place], two[place])
    return one


RULES: dict[str, Rule] = {
    name: rule
    for rule, names in (
        (same, "_softmax _log_softmax _safe_softmax alias detach _to_copy lift_fresh fill zero"),
        (in_order, "cumsum cumprod logcumsumexp cummax flip sort topk"),
        (triangle, "tril triu"),
        (
            reduction,
            "sum mean amax amin max min var std prod logsumexp linalg_vector_norm norm any all "
            "argmax argmin var_mean",
        ),
        (
            pooling,
            "max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d "
            "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d "
            "upsample_nearest1d upsample_nearest2d upsample_bilinear2d upsample_linear1d "
            "upsample_bicubic2d",
        ),
        (cat, "cat"),
        (pad, "constant_pad_nd"),
        (glu, "glu"),
    )
    for name in names.split()
} | VIEWS
