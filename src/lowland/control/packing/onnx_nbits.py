"""ONNX Runtime's own two-bit operators, for linear layers and embeddings."""

from typing import Any

import numpy as np
from jaxtyping import Int8, UInt8

from lowland.control.packing.onnx_find import Found, attribute

__all__ = ["pack_fours", "to_nbits"]

BLOCK = 128  # neighboring weights that share a factor
DOMAIN = "com.microsoft"
ZERO = 2  # the code that means 0, where none is given
FLOAT32, INT8 = 1, 4  # accuracy levels: what activations may be rounded to


def to_nbits(proto: Any, found: list[Found], *, int8_activations: bool = False) -> None:
    """Let linear layers and embeddings read two bits for each weight, in place.

    A ``Gemm`` or ``MatMul`` becomes a ``MatMulNBits``, a ``Gather`` of rows whose length is a
    multiple of four a ``GatherBlockQuantized``; other nodes stay.

    Args:
        proto: An ``onnx.ModelProto``.
        found: Its discrete weights.
        int8_activations: Allow products of int8.

    Source:
        Specification section 9; the operators' descriptions in ONNX Runtime.
    """
    from onnx import helper, numpy_helper

    by_name, stored = {one.name: one for one in found}, set()
    options: dict[str, Any] = {"bits": 2, "block_size": BLOCK, "domain": DOMAIN}
    level = INT8 if int8_activations else FLOAT32
    for node in proto.graph.node:
        rows = rows_of(node, by_name)
        if rows is None:
            continue
        signs, scale, name = rows
        codes, factors = f"{name}_codes", f"{name}_factors"
        if name not in stored:
            stored.add(name)
            packed = pack_fours(signs, pad=node.op_type != "Gather")
            repeated = np.repeat(scale[:, None], -(-signs.shape[1] // BLOCK), axis=1)
            proto.graph.initializer.append(numpy_helper.from_array(packed, codes))
            proto.graph.initializer.append(numpy_helper.from_array(repeated, factors))
        if node.op_type == "Gather":
            inputs, kind = [codes, node.input[1], factors], "GatherBlockQuantized"
            extra: dict[str, Any] = {"gather_axis": 0, "quantize_axis": 1}
        else:
            bias = ["", "", node.input[2]] if len(node.input) > 2 and node.input[2] else []
            inputs, kind = [node.input[0], codes, factors, *bias], "MatMulNBits"
            extra = {"N": signs.shape[0], "K": signs.shape[1], "accuracy_level": level}
        made = helper.make_node(kind, inputs, list(node.output), **options, **extra)
        node.CopyFrom(made)
    if stored:
        proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def rows_of(node: Any, found: dict[str, Found]) -> tuple[np.ndarray, np.ndarray, str] | None:
    """Give the weight of a node as rows of signs with a factor each, and a name for its storage.

    Returns:
        None where the node is no plain product or look-up of a discrete matrix.
    """
    place = 0 if node.op_type == "Gather" else 1
    one = found.get(node.input[place]) if len(node.input) > place else None
    if one is None or one.signs.ndim != 2:
        return None
    if node.op_type == "Gather":
        whole = one.axis == 0 and attribute(node, "axis", 0) == 0 and one.signs.shape[1] % 4 == 0
        return (one.signs, one.scale, f"{one.name}_rows") if whole else None
    if node.op_type == "MatMul":
        outputs = 1
    elif node.op_type == "Gemm" and is_plain(node):
        outputs = 0 if attribute(node, "transB", 0) else 1
    else:
        return None
    if one.axis != outputs:
        return None
    return (one.signs.T if outputs else one.signs), one.scale, f"{one.name}_outputs{outputs}"


def is_plain(node: Any) -> bool:
    """Say whether a Gemm is a product and a bias, without factors of its own."""
    return (
        attribute(node, "alpha", 1.0) == 1
        and attribute(node, "beta", 1.0) == 1
        and not attribute(node, "transA", 0)
    )


def pack_fours(
    signs: Int8[np.ndarray, "rows columns"], *, pad: bool = True
) -> UInt8[np.ndarray, "rows ..."]:
    """Pack four neighboring signs of a row into a byte, the first in the lowest bits.

    Args:
        signs: -1, 0 and 1, which become the codes 1, 2 and 3.
        pad: Fill rows up to whole blocks of 128 with zeros, and give the blocks an axis.

    Returns:
        Bytes, shape (rows, blocks, 32), or (rows, columns / 4) without padding.
    """
    rows, columns = signs.shape
    length = -(-columns // BLOCK) * BLOCK if pad else columns
    codes = np.full((rows, length), ZERO, np.uint8)
    codes[:, :columns] = signs + ZERO
    fours = codes.reshape(rows, length // 4, 4)
    packed = fours[..., 0] | fours[..., 1] << 2 | fours[..., 2] << 4 | fours[..., 3] << 6
    return packed.reshape(rows, -1, BLOCK // 4) if pad else packed
