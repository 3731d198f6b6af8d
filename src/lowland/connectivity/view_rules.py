"""What it says about axes to see the same numbers in another shape, or a part of them."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from lowland.connectivity.axes import Axes

__all__ = ["VIEWS", "Dims", "Rule", "cut"]

Dims = list[int]
# From axes, the labels of a tensor, the arguments by name and what came out to labels of that.
Rule = Callable[[Axes, Callable[[Tensor], Dims], dict[str, Any], Any], Dims | list[Dims]]


def view(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Flatten and unflatten axes, in the smallest groups whose sizes agree."""
    old, new, result = of(a["self"]), [*out.shape], []
    if 0 in new:
        raise ValueError("an empty tensor has no units.")
    while old or new:
        taken, made = old[:1], new[:1]
        old, new = old[1:], new[1:]
        before = axes.sizes[taken[0]] if taken else 1
        after = made[0] if made else 1
        while before != after:
            if before < after:
                taken.append(old.pop(0))
                before *= axes.sizes[taken[-1]]
            else:
                made.append(new.pop(0))
                after *= made[-1]
        pass_on = len(taken) == len(made) == 1
        result += taken if pass_on else axes.factor(axes.product(taken), made)
    return result


def transpose(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Exchange two axes."""
    dims = [*of(a["self"])]
    if len(dims) > 1:
        one, two = a.get("dim0", 0), a.get("dim1", 1)
        dims[one], dims[two] = dims[two], dims[one]
    return dims


def permute(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Reorder axes."""
    return [of(a["self"])[place] for place in a["dims"]]


def unsqueeze(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Put in an axis of one unit."""
    dims = [*of(a["self"])]
    dims.insert(a["dim"] % (len(dims) + 1), axes.new(1))
    return dims


def squeeze(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Take out axes of one unit."""
    dims, where = of(a["self"]), a.get("dim")
    places = range(len(dims)) if where is None else where
    places = [places] if isinstance(places, int) else places
    gone = {p % max(len(dims), 1) for p in places}
    return [d for p, d in enumerate(dims) if p not in gone or axes.sizes[d] != 1]


def expand(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Repeat axes of one unit; all units of the new ones are equal, so any order will do."""
    dims = of(a["self"])
    lead = len(out.shape) - len(dims)
    return [
        axes.new(size) if p < lead or axes.sizes[dims[p - lead]] != size else dims[p - lead]
        for p, size in enumerate(out.shape)
    ]


def repeat(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Repeat whole axes: copies, which are alike, times units."""
    times, dims = a["repeats"], of(a["self"])
    dims = [axes.new(1) for _ in range(len(times) - len(dims))] + dims
    return [axes.product([axes.new(n), d]) for n, d in zip(times, dims, strict=True)]


def cut(axes: Axes, dims: Dims, place: int, sizes: Sequence[int]) -> list[Dims]:
    """Labels of the parts of a tensor that is cut along an axis."""
    place %= len(dims)
    parts = axes.split(dims[place], sizes)
    return [dims[:place] + [part] + dims[place + 1 :] for part in parts]


def slice_(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Take a stretch of an axis; every other unit only from axes that are fixed then."""
    dims, place = of(a["self"]), a.get("dim") or 0
    total = axes.sizes[dims[place]]
    if (a.get("step") or 1) != 1:
        axes.freeze([dims[place]], "is read in steps")
        dims = [*dims]
        dims[place] = axes.new(out.shape[place], "is read in steps")
        return dims
    start = min(max(0, (a.get("start") or 0) % total if (a.get("start") or 0) < 0 else
                    a.get("start") or 0), total)  # fmt: skip
    size = out.shape[place]
    return cut(axes, dims, place, [start, size, total - start - size])[1]


def select(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Take one unit."""
    dims, place = of(a["self"]), a["dim"]
    total = axes.sizes[dims[place]]
    index = a["index"] % total
    place %= len(dims)
    cut(axes, dims, place, [index, 1, total - index - 1])
    return dims[:place] + dims[place + 1 :]


def split(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> list[Dims]:
    """Cut along an axis."""
    place = a.get("dim") or 0
    return cut(axes, of(a["self"]), place, [part.shape[place] for part in out])


def unbind(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> list[Dims]:
    """Cut into single units."""
    dims, place = of(a["self"]), (a.get("dim") or 0) % len(of(a["self"]))
    found = cut(axes, dims, place, [1] * axes.sizes[dims[place]])
    return [part[:place] + part[place + 1 :] for part in found]


VIEWS: dict[str, Rule] = {
    name: rule
    for rule, names in (
        (view, "view _unsafe_view _reshape_alias"),
        (transpose, "t transpose"),
        (permute, "permute"),
        (unsqueeze, "unsqueeze"),
        (squeeze, "squeeze"),
        (expand, "expand"),
        (repeat, "repeat"),
        (slice_, "slice"),
        (select, "select"),
        (
            split,
            "split unsafe_split split_with_sizes unsafe_split_with_sizes chunk unsafe_chunk",
        ),
        (unbind, "unbind"),
    )
    for name in names.split()
}
