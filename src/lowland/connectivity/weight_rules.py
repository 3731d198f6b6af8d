"""What layers with weights say about axes: products sum over one axis, norms follow theirs."""

from collections.abc import Callable
from math import prod
from typing import Any

from torch import Tensor

from lowland.connectivity.axes import Axes
from lowland.connectivity.axis_rules import RULES, SPATIAL
from lowland.connectivity.view_rules import Dims, Rule

__all__ = ["FACTORS", "rule_of"]

# Operations that sum over units, and the arguments that hold them.
FACTORS = {
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "addmm": ("mat1", "mat2"),
    "baddbmm": ("batch1", "batch2"),
    "mv": ("self", "vec"),
    "addmv": ("mat", "vec"),
    "dot": ("self", "tensor"),
    "convolution": ("input", "weight"),
}


def rule_of(name: str) -> Rule | None:
    """Look up what an operation says.

    Args:
        name: Its name in ATen, without the trailing underscore of in-place ones.

    Returns:
        The rule, or None if none is known.
    """
    return WEIGHT_RULES.get(name) or RULES.get(name)


def products(axes: Axes, of: Any, a: dict[str, Any], out: Tensor, names: Any) -> Dims:
    """Sum over the last axis of one tensor and the first one behind the batch of the other."""
    left, right = (of(a[name]) for name in names)
    batch = max(0, len(left) - 2) if len(left) == len(right) else 0
    for one, other in zip(left[:batch], right[:batch], strict=True):
        axes.unify(one, other)
    axes.unify(left[-1], right[batch])
    return left[:-1] + right[batch + 1 :]


def product_rule(names: tuple[str, str]) -> Rule:
    """Make the rule of a product, with or without a tensor that is added."""

    def rule(axes: Axes, of: Callable[[Tensor], Dims], a: dict[str, Any], out: Any) -> Dims:
        dims = products(axes, of, a, out, names)
        if "self" not in names:
            added = of(a["self"])
            for label, other in zip(dims[len(dims) - len(added) :], added, strict=True):
                if axes.sizes[other] != 1:
                    axes.unify(label, other)
        return dims

    return rule


def convolution(axes: Axes, of: Any, a: dict[str, Any], out: Tensor) -> Dims:
    """Sum over input channels, give output channels; leave grouped ones alone."""
    image, weight = of(a["input"]), of(a["weight"])
    spatial = len(weight) - 2
    axes.freeze(image[-spatial:] + weight[2:], SPATIAL)
    inputs, outputs = (weight[0], weight[1]) if a["transposed"] else (weight[1], weight[0])
    if a["groups"] == 1:
        axes.unify(image[-spatial - 1], inputs)
        channels = outputs
    else:
        reason = "is a channel of a grouped convolution"
        channels = axes.new(out.shape[-spatial - 1], reason)
        axes.freeze([image[-spatial - 1], inputs, outputs], reason)
    if a["bias"] is not None:
        axes.unify(of(a["bias"])[0], channels)
    places = [axes.new(size, SPATIAL) for size in out.shape[-spatial:]]
    return [*image[: -spatial - 1], channels, *places]


def batch_norm(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> list[Dims]:
    """Tie scale, shift and statistics to the channels."""
    dims = of(a["input"])
    for name in ("weight", "bias", "running_mean", "running_var"):
        if a.get(name) is not None:
            axes.unify(dims[1], of(a[name])[0])
    return [dims, *([axes.new(n) for n in part.shape] for part in out[1:])]


def layer_norm(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> list[Dims]:
    """Normalize over whole axes: their order does not matter, scale and shift follow."""
    dims = of(a["input"])
    count = len(a["normalized_shape"])
    for name in ("weight", "bias"):
        if a.get(name) is not None:
            for label, other in zip(dims[-count:], of(a[name]), strict=True):
                axes.unify(label, other)
    kept = dims[:-count] + [axes.new(1) for _ in range(count)]
    return [dims, *(kept for _ in out[1:])]


def group_norm(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> list[Dims]:
    """Move groups as wholes, and channels inside of their group."""
    dims, groups = of(a["input"]), a["group"]
    channels = axes.sizes[dims[1]]
    axes.factor(dims[1], [groups, channels // groups])
    for name in ("weight", "bias"):
        if a.get(name) is not None:
            axes.unify(dims[1], of(a[name])[0])
    return [dims, *([axes.new(n, "is a statistic") for n in part.shape] for part in out[1:])]


def embedding(axes: Axes, of: Any, a: dict[str, Any], out: Any) -> Dims:
    """Look up rows: their order is fixed."""
    rows, *rest = of(a["weight"])
    axes.freeze([rows], "is looked up by number")
    return of(a["indices"]) + rest


def index(axes: Axes, of: Any, a: dict[str, Any], out: Tensor) -> Dims:
    """Look up along some axes, next to each other."""
    dims, tensors = of(a["self"]), a["indices"]
    given = [place for place, tensor in enumerate(tensors) if tensor is not None]
    reason = "is looked up by number"
    axes.freeze([dims[place] for place in given], reason)
    if given != [*range(given[0], given[-1] + 1)] or any(
        tensors[place].dtype.itemsize == 1 for place in given
    ):
        raise ValueError("masks and separated indices are not followed.")
    last = given[-1] + 1
    for place in given:
        axes.freeze(of(tensors[place]), reason)
    count = out.ndim - (len(dims) - len(given))
    new = [axes.new(size, reason) for size in out.shape[given[0] : given[0] + count]]
    return dims[: given[0]] + new + dims[last:]


def index_select(axes: Axes, of: Any, a: dict[str, Any], out: Tensor) -> Dims:
    """Look up along one axis."""
    dims, place, reason = [*of(a["self"])], a["dim"], "is looked up by number"
    axes.freeze([dims[place], *of(a["index"])], reason)
    dims[place] = axes.new(prod(a["index"].shape), reason)
    return dims


WEIGHT_RULES: dict[str, Rule] = {name: product_rule(names) for name, names in FACTORS.items()} | {
    "convolution": convolution,
    "native_batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm,
    "cudnn_batch_norm": batch_norm,
    "native_layer_norm": layer_norm,
    "_fused_rms_norm": layer_norm,
    "native_group_norm": group_norm,
    "embedding": embedding,
    "index": index,
    "index_select": index_select,
}
