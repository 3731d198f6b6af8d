"""Write a discrete network as QONNX: float weights behind nodes that say how they are quantized."""

from pathlib import Path
from typing import Any

import numpy as np

from lowland.control.packing.onnx_export import discrete_weights
from lowland.control.packing.onnx_find import Found
from lowland.control.packing.onnx_trace import dense_copy, onnx_module, trace
from lowland.results import write_bytes

__all__ = ["to_qonnx"]

OPSET = 18  # the oldest that torch writes without converting back
DOMAIN = "qonnx.custom_op.general"


def to_qonnx(model: Any, file: str | Path, example_inputs: Any) -> Path:
    """Write a model as QONNX, the format that compilers for FPGAs read.

    Weights stay float32 initializers, so the file is as large as the float network; behind each
    discrete one stands a ``BipolarQuant`` (-1 and 1) or a ``Quant`` of two bits, signed and narrow
    (-1, 0 and 1; papers call it IntQuant, the tools look for ``Quant``) with its factors. Batch
    norms after linear layers and convolutions are folded into the factors. All shapes are fixed to
    those of the example.

    Args:
        model: As in :func:`export_onnx`; it is not changed.
        file: Where to; written whole or not at all.
        example_inputs: A tensor, a tuple (``model(*inputs)``) or a mapping (``model(**inputs)``).

    Returns:
        The file.

    Raises:
        TypeError: If the model is no module.
        UnsupportedModelError: If torch cannot export the model, or no weight is discrete.
        MissingExtraError: If onnx or onnxscript is not installed.

    Warns:
        FallbackWarning: If a discrete weight has no single factor for each output any more.

    Source:
        Specification section 9, export preference (3); QONNX operators, version 1.
    """
    onnx = onnx_module()
    network = dense_copy(model)
    proto = trace(network, example_inputs, opset=OPSET, dynamic_batch=False)
    add_quantizers(proto, discrete_weights(proto, network))
    onnx.checker.check_model(proto)
    return write_bytes(file, proto.SerializeToString())


def add_quantizers(proto: Any, found: list[Found]) -> None:
    """Put a quantizer between every discrete weight and its users."""
    from onnx import helper, numpy_helper

    def constant(name: str, value: np.ndarray) -> str:
        proto.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    quantized, nodes = {one.name: f"{one.name}_quantized" for one in found}, []
    for node in proto.graph.node:
        node.input[:] = [quantized.get(name, name) for name in node.input]
    for one in found:
        inputs = [one.name, constant(f"{one.name}_scale", one.wide_scale)]
        kind = "BipolarQuant"
        options: dict[str, Any] = {}
        if not one.signs.all():
            inputs.append(constant(f"{one.name}_zero_point", np.zeros(())))
            inputs.append(constant(f"{one.name}_bits", np.array(2.0)))
            kind, options = "Quant", {"signed": 1, "narrow": 1, "rounding_mode": "ROUND"}
        nodes.append(
            helper.make_node(kind, inputs, [quantized[one.name]], domain=DOMAIN, **options)
        )
    first = [*nodes, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(first)
    proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
