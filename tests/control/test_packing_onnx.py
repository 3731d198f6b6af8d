"""An ONNX file computes what the float network computes, whoever opens it, from two-bit weights."""

import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from onnx_networks import Block, Images, drawn, perceptron
from torch import nn

from lowland.control import RowScale, load_packed, pack
from lowland.control.packing import onnx_export
from lowland.control.packing.onnx_export import MODES, discrete_onnx, export_onnx
from lowland.control.packing.onnx_find import codes_along, find_discrete
from lowland.control.packing.onnx_nbits import pack_fours
from lowland.control.packing.onnx_session import load_onnx
from lowland.control.packing.onnx_trace import dense_copy, trace
from lowland.errors import (
    CheckpointError,
    FallbackWarning,
    MissingExtraError,
    UnsupportedModelError,
)

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
numpy_helper = onnx.numpy_helper

SEED = 7


def seeded():
    return torch.Generator().manual_seed(SEED)


def made(kind):
    """Draw a network, its biases too, without the global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return drawn(kind(), seeded())


def perceptron_and_inputs(batch):
    return made(perceptron), torch.randn(batch, 33, generator=seeded())


def images_and_inputs(batch):
    return made(Images), torch.randn(batch, 3, 8, 8, generator=seeded())


def block_and_inputs(batch):
    return made(Block), torch.randint(30, (batch, 7), generator=seeded())


NETWORKS = {
    "perceptron": perceptron_and_inputs,
    "images": images_and_inputs,
    "block": block_and_inputs,
}


@pytest.fixture(scope="module", params=NETWORKS, ids=str)
def traced(request):
    """Each network is traced once, and its discrete weights are found once."""
    model, inputs = NETWORKS[request.param](batch=1)
    proto = trace(dense_copy(model), inputs, opset=onnx_export.OPSET)
    return request.param, model, proto, find_discrete(proto)


def written(traced, mode, folder, **options):
    """Write one mode of a traced network."""
    _, _, proto, found = traced
    file = folder / f"{mode}.onnx"
    file.write_bytes(discrete_onnx(deepcopy(proto), found, mode, **options).SerializeToString())
    return file


def relative_error(model, session, inputs):
    """Compare with the float network; the largest difference over the largest output."""
    with torch.no_grad():
        right = deepcopy(model).eval()(inputs).numpy()
    (ours,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    assert ours.shape == right.shape
    return np.abs(ours - right).max() / np.abs(right).max()


@pytest.mark.parametrize("mode", MODES)
def test_runtime_meets_the_float_network(traced, mode, tmp_path):
    """Packed or expanded or opened with the runtime's defaults, for other batches than traced."""
    file = written(traced, mode, tmp_path)
    plain = onnxruntime.InferenceSession(str(file))
    for session in (load_onnx(file), load_onnx(file, expand=True), plain):
        for batch in (1, 5):
            model, inputs = NETWORKS[traced[0]](batch)
            assert relative_error(model, session, inputs) <= 1e-5


def test_initializers_are_the_signs(traced, tmp_path):
    """Up to the sign of the norm's factor; every discrete weight of the network is there."""
    name, model, _, _ = traced
    graph = onnx.load(written(traced, "int2", tmp_path)).graph
    stored = {one.name: one for one in graph.initializer}
    signs = [one for one in graph.initializer if one.data_type == onnx.TensorProto.INT2]
    assert len(signs) == {"perceptron": 3, "images": 4, "block": 6}[name]
    assert len([one for one in graph.node if one.op_type == "DequantizeLinear"]) == len(signs)
    for one in graph.initializer:
        large = one.data_type == onnx.TensorProto.FLOAT and np.prod(one.dims) > 100
        assert not large
    norms = {"0": "1", "3": "4", "first": "norm", "grouped": "again"}
    for path, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        if f"{path}.weight_signs" not in stored or weight is None:
            continue
        found = numpy_helper.to_array(stored[f"{path}.weight_signs"]).astype(np.float32)
        expected = weight.detach().sign()
        if path in norms:
            flips = model.get_submodule(norms[path]).weight.detach().sign()
            expected = expected * flips.view(-1, *[1] * (weight.ndim - 1))
        assert np.array_equal(found, expected.numpy())


def test_two_bits_for_each_weight():
    """A file holds a quarter of a byte for each weight, and factors, biases, names beside."""
    proto = trace(made(lambda: perceptron(512, 512, 512)).eval(), torch.zeros(2, 512), opset=25)
    sizes = {
        mode: discrete_onnx(deepcopy(proto), find_discrete(proto), mode).ByteSize()
        for mode in MODES
    }
    weights = 3 * 512 * 512
    assert weights * 4 < sizes["float"] < weights * 4 + 20_000
    assert weights / 4 < sizes["int2"] < weights / 4 + 20_000
    blocks = 3 * 512 * 4  # factors of 4 bytes
    assert weights / 4 + 4 * blocks < sizes["matmulnbits"] < weights / 4 + 4 * blocks + 20_000


