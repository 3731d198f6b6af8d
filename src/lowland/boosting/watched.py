"""Cut any model that calls a list of blocks in order, by watching a forward pass."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import nn

from lowland.boosting.arguments import Arguments
from lowland.boosting.bypass import Block, Bypass, Head, Stem, find_reach
from lowland.boosting.part import Cut, unharmed
from lowland.boosting.probe import plain_run, sort_modules, watch_blocks
from lowland.boosting.resnets import stage_blocks
from lowland.boosting.sequential import is_block, longest_run
from lowland.errors import UnsupportedModelError
from lowland.training import batch_count, tensors_in

__all__ = ["block_names", "cut_by_watching"]


def cut_by_watching(model: nn.Module, inputs: Any, names: Sequence[str] | None = None) -> Cut:
    """Cut a model where it calls its blocks.

    Each block is called again as it was called by the model: the first tensor among its arguments
    is the hidden values; other tensors with a row for each example become sides; everything else
    is a constant. The stem is the model, run until it enters the first block. The head is the
    model with all blocks bypassed, where the last returns the given hidden values; what of the
    model's inputs it looks at (token numbers, masks) goes along the chain as further sides, and
    in the place of images that only the stem needs stands one example. So a head costs a stem
    more than it had to, without a graph and without updates of statistics.

    Args:
        model: Any module.
        inputs: A batch of at least two examples, as the model takes it.
        names: Qualified names of the blocks in order; None to try the lists of modules in the
            model, the one with most weights first.

    Returns:
        The parts.

    Raises:
        UnsupportedModelError: If no list of modules is called as a chain.
        ValueError: If there are fewer than two examples.

    Source:
        Ours.
    """
    count = batch_count(inputs)
    if count < 2:
        raise ValueError(
            "inputs must hold at least two examples, to tell what belongs to an example from "
            f"constants; got {count}."
        )
    options = candidates(model) if names is None else [list(names)]
    if not options:
        raise UnsupportedModelError(
            "a model must hold a list of at least two blocks (nn.ModuleList, nn.Sequential); got "
            f"none in {type(model).__name__}. Name them with blocks=, or cut it with callback=."
        )
    errors: list[UnsupportedModelError] = []
    for option in options:
        try:
            with unharmed(model), plain_run(model):
                return cut_at(model, inputs, option, count)
        except UnsupportedModelError as error:
            errors.append(error)
    raise errors[0]


def block_names(model: nn.Module, blocks: Sequence[str] | str) -> list[str]:
    """Look up the names of blocks.

    Args:
        model: Any module.
        blocks: Qualified names, or the name of the list that holds the blocks.

    Returns:
        Qualified names of the blocks.

    Raises:
        ValueError: If there is no such module, or no block.
    """
    known = dict(model.named_modules())
    names = [blocks] if isinstance(blocks, str) else list(blocks)
    unknown = [name for name in names if name not in known]
    if isinstance(blocks, str) and not unknown:
        if not isinstance(known[blocks], nn.ModuleList | nn.Sequential):
            raise ValueError(
                f"blocks must be a list of names, or the name of an nn.ModuleList or "
                f"nn.Sequential; {blocks!r} is a {type(known[blocks]).__name__}."
            )
        prefix = f"{blocks}." if blocks else ""
        names = [prefix + name for name, _ in known[blocks].named_children()]
    if unknown or not names:
        raise ValueError(
            f"blocks must name at least one module of the model; got {unknown or names}. "
            "model.named_modules() lists the names."
        )
    return names


def candidates(model: nn.Module) -> list[list[str]]:
    """List what may be the blocks, those with most weights first."""
    options = [stage_blocks(model)]
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        children = dict(module.named_children())
        keys, parts = [*children], [*children.values()]
        if isinstance(module, nn.ModuleList) and all(map(is_block, parts)):
            options.append([prefix + key for key in keys])
        elif isinstance(module, nn.Sequential):
            options.append([prefix + keys[place] for place in run_of_blocks(parts)])

    def weights(names: list[str]) -> int:
        return sum(w.numel() for name in names for w in model.get_submodule(name).parameters())

    return sorted((names for names in options if len(names) > 1), key=weights, reverse=True)


def run_of_blocks(children: Sequence[nn.Module]) -> list[int]:
    """Find the blocks of a Sequential: from the first to the last of a class, if all are blocks."""
    run = longest_run(children)
    if run:
        kind = type(children[run[0]])
        places = [place for place, child in enumerate(children) if type(child) is kind]
        inside = list(range(places[0], places[-1] + 1))
        return inside if all(is_block(children[place]) for place in inside) else run
    groups = groupby(range(len(children)), key=lambda place: is_block(children[place]))
    return max((list(group) for of_blocks, group in groups if of_blocks), key=len, default=[])


def cut_at(model: nn.Module, inputs: Any, names: Sequence[str], count: int) -> Cut:
    """Cut a model at the named blocks."""
    blocks = {name: model.get_submodule(name) for name in names}
    call = as_call(inputs)
    given = Arguments.seen(
        call, slots_of([t.ndim > 0 and len(t) == count for t in tensors_in(call)])
    )
    values = given.read(call, "the model")
    probe = watch_blocks(model, given.filled([value.clone() for value in values]), blocks)
    longer = given.filled([torch.cat((value, value[:1])) for value in values])
    other = watch_blocks(model, longer, blocks)
    slots = slots_of(follow_batch(probe.first, other.first, count, names[0]))
    arguments = Arguments.seen(probe.first, slots)
    places = sort_modules(model, blocks, probe)
    run = Bypass(model, blocks, probe.widths, places, given, arguments)
    reach = find_reach(run, values, probe.last)
    return Cut(
        enter=lambda inputs: given.read(as_call(inputs), "the model"),
        stem=Stem(run, reach),
        blocks=[Block(name, block, arguments) for name, block in blocks.items()],
        head=Head(run, reach),
    )


def as_call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Write inputs as positional arguments and keywords, these in the order of their names."""
    if isinstance(inputs, Mapping):
        return (), {key: inputs[key] for key in sorted(inputs)}
    return (tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)), {}


def slots_of(rows: Sequence[bool]) -> list[int | None]:
    """Number the tensors that belong to examples."""
    numbers = iter(range(len(rows)))
    return [next(numbers) if is_row else None for is_row in rows]


def follow_batch(first: Any, longer: Any, count: int, name: str) -> list[bool]:
    """Tell which tensors of a call have a row for each example: those that grow with the batch."""
    pairs = list(zip(tensors_in(first), tensors_in(longer), strict=False))
    grown = [a.ndim > 0 and (len(a), len(b)) == (count, count + 1) for a, b in pairs]
    hidden = pairs[0][0]
    if not grown[0]:
        raise UnsupportedModelError(
            f"hidden values must have the batch as first axis; {name!r} is given shape "
            f"{tuple(hidden.shape)} for {count} examples. Use batch_first=True, or cut the model "
            "with callback=."
        )
    return grown
