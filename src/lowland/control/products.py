"""M, the sum of costate times state, spelled out for every layer that is linear in its controls."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from lowland.control.discretize import RowScale
from lowland.control.layer import Control, Layer, Value

__all__ = ["has_products", "is_linear_in", "layer_products"]

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def has_products(layer: Layer) -> bool:
    """Tell whether M is spelled out for a layer.

    Args:
        layer: Any layer.

    Returns:
        True for linear and bilinear layers, convolutions, transposed convolutions, embeddings,
        the scale and offset of norms, and PReLU. A parametrized module has none: it is not linear
        in what it keeps.
    """
    if len(layer.writes) != 1 or not layer.parameters:
        return False
    module = layer.function
    if isinstance(module, nn.Module):
        known = linear_in_parameters(module)
        return known is not None and {"weight", "bias"} >= set(layer.names)
    return weight_of_function(layer) is not None


def is_linear_in(layer: Layer, name: str) -> bool:
    """Tell whether the output of a layer is linear, up to an offset, in one of its controls.

    Args:
        layer: Any layer.
        name: Qualified name of a control.

    Returns:
        True where M is spelled out, and for what the room's own row scale is multiplied with: M is
        the slope of the Hamiltonian there.
    """
    module = layer.function
    if not (isinstance(module, nn.Module) and is_parametrized(module)):
        return has_products(layer)
    if linear_in_parameters(module) is None or len(layer.writes) != 1:
        return False
    local = [own for own, qualified in layer.names.items() if qualified == name]
    scaled = {
        f"parametrizations.{own}.original"
        for own, steps in module.get_submodule("parametrizations").named_children()
        if all(isinstance(step, RowScale) for step in steps.children())
    }
    return bool(local) and scaled.issuperset(local)


def layer_products(
    layer: Layer,
    states: tuple[Tensor, ...],
    costate: Tensor,
    params: dict[str, Tensor],
) -> dict[str, Tensor]:
    r"""Compute M of each control of a layer: what the Hamiltonian is linear in it with.

    :math:`\sum_s p_s \cdot f(x_s, \theta) = \langle \theta, M \rangle` + what does not depend on
    :math:`\theta`; no derivative is taken.

    Args:
        layer: A layer for which :func:`has_products` is true.
        states: What enters it.
        costate: Of its output.
        params: Controls by qualified name.

    Returns:
        M by qualified name, each in the shape of its control; summed over tied controls.
    """
    module = layer.function
    if not isinstance(module, nn.Module):
        x, names = weight_of_function(layer) or (0, {})
        found = linear(None, (states[x],), costate)
        return {name: found[local] for local, name in names.items()}
    if isinstance(module, NORMS):
        ones = {
            name: torch.full_like(params[name], float(local == "weight"))
            for local, name in layer.names.items()
        }
        (plain,) = layer(states, params | ones)  # the state, normalized
        found = affine(module, plain, costate)
    else:
        formula = linear_in_parameters(module) or linear
        found = formula(module, states, costate)
    products: dict[str, Tensor] = {}
    for local, name in layer.names.items():
        products[name] = products[name] + found[local] if name in products else found[local]
    return products


def linear_in_parameters(module: nn.Module) -> Callable[..., dict[str, Tensor]] | None:
    """Find the formula for a kind of module."""
    if isinstance(module, NORMS):
        return affine
    if isinstance(module, _ConvTransposeNd):
        return transposed_convolution
    if isinstance(module, _ConvNd):
        return convolution
    if isinstance(module, nn.Embedding):
        return None if module.scale_grad_by_freq or module.max_norm is not None else embedding
    for kind, formula in ((nn.Linear, linear), (nn.Bilinear, bilinear), (nn.PReLU, prelu)):
        if isinstance(module, kind):
            return formula
    return None


def weight_of_function(layer: Layer) -> tuple[int, dict[str, str]] | None:
    """For ``F.linear`` of a state and a parameter: which state, and the names of the controls."""
    if layer.function is not F.linear or layer.kwargs:
        return None
    x, *controls = layer.args
    if not isinstance(x, Value) or not all(isinstance(c, Control | None) for c in controls):
        return None
    named = zip(("weight", "bias"), controls, strict=False)
    names = {local: control.name for local, control in named if isinstance(control, Control)}
    return layer.reads.index(x.number), names


def linear(module: Any, states: tuple[Tensor, ...], p: Tensor) -> dict[str, Tensor]:
    """M = sum of p x^T, over examples and whatever axes lie between."""
    p = p.reshape(-1, p.shape[-1])
    return {"weight": p.T @ states[0].reshape(-1, states[0].shape[-1]), "bias": p.sum(0)}


def bilinear(module: Any, states: tuple[Tensor, ...], p: Tensor) -> dict[str, Tensor]:
    """M = sum of p x y^T."""
    x, y, p = (tensor.reshape(-1, tensor.shape[-1]) for tensor in (states[0], states[-1], p))
    return {"weight": torch.einsum("so,si,sj->oij", p, x, y), "bias": p.sum(0)}


def convolution(module: Any, states: tuple[Tensor, ...], p: Tensor) -> dict[str, Tensor]:
    """M = sum of P U^T, where U holds the patches of the padded state."""
    dims = len(module.kernel_size)
    x, p = (with_batch(tensor, dims) for tensor in (states[0], p))
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    weight = patch_products(p, patches(x, module), module.groups)
    return {"weight": weight.reshape(module.weight.shape), "bias": over_channels(p)}


def transposed_convolution(module: Any, states: tuple[Tensor, ...], p: Tensor) -> dict[str, Tensor]:
    """M = sum of X U^T, where U holds the patches of the padded costate: the adjoint map."""
    dims = len(module.kernel_size)
    x, p = (with_batch(tensor, dims) for tensor in (states[0], p))
    padded = F.pad(p, [size for size in reversed(module.padding) for _ in (0, 1)])
    found = patches(padded, module)
    for axis, size in enumerate(x.shape[2:], start=2):  # output_padding may make room for more
        found = found.narrow(axis, 0, size)
    weight = patch_products(x, found, module.groups)
    return {"weight": weight.reshape(module.weight.shape), "bias": over_channels(p)}


def with_batch(x: Tensor, dims: int) -> Tensor:
    """Add the batch axis that convolutions may be called without."""
    return x if x.ndim == dims + 2 else x.unsqueeze(0)


def patches(x: Tensor, module: Any) -> Tensor:
    """Unfold along every axis: shape ``(batch, channels, *pixels, *kernel)``."""
    sizes = zip(module.kernel_size, module.stride, module.dilation, strict=True)
    for axis, (size, stride, dilation) in enumerate(sizes, start=2):
        x = x.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return x


def patch_products(
    rows: Float[Tensor, "batch rows *pixels"],
    patches: Float[Tensor, "batch channels *pixels_and_kernel"],
    groups: int,
) -> Float[Tensor, "groups rows_of_group patch"]:
    """Sum over examples and pixels of row times patch, in each group of channels."""
    dims = rows.ndim - 2
    batch, channels, *sizes = patches.shape
    left = rows.reshape(batch, groups, rows.shape[1] // groups, -1).permute(1, 2, 0, 3)
    right = patches.reshape(batch, groups, channels // groups, -1, *sizes[dims:])
    right = right.movedim(2, 3).movedim(0, 1)  # groups, batch, pixels, channels, kernel
    pixels = right.shape[1] * right.shape[2]
    return left.reshape(groups, -1, pixels) @ right.reshape(groups, pixels, -1)


def over_channels(p: Tensor) -> Tensor:
    """Sum over everything but the channels."""
    return p.transpose(0, 1).flatten(1).sum(1)


def embedding(module: Any, states: tuple[Tensor, ...], p: Tensor) -> dict[str, Tensor]:
    """M = sum of p e_x^T; the row of ``padding_idx`` is no control and gets zero."""
    index = states[0].reshape(-1)
    product = torch.zeros(module.weight.shape, dtype=p.dtype, device=p.device)
    product.index_add_(0, index, p.reshape(-1, p.shape[-1]))
    if module.padding_idx is not None:
        product[module.padding_idx] = 0
    return {"weight": product}


def affine(module: Any, plain: Tensor, p: Tensor) -> dict[str, Tensor]:
    """M = sum of p times the normalized state for the scale, sum of p for the offset."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        dims = len(module.normalized_shape)
        return {
            "weight": (p * plain).reshape(-1, *p.shape[p.ndim - dims :]).sum(0),
            "bias": p.reshape(-1, *p.shape[p.ndim - dims :]).sum(0),
        }
    return {"weight": over_channels(p * plain), "bias": over_channels(p)}


def prelu(module: Any, states: tuple[Tensor, ...], p: Tensor) -> dict[str, Tensor]:
    """M = sum of p times the negative part of the state."""
    product = p * states[0].clamp(max=0)
    if module.weight.numel() == 1:
        return {"weight": product.sum().reshape(1)}
    return {"weight": over_channels(product)}
