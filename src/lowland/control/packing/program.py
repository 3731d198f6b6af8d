"""A network's forward pass as a list of plain values, so that a file can run without its code."""

import builtins
from collections.abc import Mapping
from copy import deepcopy
from inspect import signature
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node, Tracer

from lowland.control.packing.allowed import ATTRIBUTES, FUNCTIONS, METHODS, NAMES
from lowland.control.packing.norms import LEAVES, is_plain
from lowland.errors import CheckpointError

__all__ = ["Program", "way", "write_program"]

MOST_CONSTANTS = 2**16  # numbers that a forward pass may carry besides the model's tensors


class Program(nn.Module):
    """Run a forward pass written by :func:`write_program`.

    Layers and tensors keep the names that they have in the model.

    Args:
        steps: Its list of steps.
        layers: The layers that are one step, by path.
        tensors: Tensors by name, the ones that steps read among them.

    Raises:
        CheckpointError: If a step is not one of those that a file may ask for.

    Source:
        Ours; the steps are those of ``torch.fx``.
    """

    def __init__(
        self,
        steps: list[list[Any]],
        layers: Mapping[str, nn.Module],
        tensors: Mapping[str, Tensor],
    ):
        super().__init__()
        self.steps, self.body = steps, nn.Module()
        for path in sorted(layers, key=len):
            parent, _, name = path.rpartition(".")
            if parent not in layers:
                holder(self.body, parent).add_module(name, layers[path])
        self.calls = [self.read(step, tensors) for step in steps]

    def read(self, step: Any, tensors: Mapping[str, Tensor]) -> tuple[str, str, Any, Any, Any]:
        """Check one step, and find what it calls."""
        try:
            kind, name, target, args, kwargs = step
            called: Any = target
            if kind == "tensor":
                parent, _, last = target.rpartition(".")
                called = (holder(self.body, parent), last)
                called[0].register_buffer(last, tensors[target])
            elif kind == "layer":
                called = self.body.get_submodule(target)
            elif kind == "function":
                called = FUNCTIONS[target]
            elif kind in ("method", "attribute"):
                if target not in (METHODS if kind == "method" else ATTRIBUTES):
                    raise KeyError(target)
            elif kind not in ("input", "output"):
                raise KeyError(kind)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise CheckpointError(
                f"a step must call something that a file may ask for; got {step!r:.200}."
            ) from None
        if not isinstance(name, str) or not isinstance(args, list) or not isinstance(kwargs, dict):
            raise CheckpointError(f"a step must have a name and arguments; got {step!r:.200}.")
        return kind, name, called, args, kwargs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the steps.

        Args:
            *args: What the model takes.
            **kwargs: Likewise, by name.

        Returns:
            What the model returns.

        Raises:
            CheckpointError: If the steps do not end with an output.
            TypeError: If an input is missing, or one too many.
        """
        known = [target for kind, _, target, *_ in self.calls if kind == "input"]
        if len(args) > len(known) or any(name not in known[len(args) :] for name in kwargs):
            raise TypeError(
                f"the model takes {', '.join(known)}; got {len(args)} inputs by place and "
                f"{', '.join(kwargs) or 'none'} by name."
            )
        given = list(args)
        values: dict[str, Any] = {}
        for kind, name, target, arguments, named in self.calls:
            if kind == "output":
                return decoded(arguments[0], values)
            if kind == "input":
                values[name] = self.input(target, given, kwargs, arguments, values)
            elif kind == "tensor":
                values[name] = target[0]._buffers[target[1]]
            else:
                found = [decoded(argument, values) for argument in arguments]
                by_name = {key: decoded(value, values) for key, value in named.items()}
                if kind in ("layer", "function"):
                    values[name] = target(*found, **by_name)
                elif kind == "method":
                    values[name] = getattr(found[0], target)(*found[1:], **by_name)
                else:
                    values[name] = getattr(found[0], target)
        raise CheckpointError("a program must end with an output; this one has none.")

    def input(
        self, name: str, given: list[Any], kwargs: dict[str, Any], default: list[Any], values: Any
    ) -> Any:
        """Take the next input."""
        if given:
            return given.pop(0)
        if name in kwargs:
            return kwargs[name]
        if not default:
            raise TypeError(f"the model needs the input {name!r}; it was not given.")
        return decoded(default[0], values)


def holder(root: nn.Module, path: str) -> nn.Module:
    """Find the module at a path, and make empty ones on the way."""
    for name in path.split(".") if path else ():
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    return root


class ToFunctions(Tracer):
    """Follow a network down to functions of tensors and our own layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node."""
        return isinstance(m, LEAVES)


def write_program(network: nn.Module) -> tuple[list[list[Any]] | None, dict[str, Tensor], str]:
    """Write the forward pass of a network as plain values.

    Args:
        network: A network with packed layers; it is not touched.

    Returns:
        The steps, for :class:`Program`; the constants they read, by name; and an empty text. Where
        a file could not hold all that the model does (its way depends on its inputs or on chance,
        it changes its own state, has hooks, takes any number of inputs, or calls what a file may
        not ask for), None, no constants and the reason.
    """
    try:
        return *written(network), ""
    except Exception as reason:  # whatever the user's forward does with a symbol
        return None, {}, " ".join(str(reason).split())[:200].rstrip(".")


def written(network: nn.Module) -> tuple[list[list[Any]], dict[str, Tensor]]:
    """Follow the network, and make sure that what was seen is all there is."""
    parameters = signature(network.forward).parameters.values()
    if not is_plain(network):
        raise ValueError("the model has hooks, or a forward pass of its own.")
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise ValueError("it takes any number of inputs.")
    copy = deepcopy(network)
    state = held(copy)
    graph = ToFunctions().trace(copy)
    kept = dict([*copy.named_parameters(remove_duplicate=False),
                 *copy.named_buffers(remove_duplicate=False)])  # fmt: skip
    constants = {
        str(node.target): attrgetter(str(node.target))(copy)
        for node in graph.nodes
        if node.op == "get_attr" and node.target not in kept
    }
    if any(held(copy)[name] != value for name, value in state.items()):
        raise ValueError("it changes its own state.")
    if sum(tensor.numel() for tensor in constants.values()) > MOST_CONSTANTS:
        raise ValueError("it reads large constants, maybe a packed weight.")
    names = {target: f"program/{i}" for i, target in enumerate(constants)}
    steps = [step_of(node, names) for node in graph.nodes]
    again = ToFunctions().trace(deepcopy(network))
    if steps != [step_of(node, names) for node in again.nodes]:
        raise ValueError("it does something else at every call.")
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    if defaults:
        usual = ToFunctions().trace(deepcopy(network), concrete_args=defaults)
        if way(usual) != way(graph):
            raise ValueError(f"its way depends on whether {', '.join(defaults)} are given.")
    return steps, {names[target]: tensor for target, tensor in constants.items()}


def held(network: nn.Module) -> dict[str, int]:
    """Identify everything that the modules hold as attributes."""
    return {
        f"{path}.{name}": id(value)
        for path, module in network.named_modules()
        for name, value in [*vars(module).items(), *module._buffers.items()]
    }


def way(graph: Graph) -> list[tuple[str, str]]:
    """List what a graph calls, without the checks that the tracer puts in."""
    checks = {node for node in graph.nodes if str(node.target).find("_assert") >= 0}
    return [
        (node.op, str(node.target))
        for node in graph.nodes
        if node.op in ("call_module", "call_function", "call_method")
        and node not in checks
        and not (node.users and set(node.users) <= checks)
    ]


def step_of(node: Node, names: Mapping[str, str]) -> list[Any]:
    """Write one step."""
    args = [encoded(argument) for argument in node.args]
    kwargs = {key: encoded(value) for key, value in node.kwargs.items()}
    target: Any = node.target
    if node.op == "call_function":
        if target is builtins.getattr and args[1] in ATTRIBUTES:
            return ["attribute", node.name, args[1], args[:1], {}]
        if target not in NAMES:
            raise ValueError(f"it calls {getattr(target, '__name__', target)}.")
        return ["function", node.name, NAMES[target], args, kwargs]
    if node.op == "call_method" and target not in METHODS:
        raise ValueError(f"it calls the method {target}.")
    kinds = {"placeholder": "input", "output": "output", "get_attr": "tensor",
             "call_module": "layer", "call_method": "method"}  # fmt: skip
    target = names.get(str(target), str(target))
    return [kinds[node.op], node.name, target, args, kwargs]


def encoded(value: Any) -> Any:
    """Write an argument so that JSON can hold it."""
    if isinstance(value, Node):
        return {"node": value.name}
    if isinstance(value, tuple):
        return {"tuple": [encoded(item) for item in value]}
    if isinstance(value, list):
        return [encoded(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[encoded(key), encoded(item)] for key, item in value.items()]}
    if isinstance(value, slice):
        return {"slice": [encoded(item) for item in (value.start, value.stop, value.step)]}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, float) and value - value != 0:
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"it passes a {type(value).__name__}.")


def decoded(value: Any, values: Mapping[str, Any]) -> Any:
    """Read an argument."""
    if isinstance(value, list):
        return [decoded(item, values) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "node":
        return values[held]
    if kind == "tuple":
        return tuple(decoded(item, values) for item in held)
    if kind == "dict":
        return {decoded(key, values): decoded(item, values) for key, item in held}
    if kind == "slice":
        return slice(*(decoded(item, values) for item in held))
    if kind == "dtype":
        return getattr(torch, held)
    if kind == "device":
        return torch.device(held)
    return Ellipsis if kind == "ellipsis" else float(held)
