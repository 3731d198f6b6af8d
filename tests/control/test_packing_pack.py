"""A packed network computes what the float network computes, and its file brings it back."""

import random
from contextlib import nullcontext
from copy import deepcopy
from math import log2
from types import MethodType

import pytest
import torch
from packable import KINDS, trained
from torch import nn
from torch.nn.utils import parametrize
from torch.testing import assert_close

from lowland.control import (
    AbsmeanTernary,
    TernaryWeightNetwork,
    discretize,
    load_packed,
    pack,
    summary,
    use_latent_weights,
)
from lowland.control.packing.file import read_packed
from lowland.control.packing.layers import PackedLinear
from lowland.control.packing.norms import Folded, ScaleOffset, scale_and_offset
from lowland.errors import CheckpointError, FallbackWarning, UnsupportedModelError
from lowland.params import call
from small_networks import same, snapshot

pytestmark = pytest.mark.filterwarnings("ignore:no normalization follows")
NEEDS_CODE = {"text"}  # torch's encoder looks at its inputs


def said(needs_code):
    """Expect to be told that a file does not hold the forward pass, where it does not."""
    words = "does not hold the forward pass"
    return pytest.warns(FallbackWarning, match=words) if needs_code else nullcontext()


def close(ours, theirs):
    """Within 1e-5 of the largest output, as DESIGN.md asks."""
    assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("row_scale", [False, True])
@pytest.mark.parametrize("values", [(-1, 1), (-1, 0, 1)])
@pytest.mark.parametrize("name", KINDS)
def test_outputs_are_those_of_the_float_network(name, values, row_scale, tmp_path):
    """Packed, loaded with and without the code, and unpacked: always the same outputs."""
    if name == "text" and 0 not in values:
        pytest.skip("an embedding that pads with zeros has no binary form")
    model, inputs = trained(name, values, row_scale=row_scale)
    before = snapshot(model)
    with torch.no_grad():
        expected = call(model, inputs)
        packed = pack(model)
        close(call(packed, inputs), expected)
        assert same(snapshot(model), before)
        with said(name in NEEDS_CODE):
            file = packed.save(tmp_path / "net.safetensors")
        assert torch.equal(call(load_packed(file, deepcopy(model)), inputs), call(packed, inputs))
        if name in NEEDS_CODE:
            with pytest.raises(CheckpointError, match=r"does not hold the forward pass of Text"):
                load_packed(file)
        else:
            loaded = load_packed(file)
            assert torch.equal(call(loaded, inputs), call(packed, inputs))
            again = load_packed(loaded.save(tmp_path / "again.safetensors"))
            assert torch.equal(call(again, inputs), call(packed, inputs))
        close(call(packed.unpack(), inputs), expected)


@pytest.mark.parametrize("format", ["bit2planes", "sparse16", "gaps"])
@pytest.mark.parametrize("name", KINDS)
def test_every_format_runs_everywhere(name, format):
    """Formats hold the same signs, so outputs agree up to the order of sums."""
    model, inputs = trained(name)
    with torch.no_grad():
        packed = pack(model, formats=format)
        close(call(packed, inputs), call(model, inputs))
        assert {row.format for row in packed.summary().layers} <= {format, "-"}
        close(call(packed.change_formats("time"), inputs), call(model, inputs))


@pytest.mark.parametrize("name", ["perceptron", "residual", "pair"])
def test_double_precision_stays(name):
    """Weights of float64 networks are recognized, and products are computed in float64."""
    model, inputs = trained(name, dtype=torch.float64, row_scale=True)
    with torch.no_grad():
        expected, found = call(model, inputs), call(pack(model), inputs)
    assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def test_norms_fold_with_every_sign_of_scale():
    """The factor gamma / sqrt(v + eps) is negative, zero or tiny; nothing is divided by it."""
    norm = nn.BatchNorm1d(4).eval().double()
    norm.weight.data = torch.tensor([-2.0, 0.0, 1e-30, 3.0]).double()
    norm.bias.data = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    norm.running_mean.copy_(torch.tensor([0.5, 1.0, -1.0, 0.0]))
    norm.running_var.copy_(torch.tensor([0.0, 1.0, 4.0, 1e-12]))
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)).double()
    assert_close(ScaleOffset(*scale_and_offset(norm))(x), norm(x), rtol=1e-12, atol=0)