def test_linear_layers_and_embeddings_read_two_bits(traced, tmp_path):
    """Without a float copy in the graph; convolutions decode."""
    graph = onnx.load(written(traced, "matmulnbits", tmp_path)).graph
    kinds = [node.op_type for node in graph.node]
    expected = {
        "perceptron": {"MatMulNBits": 3, "DequantizeLinear": 0},
        "images": {"MatMulNBits": 1, "DequantizeLinear": 3},
        "block": {"MatMulNBits": 5, "GatherBlockQuantized": 1, "DequantizeLinear": 0},
    }[traced[0]]
    assert {kind: kinds.count(kind) for kind in expected} == expected


def test_int8_activations_are_asked_for(traced, tmp_path):
    """They are inexact, so that nobody gets them unasked."""
    model, inputs = NETWORKS[traced[0]](5)
    file = written(traced, "matmulnbits", tmp_path, int8_activations=True)
    assert 1e-4 < relative_error(model, load_onnx(file), inputs) < 0.1


def test_file_names_no_place(traced, tmp_path):
    """Torch notes source files and lines of the user's machine; they do not leave it."""
    content = written(traced, "int2", tmp_path).read_bytes()
    assert b".py" not in content
    assert b"stack_trace" not in content


@pytest.mark.parametrize("columns", [*range(1, 10), 63, 127, 128, 129])
def test_fours_are_unpacked_by_hand(columns):
    """Code c of column j stands in bits 2 (j mod 4) of byte j // 4 of its row."""
    signs = np.random.default_rng(0).integers(-1, 2, (3, columns)).astype(np.int8)
    packed = pack_fours(signs).reshape(3, -1)
    assert packed.shape[1] == -(-columns // 128) * 32
    for row in range(3):
        for j in range(packed.shape[1] * 4):
            code = int(packed[row, j // 4]) >> 2 * (j % 4) & 3
            assert code - 2 == (signs[row, j] if j < columns else 0)


def test_codes_are_found_along_the_axis_of_the_outputs():
    """Two magnitudes along one axis may be one along the other."""
    signs = np.array([[1, -1, 0], [0, 1, 1]], np.int8)
    found, scale = codes_along(signs * np.array([2.0, 0.5, 3.0], np.float32), 1)
    assert np.array_equal(found, signs)
    assert scale.tolist() == [2.0, 0.5, 3.0]
    assert codes_along(signs * np.array([2.0, 0.5, 3.0], np.float32), 0) is None
    assert codes_along(np.array([[0.3], [0.7]], np.float32), 0) is None  # one weight each


def test_user_finds_the_model_as_it_was(tmp_path):
    """Mode, gradients, hooks, parametrization and the generator; the row scale is folded in."""
    model, inputs = drawn(perceptron(), seeded()).train(), torch.randn(5, 33, generator=seeded())
    nn.utils.parametrize.register_parametrization(model[6], "weight", RowScale(model[6].weight))
    model(inputs).sum().backward()
    model[3].bias.requires_grad_(False)
    handle = model[0].register_forward_hook(lambda *_: None)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = {name: p.grad for name, p in model.named_parameters()}
    state = torch.get_rng_state()

    class Unpacks:
        def unpack(self):
            return model

    file = export_onnx(Unpacks(), tmp_path / "net.onnx", {"input": inputs})

    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(p.grad is gradients[name] for name, p in model.named_parameters())
    assert not model[3].bias.requires_grad
    assert handle.id in model[0]._forward_hooks
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert relative_error(model, load_onnx(file), inputs) <= 1e-5
    stored = {one.name: one for one in onnx.load(file).graph.initializer}
    assert np.allclose(numpy_helper.to_array(stored["6.weight_scale"]), 42**-0.5)


def test_bad_input_meets_words(tmp_path, monkeypatch):
    """And leaves no file."""
    inputs, file = torch.zeros(2, 4), tmp_path / "net.onnx"
    floats = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(ValueError, match="mode must be one of int2, matmulnbits, float; got 'in"):
        export_onnx(floats, file, inputs, mode="int4")
    with pytest.raises(ValueError, match="int8_activations must come with"):
        export_onnx(floats, file, inputs, int8_activations=True)
    with pytest.raises(TypeError, match="model must be a torch.nn.Module"):
        export_onnx("net", file, inputs)
    with pytest.raises(UnsupportedModelError, match="0.weight is torch.float64"):
        export_onnx(deepcopy(floats).double(), file, inputs)
    with pytest.raises(FileNotFoundError, match="must be an ONNX file; there is none"):
        load_onnx(file)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match="it says"):
        load_onnx(damaged)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lowland\[export\]'"):
        export_onnx(floats, file, inputs)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lowland\[export\]'"):
        load_onnx(damaged)
    assert not file.exists()


@pytest.mark.slow
def test_floats_are_not_taken_for_discrete(tmp_path):
    """Nothing to shrink is an error, unless floats are asked for."""
    floats = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(UnsupportedModelError, match="Sequential has none. Train it"):
        export_onnx(floats, tmp_path / "net.onnx", torch.zeros(2, 4))
    file = export_onnx(floats, tmp_path / "net.onnx", torch.zeros(2, 4), mode="float")
    assert relative_error(floats, load_onnx(file), torch.ones(3, 4)) <= 1e-5


class Views(nn.Module):
    """A network that knows its batch."""

    def __init__(self):
        super().__init__()
        self.linear = drawn(nn.Linear(6, 3), seeded())

    def forward(self, x, y=None, *, flag=True):
        x = self.linear(x).reshape(4, 3)
        return x if y is None else x + self.linear(y)


@pytest.mark.slow
def test_a_network_that_knows_its_batch(tmp_path):
    """It is refused, or exported for this batch."""
    inputs = torch.randn(4, 6, generator=seeded())
    with pytest.raises(UnsupportedModelError, match="pass dynamic_batch=False"):
        export_onnx(Views(), tmp_path / "net.onnx", inputs)
    file = export_onnx(Views(), tmp_path / "net.onnx", inputs, dynamic_batch=False)
    assert load_onnx(file).get_inputs()[0].shape == [4, 6]


class Two(nn.Module):
    """Two inputs, a number and an option."""

    def __init__(self):
        super().__init__()
        self.product, self.linear = drawn(nn.Bilinear(5, 6, 7), seeded()), nn.Linear(5, 7)
        drawn(self.linear, seeded())

    def forward(self, x, y=None, *, factor=1.0):
        return self.linear(x) * factor if y is None else self.product(x, y) + self.linear(x)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tuple", "mapping", "option"])
def test_several_inputs(kind, tmp_path):
    """The names are those of forward; the batch stays open for both."""
    model, x, y = Two(), torch.randn(3, 5, generator=seeded()), torch.randn(3, 6)
    inputs = {
        "tuple": (x[:1], y[:1]),
        "mapping": {"y": y, "x": x},
        "option": {"x": x, "factor": 2.0},
    }[kind]
    session = load_onnx(export_onnx(model, tmp_path / "net.onnx", inputs))
    named = {"x": x} if kind == "option" else {"x": x, "y": y}
    (ours,) = session.run(None, {name: value.numpy() for name, value in named.items()})
    right = model(x, factor=2.0) if kind == "option" else model(x, y)
    right = right.detach().numpy()
    assert np.abs(ours - right).max() <= 1e-5 * np.abs(right).max()


@pytest.mark.slow
def test_grouped_transposed_convolutions_stay_floats_and_say_so(tmp_path):
    """A norm gives every output channel its factor, but groups share the axis of outputs."""
    model = nn.Sequential(
        nn.ConvTranspose2d(8, 6, 2, 2, groups=2), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)
    )
    model, inputs = drawn(model, seeded()), torch.randn(2, 8, 4, 4, generator=seeded())
    with pytest.warns(FallbackWarning, match=r"0\.weight stay float32"):
        file = export_onnx(model, tmp_path / "net.onnx", inputs)
    assert relative_error(model, load_onnx(file), inputs) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
def test_frozen_attention_is_exported_too(frozen, tmp_path):
    """Torch runs frozen transformer layers by an operator that ONNX does not have."""
    model, inputs = block_and_inputs(2)
    model.requires_grad_(not frozen)
    fused = torch.backends.mha.get_fastpath_enabled()
    file = export_onnx(model, tmp_path / "net.onnx", inputs)
    assert torch.backends.mha.get_fastpath_enabled() == fused
    assert relative_error(model, load_onnx(file), inputs) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 2, 3, 5, 6, 7, 8, 64])
