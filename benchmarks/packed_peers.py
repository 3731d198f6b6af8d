"""Products of a ternary or binary matrix by other libraries: torch int8, ONNX Runtime, numba."""

import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["peers"]

Product = Callable[[], object]
BLOCK = 128  # weights that share a scale in ONNX's 2-bit product


def peers(signs: Tensor, x: Tensor, threads: int) -> Iterator[tuple[str, Product]]:
    """Build every peer whose library is installed.

    Args:
        signs: -1 and 1, or -1, 0 and 1; (rows, columns).
        x: Activations; (batch, columns).
        threads: Of each library.

    Yields:
        Its name, and the product as it is timed.
    """
    yield "torch dynamic int8", torch_int8(signs, x)
    if find_spec("onnxruntime") and find_spec("onnx"):
        yield "onnxruntime float32", onnx_float(signs, x, threads)
        yield "onnxruntime 2 bits, float activations", onnx_2_bits(signs, x, threads, 0)
        yield "onnxruntime 2 bits, int8 activations", onnx_2_bits(signs, x, threads, 4)
    if find_spec("numba") and len(x) == 1:
        yield from numba_products(signs, x, threads)


def torch_int8(signs: Tensor, x: Tensor) -> Product:
    """Weights int8, activations rounded to int8 at every call."""
    linear = nn.Linear(signs.shape[1], len(signs), bias=False)
    with torch.no_grad():
        linear.weight.copy_(signs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its deprecation
        layer = torch.ao.quantization.quantize_dynamic(nn.Sequential(linear), {nn.Linear})
    return lambda: layer(x)


def onnx_float(signs: Tensor, x: Tensor, threads: int) -> Product:
    """Multiply with float32 weights."""
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(signs.float().T.contiguous().numpy(), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return session(node, [weight], signs, x, threads)


def onnx_2_bits(signs: Tensor, x: Tensor, threads: int, accuracy: int) -> Product:
    """``MatMulNBits`` with two bits; its codes are the signs plus two."""
    from onnx import helper, numpy_helper

    rows, columns = signs.shape
    codes = (signs.numpy() + 2).astype(np.uint8).reshape(rows, columns // BLOCK, BLOCK // 4, 4)
    packed = (codes << np.array([0, 2, 4, 6], np.uint8)).sum(-1, dtype=np.uint8)
    scales = np.ones((rows, columns // BLOCK), np.float32)
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=columns, N=rows, bits=2,
        block_size=BLOCK, accuracy_level=accuracy,
    )  # fmt: skip
    held = [numpy_helper.from_array(packed, "w"), numpy_helper.from_array(scales, "s")]
    return session(node, held, signs, x, threads)


def session(node: object, held: list, signs: Tensor, x: Tensor, threads: int) -> Product:
    """Load a graph of one product."""
    import onnxruntime
    from onnx import TensorProto, helper

    rows, columns = signs.shape
    graph = helper.make_graph(
        [node], "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", rows])], held,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    loaded = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = {"x": x.numpy()}
    return lambda: loaded.run(None, values)[0]


def numba_products(signs: Tensor, x: Tensor, threads: int) -> Iterator[tuple[str, Product]]:
    """Build the same kernels, compiled by numba."""
    import numba
    import packed_numba

    from lowland.control.packing.formats import encode

    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    out, values = np.empty(len(signs), np.float32), x[0].numpy()
    if bool(signs.all()):
        words = encode(signs.to(torch.int8), "bit1")["bits"].numpy()
        for kernel in (packed_numba.bits, packed_numba.masked):
            yield f"numba {kernel.__name__}", bind(kernel, out, words, values)
    else:
        held = encode(signs.to(torch.int8), "sparse16")
        lists = held["columns"].numpy(), held["starts"].numpy()
        yield "numba lists", bind(packed_numba.lists, out, *lists, values)


def bind(kernel: Callable, out: np.ndarray, *arguments: np.ndarray) -> Product:
    """Give back what the kernel writes."""

    def run() -> np.ndarray:
        kernel(*arguments, out)
        return out

    return run
