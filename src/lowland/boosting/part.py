"""One module of a chain: which of the user's modules it is made of, and what flows through it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lowland.errors import UnsupportedModelError
from lowland.training import isolated_rng, kept_buffers, kept_mode, plain_attention

__all__ = ["Cut", "InOrder", "Part", "Wrapped", "has_weights", "logits_of", "unharmed"]


class Part(nn.Module):
    """A view of some of the user's own modules, which are its children, and nobody else's.

    What flows between parts is a tuple ``(hidden, *sides)`` whose tensors all have the batch as
    first axis. The sides belong to each example and stay the same along the chain: an attention
    mask, token numbers that the head looks at. Training, moving or loading a part does so to the
    user's modules. Keys of its ``state_dict`` are the user's, with ``/`` for dots between modules.

    Args:
        name: Qualified name in the model, ``"stem"`` or ``"head"``.
        modules: The modules it consists of, by their names in the model.
        weights: Parameters that lie in none of these, by their names in the model.
        is_head: Return the result alone, without sides.

    Attributes:
        clones: Give the modules a copy of the hidden values, because they write to them in place.
    """

    def __init__(
        self,
        name: str,
        modules: Mapping[str, nn.Module],
        weights: Mapping[str, nn.Parameter] | None = None,
        *,
        is_head: bool = False,
    ):
        super().__init__()
        self.name = name
        self.is_head = is_head
        self.clones = False
        for key, module in modules.items():
            self.add_module(key.replace(".", "/"), module)
        for key, weight in (weights or {}).items():
            self.register_parameter(key.replace(".", "/"), weight)

    def forward(self, *values: Tensor) -> Any:
        """Apply the part.

        Args:
            *values: Hidden values and sides, each ``(batch, ...)``.

        Returns:
            New hidden values and the same sides; of the head the logits ``(batch, classes)``.
        """
        hidden, *sides = values
        result = self.run(hidden.clone() if self.clones else hidden, *sides)
        return result if self.is_head else (result, *sides)

    def run(self, hidden: Tensor, *sides: Tensor) -> Tensor:
        """Compute the new hidden values; every kind of part does it in its own way.

        Args:
            hidden: Hidden values ``(batch, ...)``.
            *sides: Values that belong to each example.

        Raises:
            NotImplementedError: Here.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how it runs.")


class InOrder(Part):
    """A part whose modules are called one after the other on the hidden values."""

    def run(self, hidden: Tensor, *sides: Tensor) -> Tensor:
        """Call the modules in their order.

        Args:
            hidden: Hidden values ``(batch, ...)``.
            *sides: Not looked at.

        Returns:
            New hidden values.
        """
        for module in self._modules.values():  # children() would leave out a second call
            hidden = module(hidden)  # pyright: ignore[reportOptionalCall]
        return hidden


class Wrapped(Part):
    """A part that the user's callback made: one module that takes hidden values and all sides.

    It returns the new hidden values, or a tuple of these and of the sides.
    """

    def forward(self, *values: Tensor) -> Any:
        """Apply the module.

        Args:
            *values: Hidden values and sides, each ``(batch, ...)``.

        Returns:
            New hidden values and sides; of the head the logits ``(batch, classes)``.
        """
        (module,) = self.children()
        hidden, *sides = values
        result = module(hidden.clone() if self.clones else hidden, *sides)
        if self.is_head:
            return logits_of(result)
        return (result, *sides) if isinstance(result, Tensor) else tuple(result)


@dataclass(frozen=True, eq=False)
class Cut:
    """Where a model was cut.

    Attributes:
        enter: From the inputs of the model to what enters the stem.
        stem: What comes before the blocks; None if nothing does.
        blocks: The blocks.
        head: What comes after them.
    """

    enter: Callable[[Any], tuple[Tensor, ...]]
    stem: Part | None
    blocks: Sequence[Part]
    head: Part


def has_weights(module: nn.Module) -> bool:
    """Tell whether a module has parameters."""
    return any(True for _ in module.parameters())


def logits_of(output: Any) -> Tensor:
    """Find the logits in what a model returned.

    Args:
        output: A tensor, a tuple that begins with it, or an object or mapping with ``logits``.

    Returns:
        The logits.

    Raises:
        UnsupportedModelError: If there are none.
    """
    if isinstance(output, Mapping):
        output = output.get("logits")
    output = getattr(output, "logits", output)
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if isinstance(output, Tensor):
        return output
    raise UnsupportedModelError(
        "a model must return logits: a tensor, a tuple that begins with them, or an object with "
        f".logits; got a {type(output).__name__}. Wrap the model in a module that returns them."
    )


@contextmanager
def unharmed(model: nn.Module) -> Iterator[None]:
    """Run a model in a block in evaluation mode, without gradients, and leave no trace of it.

    Args:
        model: Any module; modes, buffers and the global generators are put back afterwards.

    Yields:
        Nothing.
    """
    with (
        kept_mode(model),
        kept_buffers(model.modules()),
        isolated_rng(0, "chain"),
        torch.no_grad(),
        plain_attention(),
    ):
        model.eval()
        yield
