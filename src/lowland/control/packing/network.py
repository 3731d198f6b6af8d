"""The network inside what a user passes: without wrappers, and every layer with a parent."""

import sys
from copy import deepcopy
from dis import get_instructions
from inspect import isfunction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from lowland.control.packing.norms import is_plain, replace
from lowland.control.packing.replace import is_packable
from lowland.errors import UnsupportedModelError

__all__ = [
    "as_network",
    "check_model",
    "check_copy",
    "without_wrappers",
    "without_wrappers_inside",
]

DYNAMO = "torch._dynamo.eval_frame"


def check_model(model: Any) -> None:
    """Refuse a model whose layers and weights cannot be looked at.

    Args:
        model: What the user passed.

    Raises:
        TypeError: If it is no module.
        UnsupportedModelError: If it is compiled by torch.jit, or a tensor of it holds no numbers.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}.")
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedModelError(
            "the model must not be compiled by torch.jit, which hides its layers; it is. Pass what "
            "it was compiled from."
        )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise UnsupportedModelError(
                f"every layer must know its shape; {name} is lazy. Run a batch through the model "
                "first."
            )
        if tensor.is_meta:
            raise UnsupportedModelError(
                f"all weights must be in memory; {name} is on the meta device, which holds none. "
                'Load them first: model.to_empty(device="cpu"), then load_state_dict.'
            )


def as_network(model: nn.Module) -> nn.Module:
    """Copy a model, without wrappers, such that every layer can be replaced.

    Args:
        model: The user's model.

    Returns:
        A network in which every layer has a parent: a model that is itself one layer gets one.

    Raises:
        UnsupportedModelError: If a copy would lose a part of the forward pass.
    """
    check_copy(model)
    network = without_wrappers_inside(deepcopy(without_wrappers(model)))
    if isinstance(network, nn.MultiheadAttention | nn.Bilinear):
        return Alone(network)  # a sequence takes one input
    return nn.Sequential(network) if is_packable(network) else network


def check_copy(model: Any) -> None:
    """Refuse a model whose copy would not compute the same.

    Args:
        model: What the user passed, before it is copied.

    Raises:
        UnsupportedModelError: If what ``torch.compile`` returned has hooks, or another forward
            pass, of which torch copies neither; or if a function kept on a module has got hold of
            a part of the model, as the copy's would go on with that part.
    """
    parts = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    own = {id(part) for part in parts.values()}
    own |= {id(tensor) for part in parts.values() for tensor in tensors_of(part)}
    for name, part in parts.items():
        if type(part) is compiled_type():
            if wrapped(part) is None:
                raise UnsupportedModelError(
                    "what torch.compile returned must have no hooks and no forward pass of its "
                    f"own, which torch does not copy; {name or 'the model'} has. Put them on the "
                    "module that was compiled, or on one around it."
                )
            continue
        for attribute, value in vars(part).items():
            if holds(getattr(value, "__func__", value), own):
                raise UnsupportedModelError(
                    "a function kept on a module must reach the model through its arguments; "
                    f"{attribute} of {name or 'the model'} holds a part of it, so that a copy "
                    "would run the original's. Make it a method of the class, or bind it: "
                    f"module.{attribute} = types.MethodType(function, module)."
                )


def tensors_of(module: nn.Module) -> list[Tensor]:
    """List a module's own parameters and buffers."""
    held = [*module._parameters.values(), *module._buffers.values()]
    return [tensor for tensor in held if tensor is not None]


def holds(function: Any, own: set[int]) -> bool:
    """Whether a function finds one of some objects, or a method of one, without being given it."""
    if not isfunction(function):
        return False
    names = {step.argval for step in get_instructions(function) if step.opname == "LOAD_GLOBAL"}
    found = [function.__globals__.get(name) for name in names]
    found += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    closed = [cell.cell_contents for cell in function.__closure__ or ()]
    if any(id(getattr(value, "__self__", value)) in own for value in [*found, *closed]):
        return True
    return any(holds(value, own) for value in closed if value is not function)


def without_wrappers(model: nn.Module) -> nn.Module:
    """Give the module inside of what runs it on several devices, or compiled, or itself.

    Args:
        model: Any module.

    Returns:
        The first module that is no ``DataParallel``, ``DistributedDataParallel`` or result of
        ``torch.compile``: these compute what the module inside does. One with hooks or a forward
        pass of its own stays, and so does one of a class made of these.
    """
    while (inner := wrapped(model)) is not None:
        model = inner
    return model


def without_wrappers_inside(network: nn.Module) -> nn.Module:
    """Take the same wrappers off all parts of a network, in place.

    Args:
        network: A copy of the user's model; changed.

    Returns:
        The same network.
    """
    for part in list(network.modules()):
        if (inner := wrapped(part)) is not None:
            replace(network, part, without_wrappers(inner))
    return network


def wrapped(module: Any) -> nn.Module | None:
    """Give the module inside a wrapper of torch that computes the same."""
    if type(module) is compiled_type():
        hooked = module._forward_hooks or module._forward_pre_hooks
        inner = module._modules["_orig_mod"]
        return None if hooked or not calls(module.forward, module, inner) else inner
    is_wrapper = type(module) in (nn.DataParallel, DistributedDataParallel)
    return module.module if is_wrapper and is_plain(module) else None


def compiled_type() -> type[nn.Module] | None:
    """Give the class of what torch.compile returns; None while nobody has called it."""
    return getattr(sys.modules.get(DYNAMO), "OptimizedModule", None)  # an import takes seconds


def calls(forward: Any, compiled: nn.Module, inner: nn.Module) -> bool:
    """Whether a forward pass is the one that torch.compile made, and of this module."""
    if getattr(forward, "__globals__", {}).get("__name__") != DYNAMO:
        return False
    called = getattr(forward, "_torchdynamo_orig_callable", forward)
    owner = getattr(called, "__self__", None) or getattr(called, "__wrapped__", None)
    return owner is inner or owner is compiled  # the latter while its shapes were not known


class Alone(nn.Module):
    """A layer that is the whole model, whatever it takes."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer."""
        return self.layer(*args, **kwargs)
