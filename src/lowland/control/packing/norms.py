"""Batch norm at evaluation: a factor and a summand per channel, folded where it can be."""

import logging
import math
from collections import Counter
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.fx import Graph, Node, Tracer
from torch.nn.modules.batchnorm import _BatchNorm

from lowland.control.packing.attention import PackedAttention
from lowland.control.packing.layers import (
    PackedConv,
    PackedConvTranspose,
    PackedLayer,
    PackedLinear,
)

__all__ = ["LEAVES", "Folded", "ScaleOffset", "fold_norms", "replace", "scale_and_offset", "traced"]

log = logging.getLogger(__name__)


class ScaleOffset(nn.Module):
    """Multiply every channel by a factor and add a summand: batch norm at evaluation.

    Args:
        scale: Shape ``(channels,)``.
        offset: Shape ``(channels,)``.
    """

    track_running_stats = False
    scale: Tensor
    offset: Tensor

    def __init__(self, scale: Float[Tensor, " channels"], offset: Float[Tensor, " channels"]):
        nn.Module.__init__(self)
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    def extra_repr(self) -> str:
        """Say how many channels there are."""
        return f"{len(self.scale)}"

    def forward(self, x: Float[Tensor, "batch channels *pixels"]) -> Tensor:
        """Scale and shift along the second axis.

        Args:
            x: Inputs.

        Returns:
            The outputs.
        """
        shape = [-1] + [1] * (x.ndim - 2)
        return torch.addcmul(self.offset.view(shape), x, self.scale.view(shape))


class ScaleOffset1d(ScaleOffset, nn.BatchNorm1d):
    """In the place of :class:`torch.nn.BatchNorm1d`."""


class ScaleOffset2d(ScaleOffset, nn.BatchNorm2d):
    """In the place of :class:`torch.nn.BatchNorm2d`."""


class ScaleOffset3d(ScaleOffset, nn.BatchNorm3d):
    """In the place of :class:`torch.nn.BatchNorm3d`."""


class Folded(nn.Module):
    """In the place of a norm that has joined the layer before it."""

    track_running_stats = False

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def extra_repr(self) -> str:
        """Say nothing."""
        return ""

    def forward(self, x: Tensor) -> Tensor:
        """Leave the input as it is.

        Args:
            x: Inputs.

        Returns:
            The same.
        """
        return x


class Folded1d(Folded, nn.BatchNorm1d):
    """In the place of :class:`torch.nn.BatchNorm1d`."""


class Folded2d(Folded, nn.BatchNorm2d):
    """In the place of :class:`torch.nn.BatchNorm2d`."""


class Folded3d(Folded, nn.BatchNorm3d):
    """In the place of :class:`torch.nn.BatchNorm3d`."""


# What was a norm stays one to whoever asks with isinstance.
NORMS: dict[type[nn.Module], tuple[type[ScaleOffset], type[Folded]]] = {
    nn.BatchNorm1d: (ScaleOffset1d, Folded1d),
    nn.BatchNorm2d: (ScaleOffset2d, Folded2d),
    nn.BatchNorm3d: (ScaleOffset3d, Folded3d),
}


