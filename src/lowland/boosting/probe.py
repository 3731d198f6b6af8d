"""Watch a forward pass: how blocks are called, and what runs before and after them."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from lowland.boosting.arguments import find_difference
from lowland.errors import UnsupportedModelError
from lowland.training import map_tensors, plain_attention, tensors_in
from lowland.training.forwards import replaced

__all__ = ["Places", "Probe", "hidden_of", "plain_run", "sort_modules", "watch_blocks"]


@dataclass
class Probe:
    """What was seen of a forward pass.

    Attributes:
        names: Names of the blocks in the order of their calls.
        first: Arguments of the first block: positional ones and keywords.
        widths: For each block how many things it returned as a tuple, None for a tensor alone.
        last: What the last block returned, ``(batch, ...)``.
        phases: For each module outside of the blocks, by id, when it ran: ``"stem"``, ``"head"``
            or the name of the block before it.
    """

    names: list[str] = field(default_factory=list)
    first: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
    widths: list[int | None] = field(default_factory=list)
    last: Tensor = field(default_factory=lambda: torch.empty(0))
    phases: dict[int, set[str]] = field(default_factory=dict)


def watch_blocks(
    model: nn.Module,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    blocks: Mapping[str, nn.Module],
) -> Probe:
    """Run a model and watch its blocks.

    Args:
        model: Any module, in the state in which it shall run.
        arguments: What the model is called with, and by keyword.
        blocks: Modules by name, in the order in which they should be called.

    Returns:
        What was seen.

    Raises:
        UnsupportedModelError: If the blocks are not called once each, in this order, each with
            what the one before it returned and otherwise with the same arguments.
    """
    probe = Probe()
    wanted = list(blocks)
    depth = 0

    def watched(name: str, block: nn.Module) -> Any:
        forward = block.forward

        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            check_call(probe, name, wanted, (args, kwargs))
            depth += 1
            try:
                result = forward(*args, **kwargs)
            finally:
                depth -= 1
            probe.names.append(name)
            probe.widths.append(None if isinstance(result, Tensor) else len(result))
            probe.last = hidden_of(result, name).clone()
            return result

        return run

    def phase() -> str:
        done = len(probe.names)
        return "head" if done == len(wanted) else probe.names[-1] if done else "stem"

    def mark(module: nn.Module, *_: Any) -> None:
        if not depth:
            probe.phases.setdefault(id(module), set()).add(phase())

    with ExitStack() as stack:
        for name, block in blocks.items():
            stack.enter_context(replaced(block, watched(name, block)))
        for hook in (
            register_module_forward_pre_hook(mark),
            register_module_forward_hook(mark),
        ):
            stack.callback(hook.remove)
        model(*arguments[0], **arguments[1])
    if probe.names != wanted:
        missing = next(name for name in wanted if name not in probe.names)
        raise UnsupportedModelError(
            f"every block must be called; {missing!r} is not. Leave it out of blocks=, or cut the "
            "model with callback=."
        )
    return probe


def check_call(probe: Probe, name: str, wanted: list[str], arguments: tuple[Any, Any]) -> None:
    """Refuse a call that does not continue the chain."""
    if name in probe.names:
        raise UnsupportedModelError(
            f"every block must be called once; {name!r} is called twice. Take what repeats as one "
            "block, or cut the model with callback=."
        )
    expected = wanted[len(probe.names)]
    if name != expected:
        raise UnsupportedModelError(
            f"blocks must be called in their order; {name!r} is called where {expected!r} should "
            "be. Name them in the order of the calls with blocks=."
        )
    hidden = next(tensors_in(arguments), None)
    if hidden is None:
        raise UnsupportedModelError(
            f"a block must be called with a tensor; {name!r} is not. Cut the model with callback=."
        )
    if not probe.names:
        probe.first = map_tensors(torch.clone, arguments)
        return
    if hidden.shape != probe.last.shape or not torch.equal(hidden, probe.last):
        raise UnsupportedModelError(
            f"what enters a block must be what the one before it returned; {name!r} is given "
            f"something else than {probe.names[-1]!r} returned. Put what lies between them into "
            "a block, or cut the model with callback=."
        )
    where = find_difference(without_first(probe.first), without_first(arguments))
    if where is not None:
        raise UnsupportedModelError(
            f"all blocks must be called with the same arguments, apart from the hidden values; "
            f"{where} of {name!r} is not that of {wanted[0]!r}. Cut the model with callback=, and "
            "give each block what is its own there."
        )


def without_first(arguments: Any) -> Any:
    """Leave out the hidden values, which are the first tensor."""
    numbers = iter(range(10**6))
    return map_tensors(lambda t: t if next(numbers) else None, arguments)


def hidden_of(result: Any, name: str) -> Tensor:
    """Find the hidden values in what a block returned.

    Args:
        result: A tensor, or a tuple that begins with it.
        name: Name of the block, for the message.

    Returns:
        The hidden values.

    Raises:
        UnsupportedModelError: If there are none.
    """
    first = result[0] if isinstance(result, tuple | list) and result else result
    if isinstance(first, Tensor):
        return first
    raise UnsupportedModelError(
        f"a block must return a tensor, or a tuple that begins with it; {name!r} returns a "
        f"{type(result).__name__}. Cut the model with callback=."
    )


@dataclass
class Places:
    """Where the modules of a model lie.

    Attributes:
        stem: The outermost modules that run before the blocks only, by name.
        head: Those that run after the blocks only.
        around: Modules that hold others of different places, the model among them.
        loose: Parameters that are in none of these and in no block, by name.
    """

    stem: dict[str, nn.Module] = field(default_factory=dict)
    head: dict[str, nn.Module] = field(default_factory=dict)
    around: list[nn.Module] = field(default_factory=list)
    loose: dict[str, nn.Parameter] = field(default_factory=dict)


def sort_modules(model: nn.Module, blocks: Mapping[str, nn.Module], probe: Probe) -> Places:
    """Find which modules belong to the stem, and which to the head.

    Args:
        model: The model.
        blocks: Its blocks.
        probe: What was seen of its forward pass.

    Returns:
        The places.
    """
    places = Places()
    known = {id(block) for block in blocks.values()}
    visit(places, "", model, known, probe.phases)
    taken = chain(places.stem.values(), places.head.values(), blocks.values())
    own = {id(weight) for module in taken for weight in module.parameters()}
    places.loose = {
        name: weight for name, weight in model.named_parameters() if id(weight) not in own
    }
    return places


def visit(
    places: Places, name: str, module: nn.Module, blocks: set[int], phases: dict[int, set[str]]
) -> None:
    """Find the place of a module, or of those inside of it."""
    if id(module) in blocks:
        return
    inside = list(module.modules())
    ran = set().union(*(phases.get(id(part), set()) for part in inside))
    holds_block = any(id(part) in blocks for part in inside)
    if not holds_block and ran == {"stem"}:
        places.stem[name] = module
    elif not holds_block and ran == {"head"}:
        places.head[name] = module
    else:
        children = dict(module.named_children())
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if ran and own and not children:
            between = sorted(ran - {"stem", "head"})
            where = f"after {between[0]!r}, between blocks" if between else "in both"
            raise UnsupportedModelError(
                "a module with weights must belong to the stem, to one block or to the head; "
                f"{name!r} runs {where}. Cut the model with callback=."
            )
        places.around.append(module)
        for key, child in children.items():
            visit(places, f"{name}.{key}" if name else key, child, blocks, phases)


@contextmanager
def plain_run(model: nn.Module) -> Iterator[None]:
    """Let a model run in a block without caches of keys, and without fused attention layers.

    Args:
        model: Any module; caches hold what earlier calls left.

    Yields:
        Nothing.
    """
    config: Any = getattr(model, "config", None)
    uses = getattr(config, "use_cache", None)
    if uses:
        config.use_cache = False
    try:
        with plain_attention():
            yield
    finally:
        if uses:
            config.use_cache = uses
