"""The packed layer that does what a layer with binary or ternary weights does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils.parametrize import is_parametrized

from lowland.control.packing.attention import PackedAttention
from lowland.control.packing.codes import find_codes
from lowland.control.packing.layers import (
    PackedBilinear,
    PackedConv1d,
    PackedConv2d,
    PackedConv3d,
    PackedConvTranspose1d,
    PackedConvTranspose2d,
    PackedConvTranspose3d,
    PackedEmbedding,
    PackedLayer,
    PackedLinear,
)
from lowland.control.packing.rebuild import float_linear
from lowland.control.packing.weight import PackedWeight

__all__ = ["is_packable", "packed_layer", "rows_of", "why_never", "why_not"]

ChooseFormat = Callable[[Tensor], str]

LINEAR = (nn.Linear, NonDynamicallyQuantizableLinear)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PACKED_CONVOLUTIONS = (PackedConv1d, PackedConv2d, PackedConv3d)
PACKED_TRANSPOSED = (PackedConvTranspose1d, PackedConvTranspose2d, PackedConvTranspose3d)
KINDS = (*LINEAR, *CONVOLUTIONS, *TRANSPOSED, nn.Embedding, nn.Bilinear, nn.MultiheadAttention)


def is_packable(module: nn.Module) -> bool:
    """Tell whether a module is of a kind that can be packed.

    Args:
        module: Any module.

    Returns:
        True for torch's linear and bilinear layers, convolutions, transposed ones, embeddings and
        attention, parametrized ones too; a subclass with a forward pass of its own is none.
    """
    return kind_of(module) in KINDS


def kind_of(module: nn.Module) -> type[nn.Module]:
    """Give the class of a module, without what parametrizations make of it."""
    kind = type(module)
    return kind.__mro__[1] if is_parametrized(module) else kind


def why_not(module: nn.Module) -> str:
    """Say why a module of a packable kind stays as it is; empty if nothing is in the way.

    Args:
        module: A module for which :func:`is_packable` is true.

    Returns:
        The reason, or an empty string.
    """
    if module._forward_hooks or module._forward_pre_hooks:
        return "has forward hooks"
    if "forward" in vars(module):
        return "has a forward pass of its own"
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return "renorms its rows (max_norm)"
    if isinstance(module, nn.MultiheadAttention):
        found = [codes_of(weight) for weight in projections(module)]
        return "" if any(found) else "its rows hold more than one magnitude"
    weight = module.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or not weight.numel():
        return "has no real weight"
    if not bool(weight.isfinite().all()):
        return "its weight is not finite"
    return "" if codes_of(rows_of(module)) else "its rows hold more than one magnitude"


def why_never(module: nn.Module) -> str:
    """Say why a module that looks like one of a packable kind is of none.

    Args:
        module: A module for which :func:`is_packable` is false.

    Returns:
        The reason, or an empty string for a module of which nobody would expect it.
    """
    if isinstance(module, torch.jit.ScriptModule):
        has_own = any(True for _ in module.parameters(recurse=False))
        return "is compiled by torch.jit" if has_own else ""
    if isinstance(module, nn.EmbeddingBag | nn.RNNBase | nn.RNNCellBase):
        return f"{kind_of(module).__name__} has no packed form"
    base = next((kind for kind in KINDS if isinstance(module, kind)), None)
    return "" if base is None else f"is a class of its own, which may do more than {base.__name__}"


def codes_of(rows: Tensor) -> Any:
    """Recognize signs and factors; None where there are none."""
    return find_codes(rows.detach()) if rows.numel() else None


@torch.no_grad()
def packed_layer(module: nn.Module, choose: ChooseFormat, known: dict[int, PackedWeight]) -> Any:
    """Make the packed layer that does what a layer does.

    Args:
        module: A layer for which :func:`why_not` says nothing.
        choose: From signs to the name of a format.
        known: Weights packed before, by the identity of the parameter: tied weights stay tied;
            written.

    Returns:
        The new layer.
    """
    if isinstance(module, nn.MultiheadAttention):
        return packed_attention(module, choose)
    kind, options = layer_kind(module)
    # what a parametrization computes is another tensor every time, and never tied
    own = module._parameters.get("weight", module)
    packed, scale = packed_weight(rows_of(module), choose, known, id(own))
    bias = getattr(module, "bias", None)
    return kind(packed, scale, None if bias is None else bias.detach().clone(), options)


def packed_weight(
    rows: Tensor, choose: ChooseFormat, known: dict[int, PackedWeight], key: int
) -> tuple[PackedWeight, Tensor | None]:
    """Pack a weight, once if it is tied, and give its factors in its own type."""
    codes = find_codes(rows.detach().cpu())
    if codes is None:
        raise ValueError("every row of the weight must hold one magnitude beside 0.")
    if key not in known:
        known[key] = PackedWeight.of(codes.signs, choose(codes.signs)).to(rows.device)
    if codes.scale is None:
        return known[key], None
    scale = rows.detach().abs().amax(1)  # in the weight's own type
    return known[key], torch.where(scale > 0, scale, 1)


def rows_of(module: Any) -> Tensor:
    """Lay the weight of a layer out as outputs by inputs."""
    weight = module.weight
    if isinstance(module, _ConvTransposeNd):
        groups = module.groups
        per_group = weight.view(groups, -1, *weight.shape[1:]).transpose(1, 2)
        return per_group.reshape(groups * weight.shape[1], -1)
    return weight.reshape(len(weight), -1)


def layer_kind(module: Any) -> tuple[type[PackedLayer], dict[str, Any]]:
    """Find the packed kind of a layer, and what it needs beside its weight."""
    if isinstance(module, _ConvTransposeNd):
        names = ("kernel_size", "stride", "padding", "output_padding", "dilation", "groups")
        kind = PACKED_TRANSPOSED[len(module.kernel_size) - 1]
        return kind, {name: plain(getattr(module, name)) for name in names}
    if isinstance(module, _ConvNd):
        names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        kind = PACKED_CONVOLUTIONS[len(module.kernel_size) - 1]
        return kind, {name: plain(getattr(module, name)) for name in names}
    if isinstance(module, nn.Embedding):
        return PackedEmbedding, {}
    if isinstance(module, nn.Bilinear):
        return PackedBilinear, {"in1_features": module.in1_features}
    return PackedLinear, {}


def plain(value: Any) -> Any:
    """Turn tuples into lists, as they come back from JSON."""
    return list(value) if isinstance(value, tuple) else value


def projections(module: nn.MultiheadAttention) -> list[Tensor]:
    """Give the weights of the query, the key, the value and the output."""
    if module.in_proj_weight is not None:
        return [*module.in_proj_weight.chunk(3), module.out_proj.weight]
    return [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight,
            module.out_proj.weight]  # fmt: skip


def packed_attention(module: nn.MultiheadAttention, choose: ChooseFormat) -> PackedAttention:
    """Make four projections out of torch's attention, packed ones where they can be."""
    biases: list[Tensor | None] = [None] * 3
    if module.in_proj_bias is not None:
        biases = [part.detach().clone() for part in module.in_proj_bias.chunk(3)]
    bias = module.out_proj.bias
    biases.append(None if bias is None else bias.detach().clone())
    layers = []
    for weight, offset in zip(projections(module), biases, strict=True):
        if codes_of(weight):
            packed, scale = packed_weight(weight, choose, {}, 0)
            layers.append(PackedLinear(packed, scale, offset))
        else:
            layers.append(float_linear(weight.detach().clone(), offset))
    appended = [None if b is None else b.detach().clone() for b in (module.bias_k, module.bias_v)]
    return PackedAttention(
        *layers,
        num_heads=module.num_heads, batch_first=module.batch_first,
        add_zero_attn=module.add_zero_attn, bias_k=appended[0], bias_v=appended[1],
    )  # fmt: skip