def test_a_norm_behind_a_pool_stays_there():
    """Max-pool and a negative factor must not change places."""
    model, inputs = trained("residual")
    layers = dict(pack(model).network.named_modules())
    assert isinstance(layers["norm3"], ScaleOffset)
    assert isinstance(layers["norm"], Folded)
    assert isinstance(layers["norm2"], Folded)


def test_a_norm_along_the_second_axis_of_three():
    """Behind a linear layer with three axes the channels are the second one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(7, 9, bias=False), nn.BatchNorm1d(9))
        discretize(model, (-1, 1))
        model[1].running_mean.normal_()
        nn.init.normal_(model[1].weight)
        x = torch.randn(4, 9, 7)
    model.eval()
    packed = pack(model)
    assert isinstance(packed.network[1], Folded)
    close(packed(x), model(x).detach())
    close(packed.unpack()(x), model(x).detach())


def test_a_layer_whose_output_two_read_keeps_its_norm():
    """The norm is folded only where nobody else reads what it normalizes."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6)

        def forward(self, x):
            x = self.linear(x)
            return x + self.norm(x)

    model = discretize(Twice()).eval()
    packed = pack(model)
    assert isinstance(packed.network.norm, ScaleOffset)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    close(packed(x), model(x).detach())


def test_tied_weights_are_held_once(tmp_path):
    """The head of the text model shares the embedding's bits, also after loading."""
    model, inputs = trained("text")
    packed = pack(model)
    assert packed.network.head.packed is packed.network.embedding.packed
    with said(True):
        file = packed.save(tmp_path / "text.safetensors")
    loaded = load_packed(file, model)
    assert loaded.network.head.packed is loaded.network.embedding.packed
    assert loaded.bytes() == packed.bytes() == packed.summary().bytes


