"""What a file says of each packed layer, and the layer made of it again."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lowland.control.packing import layers as packed_kinds
from lowland.control.packing import norms as norm_kinds
from lowland.control.packing.attention import PackedAttention
from lowland.control.packing.file import packed_tensors
from lowland.control.packing.layers import PackedLayer
from lowland.control.packing.norms import Folded, ScaleOffset
from lowland.control.packing.weight import PackedWeight
from lowland.errors import CheckpointError

__all__ = ["PROJECTIONS", "built_layers", "described_layers", "float_linear"]

KINDS = {
    name: getattr(packed_kinds, name) for name in packed_kinds.__all__ if name != "PackedLayer"
}
SCALED = {stays.__name__: stays for stays, _ in norm_kinds.NORMS.values()}
FOLDED = {goes.__name__: goes for _, goes in norm_kinds.NORMS.values()}
PROJECTIONS = ("query", "key", "value", "out")


def described_layers(named: Mapping[str, nn.Module], formats: Mapping[str, str]) -> dict[str, Any]:
    """Describe the layers of ours in a network.

    Args:
        named: Its modules by path, under all of their names.
        formats: In which each weight is stored, by the path of the layer that holds it first.

    Returns:
        Plain values: ``layers`` with a packed weight of their own, ``ties`` (layers that share
        that of another one, under ``of``), and ``parts`` without a packed weight.
    """
    layers: dict[str, Any] = {}
    ties: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    first: dict[int, str] = {}
    inside = [path for path, module in named.items() if isinstance(module, PackedAttention)]
    for path, module in named.items():
        if isinstance(module, PackedLayer):
            packed = module.packed
            said = {"kind": type(module).__name__, "options": module.options}
            if id(packed) in first:
                ties[path] = {**said, "of": first[id(packed)]}
                continue
            first[id(packed)] = path
            sizes = {"rows": packed.num_rows, "columns": packed.num_columns}
            kept = {"format": formats[path], "held": packed.format}
            layers[path] = {**said, **kept, **sizes}
        elif isinstance(module, PackedAttention):
            parts[path] = {"kind": "PackedAttention", "options": module.options}
        elif isinstance(module, ScaleOffset | Folded):
            parts[path] = {"kind": type(module).__name__}
        elif isinstance(module, nn.Linear) and path.rpartition(".")[0] in inside:
            parts[path] = {"kind": "Linear"}
    return {"layers": layers, "ties": ties, "parts": parts}


def built_layers(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Make the layers that a file describes.

    Args:
        header: What :func:`described_layers` gave.
        tensors: All tensors of the file by name.

    Returns:
        The layers by path.

    Raises:
        CheckpointError: If the description is none.
    """
    try:
        return made(header, tensors)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the file must describe layers that its tensors make; it does not ({error!r:.200})."
        ) from error


def made(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Make the layers, those that stand alone first."""
    found: dict[str, nn.Module] = {}
    for path, said in header["layers"].items():
        held = packed_tensors(tensors, path, said["format"])
        packed = PackedWeight(held, said["format"], said["rows"], said["columns"])
        packed.change_format(said["held"])
        found[path] = layer(path, said, packed, tensors)
    for path, said in header["ties"].items():
        found[path] = layer(path, said, found[said["of"]].packed, tensors)  # type: ignore[arg-type]
    for path, said in header["parts"].items():
        if said["kind"] in SCALED:
            scale, offset = tensors[f"{path}.scale"], tensors[f"{path}.offset"]
            found[path] = SCALED[said["kind"]](scale, offset)
        elif said["kind"] in FOLDED:
            found[path] = FOLDED[said["kind"]]()
        elif said["kind"] == "Linear":
            found[path] = float_linear(tensors[f"{path}.weight"], tensors.get(f"{path}.bias"))
    for path, said in header["parts"].items():
        if said["kind"] == "PackedAttention":
            inner = [found[f"{path}.{name}"] for name in PROJECTIONS]
            biases = {name: tensors.get(f"{path}.{name}") for name in ("bias_k", "bias_v")}
            found[path] = PackedAttention(*inner, **said["options"], **biases)
    return found


def layer(
    path: str, said: Mapping[str, Any], packed: PackedWeight, tensors: Mapping[str, Tensor]
) -> PackedLayer:
    """Make one packed layer."""
    scale, offset = (tensors.get(f"{path}.{name}") for name in ("scale", "offset"))
    return KINDS[said["kind"]](packed, scale, offset, dict(said["options"]))


def float_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Make a linear layer of given weights, for inference.

    Args:
        weight: Shape ``(rows, columns)``.
        bias: Shape ``(rows,)``, or None.

    Returns:
        The layer.
    """
    rows, columns = weight.shape
    linear = nn.Linear(columns, rows, bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear
