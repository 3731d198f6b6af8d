"""What users bring packs as what it is, or is refused in words, and is never half changed."""

import re
import zipfile
from copy import deepcopy
from functools import partial, wraps
from io import BytesIO
from types import MethodType
from warnings import catch_warnings, simplefilter

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lowland.control import discretize, load_packed, pack, summary, sweep_dead_weights
from lowland.control.packing.layers import PackedLinear
from lowland.control.packing.onnx_export import export_onnx
from lowland.errors import CheckpointError, FallbackWarning, UnsupportedModelError

pytestmark = pytest.mark.filterwarnings("ignore:no normalization follows")


def net(values=(-1, 0, 1)):
    """A linear layer and a norm."""
    return discretize(nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8)), values).eval()


def linear(columns, format, rows=3):
    """One packed layer whose weights are all +1."""
    model = nn.Linear(columns, rows, bias=False)
    nn.init.ones_(model.weight)
    return pack(model, formats=format)


@pytest.mark.parametrize(
    ("format", "wide", "narrow"),
    [("bit1", 128, 65), ("bit2planes", 128, 65), ("sparse16", 70, 50), ("gaps", 70, 50)],
)
def test_a_state_dict_of_another_shape_is_refused(format, wide, narrow):
    """The tensors of a narrower weight fit every format; the shape is compared besides."""
    model, other = linear(wide, format), linear(narrow, format)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        RuntimeError, match=rf"columns \[3, {wide}\]; the state dict has one of \[3, {narrow}\]"
    ):
        model.load_state_dict(other.state_dict())
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    again = linear(wide, format)
    again.load_state_dict(torch.load(saved(model.state_dict()), weights_only=True))
    assert torch.equal(again.network[0].weight, model.network[0].weight)


def saved(state):
    """A state dict as torch writes it, in memory."""
    place = BytesIO()
    torch.save(state, place)
    place.seek(0)
    return place


def test_a_state_dict_without_a_shape_is_refused():
    """Only ``strict=False`` takes it."""
    model = linear(70, "sparse16")
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("_extra_state")}
    with pytest.raises(RuntimeError, match="_extra_state"):
        model.load_state_dict(state)
    model.load_state_dict(state, strict=False)


class Wrapped(nn.Module):
    """A part that torch.compile has wrapped; nothing is compiled before it is called."""

    def __init__(self):
        super().__init__()
        self.body, self.head = torch.compile(net()), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["parallel", "compiled"])
def test_wrappers_are_taken_off(wrap, tmp_path):
    """Names, outputs and file are those of the model inside, which stays wrapped."""
    model = net()
    packed, x = pack(wrap(model)), torch.ones(2, 64)
    assert list(packed.state_dict()) == list(pack(model).state_dict())
    assert_close(packed(x), model(x).detach(), rtol=1e-5, atol=1e-5)
    file = packed.save(tmp_path / "net.safetensors")
    assert torch.equal(load_packed(file, wrap(net()))(x), packed(x))
    assert "_orig_mod" not in str(summary(wrap(model)))


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_a_compiled_part(tmp_path):
    """Inside a model, too; the file needs no code then."""
    model = Wrapped()
    packed, x = pack(model), torch.ones(2, 64)
    assert isinstance(packed.network.body[0], PackedLinear)
    assert hasattr(model.body, "_orig_mod")
    expected = model.head(model.body._orig_mod.eval()(x)).detach()
    assert_close(packed(x), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(load_packed(packed.save(tmp_path / "net.safetensors"))(x), packed(x))


def test_a_wrapper_with_hooks_stays():
    """What the user does around it is not dropped in silence."""
    wrapper = nn.DataParallel(net())
    wrapper.register_forward_hook(lambda module, args, out: 2 * out)
    packed = pack(wrapper)
    assert isinstance(packed.network, nn.DataParallel)
    assert_close(packed(torch.ones(2, 64)), wrapper(torch.ones(2, 64)).detach())


class Scaled(nn.DataParallel):
    """A wrapper that does something."""

    def forward(self, *args):
        return 2 * super().forward(*args)


class Own(nn.Module):
    """A child with the name that torch.compile gives."""

    def __init__(self, inner):
        super().__init__()
        self._orig_mod = inner

    def forward(self, x):
        return 3 * self._orig_mod(x)


def fives(module, *args):
    """A forward pass that is put on one wrapper."""
    return 5 * module.module(*args)


def with_own_forward(model):
    """DataParallel with that one."""
    wrapper = nn.DataParallel(model)
    wrapper.forward = MethodType(fives, wrapper)
    return wrapper


@pytest.mark.parametrize(
    ("wrap", "times"),
    [(Scaled, 2), (Own, 3), (with_own_forward, 5)],
    ids=["class", "name", "forward"],
)
@pytest.mark.parametrize("outer", [nn.Identity, nn.Sequential], ids=["itself", "inside"])
def test_wrappers_that_compute_something_stay(wrap, times, outer, tmp_path):
    """Packed, loaded and swept, they give their multiple of what the model inside gives."""
    inner, x = net(), torch.ones(2, 64)
    expected = times * inner(x).detach()
    model = wrap(inner) if outer is nn.Identity else outer(wrap(inner))
    packed = pack(model)
    assert_close(packed(x), expected, rtol=1e-5, atol=1e-5)
    with catch_warnings():
        simplefilter("ignore", FallbackWarning)  # where the file cannot hold the forward pass
        file = packed.save(tmp_path / "net.safetensors")
    assert_close(load_packed(file, deepcopy(model))(x), expected, rtol=1e-5, atol=1e-5)
    sweep_dead_weights(model, [(x, torch.zeros(2))])
    assert_close(model(x).detach(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_wrappers_are_taken_off_before_the_export(tmp_path):
    """One, and one around another: the file is that of the model inside, to the byte."""
    pytest.importorskip("onnxscript")
    x, files = torch.ones(2, 64), []
    for model in (net(), torch.compile(net()), nn.DataParallel(torch.compile(net()))):
        files.append(export_onnx(nn.Sequential(model), tmp_path / f"{len(files)}.onnx", x))
        files.append(export_onnx(model, tmp_path / f"{len(files)}.onnx", x))
    sizes = [len(file.read_bytes()) for file in files]
    assert sizes[0::2] == sizes[:1] * 3
    assert sizes[1::2] == sizes[1:2] * 3


def compiled_and_hooked(model):
    """With a hook around what torch.compile made."""
    compiled = torch.compile(model)
    compiled.register_forward_hook(lambda module, args, out: 2 * out)
    return compiled


def compiled_and_changed(model):
    """With a forward pass around it that looks like torch's."""
    compiled = torch.compile(model)
    before = compiled.forward
    compiled.forward = wraps(before)(lambda x: 5 * before(x))
    return compiled


def compiled_and_exchanged(model):
    """With another function that torch compiled."""
    compiled = torch.compile(model)
    compiled.forward = torch.compile(lambda x: 5 * x)
    return compiled


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize(
    "wrap",
    [compiled_and_hooked, compiled_and_changed, compiled_and_exchanged],
    ids=["hooked", "changed", "exchanged"],
)
def test_what_a_copy_of_a_compiled_model_loses_is_refused(wrap, tmp_path):
    """Torch copies the module inside only, so the copy would be another function."""
    file = pack(net()).save(tmp_path / "net.safetensors")
    export = partial(export_onnx, file=tmp_path / "n.onnx", example_inputs=torch.ones(2, 64))
    for refused in (pack, lambda model: load_packed(file, model), export):
        with pytest.raises(UnsupportedModelError, match="must have no hooks and no forward .* mod"):
            refused(wrap(net()))
        with pytest.raises(UnsupportedModelError, match="does not copy; 0 has"):
            refused(nn.Sequential(wrap(net())))


def scripted():
    """A model compiled by torch.jit."""
    with pytest.warns(DeprecationWarning, match="jit"):
        return torch.jit.script(net())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (scripted, "must not be compiled by torch.jit.* Pass what it was compiled from"),
        (lambda: nn.Linear(4, 3, device="meta"), r"weight is on the meta device.*\.to_empty"),
        (lambda: nn.Sequential(net(), nn.LazyLinear(3)), "1.weight is lazy. Run a batch"),
    ],
    ids=["scripted", "meta", "lazy"],
)
def test_models_without_layers_or_weights_are_refused(make, message, tmp_path):
    """Also where a file is to be loaded into one."""
    model, file = make(), pack(net()).save(tmp_path / "net.safetensors")
    for refused in (pack, summary, lambda model: load_packed(file, model)):
        with pytest.raises(UnsupportedModelError, match=message):
            refused(model)


@pytest.mark.parametrize(
    "skip", [5, None, [5], ["0", nn.ReLU()], nn.ReLU(), net()], ids=str.__call__
)
def test_what_may_be_skipped(skip):
    """Names and types; neither numbers nor modules themselves."""
    with pytest.raises(TypeError, match="must be names, patterns or types of modules; got an obj"):
        pack(net(), skip=skip)


def test_formats_are_named_by_text():
    """Not by places."""
    with pytest.raises(TypeError, match="formats must map names of layers to formats; got .* 5"):
        pack(net(), formats={5: "size"})


def test_a_packed_part_does_not_train():
    """Its parent may: the head learns, the packed part stays in evaluation mode."""
    body = nn.Sequential(net(), nn.ReLU(), nn.Dropout(0.9))
    parent = nn.Sequential(pack(body), nn.Linear(8, 2))
    assert parent.train() is parent
    assert parent[1].training
    assert not any(module.training for module in parent[0].modules())
    x = torch.ones(2, 64)
    assert torch.equal(parent(x), parent(x))
    parent(x).sum().backward()
    assert parent[1].weight.grad is not None
    parent.eval()
    with pytest.raises(UnsupportedModelError, match="is for inference"):
        parent[0].train()


class Doubled(nn.Linear):
    """A forward pass of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


class Mixed(nn.Module):
    """Layers that look as if they could be packed."""

    def __init__(self):
        super().__init__()
        self.linear, self.own, self.bag = nn.Linear(8, 8), Doubled(8, 8), nn.EmbeddingBag(5, 8)
        self.memory, self.norm = nn.LSTM(8, 8), nn.LayerNorm(8)


def test_the_summary_says_why_layers_stay_float():
    """Classes of their own, bags and recurrent layers; a norm needs no word."""
    notes = {row.layer: row.note for row in summary(discretize(Mixed(), skip="memory")).layers}
    assert notes == {
        "linear": "",
        "own": "is a class of its own, which may do more than Linear",
        "bag": "EmbeddingBag has no packed form",
        "memory": "LSTM has no packed form",
        "norm": "",
    }


def test_a_model_of_such_layers_only_is_refused_with_the_reason():
    """Else the sentence would name no layer."""
    with pytest.raises(UnsupportedModelError, match="0 is a class of its own"):
        pack(nn.Sequential(discretize(Doubled(4, 4))))


def files_of_others(folder):
    """Files that users have lying beside: torch's, new and old, another zip file, and weights."""
    model = nn.Linear(2, 2)
    torch.save(model.state_dict(), folder / "new.pt")
    torch.save(model, folder / "old.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(folder / "other.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    return {"new.pt": "a zip file", "other.zip": "a zip file", "old.pt": "a pickle"}


def test_files_of_others_are_called_by_their_name(tmp_path):
    """And it is said what to do with them."""
    for name, kind in files_of_others(tmp_path).items():
        words = rf"{name} must be a file of PackedModel.save; it is {kind}.*torch.load.*pack\(model"
        with pytest.raises(CheckpointError, match=words):
            load_packed(tmp_path / name)


def test_a_header_of_an_unlucky_length_is_read(tmp_path):
    """Of 640 bytes and more it may begin like a pickle: only what cannot be read is named so."""
    for size in range(256):
        model = nn.Sequential()
        model.add_module("a" * (1 + size), net()[0])
        raw = pack(model).save(tmp_path / "net.safetensors").read_bytes()
        if raw[0] == 0x80:
            break
    assert load_packed(tmp_path / "net.safetensors")(torch.ones(1, 64)).shape == (1, 8)


def test_formats_change_all_or_none():
    """The second layer has zeros, so that it cannot be held in bits; the first stays as it was."""
    model = nn.Sequential(nn.Linear(64, 8, bias=False), nn.Linear(8, 8, bias=False))
    discretize(model[0], (-1, 1))
    discretize(model[1], (-1, 0, 1))
    packed = pack(model, formats="bit2planes")
    before = {name: tensor.clone() for name, tensor in packed.state_dict().items()}
    with pytest.raises(ValueError, match="1 can be held as .*; got 'bit1'"):
        packed.change_formats("bit1")
    after = packed.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


class Encoded(nn.Module):
    """A layer of torch's that looks at its inputs."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(8, 2)

    def forward(self, x):
        x = (
            self.layer(x, x, x)[0]
            if isinstance(self.layer, nn.MultiheadAttention)
            else self.layer(x)
        )
        return self.head(x)


def test_a_forward_pass_that_is_not_in_the_file_is_said_when_it_is_saved(tmp_path):
    """With the call that loads it; and again to whoever calls without the model."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = discretize(Encoded(layer), (-1, 0, 1)).eval()
    packed, file, x = pack(model), tmp_path / "net.safetensors", torch.ones(2, 3, 8)
    loads = re.escape(f'load_packed("{file}", model)')
    with pytest.warns(FallbackWarning, match=rf"forward pass of Encoded.*it says: .*{loads}"):
        packed.save(file)
    with pytest.raises(CheckpointError, match=rf"build that Encoded with any weights.*{loads}"):
        load_packed(file)
    assert torch.equal(load_packed(file, deepcopy(model))(x), packed(x))


def test_attention_in_a_model_of_the_user(tmp_path):
    """It does not look at its inputs, so that the file holds the forward pass."""
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    packed, x = pack(discretize(Encoded(layer), (-1, 0, 1))), torch.ones(2, 3, 8)
    assert torch.equal(load_packed(packed.save(tmp_path / "net.safetensors"))(x), packed(x))


HELD, GIVEN = net(), net()


def closed(model):
    """A closure over the forward pass it takes the place of."""
    before = model.forward
    model.forward = lambda x: 2 * before(x)
    return model


def decorated(model):
    """The same, two functions deep."""
    before = wraps(model.forward)(lambda x, run=model.forward: run(x))
    model.forward = wraps(before)(lambda x: 2 * before(x))
    return model


def of_the_module(model):
    """A function that reads a global name."""
    HELD.forward = lambda x: 2 * HELD[0](x)
    return HELD


def by_its_weight(model):
    """A closure over a tensor; a part of the model has it."""
    weight = model[0].weight
    model[0].project = lambda x: x @ weight.T
    return model


def compiled_method(model):
    """What users of torch.compile write to keep the class."""
    model.forward = torch.compile(model.forward)
    return model


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize(
    "change", [closed, decorated, of_the_module, by_its_weight, compiled_method]
)
def test_functions_that_hold_the_original_are_refused(change, tmp_path):
    """A copy would call the original: float weights, and not those of a file."""
    file = pack(net()).save(tmp_path / "net.safetensors")
    for refused in (pack, lambda model: load_packed(file, model)):
        with pytest.raises(UnsupportedModelError, match="must reach the model through its arg"):
            refused(change(net()))


def test_functions_that_are_given_the_model_are_copied():
    """Bound to a module, or a partial of it, they belong to the copy."""
    bound, given, x = GIVEN, deepcopy(GIVEN), torch.ones(2, 64)
    expected = 2 * bound(x).detach()
    bound.GIVEN = given.GIVEN = 2  # an attribute with the name of a global is another thing
    bound.forward = MethodType(lambda self, x: self.GIVEN * nn.Sequential.forward(self, x), bound)
    given.forward = partial(bound.forward.__func__, given)
    for model in (bound, given):
        packed = pack(model)
        for parameter in model.parameters():
            parameter.data.zero_()
        assert_close(packed(x), expected, rtol=1e-5, atol=1e-5)
