"""A QONNX file holds folded float weights, each behind the quantizer that leaves it as it is."""

import warnings

import numpy as np
import pytest
import torch
from onnx_networks import Images, drawn, perceptron
from torch import nn

from lowland.control.packing.qonnx_export import to_qonnx
from lowland.errors import UnsupportedModelError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
helper, numpy_helper = onnx.helper, onnx.numpy_helper


def quantized(name, value, attributes):
    """Quantize by the operators' definitions, in float32."""
    weight, scale = value[0], value[1]
    if name == "BipolarQuant":
        return np.where(weight >= 0, np.float32(1), np.float32(-1)) * scale
    zero, bits = value[2], value[3]
    low = -(2 ** (bits - 1)) + attributes["narrow"]
    return (np.round(np.clip(weight / scale + zero, low, 2 ** (bits - 1) - 1)) - zero) * scale


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file with one binary and two ternary layers."""
    rng = torch.Generator().manual_seed(3)
    model = drawn(perceptron(), rng, binary=("0",))
    inputs = torch.randn(4, 33, generator=rng)
    return model, inputs, to_qonnx(model, tmp_path_factory.mktemp("qonnx") / "net.onnx", inputs)


def test_quantizers_leave_the_weights_as_they_are(written):
    """Bit for bit, by the operators' definitions; a second pass would change nothing either."""
    graph = onnx.load(written[2]).graph
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    nodes = [node for node in graph.node if node.domain]
    assert [node.op_type for node in nodes] == ["BipolarQuant", "Quant", "Quant"]
    for node in nodes:
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        values = [stored[name] for name in node.input]
        assert all(value.dtype == np.float32 for value in values)
        assert np.array_equal(quantized(node.op_type, values, attributes), values[0])
        assert node.domain == "qonnx.custom_op.general"
        if node.op_type == "Quant":
            assert attributes == {"signed": 1, "narrow": 1, "rounding_mode": b"ROUND"}
            assert values[2].tolist() == 0
            assert values[3].tolist() == 2
        assert sum(node.output[0] in user.input for user in graph.node) == 1
        assert sum(node.input[0] in user.input for user in graph.node) == 1


def test_shapes_are_fixed_and_the_domain_declared(written):
    """As the tools that read it want."""
    proto = onnx.load(written[2])
    onnx.checker.check_model(proto)
    assert {one.domain: one.version for one in proto.opset_import}["qonnx.custom_op.general"] == 1
    shape = proto.graph.input[0].type.tensor_type.shape.dim
    assert [one.dim_value for one in shape] == [4, 33]


def test_factors_are_those_of_the_norm(written):
    """Each output has the size of its norm's factor."""
    model, _, file = written
    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(file).graph.initializer}
    norm = model[1]
    factor = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    assert np.allclose(stored["0.weight_scale"], factor.abs().numpy()[:, None], rtol=1e-6)


@pytest.mark.slow
def test_nothing_discrete_is_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match="has none"):
        to_qonnx(nn.Sequential(nn.Linear(4, 3)), tmp_path / "net.onnx", torch.zeros(2, 4))
    assert not list(tmp_path.iterdir())


@pytest.mark.peer
@pytest.mark.parametrize("network", ["perceptron", "images"])
def test_qonnx_computes_the_same(network, written, tmp_path):
    """QONNX's own executor meets the float network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # qonnx's own
        wrapper = pytest.importorskip("qonnx.core.modelwrapper")
        execute = pytest.importorskip("qonnx.core.onnx_exec").execute_onnx
        infer = pytest.importorskip("qonnx.transformation.infer_shapes").InferShapes
        model, inputs, file = written
        if network == "images":
            rng = torch.Generator().manual_seed(3)
            model, inputs = drawn(Images(), rng), torch.randn(2, 3, 8, 8, generator=rng)
            file = to_qonnx(model, tmp_path / "net.onnx", inputs)
        net = wrapper.ModelWrapper(str(file)).transform(infer())
        name = net.graph.input[0].name
        (ours,) = execute(net, {name: inputs.numpy()}).values()
    right = model.eval()(inputs).detach().numpy()
    assert np.abs(ours - right).max() <= 1e-5 * np.abs(right).max()