def scale_and_offset(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    r"""Write batch norm at evaluation as :math:`y = a z + b`.

    :math:`a = \gamma / \sqrt{v + \epsilon}` may be negative, tiny or zero, and
    :math:`b = \beta - a \mu`; both are computed in float64.

    Args:
        norm: A batch norm with running statistics.

    Returns:
        a and b, shape ``(channels,)``, in the type of the statistics.

    Raises:
        ValueError: If the norm has no running statistics.

    Source:
        Specification section 8.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("the batch norm must have running statistics; it has none.")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.detach().double()
    offset = -scale * norm.running_mean.double()
    offset = offset if norm.bias is None else offset + norm.bias.detach().double()
    return scale.to(norm.running_var.dtype), offset.to(norm.running_var.dtype)


def fold_norms(network: nn.Module, graph: Graph | None) -> None:
    """Turn every batch norm into its factors and summands, in place.

    They join the packed layer before them where nothing lies between and nobody else reads the
    layer's output or weights; elsewhere (behind a max-pool, before a layer) they stay where they
    are, as :class:`ScaleOffset`: a pool and a negative factor must not change places. A model that
    ``torch.fx`` cannot follow keeps all of them in place, and norms with hooks, or of a class of
    their own, stay as they are.

    Args:
        network: A network with packed layers; changed.
        graph: Its graph before it was packed, from :func:`traced`.

    Source:
        Specification section 8.
    """
    norms: dict[str, Any] = {
        path: module
        for path, module in network.named_modules()
        if type(module) in NORMS and module.running_mean is not None and is_plain(module)
    }
    read = owners_read(graph)
    before = layers_before(network, set(norms), graph)
    for path, norm in norms.items():
        if path in read:
            continue
        stays, goes = NORMS[type(norm)]
        scale, offset = scale_and_offset(norm)
        found = before.get(path)
        if found is not None and found[0] not in read and join(found[1], scale, offset):
            replace(network, norm, goes())
        else:
            replace(network, norm, stays(scale, offset))


def is_plain(module: nn.Module) -> bool:
    """Whether nobody has changed what a module does when it is called."""
    hooked = module._forward_hooks or module._forward_pre_hooks
    return not hooked and "forward" not in vars(module)


def owners_read(graph: Graph | None) -> set[str]:
    """Name the modules of which somebody reads a parameter or a buffer."""
    nodes = graph.nodes if graph is not None else ()
    return {str(node.target).rpartition(".")[0] for node in nodes if node.op == "get_attr"}


def layers_before(
    network: nn.Module, norms: set[str], graph: Graph | None
) -> dict[str, tuple[str, PackedLayer]]:
    """Find the packed layer whose output only a norm reads."""
    if graph is None:
        return {}
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    found = {}
    for node in graph.nodes:
        if node.op != "call_module" or node.target not in norms or calls[node.target] > 1:
            continue
        layer = layer_of(network, node.args[0])
        if layer is not None and calls[node.args[0].target] == 1 and len(node.args[0].users) == 1:
            found[node.target] = (str(node.args[0].target), layer)
    return found


def layer_of(network: nn.Module, node: Any) -> PackedLayer | None:
    """Give the packed layer that a node calls."""
    if not isinstance(node, Node) or node.op != "call_module":
        return None
    module = network.get_submodule(str(node.target))
    return module if isinstance(module, PackedConv | PackedConvTranspose | PackedLinear) else None


LEAVES = (PackedLayer, PackedAttention, ScaleOffset, Folded)


class LayerTracer(Tracer):
    """Follow a network down to torch's layers and ours."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node."""
        return isinstance(m, LEAVES) or super().is_leaf_module(m, module_qualified_name)


def traced(network: nn.Module) -> Graph | None:
    """Follow a network by symbols; None where its way depends on its inputs."""
    try:
        tracer = LayerTracer(autowrap_modules=(math,), param_shapes_constant=False)
        tracer.proxy_buffer_attributes = True
        return tracer.trace(deepcopy(network))
    except Exception as reason:  # whatever the user's forward does with a symbol
        log.info("batch norms stay in place: torch.fx cannot follow the model: %s", reason)
        return None


def join(layer: PackedLayer, scale: Tensor, offset: Tensor) -> bool:
    """Let a layer do what the norm behind it does, if it can."""
    if len(scale) != layer.outputs:
        return False
    if isinstance(layer, PackedLinear):
        if layer.scale is not None or layer.offset is not None:
            return False  # theirs lie along the last axis, the norm's along the second
        layer.options = {**layer.options, "axis": 1}
    if layer.offset is not None:
        offset = scale * layer.offset + offset
    layer.scale = scale if layer.scale is None else scale * layer.scale
    layer.offset = offset
    return True


def replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another, under all of its names."""
    for parent in network.modules():
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
