"""A model as the layers of a control problem, found by watching one forward pass."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode

from lowland.control.calls import (
    InPlace,
    changes_in_place,
    checked_call,
    function_name,
    keeps_elsewhere,
    kept_here,
    rebuilt,
    without_backward_hooks,
)
from lowland.control.layer import (
    Control,
    Copied,
    Expression,
    Layer,
    Value,
    controls_in,
    couples_examples,
    generator_states,
    have_drawn,
    places_in,
)
from lowland.errors import UnsupportedModelError
from lowland.training import kept_mode, map_tensors, tensors_in
from lowland.training.seeds import rng_states, set_rng_states

__all__ = ["Layer", "Recording", "as_layers", "is_layer", "record"]


def as_layers(model: nn.Module, inputs: Any) -> tuple[Layer, ...]:
    """Take a model apart into layers, by watching one forward pass.

    Containers and modules of the user's own are gone into: a module of ``torch.nn`` is a layer, a
    parametrized module is a layer, and so is every function of torch that is called outside of
    them (a residual sum, ``relu``, ``flatten``). A module of the user's own is taken as one layer
    if its class says ``is_layer = True``. What is computed from controls alone (a normalized
    weight) belongs to the layer that uses it.

    Args:
        model: Any module; left as it is.
        inputs: A batch, as the model takes it.

    Returns:
        The layers, in the order of the forward pass. Conditions on values went the way they go
        for this batch.

    Raises:
        UnsupportedModelError: If a part of the forward pass cannot be seen.

    Source:
        Ours; activations, pooling and norms are layers too, specification section 2.
    """  # noqa: DOC502
    return tuple(record(model, inputs).layers)


def is_layer(module: nn.Module) -> bool:
    """Tell whether a module is one layer, or made of layers.

    Args:
        module: Any module.

    Returns:
        True for modules of ``torch.nn`` without parts (and attention), for parametrized modules,
        and where the module's class says ``is_layer = True``.
    """
    if getattr(module, "is_layer", False) is True or is_parametrized(module):
        return True
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return False
    own = type(module).__module__.startswith("torch.nn.")
    has_parts = next(module.children(), None) is not None
    return isinstance(module, nn.MultiheadAttention) or (own and not has_parts)


@torch.enable_grad()  # also where the user has switched gradients off
def record(
    model: nn.Module,
    inputs: Any,
    *,
    params: Mapping[str, Tensor] | None = None,
    update_statistics: bool = False,
) -> "Recording":
    """Run a model once and keep what every layer read and returned.

    Args:
        model: Any module; no graph to its parameters is made.
        inputs: A batch, as the model takes it.
        params: Other controls by qualified name, in the place of the model's.
        update_statistics: Let this count as a forward pass of training: batch norms in training
            mode update their statistics, and the global generators move on.

    Returns:
        The recording.
    """
    own = {name: value.detach() for name, value in model.named_parameters()}
    given = {name: value.detach() for name, value in (params or {}).items()}
    check_controls(own, given)
    params = own | given
    buffers = {} if update_statistics else {n: b.clone() for n, b in model.named_buffers()}
    recording = Recording(model, params, inputs)
    before = rng_states()
    try:
        with ExitStack() as stack:
            stack.enter_context(kept_mode(model))
            for name, module in model.named_modules():
                if is_layer(module):
                    recording.watch(stack, name, module)
            stack.enter_context(without_backward_hooks(model))
            stack.enter_context(kept_here())
            stack.enter_context(recording.memory)
            stack.enter_context(recording)
            recording.output = checked_call(model, params | buffers, recording.inputs)
        recording.output = map_tensors(recording.known, recording.output)
    finally:
        if not update_statistics:
            set_rng_states(before)
    return recording


def check_controls(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Refuse controls that the model does not have.

    Args:
        own: The model's controls by qualified name.
        given: Those that shall take their place.

    Raises:
        ValueError: If a name is unknown, or a control has another shape.
    """
    for name, value in given.items():
        if name not in own:
            raise ValueError(
                f"params must name controls of the model; got {name!r}. There are {sorted(own)}."
            )
        if own[name].shape != value.shape:
            raise ValueError(
                f"the control {name!r} must have shape {tuple(own[name].shape)}; got "
                f"{tuple(value.shape)}."
            )


