"""A model up to its first block, and behind its last: the stem and head that it does not name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lowland.boosting.arguments import Arguments
from lowland.boosting.part import Part, logits_of
from lowland.boosting.probe import Places, hidden_of, plain_run
from lowland.errors import UnsupportedModelError
from lowland.training import tensors_in
from lowland.training.forwards import replaced

__all__ = ["Block", "Bypass", "Head", "Reach", "Stem", "find_reach"]


class Bypass:
    """How to run the parts of a model before and behind its blocks; no module, it owns none.

    Args:
        model: The user's model.
        blocks: Its blocks by name.
        widths: For each block how many things it returns as a tuple, None for a tensor alone.
        places: Where the model's modules lie.
        given: The inputs of the model.
        arguments: Those of a block.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Mapping[str, nn.Module],
        widths: Sequence[int | None],
        places: Places,
        given: Arguments,
        arguments: Arguments,
    ):
        self.model = model
        self.blocks = blocks
        self.widths = widths
        self.places = places
        self.given = given
        self.arguments = arguments

    def __deepcopy__(self, memo: dict[int, Any]) -> "Bypass":
        """Copy the model, but neither its blocks nor its stem: the copy of a head needs none."""
        kept = (*self.blocks.values(), *self.places.stem.values())
        memo |= {id(module): module for module in kept}
        new = copy(self)
        new.model = deepcopy(self.model, memo)
        new.places = deepcopy(self.places, memo)
        return new

    @contextmanager
    def modes(self, *, training: bool, still: Sequence[nn.Module] = ()) -> Iterator[None]:
        """Set the modes of modules that hold others, and of those that must stay still."""
        wanted = dict.fromkeys(self.places.around, training)
        wanted |= {part: False for module in still for part in module.modules()}
        before = {module: module.training for module in wanted}
        try:
            for module, mode in wanted.items():
                module.training = mode
            with plain_run(self.model):
                yield
        finally:
            for module, mode in before.items():
                module.training = mode

    def until_blocks(self, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the model until it enters its first block; what of that call belongs to examples."""

        def stop(*args: Any, **kwargs: Any) -> Any:
            raise ReachedError((args, kwargs))

        name, block = next(iter(self.blocks.items()))
        args, kwargs = self.given.filled(values)
        with replaced(block, stop):
            try:
                self.model(*args, **kwargs)
            except ReachedError as reached:
                return self.arguments.read(reached.arguments, repr(name))
        raise UnsupportedModelError(f"{name!r} must be called for every batch; it was not.")

    def behind_blocks(
        self, values: Sequence[Tensor], hidden: Tensor, *, follow_all: bool = False
    ) -> Tensor:
        """Run the model with its blocks bypassed; gradients are followed from the last one on."""
        with_grad = torch.is_grad_enabled()
        last = len(self.blocks) - 1

        def bypass(number: int, width: int | None) -> Any:
            def run(*args: Any, **kwargs: Any) -> Any:
                result = next(tensors_in((args, kwargs)))
                if number == last:
                    result = hidden
                    torch.set_grad_enabled(with_grad)
                return result if width is None else (result, *[None] * (width - 1))

            return run

        args, kwargs = self.given.filled(values)
        with ExitStack() as stack:
            pairs = zip(self.blocks.values(), self.widths, strict=True)
            for number, (block, width) in enumerate(pairs):
                stack.enter_context(replaced(block, bypass(number, width)))
            stack.enter_context(torch.set_grad_enabled(with_grad and follow_all))
            return logits_of(self.model(*args, **kwargs))


class ReachedError(BaseException):
    """The first block was entered, so the stem is done; models do not catch this one.

    Args:
        arguments: Of the call.
    """

    def __init__(self, arguments: Any):
        self.arguments = arguments
        super().__init__()


@dataclass(frozen=True)
class Reach:
    """What the stem and the head depend on.

    Attributes:
        stem: Parameters outside of modules that the stem uses, by name.
        head: Those that the head uses.
        carried: Which of the model's inputs the head looks at.
    """

    stem: dict[str, nn.Parameter]
    head: dict[str, nn.Parameter]
    carried: tuple[int, ...]


class Stem(Part):
    """The model, run until it enters the first block.

    Args:
        run: How to do it.
        reach: What the stem and the head depend on.
    """

    def __init__(self, run: Bypass, reach: Reach):
        super().__init__("stem", run.places.stem, reach.stem)
        self.how = run
        self.carried = reach.carried

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Apply the stem.

        Args:
            *values: The model's inputs, each ``(batch, ...)``.

        Returns:
            Hidden values, sides of the blocks, and the inputs that the head looks at.
        """
        with self.how.modes(training=is_training(self, self.how.model)):
            found = self.how.until_blocks([v.clone() for v in values] if self.clones else values)
        return (*found, *(values[number] for number in self.carried))


class Block(Part):
    """A block, called as the model calls it.

    Args:
        name: Qualified name.
        block: The module.
        arguments: What it is called with.
    """

    def __init__(self, name: str, block: nn.Module, arguments: Arguments):
        super().__init__(name, {name: block})
        self.arguments = arguments

    def run(self, hidden: Tensor, *sides: Tensor) -> Tensor:
        """Call the block.

        Args:
            hidden: Hidden values ``(batch, ...)``.
            *sides: Its other arguments that belong to examples.

        Returns:
            New hidden values.
        """
        (block,) = self.children()
        args, kwargs = self.arguments.filled((hidden, *sides))
        with plain_run(block):
            return hidden_of(block(*args, **kwargs), self.name)


class Head(Part):
    """The model with all blocks bypassed.

    Args:
        run: How to do it.
        reach: What the stem and the head depend on.
    """

    def __init__(self, run: Bypass, reach: Reach):
        super().__init__("head", run.places.head, reach.head, is_head=True)
        self.how = run
        self.carried = reach.carried

    def run(self, hidden: Tensor, *sides: Tensor) -> Tensor:
        """Run the model behind its blocks.

        Args:
            hidden: What the last block returned, ``(batch, ...)``.
            *sides: Sides of the blocks, then the inputs that the head looks at.

        Returns:
            Logits ``(batch, classes)``.
        """
        own = sides[len(sides) - len(self.carried) :]
        known = dict(zip(self.carried, own, strict=True))
        given = self.how.given
        rows = {s: row for s, row in zip(given.slots, tensors_in(given.template), strict=True)}
        values = [
            known[slot] if slot in known else repeated(rows[slot], hidden)
            for slot in range(sum(slot is not None for slot in given.slots))
        ]
        still = [*self.how.places.stem.values()]
        with self.how.modes(training=is_training(self, self.how.model), still=still):
            return self.how.behind_blocks(values, hidden)


def repeated(row: Tensor, like: Tensor) -> Tensor:
    """Repeat one example, without memory, for as many as there are."""
    return row.to(like.device).expand(len(like), *row.shape[1:])


def is_training(part: Part, model: nn.Module) -> bool:
    """Tell in which mode a part is: in evaluation if it, or the model, was put there."""
    modules = list(part.children()) or [model]
    return part.training and all(module.training for module in modules)


@torch.enable_grad()
def find_reach(run: Bypass, values: Sequence[Tensor], hidden: Tensor) -> Reach:
    """Find what the stem and the head depend on, by the gradients that reach it.

    Args:
        run: How to run them.
        values: Inputs of the model, each ``(batch, ...)``.
        hidden: What the last block returned for them.

    Returns:
        What they depend on; numbers that are not real are taken to matter to the head.

    Raises:
        UnsupportedModelError: If a parameter matters to both.
    """
    loose = run.places.loose
    stem = {
        f"{name}.{key}": weight
        for name, module in run.places.stem.items()
        for key, weight in module.named_parameters()
    }
    named = loose | stem
    before = {weight: weight.requires_grad for weight in named.values()}
    leaves = [leaf_of(value) for value in values]
    try:
        for weight in named.values():
            weight.requires_grad_(weight.is_floating_point())
        before_blocks = run.until_blocks([value.clone() for value in values])
        behind = run.behind_blocks(
            [leaf.clone() for leaf in leaves], hidden.clone(), follow_all=True
        )
        in_stem = stem.keys() | reached(before_blocks, named)
        in_head = reached([behind], named)
        inputs = reached([behind], {n: leaf for n, leaf in enumerate(leaves) if leaf.requires_grad})
    finally:
        for weight, flag in before.items():
            weight.requires_grad_(flag)
    for name in in_stem & in_head:
        raise UnsupportedModelError(
            f"a weight must belong to the stem or to the head; {name!r} matters to both. Cut the "
            "model with callback=."
        )
    return Reach(
        {name: weight for name, weight in loose.items() if name in in_stem},
        {name: weight for name, weight in loose.items() if name in in_head},
        tuple(n for n, leaf in enumerate(leaves) if n in inputs or not leaf.requires_grad),
    )


def leaf_of(value: Tensor) -> Tensor:
    """Copy a value; real numbers so that gradients can reach them."""
    copied = value.detach().clone()
    return copied.requires_grad_() if copied.is_floating_point() else copied


def reached(results: Sequence[Tensor], of: Mapping[Any, Tensor]) -> set[Any]:
    """Name the tensors that results depend on, as far as gradients say."""
    roots = [result.sum() for result in results if result.requires_grad]
    if not roots or not of:
        return set()
    slopes = torch.autograd.grad(roots, [*of.values()], allow_unused=True, retain_graph=True)
    return {name for name, slope in zip(of, slopes, strict=True) if slope is not None}
