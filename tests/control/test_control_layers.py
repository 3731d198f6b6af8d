"""``lowland.control.as_layers``: every map is a layer of its own, run again it gives the same."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lowland.control.layers import as_layers, record
from lowland.errors import UnsupportedModelError
from lowland.models import resnet
from lowland.params import call
from small_networks import (
    Branching,
    Named,
    Tied,
    conv_net,
    dropout,
    generators,
    mlp,
    norm_mlp,
    same,
    seeded,
    snapshot,
)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x):
        return self.act(self.act(self.fc(x)) + x)


def names(model, inputs):
    return [layer.name for layer in as_layers(model, inputs)]


def test_a_chain():
    """Containers are flattened; each layer reads what the one before it wrote."""
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.Linear(6, 3))
    layers = as_layers(model, torch.zeros(5, 4))
    assert [layer.name for layer in layers] == ["0.0", "0.1", "1"]
    assert [layer.reads for layer in layers] == [(0,), (1,), (2,)]
    assert [layer.writes for layer in layers] == [(1,), (2,), (3,)]
    assert [layer.function for layer in layers] == [*model[0], model[1]]
    assert [layer.parameters for layer in layers] == [
        ("0.0.weight", "0.0.bias"), (), ("1.weight", "1.bias"),
    ]  # fmt: skip


def test_a_branch():
    """Functions and a module that is called twice."""
    layers = as_layers(nn.Sequential(Block(), Block()), torch.zeros(5, 4))
    assert [layer.name for layer in layers] == [
        "0.fc", "0.act", "add", "0.act#2", "1.fc", "1.act", "add#2", "1.act#2",
    ]  # fmt: skip
    assert [layer.reads for layer in layers[:5]] == [(0,), (1,), (2, 0), (3,), (4,)]


def test_a_module_that_is_one_layer():
    model = seeded(Block, 0)
    Whole = type("Whole", (Block,), {"is_layer": True})
    assert names(nn.Sequential(Whole(), nn.Flatten()), torch.zeros(5, 4)) == ["0", "1"]
    assert names(Whole(), torch.zeros(5, 4)) == ["whole"]
    assert names(nn.Linear(4, 2), torch.zeros(5, 4)) == ["linear"]
    assert len(names(model, torch.zeros(5, 4))) == 4


def test_coupled_examples():
    """Batch norm with statistics of the batch, as a module or as a function."""
    model = seeded(norm_mlp, 0)
    assert [layer.couples_examples for layer in as_layers(model, torch.randn(8, 4))] == [
        False, True, False, False, True, False, False,
    ]  # fmt: skip
    model.eval()
    assert not any(layer.couples_examples for layer in as_layers(model, torch.randn(8, 4)))

    class Plain(nn.Module):
        def forward(self, x):
            return F.batch_norm(x, None, None, training=True)

    assert as_layers(Plain(), torch.randn(8, 4))[0].couples_examples


def test_weights_and_functions_of_weights():
    """A control may be a plain parameter, tied, or used through a function of it."""

    class Unit(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.b = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.zeros(4))

        def forward(self, x):
            return F.linear(x, F.normalize(self.w), self.b) * self.b.exp()

    layers = as_layers(Unit(), torch.zeros(5, 4))
    assert [(layer.name, layer.parameters) for layer in layers] == [
        ("linear", ("w", "b")), ("mul", ("b",)),
    ]  # fmt: skip
    tied = {layer.name: layer.parameters for layer in as_layers(seeded(Tied, 0), torch.zeros(5, 4))}
    assert tied["again"] == ("inner.weight",)
    assert tied["mul"] == ("scale",)


MODELS = {
    "mlp": (mlp, (4,)), "norms": (norm_mlp, (4,)), "images": (conv_net, (1, 4, 4)),
    "dropout": (dropout, (4,)), "tied": (Tied, (4,)), "block": (Block, (4,)),
    "resnet": (lambda: resnet(8, 3), (3, 8, 8)),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_layers_compose_to_the_model(kind):
    """Run again one after the other they give the model's own bits, random draws included."""
    make, shape = MODELS[kind]
    model = seeded(make, 0).double()
    inputs = torch.randn(6, *shape).double()
    torch.manual_seed(4)
    expected = model(inputs)
    model = seeded(make, 0).double()
    torch.manual_seed(4)
    values = {0: inputs}
    params = dict(model.named_parameters())
    layers = as_layers(model, inputs)
    for layer in layers:
        outputs = layer(tuple(values[number] for number in layer.reads), params)
        values |= dict(zip(layer.writes, outputs, strict=True))
    assert torch.equal(values[layers[-1].writes[0]], expected)


