"""Batch norm at evaluation: a factor and a summand per channel, folded where it can be."""

import logging
from collections import Counter
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

__all__ = ["ScaleOffset", "fold_norms", "scale_and_offset"]

log = logging.getLogger(__name__)


class ScaleOffset(nn.Module):
    """Multiply every channel by a factor and add a summand: batch norm at evaluation.

    Args:
        scale: Shape ``(channels,)``.
        offset: Shape ``(channels,)``.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, scale: Float[Tensor, " channels"], offset: Float[Tensor, " channels"]):
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    def forward(self, x: Float[Tensor, "batch channels *pixels"]) -> Tensor:
        """Scale and shift along the second axis.

        Args:
            x: Inputs.

        Returns:
            The outputs.
        """
        shape = [-1] + [1] * (x.ndim - 2)
        return torch.addcmul(self.offset.view(shape), x, self.scale.view(shape))


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


def fold_norms(network: nn.Module) -> None:
    """Turn every batch norm into its factors and summands, in place.

    They join the packed layer before them where nothing lies between and nobody else reads the
    layer's output; elsewhere (behind a max-pool, before a layer) they stay where they are, as
    :class:`ScaleOffset`: a pool and a negative factor must not change places. A model that
    ``torch.fx`` cannot follow keeps all of them in place.

    Args:
        network: A network with packed layers; changed.

    Source:
        Specification section 8.
    """
    norms = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
    before = layers_before(network, set(norms)) if norms else {}
    for path, norm in norms.items():
        scale, offset = scale_and_offset(norm)
        layer = before.get(path)
        if layer is not None and join(layer, scale, offset):
            replacement: nn.Module = nn.Identity()
        else:
            replacement = ScaleOffset(scale, offset)
        replace(network, norm, replacement)


def layers_before(network: nn.Module, norms: set[str]) -> dict[str, PackedLayer]:
    """Find the packed layer whose output only a norm reads."""
    graph = traced(network)
    if graph is None:
        return {}
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    found = {}
    for node in graph.nodes:
        if node.op != "call_module" or node.target not in norms or calls[node.target] > 1:
            continue
        layer = layer_of(network, node.args[0])
        if layer is not None and calls[node.args[0].target] == 1 and len(node.args[0].users) == 1:
            found[node.target] = layer
    return found


def layer_of(network: nn.Module, node: Any) -> PackedLayer | None:
    """Give the packed layer that a node calls."""
    if not isinstance(node, Node) or node.op != "call_module":
        return None
    module = network.get_submodule(str(node.target))
    return module if isinstance(module, PackedConv | PackedConvTranspose | PackedLinear) else None


class LayerTracer(Tracer):
    """Follow a network down to torch's layers and ours."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node."""
        return isinstance(m, PackedLayer | PackedAttention) or super().is_leaf_module(
            m, module_qualified_name
        )


def traced(network: nn.Module) -> Graph | None:
    """Follow a network by symbols; None where its way depends on its inputs."""
    try:
        return LayerTracer().trace(network)
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
