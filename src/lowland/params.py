"""A module's parameters as one flat vector and back, and the module at another vector."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["Layout", "call", "call_at", "trainable"]


@dataclass(frozen=True)
class Layout:
    """Where each named tensor lies in a flat vector.

    Attributes:
        names: Names of the tensors, in the order of the vector.
        shapes: Their shapes; ``()`` for a scalar parameter.
        aliases: Further names of a tied tensor, each with the name that is kept.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    aliases: tuple[tuple[str, str], ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of coordinates of each tensor."""
        return tuple(prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """Number of coordinates of the vector."""
        return sum(self.sizes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """First coordinate of each tensor."""
        return tuple(accumulate(self.sizes, initial=0))[:-1]

    def __add__(self, other: "Layout") -> "Layout":
        """One vector that holds the tensors of both, one after the other."""
        return Layout(
            self.names + other.names, self.shapes + other.shapes, self.aliases + other.aliases
        )

    def views(self, vector: Float[Tensor, "*stack params"]) -> dict[str, Tensor]:
        """Name the parts of a vector, or of a stack of vectors, without copying.

        Args:
            vector: Shape ``(params,)``, or ``(..., params)`` for a stack.

        Returns:
            Name to view, of shape ``(..., *shape)``; writing to a view writes to the vector.

        Raises:
            ValueError: If the last axis does not have the size of the layout.
        """
        if vector.shape[-1] != self.size:
            raise ValueError(
                f"the last axis of the vector must hold {self.size} parameters; "
                f"got shape {tuple(vector.shape)}."
            )
        stack = vector.shape[:-1]
        parts = vector.split(self.sizes, dim=-1)
        return {
            name: part.view((*stack, *shape))
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def flatten(self, named: Mapping[str, Tensor]) -> Float[Tensor, " params"]:
        """Copy named tensors into one vector, in the order of the layout.

        Args:
            named: A tensor for every name of the layout; further names are ignored.

        Returns:
            The vector, shape ``(params,)``.

        Raises:
            ValueError: If a name is missing or has another shape.
        """
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name not in named or tuple(named[name].shape) != shape:
                got = tuple(named[name].shape) if name in named else "nothing"
                raise ValueError(f"{name!r} must have shape {shape}; got {got}.")
        parts = [named[name].detach().reshape(-1) for name in self.names]
        return torch.cat(parts) if parts else torch.empty(0)


def trainable(module: nn.Module) -> Layout:
    """Lay out the distinct parameters of a module that require a gradient.

    A tied parameter is one parameter: it keeps the name met first, its other names are listed in
    ``aliases``. Frozen parameters and buffers are left out.

    Args:
        module: Any module.

    Returns:
        The layout, in the order of ``module.named_parameters()``.

    Raises:
        ValueError: If nothing requires a gradient, or the parameters do not share one dtype and
            device.
    """
    kept: dict[int, str] = {}
    names, shapes, aliases, kinds = [], [], [], set()
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            continue
        if id(parameter) in kept:
            aliases.append((name, kept[id(parameter)]))
            continue
        kept[id(parameter)] = name
        names.append(name)
        shapes.append(tuple(parameter.shape))
        kinds.add((parameter.dtype, parameter.device))
    if not names:
        raise ValueError(
            f"the model must have a parameter that requires a gradient; {type(module).__name__} "
            "has none. Call model.requires_grad_(True), or unfreeze what should move."
        )
    if len(kinds) > 1:
        raise ValueError(
            "the trainable parameters must share one dtype and one device; got "
            f"{sorted(f'{dtype} on {device}' for dtype, device in kinds)}. "
            "Convert the model with model.to(device, dtype)."
        )
    return Layout(tuple(names), tuple(shapes), tuple(aliases))


def call(model: nn.Module, inputs: Any) -> Any:
    """Run a model on inputs that may be a tensor, a tuple or a mapping.

    Args:
        model: Any module.
        inputs: ``model(inputs)``, ``model(*inputs)`` for a tuple or list, ``model(**inputs)`` for
            a mapping.

    Returns:
        What the model returns.
    """
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(inputs)


def call_at(model: nn.Module, named: Mapping[str, Tensor], inputs: Any) -> Any:
    """Run a model with other values for some of its parameters and buffers.

    The module itself is not changed. A tied parameter is replaced under all of its names. What
    the forward pass writes in place (batch-norm statistics) goes to the tensors given in
    ``named``, and to the module's own where a buffer is not given.

    Args:
        model: Any module.
        named: Parameter and buffer values by name.
        inputs: As for :func:`call`.

    Returns:
        What the model returns.
    """
    given = with_ties(model, named)
    if isinstance(inputs, Mapping):
        return functional_call(model, given, (), dict(inputs), tie_weights=False)
    arguments = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    return functional_call(model, given, arguments, tie_weights=False)


def with_ties(model: nn.Module, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a tied tensor under all of its names, but a module that is there twice only once."""
    # functional_call would do the first by itself, but it leaves a module that is there twice with
    # the tensors it was called with (torch 2.13).
    places: dict[int, list[str]] = {}
    for prefix, module in model.named_modules():
        for kind in (module.named_parameters, module.named_buffers):
            for name, value in kind(prefix, recurse=False, remove_duplicate=False):
                places.setdefault(id(value), []).append(name)
    given = dict(named)
    for names in places.values():
        known = next((name for name in names if name in named), None) if len(names) > 1 else None
        if known is not None:
            given |= {name: named.get(name, named[known]) for name in names}
    return given