@pytest.mark.parametrize("kind", [TernaryWeightNetwork, AbsmeanTernary])
def test_latent_weights_trained_elsewhere_are_recognized(kind):
    """Scale times -1, 0, 1, computed by a parametrization or left behind as plain floats."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        use_latent_weights(model, kind)
        x = torch.randn(5, 12)
    packed, expected = pack(model), model(x).detach()
    assert [row.format != "-" for row in packed.summary().layers] == [True, True]
    close(packed(x), expected)
    for layer in (model[0], model[2]):
        parametrize.remove_parametrizations(layer, "weight")
    close(pack(model)(x), expected)


def test_attention_is_called_like_torch():
    """Masks, cross attention, weights, biases of keys and values, both layouts, unbatched."""
    for batch_first, options in ((True, {}), (False, {"add_bias_kv": True, "add_zero_attn": True})):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            attention = nn.MultiheadAttention(
                8, 2, batch_first=batch_first, kdim=6, vdim=5, **options
            )
            discretize(attention, (-1, 0, 1))
            shape = (3, 4) if batch_first else (4, 3)
            q, k, v = torch.randn(*shape, 8), torch.randn(*shape, 6), torch.randn(*shape, 5)
            extra = torch.randn(6, 4, 4)
        attention.eval()
        packed = pack(attention)
        padding = torch.zeros(3, 4, dtype=torch.bool)
        padding[1, 3] = True
        for given in (
            {},
            {"need_weights": False},
            {"key_padding_mask": padding},
            {"attn_mask": extra[0], "average_attn_weights": False},
            {"attn_mask": extra, "key_padding_mask": padding.float() * -3},
            {"attn_mask": extra[0] > 0.5, "need_weights": False},
        ):
            with torch.no_grad():
                ours, theirs = packed(q, k, v, **given), attention(q, k, v, **given)
            close(ours[0], theirs[0])
            assert (ours[1] is None) == (theirs[1] is None)
            if ours[1] is not None:
                close(ours[1], theirs[1])
        with torch.no_grad():
            one = [x[0] if batch_first else x[:, 0] for x in (q, k, v)]
            close(packed(*one)[0], attention(*one)[0])


def test_integers_are_exact():
    """Sums of int8 activations are those of int64."""
    rng = torch.Generator().manual_seed(0)
    model = nn.Linear(1000, 33, bias=False)
    discretize(model, (-1, 0, 1))
    x = torch.randint(-128, 128, (5, 1000), generator=rng, dtype=torch.int8)
    expected = x.long() @ model.weight.long().T
    for format in ("bit2planes", "sparse16", "gaps"):
        assert torch.equal(pack(model, formats=format)(x).long(), expected)


def test_gradients_reach_the_inputs():
    """An attack or a saliency map goes through the packed model."""
    model, inputs = trained("perceptron")
    packed = pack(model)
    ours, theirs = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    packed(ours).square().sum().backward()
    model(theirs).square().sum().backward()
    close(ours.grad, theirs.grad)


def test_the_summary_says_what_is_held():
    """Bits, bytes and shares of a layer counted by hand."""
    model = nn.Sequential(nn.Linear(128, 64, bias=False), nn.BatchNorm1d(64), nn.Linear(64, 3))
    discretize(model, (-1, 1), skip="2")
    found = summary(pack(model, formats="bit1"))
    first, last = found.layers
    assert (first.layer, first.values, first.format) == ("0", "-1, 1 x factor", "bit1")
    assert (first.weights, first.bits, first.nonzero) == (128 * 64, 1.0, 1.0)
    assert first.bytes == 128 * 64 // 8 + 2 * 64 * 4
    assert (last.values, last.bytes, last.note) == ("float", 4 * (64 * 3 + 3), NO_CODES)
    assert found.bytes == first.bytes + last.bytes
    assert "all" in str(found)
    assert str(summary(model)).splitlines()[0].startswith("layer")


NO_CODES = "its rows hold more than one magnitude"


def test_sizes_of_a_network_like_the_papers():
    """A million ternary weights of 2 %: near the entropy bound, and 1/80 as lists."""
    rng = torch.Generator().manual_seed(0)
    model = nn.Linear(1024, 1024, bias=False)
    draws = torch.rand(1024, 1024, generator=rng)
    model.weight.data = (draws < 0.01).float() - (draws > 0.99).float()
    gaps, lists = (pack(model, formats=name).bytes() for name in ("gaps", "sparse16"))
    share = summary(model).layers[0].nonzero
    assert 0.019 < share < 0.021
    bound = (share - share * log2(share) - (1 - share) * log2(1 - share)) * 2**20 / 8
    assert bound < gaps < 1.03 * bound
    assert lists < 4 * 2**20 / 80
    assert pack(model).bytes() == lists  # what runs as it is
    assert summary(model).stored == gaps  # what a file holds


def test_a_file_is_as_small_as_it_can_be(tmp_path):
    """Stored entropy-coded unless asked otherwise, and expanded to what runs when loaded."""
    rng = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 512, bias=False), nn.Linear(512, 3, bias=False))
    for layer, share in ((model[0], 0.04), (model[1], 0.7)):
        draws = torch.rand(layer.weight.shape, generator=rng)
        signs = (draws < share / 2).float() - (draws > 1 - share / 2).float()
        layer.weight.data = signs
    packed = pack(model)
    held = [row.format for row in packed.summary().layers]
    assert held == ["sparse16", "bit2planes"]
    small = packed.save(tmp_path / "small.safetensors")
    large = packed.save(tmp_path / "large.safetensors", formats={"0": "bit2planes"})
    assert small.stat().st_size < large.stat().st_size
    header, tensors = read_packed(small)
    assert {layer["format"] for layer in header["layers"].values()} == {"gaps"}
    stored = sum(t.numel() * t.element_size() for t in tensors.values())
    assert stored == packed.summary().stored
    x = torch.randn(5, 512, generator=rng)
    for file in (small, large):
        loaded = load_packed(file)
        assert [row.format for row in loaded.summary().layers] == held
        close(loaded(x), model(x).detach())


def test_layers_may_have_any_name(tmp_path):
    """Names that the file's own forward pass has for itself do not collide with the user's."""
    names = ("body", "steps", "calls", "read", "input", "layers", "forward_", "network")
    model = nn.Sequential()
    for name in names:
        model.add_module(name, nn.Linear(4, 4))
    discretize(model)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    file = pack(model).save(tmp_path / "named.safetensors")
    close(load_packed(file)(x), model(x).detach())


class Asks(nn.Module):
    """Looks at the class of its layers, at a weight, and at an input that may be None."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.register_buffer("memory", torch.zeros(4))

    def forward(self, x, mask=None):
        for layer in (self.conv, self.norm):
            x = layer(x)
            if self.way == "isinstance" and isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                x = torch.relu(x + self.conv.out_channels)
            if self.way == "type" and type(layer) is nn.Conv2d:
                x = torch.relu(x)
        if self.way == "bias":
            return x + self.conv.bias[:, None, None]
        if self.way == "norm":
            return x * self.norm.weight[:, None, None]
        if self.way == "mask" and mask is None:
            return x + 1
        if self.way == "memory":
            self.memory = self.memory * 0.5 + x.mean((0, 2, 3))
            return x + self.memory[:, None, None]
        if self.way == "chance":
            return x * random.random()
        return x


