"""Pack a trained model: its binary and ternary weights in a few bits each, the rest as it is."""

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.fx import Graph

from lowland.control.discretize import checked_skip, is_meant
from lowland.control.packing.choose import Formats, check_formats, choose_format
from lowland.control.packing.model import PackedModel
from lowland.control.packing.network import as_network, check_model
from lowland.control.packing.norms import fold_norms, replace, traced
from lowland.control.packing.program import way
from lowland.control.packing.replace import is_packable, packed_layer, why_never, why_not
from lowland.control.packing.summary import Summary
from lowland.control.packing.weight import PackedWeight
from lowland.errors import UnsupportedModelError

__all__ = ["pack", "summary"]

log = logging.getLogger(__name__)


@torch.no_grad()
def pack(
    model: nn.Module,
    *,
    formats: Formats = "size",
    skip: str | type[nn.Module] | Iterable[str | type[nn.Module]] = (),
) -> PackedModel:
    """Hold the binary and ternary weights of a trained model in a few bits each.

    A weight is recognized by its numbers, wherever it was trained: in every row (output) one
    magnitude beside zero. Linear and bilinear layers, convolutions, transposed ones, embeddings
    and the projections of attention are packed; all else stays as it is, and batch norms become
    factors and summands. Products of integers are exact; those of floats differ in the order of
    the sums only.

    Args:
        model: Any module; it is not touched. ``DataParallel``, ``DistributedDataParallel`` and
            what ``torch.compile`` returns are taken off: layers have the names that they have
            inside.
        formats: ``"size"`` (the smallest that runs as it is), ``"time"`` (the one measured fastest
            here), the name of a format, or a mapping from names or patterns of layers to one of
            these.
        skip: What stays as it is, with all its parts: names, patterns or types of modules.

    Returns:
        The packed model; it is for inference only.

    Raises:
        UnsupportedModelError: If no layer has binary or ternary weights, or the model is packed,
            compiled by ``torch.jit``, lazy or on the meta device.
        TypeError: If the model is no module, or ``skip`` holds neither names nor types.
        ValueError: If a name in ``skip`` or ``formats`` meets no layer, or a format cannot hold
            a layer.

    Source:
        Specification section 9.

    Example:
        >>> from torch import nn
        >>> from lowland.control import discretize, pack
        >>> model = discretize(nn.Sequential(nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32)))
        >>> packed = pack(model)  # 256 bytes of weights, 32 factors and 32 summands
        >>> packed.bytes()
        512
    """
    if isinstance(model, PackedModel):
        raise UnsupportedModelError(
            "the model must not be packed yet; it is. Call its change_formats, or unpack it first."
        )
    check_model(model)
    skipped = checked_skip(skip)
    network = as_network(model).eval().requires_grad_(False)
    graph = traced(network)
    layers, reasons = layers_to_pack(network, skipped)
    if not layers:
        raise UnsupportedModelError(
            "the model must have a layer whose rows hold one magnitude beside 0; "
            f"{type(model).__name__} has none. {why_nothing(reasons)}"
        )
    check_formats(formats, layers)
    known: dict[int, PackedWeight] = {}
    for path, layer in layers.items():

        def choose(signs: Tensor, path: str = path, layer: nn.Module = layer) -> str:
            return choose_format(signs, path, formats, layer)

        replace(network, layer, packed_layer(layer, choose, known))
    check_way(model, graph, traced(network))
    fold_norms(network, graph)
    return PackedModel(network, reasons)


def check_way(model: nn.Module, before: Graph | None, after: Graph | None) -> None:
    """Refuse a model whose forward pass goes another way through packed layers."""
    if before is not None and (after is None or way(before) != way(after)):
        raise UnsupportedModelError(
            f"the forward pass of {type(model).__name__} must do the same with packed layers as "
            "with torch's; it asks for the class of a layer, or for what a packed one has not. "
            "Ask with isinstance, or skip these layers."
        )


def summary(model: nn.Module) -> Summary:
    """Say per layer what a model holds when packed, or would hold.

    Args:
        model: A packed model, or any other, which is packed for the count only.

    Returns:
        A table to print: values, nonzero share, bits per weight, bytes held and bytes as float32,
        what stays float and why, and what is decoded to floats at every call.

    Raises:
        UnsupportedModelError: If no layer has binary or ternary weights.

    Source:
        Ours.
    """
    return (model if isinstance(model, PackedModel) else pack(model)).summary()


def layers_to_pack(
    network: nn.Module, skip: tuple[str | type[nn.Module], ...]
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Find the layers that are packed, and why others are not."""
    layers: dict[str, nn.Module] = {}
    reasons: dict[str, str] = {}
    closed: list[str] = []
    unmet = {item for item in skip if isinstance(item, str)}
    for path, module in network.named_modules():
        hits = [item for item in skip if is_meant(path, module, item)]
        unmet -= set(hits)
        if hits:
            closed.append(f"{path}.")
            if is_packable(module):
                reasons[path] = "skipped"
        elif not path.startswith(tuple(closed)):
            is_candidate = is_packable(module)
            reason = why_not(module) if is_candidate else why_never(module)
            if reason:
                reasons[path] = reason
            elif is_candidate:
                layers[path] = module
                if isinstance(module, nn.MultiheadAttention):
                    closed.append(f"{path}.")
    if unmet:
        names = [path for path, module in network.named_modules() if is_packable(module)]
        raise ValueError(
            f"every name in skip must meet a module; {sorted(unmet)} met none. "
            f"The layers with weights are {names}."
        )
    return layers, reasons


def why_nothing(reasons: dict[str, str]) -> str:
    """Say why no layer is left."""
    if not reasons:
        return "It has no linear, convolutional or embedding layer."
    listed = "; ".join(f"{path or 'it'} {reason}" for path, reason in list(reasons.items())[:5])
    return f"{listed}. Train it with train_msa, or call discretize first."