class Recording(TorchFunctionMode):
    """Stands between a model and torch, cuts the graph after every layer, and remembers.

    Args:
        model: The model.
        params: Its parameters without a graph, as it will be called with them.
        inputs: Its inputs.

    Attributes:
        layers: The layers so far.
        values: States by number: leaves of the graph of the layers that read them.
        graphs: What each layer returned, with the graph back to the states it read.
        output: What the model returned, made of values.
    """

    def __init__(self, model: nn.Module, params: Mapping[str, Tensor], inputs: Any):
        super().__init__()
        self.model = model
        self.params = params
        self.layers: list[Layer] = []
        self.values: list[Tensor] = []
        self.graphs: list[tuple[Tensor, ...]] = []
        self.numbers: dict[int, int] = {}
        self.controls = {id(value): name for name, value in params.items()}
        self.expressions: dict[int, Expression] = {}
        self.replaced: dict[int, Tensor] = {}
        self.stale: dict[int, str] = {}
        self.kept: list[Any] = []  # so that no id is used again
        self.calls: Counter[str] = Counter()
        self.depth = 0
        self.inside = ""
        self.memory = ExitStack()  # open while a layer runs: it keeps what it needs itself
        self.entered: tuple[Any, ...] = ()
        self.inputs = map_tensors(self.as_value, inputs)
        self.num_inputs = len(self.values)
        self.output: Any = None

    def as_value(self, tensor: Tensor) -> Tensor:
        """Number a tensor as a state; a leaf of the graph if it can be differentiated."""
        leaf = tensor.detach()
        if leaf.is_floating_point() or leaf.is_complex():
            leaf.requires_grad_()
        return self.numbered(leaf)

    def numbered(self, tensor: Tensor) -> Tensor:
        """Number a tensor."""
        self.numbers[id(tensor)] = len(self.values)
        self.values.append(tensor)
        return tensor

    def known(self, tensor: Tensor) -> Tensor:
        """Find the value that stands for a tensor by now, if it was changed in place."""
        tensor = self.replaced.get(id(tensor), tensor)
        if id(tensor) in self.stale:
            raise UnsupportedModelError(
                "a tensor must not be read after a view of it was changed in place; "
                f"{self.stale[id(tensor)]} did that. Use the function that returns a new tensor."
            )
        if tensor.grad_fn is not None:  # what was seen is a leaf
            after = f"after the layer {self.layers[-1].name!r}" if self.layers else "at the start"
            raise UnsupportedModelError(
                "every step of the forward pass must be a module or a function of torch; got a "
                f"tensor made by {tensor.grad_fn.name()} {after}. Put that step into a module "
                "whose class says is_layer = True."
            )
        return tensor

    def place(self, tensor: Tensor) -> Any:
        """Say where an argument of a layer comes from."""
        tensor = self.known(tensor)
        if id(tensor) in self.numbers:
            return Value(self.numbers[id(tensor)])
        if id(tensor) in self.controls:
            return Control(self.controls[id(tensor)])
        return self.expressions.get(id(tensor), Copied(tensor.detach()))

    def place_of_constant(self, tensor: Tensor) -> Any:
        """Take what a layer is always given, such as positions, as a state of its own."""
        place = self.place(tensor)
        if isinstance(place, Copied):
            self.numbered(tensor)
            return self.place(tensor)
        return place

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.depth and keeps_elsewhere():
            raise UnsupportedModelError(
                "a layer must keep what its backward pass needs; inside of the layer "
                f"{self.inside!r} a checkpoint or another hook on saved tensors is at work. "
                "Checkpoint around the layer, not inside of it."
            )
        if self.depth or not any(True for _ in tensors_in((args, kwargs))):
            return func(*args, **kwargs)
        if function_name(func) == "grad_fn":  # a question, which torch 2.11's checkpoints ask
            return func(*args, **kwargs)
        places = map_tensors(self.place, (args, kwargs))
        live = map_tensors(self.known, (args, kwargs))
        changes = changes_in_place(func, kwargs)
        if changes and isinstance(places[0][0], Copied):
            reads = any(isinstance(place, Value) for place in places_in(places))
            if not (reads and torch.is_grad_enabled()) or self.is_buffer(args[0]):
                return func(*live[0], **live[1])
        before = generator_states()
        function = InPlace(func) if changes else func
        with kept_here():
            result = function(*live[0], **live[1])
        result = self.keep(function, function_name(func), places, result, before)
        if changes:
            self.replace(args[0], result, function_name(func))
            return None if func is Tensor.__setitem__ else result
        return result

    def is_buffer(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is a buffer of the model, as it is called now."""
        return any(tensor is buffer for buffer in self.model.buffers())

    def watch(self, stack: ExitStack, name: str, module: nn.Module) -> None:
        """Take the calls of a module as layers, until the stack is closed."""
        name = name or type(module).__name__.lower()

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            self.depth += 1
            if self.depth > 1:
                return None
            self.inside = name
            self.memory.enter_context(kept_here())
            changes = getattr(module, "inplace", False)
            buffers = {n: b.clone() for n, b in module.named_buffers()}
            live = map_tensors(self.known, (args, kwargs))
            places = map_tensors(self.place, live)
            if self.names_of(module) and not any(isinstance(p, Value) for p in places_in(places)):
                places = map_tensors(self.place_of_constant, live)
            self.entered = (places, buffers, generator_states(), args[0] if changes else None)
            return map_tensors(torch.clone, live) if changes else live

        def leave(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
        ) -> Any:
            if self.depth == 1:
                places, buffers, before, changed = self.entered
                result = self.keep(module, name, places, result, before, buffers)
                if changed is not None:
                    self.replace(changed, result, name)
                self.memory.close()
            self.depth -= 1
            return result

        enter_hook = module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True)
        leave_hook = module.register_forward_hook(leave, with_kwargs=True)
        stack.callback(enter_hook.remove)
        stack.callback(leave_hook.remove)

    def keep(
        self,
        function: Callable[..., Any],
        name: str,
        places: tuple[tuple[Any, ...], dict[str, Any]],
        result: Any,
        before: tuple[Tensor, ...],
        buffers: Mapping[str, Tensor] | None = None,
    ) -> Any:
        """Make a layer of a call, if it is one, and cut the graph behind it."""
        tensors = list(tensors_in(result))
        names = self.names_of(function)
        controls = (*names.values(), *controls_in(places))
        reads = [place.number for place in places_in(places) if isinstance(place, Value)]
        if not tensors or not (reads or controls):
            return result
        self.kept.append(result)
        has_controls = bool(controls) and torch.is_grad_enabled()
        picks = [
            pick
            for pick, tensor in enumerate(tensors)
            if tensor.requires_grad or (has_controls and tensor.is_floating_point())
        ]
        layer = Layer(
            name=name,
            function=function,
            reads=tuple(dict.fromkeys(reads)),
            writes=(),
            parameters=tuple(dict.fromkeys(controls)),
            couples_examples=couples_examples(function, places[1]),
            names=names,
            args=places[0],
            kwargs=places[1],
            picks=tuple(picks),
            is_training=isinstance(function, nn.Module) and function.training,
            buffers=dict(buffers or {}),
            draws=before if have_drawn(before) else None,
        )
        if not reads:  # made of controls alone: part of the layer that uses it
            for place, pick in enumerate(picks):
                self.expressions[id(tensors[pick])] = Expression(layer, place)
            return result
        new = {
            id(tensor): (self.as_value if pick in picks else self.numbered)(tensor)
            for pick, tensor in enumerate(tensors)
        }
        if picks:
            self.calls[name] += 1
            again = f"#{self.calls[name]}" if self.calls[name] > 1 else ""
            writes = tuple(self.numbers[id(new[id(tensors[pick])])] for pick in picks)
            self.layers.append(replace(layer, name=name + again, writes=writes))
            self.graphs.append(tuple(tensors[pick] for pick in picks))
        return rebuilt(lambda tensor: new[id(tensor)], result)

    def names_of(self, function: Callable[..., Any]) -> dict[str, str]:
        """A module's own names of its parameters, and their names in the model."""
        if not isinstance(function, nn.Module):
            return {}
        named = function.named_parameters(remove_duplicate=False)
        return {local: self.controls[id(value)] for local, value in named}

    def replace(self, old: Tensor, new: Any, name: str) -> None:
        """From now on a tensor that was changed in place means what it was changed to."""
        self.kept.append(old)
        old = self.replaced.get(id(old), old)
        storage = old.untyped_storage().data_ptr()
        for value in self.values:
            if value is not new and value.untyped_storage().data_ptr() == storage:
                self.stale[id(value)] = name
        self.stale.pop(id(old), None)
        for key, value in [*self.replaced.items(), (id(old), old)]:
            if value is old:
                self.replaced[key] = new
