"""Cut an ``nn.Sequential`` into stem, blocks and head."""

from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import Any

from torch import Tensor, nn

from lowland.boosting.part import Cut, InOrder
from lowland.errors import UnsupportedModelError
from lowland.training import tensors_in

__all__ = ["cut_sequential", "is_block", "is_plain_sequential", "longest_run", "only_tensor"]


def cut_sequential(model: nn.Sequential, names: Sequence[str] | None = None) -> Cut:
    """Cut a sequence of modules.

    The blocks reach from the first to the last child of the class that has the longest run of
    children with parts of their own; plain layers between two blocks belong to the first of them.
    A sequence of plain layers is cut before each layer with a weight matrix or kernel: the last
    group is the head, and what stands before the first such layer belongs to the first group.
    Sequences inside are opened where they hold such a run, and where there is none at all.

    Args:
        model: The sequence.
        names: Names of the children that begin a block, in order; None to look for them. The last
            of them is one block alone, what follows it is the head.

    Returns:
        The parts.

    Raises:
        UnsupportedModelError: If there are no two groups.
        ValueError: If names are not those of children, in their order, with a head behind them.

    Source:
        Ours.
    """
    items = items_of(model)
    if names is None:
        items = opened(items, lambda inner: bool(longest_run([*inner.children()])))
        if not longest_run([child for _, child in items]):
            items = opened(items, lambda _: True)
    if names is not None:
        starts, head = named_starts([name for name, _ in items], names)
    else:
        starts, head = found_starts([child for _, child in items])
    first = starts[0]
    if names is None and not is_block(items[first][1]):  # plain layers: Flatten joins
        first, bounds = 0, [0, *starts[1:], head]
    else:
        bounds = [*starts, head]
    blocks = [
        InOrder(items[start][0], dict(items[a:b]))
        for start, (a, b) in zip(starts, pairwise(bounds), strict=True)
    ]
    stem = InOrder("stem", dict(items[:first])) if first else None
    return Cut(only_tensor, stem, blocks, InOrder("head", dict(items[head:]), is_head=True))


def items_of(model: nn.Sequential) -> list[tuple[str, nn.Module]]:
    """Names and children, in the order of their calls."""
    return [(name, child) for name, child in model._modules.items() if child is not None]


def opened(
    items: Sequence[tuple[str, nn.Module]], is_to_open: Callable[[nn.Sequential], bool]
) -> list[tuple[str, nn.Module]]:
    """Put the children of some sequences in their places, by their names in the model."""
    found = []
    for name, child in items:
        if isinstance(child, nn.Sequential) and is_plain_sequential(child) and is_to_open(child):
            inner = [(f"{name}.{key}", part) for key, part in items_of(child)]
            found += opened(inner, is_to_open)
        else:
            found.append((name, child))
    return found


def found_starts(children: Sequence[nn.Module]) -> tuple[list[int], int]:
    """Find where each block begins, and the head."""
    run = longest_run(children)
    if run:
        kind = type(children[run[0]])
        places = [place for place, child in enumerate(children) if type(child) is kind]
        inside = range(places[0], places[-1] + 1)
        starts, head = [place for place in inside if is_block(children[place])], places[-1] + 1
    else:
        starts, head = [p for p, child in enumerate(children) if has_matrix(child)], len(children)
    if not run or head == len(children):  # the last block, or group, is the head
        starts, head = starts[:-1], (starts or [0])[-1]
    if not starts:
        raise UnsupportedModelError(
            "a chain needs a block and a head; got a Sequential with fewer than two layers that "
            "have weights. Name the blocks with blocks=, or cut the model with callback=."
        )
    return starts, head


def named_starts(known: Sequence[str], names: Sequence[str]) -> tuple[list[int], int]:
    """Look up where the named blocks begin."""
    starts = [known.index(name) for name in names]
    if not starts or starts != sorted(set(starts)) or starts[-1] + 1 >= len(known):
        raise ValueError(
            "blocks must name at least one child, in order, with something behind the last for "
            f"the head; got {list(names)}. The children are {list(known)}."
        )
    return starts, starts[-1] + 1


def longest_run(children: Sequence[nn.Module]) -> list[int]:
    """Find the longest run of blocks of one class.

    Args:
        children: Modules in the order of their calls.

    Returns:
        Their places, at least two; none if no two blocks of a class follow each other.
    """
    kinds = [type(child) if is_block(child) else None for child in children]
    runs = [list(run) for kind, run in groupby(range(len(kinds)), key=kinds.__getitem__)
            if kind is not None]  # fmt: skip
    best = max(runs, key=len, default=[])
    return best if len(best) > 1 else []


def is_block(module: nn.Module) -> bool:
    """Tell whether a module can be a block: it has parts, or is the user's own and has weights.

    Args:
        module: Any module.

    Returns:
        False for plain layers of torch, and for normalizations.
    """
    if next(module.children(), None) is not None:
        return True
    return not type(module).__module__.startswith("torch.nn.") and has_matrix(module)


def has_matrix(module: nn.Module) -> bool:
    """Tell whether a module has a weight matrix or kernel, and is no normalization."""
    is_norm = "norm" in type(module).__name__.lower()
    return not is_norm and any(weight.ndim > 1 for weight in module.parameters())


def is_plain_sequential(model: nn.Module) -> bool:
    """Tell whether a module does nothing but call its children in order.

    Args:
        model: Any module.

    Returns:
        True for ``nn.Sequential`` and for classes made of it that keep its forward pass.
    """
    return isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward


def only_tensor(inputs: Any) -> tuple[Tensor]:
    """Take the one tensor of the inputs.

    Args:
        inputs: A tensor, or a container of one.

    Returns:
        The tensor in a tuple.

    Raises:
        ValueError: If there is none, or more than one.
    """
    found = list(tensors_in(inputs))
    if len(found) != 1:
        raise ValueError(f"the inputs of this model must be one tensor; got {len(found)}.")
    return (found[0],)
