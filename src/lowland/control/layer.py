"""One layer of a control problem: a map of states and controls that can be computed again."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowland.control.calls import without_backward_hooks
from lowland.training import kept_mode, map_tensors, tensors_in

__all__ = ["Layer"]


@dataclass(frozen=True)
class Value:
    """The place of a state among the arguments of a layer."""

    number: int


@dataclass(frozen=True)
class Control:
    """The place of a parameter among the arguments of a layer."""

    name: str


@dataclass(frozen=True, eq=False)
class Copied:
    """The place of a buffer: each call gets a copy, as it may write to it."""

    value: Tensor


@dataclass(frozen=True, eq=False)
class Expression:
    """The place of something that is computed from controls alone, such as a normalized weight."""

    layer: "Layer"
    pick: int


@dataclass(frozen=True, eq=False)
class Layer:
    """One map f_t of the states it reads and of its controls.

    Attributes:
        name: The module's qualified name, or the function's name; ``"fc#2"`` for a second call.
        function: The module or the function.
        reads: Numbers of the values that enter. Values are counted through the forward pass: the
            input tensors first, then what the layers return.
        writes: Numbers of the values it returns; one, except for layers such as an LSTM.
        parameters: Qualified names of its controls; ``()`` for activations and pooling.
        couples_examples: Whether it maps the whole batch: batch norm with statistics of the batch.
        names: A module's own name of a control to the qualified name.
        args: How it is called, with places for states and controls.
        kwargs: The same by keyword.
        picks: Which of the tensors it returns are the values.
        is_training: The mode of the module.
        buffers: The module's buffers when it was called.
        draws: States of the random generators when it was called; None if it does not draw.
    """

    name: str
    function: Callable[..., Any]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    parameters: tuple[str, ...]
    couples_examples: bool
    names: dict[str, str] = field(repr=False)
    args: tuple[Any, ...] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    picks: tuple[int, ...] = field(repr=False)
    is_training: bool = field(repr=False)
    buffers: dict[str, Tensor] = field(repr=False)
    draws: tuple[Tensor, ...] | None = field(repr=False)

    def __call__(
        self, states: tuple[Tensor, ...], params: Mapping[str, Tensor]
    ) -> tuple[Tensor, ...]:
        """Compute f_t again, at other states or controls, with the same random draws.

        Args:
            states: One tensor for each value it reads.
            params: Its controls by qualified name; further names are ignored.

        Returns:
            The values it writes. The user's module is left as it is.
        """
        known = dict(zip(self.reads, states, strict=True))
        with same_draws(self.draws):
            args, kwargs = fill((self.args, self.kwargs), known, params)
            if not isinstance(self.function, nn.Module):
                result = self.function(*args, **kwargs)
            else:
                result = self.call_module(self.function, args, kwargs, params)
        found = list(tensors_in(result))
        return tuple(found[pick] for pick in self.picks)

    def call_module(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        params: Mapping[str, Tensor],
    ) -> Any:
        """Call the module at the given controls and at copies of its buffers."""
        if getattr(module, "inplace", False):
            args, kwargs = map_tensors(torch.clone, (args, kwargs))
        given = {local: params[name] for local, name in self.names.items()}
        given |= {name: value.clone() for name, value in self.buffers.items()}
        with kept_mode(module), without_backward_hooks(module):
            if module.training != self.is_training:
                module.train(self.is_training)
            return torch.func.functional_call(module, given, args, kwargs, tie_weights=False)


def couples_examples(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a module or function normalizes with statistics of the batch."""
    if isinstance(function, _BatchNorm):
        return function.training or function.running_mean is None
    return function is nn.functional.batch_norm and bool(kwargs.get("training"))


def controls_in(value: Any) -> Iterator[str]:
    """Name the parameters in a layer's arguments, in order; a name may come twice."""
    for place in places_in(value):
        if isinstance(place, Control):
            yield place.name
        elif isinstance(place, Expression):
            yield from place.layer.parameters


def places_in(value: Any) -> Iterator[Any]:
    """Go through the places for states and controls in a layer's arguments."""
    if isinstance(value, Value | Control | Copied | Expression):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from places_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from places_in(item)


def fill(value: Any, states: Mapping[int, Tensor], params: Mapping[str, Tensor]) -> Any:
    """Put states and controls into the places of a layer's arguments."""
    if isinstance(value, Value):
        return states[value.number]
    if isinstance(value, Control):
        return params[value.name]
    if isinstance(value, Copied):
        return value.value.clone()
    if isinstance(value, Expression):
        return value.layer((), params)[value.pick]
    if isinstance(value, Mapping):
        return {key: fill(item, states, params) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, states, params) for item in value]
    if isinstance(value, tuple):
        return tuple(fill(item, states, params) for item in value)
    return value


def generator_states() -> tuple[Tensor, ...]:
    """Read the global generators: that of the CPU, then those of the accelerators in use."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    return tuple(states)


def have_drawn(before: tuple[Tensor, ...]) -> bool:
    """Tell whether something was drawn since the generators were read."""
    now = generator_states()
    return len(now) != len(before) or not all(map(torch.equal, now, before))


@contextmanager
def same_draws(states: tuple[Tensor, ...] | None) -> Iterator[None]:
    """Draw from the given states in a block, and put the generators back; None leaves them."""
    if states is None:
        yield
        return
    before = generator_states()
    try:
        set_generators(states)
        yield
    finally:
        set_generators(before)


def set_generators(states: tuple[Tensor, ...]) -> None:
    """Set the global generators."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(list(states[1:]))