@pytest.mark.parametrize("kind", MODELS)
def test_the_model_comes_back(kind):
    make, shape = MODELS[kind]
    model, inputs = seeded(make, 0), torch.randn(6, *shape)
    before, draws = snapshot(model), generators()
    layers = as_layers(model, inputs)
    values = record(model, inputs).values
    params = dict(model.named_parameters())
    for layer in layers:
        layer(tuple(values[number].detach() for number in layer.reads), params)
    assert same(snapshot(model), before)
    assert same(generators(), draws)


def test_hooks_of_the_user_run_inside_of_their_layer():
    """What they change is part of the map, once."""
    model = seeded(mlp, 0)
    model[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model[0].register_forward_hook(lambda module, args, output: 2 * output)
    inputs = torch.randn(5, 4)
    recording = record(model, inputs)
    assert torch.equal(recording.output, model(inputs))
    assert [layer.name for layer in recording.layers] == ["0", "1", "2"]
    params = dict(model.named_parameters())
    assert torch.equal(recording.layers[0]((inputs,), params)[0], recording.values[1])


@pytest.mark.parametrize("container", [tuple, dict])
def test_several_inputs(container):
    model = seeded(Named, 0)
    parts = {"left": torch.randn(5, 3), "right": torch.randn(5, 2)}
    inputs = parts if container is dict else tuple(parts.values())
    recording = record(model, inputs)
    assert recording.num_inputs == 2
    assert [layer.name for layer in recording.layers] == ["left", "right", "add", "tanh", "out"]
    assert [layer.reads for layer in recording.layers[:3]] == [(0,), (1,), (2, 3)]
    assert torch.equal(recording.output, call(model, inputs))


def test_shapes_and_indices_are_no_layers():
    class Shapes(nn.Module):
        def forward(self, x):
            rows = torch.arange(x.shape[0])
            best = x.argmax(1)
            with torch.no_grad():
                scale = x.abs().max()
            return (x.view(x.size(0), -1)[rows, best] / scale).unsqueeze(-1)

    assert names(Shapes(), torch.randn(5, 4)) == ["view", "getitem", "div", "unsqueeze"]


def test_the_forward_pass_that_fails_leaves_no_hook():
    model = seeded(mlp, 0)
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        as_layers(model, torch.zeros(5, 3))
    assert same(snapshot(model), before)


def test_conditions_on_values():
    """They go the way they go for this batch."""
    assert names(Branching(), torch.ones(5, 4)) == ["sum"]
    assert names(Branching(), -torch.ones(5, 4)) == ["sum", "mul"]


# Bad input


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, slope):
        return slope


class Signed(nn.Module):
    def forward(self, x):
        return Straight.apply(x)


class Hidden(nn.Module):
    def forward(self, x):
        with torch._C.DisableTorchFunction():
            return x.sign()


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(("kind", "name"), [(Signed, "Straight"), (Hidden, "Sign")])
def test_a_step_that_cannot_be_seen(kind, name, last):
    """Autograd functions, compiled code: said where, and what to do; doing that helps."""
    after = [] if last else [nn.Linear(4, 2)]
    model = nn.Sequential(nn.Linear(4, 4), kind(), *after)
    message = f"got a tensor made by {name}Backward0? after the layer '0'.*is_layer = True"
    with pytest.raises(UnsupportedModelError, match=message):
        as_layers(model, torch.zeros(5, 4))
    model[1] = type("Seen", (kind,), {"is_layer": True})()
    assert names(model, torch.zeros(5, 4)) == ["0", "1", "2"][: 2 if last else 3]


def test_a_view_that_is_changed():
    class Views(nn.Module):
        def forward(self, x):
            x = x * 1
            x[:, 0].add_(1)
            return x

    with pytest.raises(UnsupportedModelError, match="after a view of it was changed.*add did"):
        as_layers(Views(), torch.zeros(5, 4))
