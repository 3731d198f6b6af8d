"""The groups that ``align`` finds: what is tied, what is left alone, and why."""

import warnings

import pytest
import torch
from alignable import network
from torch import nn

from lowland.connectivity import align
from lowland.errors import FallbackWarning, NoEffectWarning
from small_networks import class_batches, two


def groups_of(name):
    model, batches = network(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoEffectWarning)
        found = align(model, batches, model, model)
    return found, {key: {f"{t}[{a}]" for t, a in axes} for key, axes in found.groups.items()}


def test_groups_of_a_resnet():
    """A residual sum ties what it adds; batch norms follow; what is inside a block is its own."""
    _, groups = groups_of("resnet")

    def norm(name):
        return {f"{name}.{kind}[0]" for kind in ("weight", "bias", "running_mean", "running_var")}

    first, second = "stage1_block1", "stage2_block1"
    assert groups["conv.weight[0]"] == {
        "conv.weight[0]", f"{first}.conv1.weight[1]", f"{first}.conv2.weight[0]",
        f"{second}.conv1.weight[1]", f"{second}.shortcut.conv.weight[1]",
        *norm("norm"), *norm(f"{first}.norm2"),
    }  # fmt: skip
    assert groups[f"{first}.conv1.weight[0]"] == {
        f"{first}.conv1.weight[0]", f"{first}.conv2.weight[1]", *norm(f"{first}.norm1")
    }  # fmt: skip
    assert groups[f"{second}.conv2.weight[0]"] >= {
        f"{second}.conv2.weight[0]", f"{second}.shortcut.conv.weight[0]",
        "stage3_block1.conv1.weight[1]",
    }  # fmt: skip
    assert len(groups) == 6


def test_groups_of_a_transformer():
    """The residual stream is one group; a tied embedding is in it by its second axis only."""
    found, groups = groups_of("gpt")
    stream = groups["token.weight[1]"]
    assert stream >= {"token.weight[1]", "place.weight[1]", "norm.weight[0]"}
    for number in (0, 1):
        block = f"blocks.{number}"
        assert stream >= {f"{block}.{name}" for name in (
            "norm.weight[0]", "qkv.weight[1]", "proj.weight[0]", "proj.bias[0]", "up.weight[1]",
            "down.weight[0]", "down.bias[0]", "after.bias[0]",
        )}  # fmt: skip
        heads = {f"{block}.qkv.weight[0]", f"{block}.qkv.bias[0]", f"{block}.proj.weight[1]"}
        assert groups[f"{block}.qkv.weight[0]"] == heads
        shapes = [
            found.permutations[f"{block}.qkv.weight[0]{number}"].shape
            for number in ("", "#2", "#3")
        ]
        assert shapes == [(4,), (4, 4), (4, 4)]
    assert "looked up" in found.left_alone["token.weight[0]"]


def test_grouped_convolutions_are_left_alone():
    found, groups = groups_of("grouped convolution")
    assert [*groups] == ["5.weight[0]"]
    for axis in ("0.weight[0]", "1.weight[0]", "3.weight[0]", "3.weight[1]", "5.weight[1]"):
        assert "grouped convolution" in found.left_alone[axis]


class Ordered(nn.Module):
    """Its hidden units are told apart by their place, through an operation without a rule."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.outer(torch.roll(self.inner(x).relu(), 1, 1).renorm(2, 0, 1.0))


def test_unknown_operations_are_left_alone():
    model, end = two(Ordered)
    with pytest.warns(NoEffectWarning, match="no axis"):
        found = align(model, class_batches(4), model, end)
    assert all(torch.equal(found.state[n], v) for n, v in end.state_dict().items())
    assert "roll" in found.left_alone["inner.weight[0]"]


class Hidden(nn.Module):
    """Reads a weight behind torch's back, so that no rule can see what its place is good for."""

    def __init__(self):
        super().__init__()
        self.inner, self.middle, self.outer = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        gate = float(self.inner.weight.detach().numpy()[0, 0])
        return gate * self.outer(self.middle(self.inner(x).tanh()).tanh())


def test_what_changes_the_outputs_is_dropped():
    """The rules find two groups; trying them shows that one is none."""
    model, end = two(Hidden)
    with pytest.warns(FallbackWarning, match=r"permuting inner.weight\[0\] changed"):
        found = align(model, class_batches(4), model, end)
    assert [*found.groups] == ["middle.weight[0]"]
    assert "when it was tried" in found.left_alone["inner.weight[0]"]
    assert torch.equal(found.state["inner.weight"], end.inner.weight)


class Counting(nn.Module):
    """Decides by a number which unit it treats in another way."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        most = int(self.inner.bias.argmax())
        x = self.inner(x).relu()
        return self.outer(torch.cat([x[:, :most], 2 * x[:, most:]], 1))


def test_a_position_that_becomes_a_number():
    model, end = two(Counting)
    with pytest.warns(NoEffectWarning):
        found = align(model, class_batches(4), model, end)
    assert "position" in found.left_alone["inner.weight[0]"]
