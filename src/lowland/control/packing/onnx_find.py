"""Find the binary and ternary weights of an ONNX graph, whatever was folded into them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int8

from lowland.control.packing.codes import find_codes

__all__ = ["Found", "attribute", "codes_along", "find_discrete", "weights_of"]


@dataclass(frozen=True)
class Found:
    """A discrete weight of an ONNX graph: ``scale * signs``.

    Attributes:
        name: Name of the initializer.
        axis: Axis along which the factors differ.
        signs: -1, 0 and 1 as int8, in the shape of the weight.
        scale: One positive float32 factor for each place of the axis.
    """

    name: str
    axis: int
    signs: Int8[np.ndarray, "..."]
    scale: Float[np.ndarray, " outputs"]

    @property
    def wide_scale(self) -> Float[np.ndarray, "..."]:
        """The factors in a shape that broadcasts with the signs."""
        return self.scale.reshape([-1 if k == self.axis else 1 for k in range(self.signs.ndim)])


def find_discrete(proto: Any) -> list[Found]:
    """Find the binary and ternary weights of a graph.

    These are float32 initializers that a linear layer (Gemm, MatMul), a convolution, a transposed
    convolution or an embedding (Gather) multiplies by or looks up, in which every output has one
    magnitude besides zero. An output needs two weights at least: any single number is its own
    magnitude.

    Args:
        proto: From :func:`trace`.

    Returns:
        The weights, in the order of the graph.
    """
    from onnx import numpy_helper

    found = []
    for initializer, axis in weights_of(proto):
        weight = numpy_helper.to_array(initializer)
        first = axis % weight.ndim
        for candidate in (first, *(k for k in range(weight.ndim) if k != first)):
            codes = codes_along(weight, candidate)
            if codes is not None:
                found.append(Found(initializer.name, candidate, *codes))
                break
    return found


def weights_of(proto: Any) -> list[tuple[Any, int]]:
    """List the float32 weights of a graph.

    Args:
        proto: From :func:`trace`.

    Returns:
        Initializers, each with the axis along which the outputs of its first user lie.
    """
    from onnx import TensorProto

    axes: dict[str, int] = {}
    for node in proto.graph.node:
        for place, axis in weight_places(node):
            axes.setdefault(node.input[place], axis)
    return [
        (one, axes[one.name])
        for one in proto.graph.initializer
        if one.name in axes and one.data_type == TensorProto.FLOAT and len(one.dims) > 1
    ]


def weight_places(node: Any) -> list[tuple[int, int]]:
    """Say which inputs of a node may be weights, and along which axis their outputs lie."""
    match node.op_type:
        case "Gemm":
            return [(1, 0 if attribute(node, "transB", 0) else 1)]
        case "MatMul":
            return [(1, -1), (0, -2)]
        case "Conv":
            return [(1, 0)]
        case "ConvTranspose":
            return [(1, 1)]
        case "Gather":
            return [(0, 0)]
    return []


def attribute(node: Any, name: str, default: Any) -> Any:
    """Read an attribute of a node.

    Args:
        node: The node.
        name: Name of the attribute.
        default: What holds without it.

    Returns:
        Its value.
    """
    from onnx import helper

    for one in node.attribute:
        if one.name == name:
            return helper.get_attribute_value(one)
    return default


def codes_along(
    weight: Float[np.ndarray, "..."], axis: int
) -> tuple[Int8[np.ndarray, "..."], Float[np.ndarray, " outputs"]] | None:
    """Find signs and factors of a weight whose outputs lie along an axis.

    Args:
        weight: Any shape, two axes at least.
        axis: The axis.

    Returns:
        Signs in the shape of the weight and one factor for each output; None if an output has two
        magnitudes or a single weight.
    """
    moved = np.moveaxis(weight, axis, 0)
    matrix = np.array(moved.reshape(len(moved), -1))  # a copy: the weight may be read-only
    if matrix.size == 0 or matrix.shape[1] < 2:
        return None
    codes = find_codes(torch.from_numpy(matrix))
    if codes is None:
        return None
    signs = np.moveaxis(codes.signs.numpy().reshape(moved.shape), 0, axis)
    scale = torch.ones(len(matrix)) if codes.scale is None else codes.scale
    return np.ascontiguousarray(signs), scale.numpy()