def asking(way):
    """Such a model with ternary weights and a norm that does something, and an input."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = discretize(Asks(way), (-1, 0, 1))
        model.norm.running_mean.normal_()
        nn.init.normal_(model.norm.weight)
        return model.eval(), torch.randn(2, 3, 6, 6)


@pytest.mark.parametrize("way", ["isinstance", "bias", "norm"])
def test_models_that_look_at_their_layers(way, tmp_path):
    """Packed layers are what torch's were to isinstance; what is read is not folded away."""
    model, x = asking(way)
    with torch.no_grad():
        packed = pack(model)
        close(packed(x), model(x))
        with said(way == "norm"):
            file = packed.save(tmp_path / "net.safetensors")
        close(load_packed(file, model)(x), model(x))
        close(packed.unpack()(x), model(x))


def test_a_model_that_asks_for_a_type_is_refused():
    """Whatever we put there has another type, so the way would be another."""
    with pytest.raises(UnsupportedModelError, match="must do the same with packed layers"):
        pack(asking("type")[0])


@pytest.mark.parametrize("way", ["mask", "memory", "chance", "hook", "forward"])
def test_files_hold_no_forward_pass_that_they_could_not_repeat(way, tmp_path):
    """An input that may be None, a state, chance, a hook or another forward need the code."""
    model, x = asking(way)
    if way == "hook":
        model.register_forward_hook(lambda module, args, out: 2 * out)
    if way == "forward":
        model.forward = MethodType(lambda self, x: 2 * Asks.forward(self, x), model)
    packed = pack(model)
    before = snapshot(packed)
    with said(True):
        file = packed.save(tmp_path / "net.safetensors")
    assert same(snapshot(packed), before)
    with pytest.raises(CheckpointError, match="does not hold the forward pass of Asks"):
        load_packed(file)


