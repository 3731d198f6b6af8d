"""A packed network as torch's own layers with float weights: the same function, the old size."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from lowland.control.packing.layers import (
    PackedBilinear,
    PackedConv,
    PackedConvTranspose,
    PackedEmbedding,
    PackedLayer,
    PackedLinear,
)
from lowland.control.packing.norms import ScaleOffset, replace
from lowland.control.packing.replace import CONVOLUTIONS, TRANSPOSED

__all__ = ["unpacked"]


@torch.no_grad()
def unpacked(network: nn.Module) -> nn.Module:
    """Put torch's layers in the place of packed ones.

    Args:
        network: A network with packed layers; it is not touched.

    Returns:
        A copy without any.
    """
    network = deepcopy(network)
    for layer in list(network.modules()):
        if isinstance(layer, PackedLayer):
            new = float_layer(layer).eval().requires_grad_(False)
            if layer is network:
                return new
            replace(network, layer, new)
    return network


def float_layer(layer: PackedLayer) -> nn.Module:
    """Make the layer of torch that computes the same."""
    if isinstance(layer, PackedLinear) and "axis" in layer.options:  # a norm's, along the channels
        bare = PackedLinear(layer.packed)
        assert layer.scale is not None
        assert layer.offset is not None
        return nn.Sequential(float_layer(bare), ScaleOffset(layer.scale, layer.offset))
    weight, bias = layer.weight, layer.bias
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v
                               for k, v in layer.options.items()}  # fmt: skip
    has_bias = {"bias": bias is not None, "device": "meta"}  # nothing is drawn
    if isinstance(layer, PackedLinear):
        new: Any = nn.Linear(weight.shape[1], weight.shape[0], **has_bias)
    elif isinstance(layer, PackedConv):
        inputs = weight.shape[1] * options["groups"]
        kind = CONVOLUTIONS[len(options["kernel_size"]) - 1]
        new = kind(inputs, len(weight), **options, **has_bias)
    elif isinstance(layer, PackedConvTranspose):
        outputs = weight.shape[1] * options["groups"]
        kind = TRANSPOSED[len(options["kernel_size"]) - 1]
        new = kind(len(weight), outputs, **options, **has_bias)
    elif isinstance(layer, PackedBilinear):
        new = nn.Bilinear(weight.shape[1], weight.shape[2], len(weight), **has_bias)
    elif isinstance(layer, PackedEmbedding):
        return nn.Embedding.from_pretrained(weight)
    else:
        raise TypeError(f"a packed layer must be one of ours; got {type(layer).__name__}.")
    new.weight = nn.Parameter(weight)
    if bias is not None:
        new.bias = nn.Parameter(bias)
    return new
