"""Write a discrete network as a standard ONNX file whose weights take two bits."""

from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
from torch import nn

from lowland.control.packing.onnx_find import (
    Found,
    attribute,
    codes_along,
    find_discrete,
    weights_of,
)
from lowland.control.packing.onnx_nbits import to_nbits
from lowland.control.packing.onnx_trace import dense_copy, onnx_module, trace
from lowland.errors import FallbackWarning, UnsupportedModelError
from lowland.results import write_bytes

__all__ = ["MODES", "OPSET", "discrete_onnx", "discrete_weights", "export_onnx"]

MODES = ("int2", "matmulnbits", "float")
OPSET, IR_VERSION = 25, 13  # the first that have two-bit integers


def export_onnx(
    model: Any,
    file: str | Path,
    example_inputs: Any,
    *,
    mode: str = "int2",
    int8_activations: bool = False,
    dynamic_batch: bool = True,
) -> Path:
    """Write a model as an ONNX file, its binary and ternary weights as two-bit integers.

    The file computes what the model computes in eval mode, to float32 rounding. Batch norms after
    linear layers and convolutions are folded into their weights, as a factor for each output.
    Open the file with :func:`load_onnx`.

    Args:
        model: A float32 module whose discrete weights are dense, or anything whose ``unpack()``
            gives one; it is not changed. Its forward hooks run while torch traces a copy.
            ``DataParallel``, ``DistributedDataParallel`` and what ``torch.compile`` returns are
            taken off, as in :func:`pack`.
        file: Where to; written whole or not at all.
        example_inputs: A tensor, a tuple (``model(*inputs)``) or a mapping (``model(**inputs)``).
        mode: ``"int2"``: every discrete weight of a linear, convolutional, transposed
            convolutional or embedding layer is an ``INT2`` initializer with a
            ``DequantizeLinear``: standard ONNX of opset 25. ``"matmulnbits"``: those of linear
            layers become inputs of ``MatMulNBits`` (two bits, blocks of 128, float32 activations),
            and those of embeddings of ``GatherBlockQuantized`` where a row's length is a multiple
            of four; only ONNX Runtime knows these. Convolutions stay ``INT2`` there.
            ``"float"``: all weights stay float32.
        int8_activations: With ``"matmulnbits"``: let the runtime round the inputs of linear layers
            to int8, in blocks of 128. Fast for few examples at once, and no longer exact.
        dynamic_batch: Leave the number of examples open: the first axis of all tensors in which it
            is as long as in the first input.

    Returns:
        The file.

    Raises:
        ValueError: If the mode is unknown, or rounds activations though it is another.
        TypeError: If the model is no module.
        UnsupportedModelError: If torch cannot export the model, no weight is discrete, or what
            ``torch.compile`` returned has hooks or a forward pass of its own.
        MissingExtraError: If onnx or onnxscript is not installed.

    Warns:
        FallbackWarning: If a discrete weight stays float32, because the norm after a grouped
            transposed convolution gave its groups different factors.

    Source:
        Specification section 9, export preference (2).
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}.")
    if int8_activations and mode != "matmulnbits":
        raise ValueError(
            f'int8_activations must come with mode="matmulnbits"; got mode={mode!r}. Leave it out.'
        )
    onnx_module()
    network = dense_copy(model)
    proto = trace(network, example_inputs, opset=OPSET, dynamic_batch=dynamic_batch)
    found = [] if mode == "float" else discrete_weights(proto, network)
    made = discrete_onnx(proto, found, mode, int8_activations=int8_activations)
    return write_bytes(file, made.SerializeToString())


def discrete_weights(proto: Any, network: nn.Module) -> list[Found]:
    """Find the discrete weights of a graph, and say which of the network's were lost in it.

    Args:
        proto: The network as a graph.
        network: The network.

    Returns:
        The weights.

    Raises:
        UnsupportedModelError: If there is none.

    Warns:
        FallbackWarning: If one has no single factor for each output any more.
    """
    found = find_discrete(proto)
    names, state = {one.name for one in found}, network.state_dict()
    lost = [
        one.name
        for one, _ in weights_of(proto)
        if one.name in state and one.name not in names
        if any(codes_along(state[one.name].numpy(), axis) for axis in range(len(one.dims)))
    ]
    if lost:
        warn(
            f"{', '.join(lost)} stay float32 in the file: folding a batch norm into them left no "
            "single factor for each output.",
            FallbackWarning,
            stacklevel=3,
        )
    if not found:
        raise UnsupportedModelError(
            "the model must have a linear, convolutional or embedding weight with one magnitude "
            f"for each output, like scale * {{-1, 0, 1}}; {type(network).__name__} has none. "
            'Train it with DiscreteMSA, or export it with mode="float".'
        )
    return found


def discrete_onnx(
    proto: Any, found: list[Found], mode: str, *, int8_activations: bool = False
) -> Any:
    """Replace the discrete float weights of a graph by two-bit ones, in place.

    Args:
        proto: An ``onnx.ModelProto`` of opset 25.
        found: Its discrete weights.
        mode: As in :func:`export_onnx`.
        int8_activations: As there.

    Returns:
        The same graph, checked by onnx.
    """
    import onnx

    proto.ir_version = max(proto.ir_version, IR_VERSION)
    if mode == "matmulnbits":
        to_nbits(proto, found, int8_activations=int8_activations)
    if mode != "float":
        used = {name for node in proto.graph.node for name in node.input}
        to_int2(proto.graph, [one for one in found if one.name in used])
        drop_initializers(proto.graph, {one.name for one in found})
    onnx.checker.check_model(proto, full_check=mode != "matmulnbits")
    return proto


def to_int2(graph: Any, found: list[Found]) -> None:
    """Let every discrete weight be the output of a DequantizeLinear.

    A matrix that is multiplied from the right is stored with its outputs as rows, and transposed
    after decoding: the pair DequantizeLinear and MatMul is what ONNX Runtime turns into a product
    of int8 by default, and gets wrong where the outputs are no multiple of four (1.32).
    """
    from ml_dtypes import int2
    from onnx import helper, numpy_helper

    turned = {node.input[1] for node in graph.node if multiplies_from_the_right(node)}
    nodes = []
    for one in found:
        signs, scale = f"{one.name}_signs", f"{one.name}_scale"
        turn = one.name in turned and one.signs.ndim == 2
        stored = np.ascontiguousarray(one.signs.T) if turn else one.signs
        rows = f"{one.name}_rows" if turn else one.name
        graph.initializer.append(numpy_helper.from_array(stored.astype(int2), signs))
        graph.initializer.append(numpy_helper.from_array(one.scale, scale))
        axis = 1 - one.axis if turn else one.axis
        nodes.append(helper.make_node("DequantizeLinear", [signs, scale], [rows], axis=axis))
        if turn:
            nodes.append(helper.make_node("Transpose", [rows], [one.name], perm=[1, 0]))
    first = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(first)


def multiplies_from_the_right(node: Any) -> bool:
    """Say whether a node multiplies by its second input as it is, inputs as rows."""
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))


def drop_initializers(graph: Any, names: set[str]) -> None:
    """Take initializers out of a graph."""
    kept = [one for one in graph.initializer if one.name not in names]
    del graph.initializer[:]
    graph.initializer.extend(kept)
