"""Which parameters of a model are discrete, and the set each lives in."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

__all__ = [
    "discrete_parameters",
    "float_parameters",
    "mark",
    "nonzero_share",
    "unmark",
    "values_of",
]

MARK = "discrete_values"  # a plain attribute of the module: copies and pickles keep it


def mark(module: nn.Module, name: str, values: Sequence[float]) -> None:
    """Note that a parameter lives in a finite set; its values are not touched.

    Args:
        module: The module that holds it.
        name: Its name there, ``"weight"``.
        values: The set, ascending.
    """
    marks = dict(getattr(module, MARK, {}))
    marks[name] = tuple(values)
    setattr(module, MARK, marks)


def unmark(model: nn.Module) -> None:
    """Forget which parameters are discrete; their values are not touched.

    Args:
        model: Any module.
    """
    for module in model.modules():
        vars(module).pop(MARK, None)


def values_of(model: nn.Module) -> dict[str, tuple[float, ...]]:
    """Give the set of every discrete parameter.

    Args:
        model: Any module.

    Returns:
        Values by the parameter's qualified name, in the order of ``named_parameters()``; a shared
        parameter has the name met first.

    Source:
        Ours.
    """
    marks = {
        f"{prefix}.{name}" if prefix else name: values
        for prefix, module in model.named_modules()
        for name, values in getattr(module, MARK, {}).items()
    }
    shared = {id(model.get_parameter(name)): values for name, values in marks.items()}
    return {name: shared[id(p)] for name, p in model.named_parameters() if id(p) in shared}


def discrete_parameters(model: nn.Module) -> list[dict[str, Any]]:
    """Group the discrete parameters of a model by their sets, for :class:`DiscreteMSA`.

    Args:
        model: A model that went through :func:`lowland.control.discretize`.

    Returns:
        Parameter groups with ``params``, ``names`` and ``values``.

    Raises:
        ValueError: If the model has no discrete parameter.

    Source:
        Ours.
    """
    found = values_of(model)
    if not found:
        raise ValueError(
            "the model must have discrete parameters; it has none. Call "
            "lowland.control.discretize(model, values) first."
        )
    named = dict(model.named_parameters())
    return [
        {
            "params": [named[name] for name in found if found[name] == values],
            "names": [name for name in found if found[name] == values],
            "values": values,
        }
        for values in dict.fromkeys(found.values())
    ]


def float_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Give the parameters that are not discrete and require a gradient.

    Args:
        model: A model that went through :func:`lowland.control.discretize`.

    Returns:
        What another optimizer should train: norms, biases, scales, skipped layers.

    Source:
        Ours.
    """
    found = values_of(model)
    return [p for name, p in model.named_parameters() if name not in found and p.requires_grad]


def nonzero_share(model: nn.Module) -> float:
    """Measure the share of discrete weights that are not zero.

    Args:
        model: A model that went through :func:`lowland.control.discretize`.

    Returns:
        Nonzero over all discrete weights, 0 to 1; NaN without any.

    Source:
        Li & Hao, ICML 2018, who count batch norm too; see the README.
    """
    weights: list[Tensor] = [model.get_parameter(name).detach() for name in values_of(model)]
    total = sum(weight.numel() for weight in weights)
    return sum(int(w.count_nonzero()) for w in weights) / total if total else float("nan")