def test_norms_with_hooks_or_a_class_of_their_own_stay():
    """What the user does around a norm is not folded away."""

    class Twice(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    for norm in (Twice(4), nn.BatchNorm2d(4)):
        model = discretize(nn.Sequential(nn.Conv2d(3, 4, 3), norm)).eval()
        if type(norm) is nn.BatchNorm2d:
            norm.register_forward_hook(lambda module, args, out: 3 * out)
        close(pack(model)(x), model(x).detach())


def test_files_carry_small_constants_and_bind_inputs(tmp_path):
    """A tensor made in the forward pass travels; surplus and misspelt inputs are refused."""

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 4)
            self.mean = torch.full((8,), 0.3)  # neither parameter nor buffer

        def forward(self, x):
            return self.layer(x - self.mean + torch.arange(8))

    model = discretize(Shifted())
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    loaded = load_packed(pack(model).save(tmp_path / "net.safetensors"))
    close(loaded(x), model(x).detach())
    again = load_packed(loaded.save(tmp_path / "again.safetensors"))
    assert torch.equal(again(x=x), loaded(x))
    for args, kwargs in (((x, x), {}), ((x,), {"bais": 5.0})):
        with pytest.raises(TypeError, match="the model takes x; got"):
            loaded(*args, **kwargs)


def test_another_forward_pass_is_refused(tmp_path):
    """The same names and shapes, but tanh where the packed model had a relu."""
    layers = nn.Linear(8, 8), nn.Linear(8, 3)
    model = discretize(nn.Sequential(layers[0], nn.ReLU(), layers[1]))
    file = pack(model).save(tmp_path / "net.safetensors")
    with pytest.raises(CheckpointError, match="another forward pass than that of Sequential"):
        load_packed(file, nn.Sequential(layers[0], nn.Tanh(), layers[1]))


def test_a_state_dict_is_checked_before_a_kernel_reads_it():
    """Lists that lead beyond the row are refused, not read."""
    packed = pack(discretize(nn.Linear(64, 3), (-1, 0, 1)), formats="sparse16")
    state = packed.state_dict()
    (name,) = (key for key in state if key.endswith("starts"))
    state[name] = state[name].clone()
    state[name][-1] = 2**30
    with pytest.raises(RuntimeError, match="packed"):
        packed.load_state_dict(state)
    with pytest.raises(TypeError, match="must be a torch.nn.Module; got OrderedDict"):
        pack(state)


def test_a_packed_model_is_not_trained():
    """It says what to do instead; eval() is no matter."""
    packed = pack(trained("perceptron")[0])
    assert packed.eval() is packed
    with pytest.raises(UnsupportedModelError, match="is for inference"):
        packed.train()


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: nn.Linear(4, 3), {}, r"rows hold one magnitude beside 0; Linear has none"),
        (lambda: nn.Sequential(nn.ReLU()), {}, "It has no linear, convolutional or embedding"),
        ("perceptron", {"skip": "head"}, r"every name in skip must meet a module; \['head'\]"),
        ("perceptron", {"formats": "zip"}, "formats must be among size, time, bit1"),
        ("perceptron", {"formats": "bit1"}, "1 can be held as .*; got 'bit1'"),
        ("perceptron", {"formats": {"no": "gaps"}}, r"\['no'\] met none of \['1', '4'\]"),
    ],
)
def test_bad_input_is_refused_in_words(make, options, message):
    """What must hold, what came, what to do."""
    model = trained(make)[0] if isinstance(make, str) else make()
    with pytest.raises((UnsupportedModelError, ValueError), match=message):
        pack(model, **options)


def test_a_file_of_another_model_is_refused(tmp_path):
    """Names and shapes are compared before anything runs."""
    file = pack(trained("residual")[0]).save(tmp_path / "net.safetensors")
    with pytest.raises(CheckpointError, match="must fit the model; Sequential has no module"):
        load_packed(file, trained("perceptron")[0])
    other = trained("residual")[0]
    other.extra = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"missing: extra.weight"):
        load_packed(file, other)


def test_layers_with_hooks_and_own_forward_passes_stay():
    """What the user's code does around a layer is not dropped in silence."""

    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = discretize(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), Doubled(8, 8)))
    model[1].register_forward_hook(lambda module, args, out: out + 1)
    packed = pack(model)
    kinds = [type(layer) for layer in packed.network]
    assert kinds == [PackedLinear, nn.Linear, Doubled]
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    close(packed(x), model(x).detach())
    assert "has forward hooks" in str(packed.summary())
