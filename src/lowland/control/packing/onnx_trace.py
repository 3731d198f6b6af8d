"""Write a network down as an ONNX graph, and leave the user's model as it is."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from inspect import signature
from types import ModuleType
from typing import Any
from warnings import catch_warnings, filterwarnings

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils import _pytree as pytree

from lowland.control.packing.network import (
    check_copy,
    without_wrappers,
    without_wrappers_inside,
)
from lowland.errors import MissingExtraError, UnsupportedModelError
from lowland.training import plain_attention

__all__ = ["dense_copy", "onnx_module", "trace"]

EXTRA = "Run pip install 'lowland[export]'."
LARGEST = 2**31 - 2**20  # bytes: protobuf holds less than 2 GiB


def onnx_module() -> ModuleType:
    """Import what writes ONNX files, or say how to get it.

    Returns:
        The module ``onnx``.

    Raises:
        MissingExtraError: If onnx or onnxscript is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch needs it; asked for here to miss both at once)
    except ImportError as error:
        raise MissingExtraError(
            f"writing ONNX files needs onnx and onnxscript, which cannot be imported ({error}). "
            + EXTRA
        ) from error
    return onnx


def dense_copy(model: Any) -> nn.Module:
    """Copy a model for export: dense weights, on the CPU, in eval mode.

    Args:
        model: A module, or an object whose ``unpack()`` gives one. It is not changed.

    Returns:
        The copy; parametrized weights (a row scale, latent weights) are ordinary ones there.

    Raises:
        TypeError: If it is no module.
        UnsupportedModelError: If a parameter is not float32, all are too large for one file, or a
            copy would lose a part of the forward pass.
    """
    unpack = getattr(model, "unpack", None)
    found = unpack() if callable(unpack) else model
    if not isinstance(found, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, or have an unpack() that gives one; got "
            f"{type(model).__name__}."
        )
    check_copy(found)
    network = without_wrappers_inside(deepcopy(without_wrappers(found))).cpu().eval()
    for module in network.modules():
        if parametrize.is_parametrized(module):
            without_parametrizations(module)
    for name, parameter in network.named_parameters():
        parameter.grad = None
        if parameter.dtype != torch.float32:
            raise UnsupportedModelError(
                f"all parameters must be float32 to be exported; {name} is {parameter.dtype}. "
                "Call model.float() on a copy."
            )
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    if size > LARGEST:
        raise UnsupportedModelError(
            f"the float weights must fit into one ONNX message of {LARGEST} bytes; they take "
            f"{size}. Export parts of the model, or save it packed."
        )
    return network


def without_parametrizations(module: nn.Module) -> None:
    """Make parametrized weights ordinary ones.

    Torch's own removal takes the weight's property from a class that copies share with the
    original, which then has no weight any more.
    """
    values = {name: getattr(module, name).detach() for name in module.parametrizations}  # pyright: ignore
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        setattr(module, name, nn.Parameter(value.clone()))


def trace(
    network: nn.Module, example_inputs: Any, *, opset: int, dynamic_batch: bool = True
) -> Any:
    """Write a network down as an ONNX graph.

    Torch folds batch norms into the weights of linear layers and convolutions before them, so
    that a weight of -1, 0 and 1 has a factor for each output, of either sign, in the graph.

    Args:
        network: From :func:`dense_copy`.
        example_inputs: A tensor, a tuple (``network(*inputs)``) or a mapping
            (``network(**inputs)``).
        opset: Version of the operators.
        dynamic_batch: Leave the length of the first axis open, for all tensors in which it is as
            long as in the first.

    Returns:
        An ``onnx.ModelProto``, without the traces of source files that torch puts in.

    Raises:
        UnsupportedModelError: If torch cannot export the network, or fixes the first axis.
    """
    args, kwargs = as_call(pytree.tree_map(on_cpu, example_inputs))
    shapes = None
    if dynamic_batch:
        args, kwargs, shapes = with_open_batch(args, kwargs)
        if shapes is not None and takes_any(network):  # torch names their axes one level deeper
            shapes = {"kwargs": shapes} if kwargs else {"args": shapes}
    try:
        with quiet_export():
            program = torch.onnx.export(
                network,
                args,
                kwargs=kwargs,
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=opset,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        hint = " If the batch must be as long as here, pass dynamic_batch=False." if shapes else ""
        raise UnsupportedModelError(
            f"torch.onnx must be able to export the model; it says: {root_of(error)}{hint}"
        ) from error
    proto = program.model_proto  # pyright: ignore[reportOptionalMemberAccess]
    return without_traces(proto)


def on_cpu(value: Any) -> Any:
    """Bring an example tensor to where the copy is."""
    return value.detach().cpu() if isinstance(value, Tensor) else value


def as_call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Split example inputs into positional and named ones."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)), {}


def takes_any(network: nn.Module) -> bool:
    """Whether a forward pass takes any number of inputs, as that of a loaded file does."""
    parameters = signature(network.forward).parameters.values()
    return any(p.kind is p.VAR_POSITIONAL for p in parameters)


def with_open_batch(args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
    """Name the batch axis, with two examples at least: torch takes an axis of length 1 as fixed."""
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.ndim]
    if not tensors:
        return args, kwargs, None
    batch = len(tensors[0])

    def has_batch(value: Any) -> bool:
        return isinstance(value, Tensor) and value.ndim > 0 and len(value) == batch

    if batch == 1:
        args, kwargs = pytree.tree_map(
            lambda x: torch.cat([x, x]) if has_batch(x) else x, (args, kwargs)
        )
        batch = 2
    shapes = pytree.tree_map(lambda x: {0: "batch"} if has_batch(x) else None, (args, kwargs))
    return args, kwargs, (shapes[1] if kwargs else shapes[0])


@contextmanager
def quiet_export() -> Iterator[None]:
    """Keep back what torch.onnx says about itself, and attention's fused operator, and give back.

    The fused operator of frozen transformer layers has no ONNX form.
    """
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registry.level
    registry.setLevel(logging.ERROR)  # "torchvision is not installed", once per operator
    try:
        with catch_warnings(), torch.random.fork_rng(devices=[]), plain_attention():
            filterwarnings("ignore", r".*LeafSpec.*is deprecated", FutureWarning)
            filterwarnings("ignore", "# The axis name: batch will not be used")  # it has it already
            filterwarnings("ignore", "# ONNX model has different number of inputs")  # numbers, None
            yield
    finally:
        registry.setLevel(level)


def root_of(error: BaseException) -> str:
    """Say what was wrong in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{error}".split())[:300]


def without_traces(proto: Any) -> Any:
    """Drop stack traces and paths of the machine where a graph was made."""
    graph = proto.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.metadata_props[:]
    del proto.metadata_props[:]
    return proto
