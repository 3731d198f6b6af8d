"""Calls of models and of functions of torch: what they write to, keep, and cannot take."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._autograd import _top_saved_tensors_default_hooks
from torch.autograd.graph import saved_tensors_hooks

from lowland.errors import UnsupportedModelError
from lowland.params import call_at
from lowland.training import map_tensors

__all__ = [
    "InPlace",
    "changes_in_place",
    "checked_call",
    "function_name",
    "keeps_elsewhere",
    "kept_here",
    "rebuilt",
    "without_backward_hooks",
]

CHANGING = frozenset(
    f"__{name}__"
    for name in (
        *("setitem", "iadd", "isub", "imul", "imatmul", "itruediv", "ifloordiv", "imod", "ipow"),
        *("iand", "ior", "ixor", "ilshift", "irshift"),
    )
)


class InPlace:
    """Calls a function that writes to its first argument on a copy of that argument.

    Args:
        function: The function.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, first: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Call the function.

        Args:
            first: What it would write to.
            *args: Its further arguments.
            **kwargs: Its keyword arguments.

        Returns:
            What it returns, or the copy if it returns nothing.
        """
        first = first.clone()
        result = self.function(first, *args, **kwargs)
        return first if result is None else result


def changes_in_place(function: Any, kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a function writes to its first argument."""
    name = getattr(function, "__name__", "")
    if name.startswith("__"):
        return name in CHANGING
    return kwargs.get("inplace") is True or (name.endswith("_") and name != "requires_grad_")


def function_name(function: Any) -> str:
    """Name a function of torch: ``add`` for ``Tensor.__add__``, ``T`` for the property."""
    name = getattr(function, "__name__", type(function).__name__)
    if name == "__get__":
        name = getattr(function.__self__, "__name__", name)
    return name.strip("_")


def rebuilt(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Replace the tensors of what a function returned; torch's own named tuples stay such."""
    if type(value).__module__ == "torch.return_types":
        return type(value)([function(item) for item in value])
    return map_tensors(function, value)


def keeps_elsewhere() -> bool:
    """Tell whether others decide what a function keeps for its backward pass.

    Returns:
        True inside of a checkpoint, which keeps nothing and computes it again, and of other hooks
        on saved tensors.
    """
    top = _top_saved_tensors_default_hooks(True)
    return top is not None and top[0] is not with_version


def kept_here() -> AbstractContextManager[Any]:
    """Keep what a backward pass needs as it is, in a block, whatever was asked for outside of it.

    A checkpoint would compute a whole block again where one layer of it is asked for, and at the
    controls that the model has by then.

    Returns:
        A context manager.
    """
    return saved_tensors_hooks(with_version, unchanged) if keeps_elsewhere() else nullcontext()


def with_version(tensor: Tensor) -> tuple[Tensor, int]:
    """Keep a tensor, and how often it was written to."""
    return tensor, tensor._version


def unchanged(kept: tuple[Tensor, int]) -> Tensor:
    """Give back what was kept; with hooks, autograd does not look whether it was written to."""
    tensor, version = kept
    if tensor._version != version:
        raise UnsupportedModelError(
            "a tensor that a layer needs for its backward pass must not be changed in place; one "
            f"of shape {tuple(tensor.shape)} was. Use the function that returns a new tensor."
        )
    return tensor


def checked_call(model: nn.Module, named: Mapping[str, Tensor], inputs: Any) -> Any:
    """Run a model at other controls, or say in words why that cannot be.

    Args:
        model: Any module.
        named: Parameters and buffers by name, as for :func:`lowland.params.call_at`.
        inputs: As for :func:`lowland.params.call`.

    Returns:
        What the model returns.

    Raises:
        UnsupportedModelError: If the model or a part with parameters is compiled by torch.jit.
        TypeError: If the model does not take such inputs.
    """
    for name, module in model.named_modules():
        is_whole = module is model or next(module.parameters(), None) is not None
        if isinstance(module, torch.jit.ScriptModule) and is_whole:
            part = f"the part {name!r}" if name else "the model"
            raise UnsupportedModelError(
                "a model must not be compiled by torch.jit, which hides its layers and controls; "
                f"{part} is. Pass what it was compiled from."
            )
    try:
        return call_at(model, named, inputs)
    except TypeError as error:
        if takes(model, inputs):
            raise
        raise TypeError(
            "inputs must be what the model takes: a mapping becomes keyword arguments, a tuple or "
            f"list positional ones; got a {type(inputs).__name__}, and {error}. To a model that "
            "takes the container itself, pass a tuple of one: (inputs,), in batches "
            "((inputs,), target)."
        ) from error


def takes(model: nn.Module, inputs: Any) -> bool:
    """Tell whether the arguments made of some inputs fit a model's signature."""
    arguments = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    try:
        if isinstance(inputs, Mapping):
            signature(model.forward).bind(**inputs)
        else:
            signature(model.forward).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # there is no signature to compare with
        return True
    return True


@contextmanager
def without_backward_hooks(model: nn.Module) -> Iterator[None]:
    """Take off the backward hooks of a model's modules, which torch hangs into the graph, and back.

    Args:
        model: Any module; costates are not the backward pass that its owner wants to watch.

    Yields:
        Nothing.
    """
    names = ("_backward_hooks", "_backward_pre_hooks")
    before = [
        (vars(module), {name: vars(module)[name] for name in names}) for module in model.modules()
    ]
    try:
        for values, _ in before:
            values.update({name: OrderedDict() for name in names})
        yield
    finally:
        for values, hooks in before:
            values.update(hooks)
