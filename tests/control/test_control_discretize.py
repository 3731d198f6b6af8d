"""``discretize`` changes the weights of linear layers, says which, and nothing else."""

import pickle
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lowland.control import (
    DiscreteMSA,
    describe,
    discrete_parameters,
    discretize,
    float_parameters,
    nonzero_share,
    values_of,
)
from lowland.errors import UnsupportedModelError
from small_networks import seeded


class Attention(nn.Module):
    """Embedding, attention, a transposed convolution, norms behind all."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(7, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.up = nn.ConvTranspose1d(8, 4, 2, stride=2)
        self.norm2 = nn.BatchNorm1d(4)

    def forward(self, x):
        h = self.words(x)
        h = self.norm(h + self.attention(h, h, h)[0])
        return self.norm2(self.up(h.transpose(1, 2))).mean(2)


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2), nn.GroupNorm(2, 6), nn.Flatten(), nn.Linear(6, 3),
        nn.BatchNorm1d(3),
    )  # fmt: skip


@pytest.mark.parametrize("values", [(-1, 1), (-1, 0, 1), (-0.5, 0.0, 2.0)])
def test_every_linear_layer(values):
    """Weights of the kinds promised lie in the set, every value is drawn; the rest is as it was."""
    model, plain = seeded(Attention, 1), seeded(Attention, 1)
    assert discretize(model, values) is model
    found = values_of(model)
    assert set(found) == {
        "words.weight", "attention.in_proj_weight", "attention.out_proj.weight", "up.weight"
    }  # fmt: skip
    for (name, p), (_, before) in zip(
        model.named_parameters(), plain.named_parameters(), strict=True
    ):
        if name in found:
            assert set(p.flatten().tolist()) == {float(v) for v in values}, name
        else:
            assert_close(p, before, msg=name)
    model(torch.randint(7, (2, 4)))


def test_a_step_through_attention():
    """The whole model trains, and stays in its set."""
    model = discretize(seeded(Attention, 1), (-1, 0, 1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = DiscreteMSA(discrete_parameters(model), alpha=0.5)
    model(torch.arange(8).view(2, 4) % 7).square().sum().backward()
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert moved <= set(values_of(model))
    assert all(torch.isin(p, torch.tensor([-1.0, 0, 1])).all()
               for n, p in model.named_parameters() if n in moved)  # fmt: skip


def test_seeds():
    """The draw depends on the seed and the layer alone."""
    one, same, other = (discretize(convolutional(), seed=s) for s in (1, 1, 2))
    assert_close(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    assert 0.4 < (discretize(nn.Sequential(nn.Linear(100, 100), nn.BatchNorm1d(100)))[0].weight
                  > 0).float().mean() < 0.6  # fmt: skip


def test_copies_pickles_and_types_keep_the_marks():
    model = discretize(convolutional(), (-1, 0, 1))
    for twin in (deepcopy(model), pickle.loads(pickle.dumps(model)), deepcopy(model).double()):
        assert values_of(twin) == values_of(model)
        DiscreteMSA(discrete_parameters(twin))
    assert "discrete" not in " ".join(model.state_dict())


def test_skip():
    """By name, by pattern, by parent, by type."""
    for skip, left in (
        (["7"], {"0.weight", "4.weight"}),
        (["[47]"], {"0.weight"}),
        ([nn.Conv2d], {"7.weight"}),
        ([nn.Linear, "0"], {"4.weight"}),
    ):
        assert set(values_of(discretize(convolutional(), skip=skip))) == left
    nested = nn.ModuleDict({"body": convolutional(), "head": nn.Sequential(nn.Linear(3, 2))})
    assert all(n.startswith("body") for n in values_of(discretize(nested, skip=["head"])))


def test_shared_weights_are_drawn_once():
    embedding, head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
    head.weight = embedding.weight
    model = nn.Sequential(embedding, nn.LayerNorm(4), head, nn.LayerNorm(5))
    discretize(model)
    assert list(values_of(model)) == ["0.weight"]
    assert sum(len(group["params"]) for group in discrete_parameters(model)) == 1
    assert head.weight is embedding.weight


def test_row_scale():
    """Y = s_i (W x)_i with s = 1 / sqrt(fan-in) at first; both are parameters."""
    for layer, shape, fan in (
        (nn.Linear(9, 4), (4, 1), 9),
        (nn.Conv2d(4, 6, 3, groups=2), (6, 1, 1, 1), 18),
        (nn.ConvTranspose1d(3, 5, 2), (1, 5, 1), 6),
    ):
        model = nn.Sequential(layer)
        discretize(model, row_scale=True)
        (name,) = values_of(model)
        original = model.get_parameter(name)
        scale = model[0].parametrizations.weight[0].scale
        assert scale.shape == shape
        assert_close(scale, torch.full(shape, fan**-0.5))
        assert_close(model[0].weight, scale * original)
        assert any(p is scale for p in float_parameters(model))
        assert all(p is not original for p in float_parameters(model))


def test_row_scale_keeps_sums_of_order_one(rng):
    model = discretize(nn.Sequential(nn.Linear(400, 300, bias=False)), row_scale=True)
    out = model(torch.randn(50, 400, generator=rng))
    assert 0.9 < out.std() < 1.1


def test_layers_without_a_norm_are_warned_of():
    """Pooling, dropout and flattening may stand between; an activation may not."""
    with pytest.warns(UserWarning, match=r"no normalization follows 7 \(in the order"):
        discretize(nn.Sequential(*list(convolutional())[:-1]))
    with pytest.warns(UserWarning, match="no normalization follows 0 "):
        discretize(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.BatchNorm1d(2)))


def test_padding_stays_zero():
    model = nn.Sequential(nn.Embedding(5, 4, padding_idx=2))
    assert not discretize(model, (-1, 0, 1))[0].weight[2].any()
    with pytest.raises(UnsupportedModelError, match=r"0 pads with zeros \(padding_idx=2\)"):
        discretize(nn.Sequential(nn.Embedding(5, 4, padding_idx=2)), (-1, 1))


def test_table():
    """Counts and bytes by hand."""
    model = discretize(nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)), (-1, 0, 1))
    lines = describe(model).splitlines()
    assert lines[0].split() == [
        "layer",
        "values",
        "nonzero",
        "weights",
        "floats",
        "bits",
        "bytes",
        "float32",
    ]
    share = f"{nonzero_share(model):.1%}"
    # 32 weights of 2 bits and 4 biases: 8 + 16 bytes
    assert lines[1].split() == ["0", "-1,", "0,", "1", share, "32", "4", "2", "24", "144"]
    assert lines[2].split() == ["1", "-", "-", "0", "8", "0", "32", "32"]
    assert lines[3].split() == ["all", "32", "12", "56", "176"]


def test_skipped_modules_are_skipped_whole():
    """A type, a pattern or a name covers what lies in the module."""

    def make():
        return nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16), nn.LayerNorm(8))

    for skip in (nn.MultiheadAttention, "*self_attn", "0.self_attn"):
        with pytest.warns(UserWarning, match="no normalization follows"):
            model = discretize(make(), skip=skip)
        assert set(values_of(model)) == {"0.linear1.weight", "0.linear2.weight"}
    with pytest.raises(UnsupportedModelError, match="neither skipped, nor frozen"):
        discretize(make(), skip=[nn.TransformerEncoderLayer])


def test_frozen_weights_and_users_of_skipped_ones_stay():
    model = convolutional()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    assert set(values_of(discretize(model))) == {"4.weight", "7.weight"}
    assert_close(model[0].weight, before)
    tied = nn.ModuleDict({"words": nn.Embedding(5, 4), "head": nn.Linear(4, 5)})
    tied["head"].weight = tied["words"].weight
    tied["up"], tied["norm"] = nn.Linear(4, 4), nn.LayerNorm(4)
    assert set(values_of(discretize(tied, skip=["head"]))) == {"up.weight"}


def test_table_tells_weights_outside_their_set():
    model = discretize(nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)), (-1, 0, 1))
    with torch.no_grad():
        model[0].weight[0, 0] = 0.5
    assert "not in -1, 0, 1" in describe(model)


def test_bad_input():
    with pytest.raises(UnsupportedModelError, match="0 is lazy. Run a batch"):
        discretize(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(UnsupportedModelError, match=r"^the model pads .* Take \(-1, 0, 1\)\.$"):
        discretize(nn.Embedding(3, 2, padding_idx=0))
    with pytest.raises(UnsupportedModelError, match="must be real"):
        discretize(nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)))
    with pytest.raises(ValueError, match="different finite numbers in the type of the weight"):
        discretize(nn.Sequential(nn.Linear(2, 2)).half(), (-1e6, 1e6))
    with pytest.raises(ValueError, match="values must be different finite numbers"):
        discretize(convolutional(), (1, float("nan")))
    with pytest.raises(ValueError, match=r"\['haed'\] met none. The layers with weights are"):
        discretize(convolutional(), skip=["haed"])
    for skip in (nn.Linear(2, 2), [nn.Linear(2, 2)], 3):
        with pytest.raises(TypeError, match="skip must be names, patterns or types"):
            discretize(convolutional(), skip=skip)
    with pytest.raises(UnsupportedModelError, match="ReLU has none"):
        discretize(nn.ReLU())
    with pytest.raises(ValueError, match="Call lowland.control.discretize"):
        discrete_parameters(convolutional())