def test_every_number_of_outputs(outputs, tmp_path):
    """The runtime's own fusion of DequantizeLinear and MatMul is wrong but for multiples of 4."""
    model = drawn(nn.Sequential(nn.Linear(7, outputs)), seeded())
    inputs = torch.randn(2, 3, 7, generator=seeded())  # three axes: a MatMul
    file = export_onnx(model, tmp_path / "net.onnx", inputs)
    plain = onnxruntime.InferenceSession(str(file))
    for session in (load_onnx(file), load_onnx(file, expand=True), plain):
        assert relative_error(model, session, inputs) <= 1e-5


def test_a_loaded_file_is_exported(tmp_path):
    """What came from a packed file goes on to ONNX, without the model's code."""
    model = drawn(perceptron(), seeded()).eval()
    x = torch.randn(3, 33, generator=seeded())
    loaded = load_packed(pack(model).save(tmp_path / "net.safetensors"))
    session = load_onnx(export_onnx(loaded, tmp_path / "net.onnx", x))
    (name,) = (entry.name for entry in session.get_inputs())
    for rows in (1, 3):
        found = session.run(None, {name: x[:rows].numpy()})[0]
        expected = model(x[:rows]).detach()
        assert float((torch.tensor(found) - expected).abs().max()) <= 1e-5 * float(
            expected.abs().max()
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_packed_models_leave_the_batch_open(name, tmp_path):
    """Traced with one example; one and seven are run, in every mode."""
    model, inputs = NETWORKS[name](1)
    proto = trace(dense_copy(pack(model)), inputs, opset=onnx_export.OPSET)
    source = name, model, proto, find_discrete(proto)
    for mode in MODES:
        session = load_onnx(written(source, mode, tmp_path))
        for batch in (1, 7):
            assert relative_error(model, session, NETWORKS[name](batch)[1]) <= 1e-5
