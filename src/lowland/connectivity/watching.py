"""Watch one forward pass, operation by operation, and learn what each axis is."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lowland.connectivity.axes import Axes
from lowland.connectivity.axis_rules import elementwise
from lowland.connectivity.usage import Mode, by_name, storage, written_by
from lowland.connectivity.view_rules import Dims
from lowland.connectivity.weight_rules import FACTORS, rule_of
from lowland.training import tensors_in

__all__ = ["Watch"]

# Written in full or entry by entry, but not marked so by torch.
ELEMENTWISE = {"copy", "_prelu_kernel"}
CONSTANT = {
    *("zeros", "ones", "full", "empty", "zeros_like", "ones_like", "full_like", "empty_like"),
    *("new_zeros", "new_ones", "new_full", "new_empty"),
}


class Watch(Mode):
    """Follows the axes of parameters and inputs through a forward pass.

    Where an operation is not known, or does not fit its rule, the axes of all its tensors are
    frozen: they are left alone.

    Attributes:
        axes: The labels.
        factors: Tensors made from the inputs that a product sums over, in the order of the pass,
            with the labels of their axes; each once.
    """

    def __init__(self, state: Mapping[str, Tensor], inputs: Any, live: set[int]) -> None:
        """Give a label to every axis.

        Args:
            state: Parameters and buffers whose units may be permuted.
            inputs: Inputs of the model, whose units may not.
            live: Numbers of the operations that matter.
        """
        super().__init__()
        self.axes = Axes()
        self.factors: list[tuple[Tensor, Dims]] = []
        self.state, self.live, self.count = dict(state), live, 0
        self.read: set[int] = set()
        self.known: dict[int, tuple[Tensor, Dims]] = {}  # the tensor, too: its id stays its own
        self.dead: list[Any] = []
        self.stacks: dict[int, tuple[int, list[Dims]]] = {}
        self.now: dict[int, Dims] = {}
        self.varying: set[int] = set()
        self.fed: set[int] = set()
        self.seen: set[tuple[Any, ...]] = set()
        for tensor in self.state.values():
            self.note(tensor, [self.axes.new(size) for size in tensor.shape])
            self.varying.add(storage(tensor))
        for tensor in tensors_in(inputs):
            self.note(tensor, [self.axes.new(n, "belongs to the inputs") for n in tensor.shape])
            self.varying.add(storage(tensor))
            self.fed.add(storage(tensor))

    def note(self, tensor: Tensor, dims: Dims) -> None:
        """Remember the labels of a tensor."""
        self.known[id(tensor)] = tensor, dims
        self.stacks.pop(id(tensor), None)

    def of(self, tensor: Tensor) -> Dims:
        """Look up the labels of a tensor; one that was not seen is a constant."""
        if id(tensor) in self.now:
            return self.now[id(tensor)]
        if id(tensor) not in self.known:
            self.note(tensor, constant_dims(self.axes, tensor))
        dims = self.known[id(tensor)][1]
        place, parts = self.stacks.pop(id(tensor), (0, []))
        for part in parts:  # it is used as a whole after all
            for one, other in zip(dims[:place] + dims[place + 1 :], part, strict=True):
                self.axes.unify(one, other)
        return dims

    def labels(self) -> dict[str, Dims]:
        """Labels of the state.

        Returns:
            By name, of those tensors that were read.
        """
        return {n: self.of(t) for n, t in self.state.items() if id(t) in self.read}

    def finish(self, outputs: Any) -> None:
        """Freeze what the user sees.

        Args:
            outputs: What the model returned.
        """
        for tensor in tensors_in(outputs):
            self.axes.freeze(self.of(tensor), "belongs to the outputs")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation, and label what comes out."""
        given = by_name(func, args, kwargs or {})
        sources = [*tensors_in(given)]
        written = written_by(func, given)
        self.count += 1
        if self.count - 1 not in self.live:
            out = func(*args, **(kwargs or {}))
            self.dead.append(out)  # torch detaches a new tensor that is held: one operation more
            return out
        name = func._schema.name.partition("::")[2]
        varies = [storage(tensor) in self.varying for tensor in sources]
        self.read |= {id(tensor) for tensor in sources}
        self.now = {}
        if any(varies):  # a constant is like itself in whatever order, so each use is free
            for tensor in [t for t, v in zip(sources, varies, strict=True) if not v]:
                fresh = constant_dims(self.axes, tensor)
                if any(tensor is other for other in written):
                    for one, other in zip(self.of(tensor), fresh, strict=True):
                        self.axes.unify(one, other)
                else:
                    self.now[id(tensor)] = fresh
        if name in FACTORS:
            self.keep_factors([given[key] for key in FACTORS[name]])
        out = func(*args, **(kwargs or {}))
        outs = [*tensors_in(out)]
        if name in CONSTANT or not (any(varies) or is_view(func)):
            for tensor in outs:
                self.note(tensor, constant_dims(self.axes, tensor, empty="empty" in name))
            return out
        for kind in (self.varying, self.fed):
            if any(storage(tensor) in kind for tensor in sources):
                kind |= {storage(tensor) for tensor in [*outs, *written]}
        if not self.follow_stack(name, given, out):
            for tensor, dims in zip(outs, self.follow(func, name, given, out), strict=True):
                self.note(tensor, dims)
        return out

    def follow(self, func: Any, name: str, given: dict[str, Any], out: Any) -> list[Dims]:
        """Find the labels of what came out; freeze everything where that fails."""
        outs, sources = [*tensors_in(out)], [*tensors_in(given)]
        bare = name if name in FACTORS else name.removesuffix("_")
        rule, known = rule_of(bare), torch.Tag.pointwise in func.tags or bare in ELEMENTWISE
        if torch.Tag.nondeterministic_seeded not in func.tags and (rule or known):
            try:
                if rule:
                    found = rule(self.axes, self.of, given, out)
                else:
                    found = elementwise(self.axes, self.of, sources)
                every: Any = [found] if isinstance(out, Tensor) else found
                shapes = [[self.axes.sizes[label] for label in dims] for dims in every]
                if shapes == [[*tensor.shape] for tensor in outs]:
                    return every
            except (ValueError, KeyError, IndexError, TypeError):  # arguments no rule foresaw
                pass
        reason = f"passes through {func}"
        for tensor in sources:
            self.axes.freeze(self.of(tensor), reason)
        return [[self.axes.new(size, reason) for size in tensor.shape] for tensor in outs]

    def follow_stack(self, name: str, given: dict[str, Any], out: Any) -> bool:
        """Let tensors be stacked and taken out again, as recurrent layers do with their states."""
        if name == "stack" and isinstance(out, Tensor):
            parts = [self.of(tensor) for tensor in given["tensors"]]
            place = (given.get("dim") or 0) % out.ndim
            dims = [self.axes.new(size) for size in out.shape]
            self.axes.freeze([dims[place]], "is a stack of tensors")
            self.note(out, dims)
            self.stacks[id(out)] = place, parts
            return True
        stacked = given.get("self")
        if name not in ("select", "unbind") or id(stacked) not in self.stacks:
            return False
        place, parts = self.stacks[id(stacked)]
        if (given.get("dim") or 0) % (len(parts[0]) + 1) != place:
            return False
        outs = [*tensors_in(out)]
        for tensor, part in zip(outs, parts if name == "unbind" else [parts[given["index"]]],
                                strict=True):  # fmt: skip
            self.note(tensor, part)
        return True

    def keep_factors(self, tensors: list[Tensor]) -> None:
        """Remember what a product reads, if it depends on the inputs."""
        for tensor in tensors:
            place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
            if storage(tensor) in self.fed and place not in self.seen:
                self.seen.add(place)
                self.factors.append((tensor, self.of(tensor)))


def is_view(func: Any) -> bool:
    """Whether what comes out shares its numbers with an argument."""
    return any(value.alias_info is not None for value in func._schema.returns)


def constant_dims(axes: Axes, tensor: Tensor, *, empty: bool = False) -> Dims:
    """Label a constant: an axis along which it does not change may be permuted."""
    dims = []
    for place, size in enumerate(tensor.shape):
        first = tensor.detach().narrow(place, 0, min(size, 1))
        even = size <= 1 or empty or bool((tensor.detach() == first).all())
        dims.append(axes.new(size, "" if even else "meets a table of constants"))
    return dims
