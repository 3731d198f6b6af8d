"""Functions of torch as a model calls them: their names, and those that write to an argument."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lowland.training import map_tensors

__all__ = ["InPlace", "changes_in_place", "function_name", "rebuilt"]

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
