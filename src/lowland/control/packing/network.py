"""The network inside what a user passes: without wrappers, and every layer with a parent."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from lowland.control.packing.norms import replace
from lowland.control.packing.replace import is_packable
from lowland.errors import UnsupportedModelError

__all__ = ["as_network", "check_model", "without_wrappers"]


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
    """
    network = deepcopy(without_wrappers(model))
    for part in list(network.modules()):
        if (inner := wrapped(part)) is not None:
            replace(network, part, without_wrappers(inner))
    if isinstance(network, nn.MultiheadAttention | nn.Bilinear):
        return Alone(network)  # a sequence takes one input
    return nn.Sequential(network) if is_packable(network) else network


def without_wrappers(model: nn.Module) -> nn.Module:
    """Give the module inside of what runs it on several devices, or compiled, or itself.

    Args:
        model: Any module.

    Returns:
        The first module that is no ``DataParallel``, ``DistributedDataParallel`` or result of
        ``torch.compile``: these compute what the module inside does. One with hooks stays.
    """
    while (inner := wrapped(model)) is not None:
        model = inner
    return model


def wrapped(module: nn.Module) -> nn.Module | None:
    """Give the module inside a wrapper of torch that computes the same."""
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    if isinstance(module, nn.DataParallel | DistributedDataParallel):
        return module.module
    return dict(module.named_children()).get("_orig_mod")  # torch.compile's


class Alone(nn.Module):
    """A layer that is the whole model, whatever it takes."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer."""
        return self.layer(*args, **kwargs)
