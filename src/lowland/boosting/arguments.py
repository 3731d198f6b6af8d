"""What modules are called with: which tensors belong to the examples, which are constants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowland.errors import UnsupportedModelError
from lowland.training import map_tensors, tensors_in

__all__ = ["Arguments", "find_difference", "same"]

PLAIN = (int, float, str, bytes, torch.dtype, torch.device, torch.Size, type(None))


@dataclass(frozen=True, eq=False)
class Arguments:
    """How to make the arguments of a call from values of a batch.

    Attributes:
        template: The arguments once seen, nested; tensors of examples with a single row.
        slots: For each tensor of the template, in order, the place of the value that stands for
            it; None for a constant.
    """

    template: Any
    slots: tuple[int | None, ...]

    @classmethod
    def seen(cls, arguments: Any, slots: Sequence[int | None]) -> "Arguments":
        """Keep the arguments of a call, and one row of what belongs to examples.

        Args:
            arguments: Nested containers.
            slots: For each tensor its place among the values, or None.

        Returns:
            The arguments to fill.
        """
        numbers = iter(slots)
        template = map_tensors(
            lambda t: (t if next(numbers) is None else t[:1]).detach().clone(), arguments
        )
        return cls(template, tuple(slots))

    def filled(self, values: Sequence[Tensor]) -> Any:
        """Put values in the places of the tensors that belong to examples.

        Args:
            values: One tensor for every slot, each ``(batch, ...)``.

        Returns:
            Arguments for a call; constants lie on the device of the first value.
        """
        numbers = iter(self.slots)

        def choose(constant: Tensor) -> Tensor:
            number = next(numbers)
            return constant.to(values[0].device) if number is None else values[number]

        return map_tensors(choose, self.template)

    def read(self, arguments: Any, owner: str) -> tuple[Tensor, ...]:
        """Take out of other arguments of the same kind what belongs to the examples.

        Args:
            arguments: What the module is called with this time.
            owner: Which module that is, for the message.

        Returns:
            The values, in the order of their slots.

        Raises:
            UnsupportedModelError: If something else than these values is different.
        """
        tensors = list(tensors_in(arguments))
        if len(tensors) == len(self.slots):
            both = (self.masked(self.template), self.masked(arguments))
            where = find_difference(*both)
        else:
            where = find_difference(self.template, arguments, values=False)
        if where is not None:
            raise UnsupportedModelError(
                f"{owner} must be called in the same way for every batch, apart from what "
                f"belongs to the examples; {where} is different now. Pad all examples to one "
                "length; of a transformers model whose mask is sometimes None, set "
                'attn_implementation="eager"; or cut the model with callback=.'
            )
        pairs = zip(self.slots, tensors, strict=True)
        found = {slot: tensor for slot, tensor in pairs if slot is not None}
        return tuple(found[slot] for slot in sorted(found))

    def masked(self, arguments: Any) -> Any:
        """Leave the constants, and None for what belongs to examples."""
        numbers = iter(self.slots)
        return map_tensors(lambda t: t if next(numbers) is None else None, arguments)


def find_difference(a: Any, b: Any, *, values: bool = True) -> str | None:
    """Name the first argument that is different in two calls.

    Args:
        a: Positional arguments and keyword arguments.
        b: The same of the other call.
        values: Compare the values of tensors too.

    Returns:
        ``"argument 2"`` or the keyword; None if the calls are the same.
    """
    (args, kwargs), (other_args, other_kwargs) = a, b
    first = {f"argument {number}": value for number, value in enumerate(args, 1)}
    first |= {f"the argument {key!r}": value for key, value in kwargs.items()}
    second = {f"argument {number}": value for number, value in enumerate(other_args, 1)}
    second |= {f"the argument {key!r}": value for key, value in other_kwargs.items()}
    for where in first | second:
        if where not in first or where not in second:
            return where
        if not same(first[where], second[where], values=values):
            return where
    return None


def same(a: Any, b: Any, *, values: bool = True) -> bool:
    """Tell whether two nested values mean the same to a module.

    Args:
        a: A value.
        b: Another.
        values: Compare the values of tensors, else only that both are tensors.

    Returns:
        True for equal tensors, numbers and words; for other objects if they are of one type.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return not values or (a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b))
    if isinstance(a, PLAIN) or isinstance(b, PLAIN):
        return type(a) is type(b) and bool(a == b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key], values=values) for key in a)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        pairs = zip(a, b, strict=False)
        return len(a) == len(b) and all(same(x, y, values=values) for x, y in pairs)
    return type(a) is type(b)
