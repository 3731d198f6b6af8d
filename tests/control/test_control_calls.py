"""A model is called as ``lowland.params.call`` says, or the sentence tells how to."""

import pytest
import torch
from torch import nn

from lowland.control.full_batch import FullBatch
from lowland.control.trajectory import states_and_costates
from lowland.errors import UnsupportedModelError


def weighed(output, target):
    """A terminal cost that needs no target of the output's shape."""
    rows = output.flatten(1)
    return (rows.sin() * torch.linspace(1, 2, rows.shape[1], dtype=rows.dtype)).sum(1) * target


@pytest.mark.parametrize("whole", [True, False])
def test_models_compiled_by_jit(whole):
    model = torch.jit.script(nn.Linear(3, 2))
    model, part = (model, "the model") if whole else (nn.Sequential(model), "the part '0'")
    x, target = torch.zeros(4, 3), torch.ones(4)
    with pytest.raises(UnsupportedModelError, match=f"not be compiled by torch.jit.*{part} is"):
        states_and_costates(model, weighed, x, target)
    with pytest.raises(UnsupportedModelError, match=f"not be compiled by torch.jit.*{part} is"):
        FullBatch(model, weighed, [(x, target)]).loss({})


class OfOne(nn.Module):
    """Takes one container."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, batch):
        left, right = batch.values() if isinstance(batch, dict) else batch
        return self.fc(left + right)


@pytest.mark.parametrize("kind", [tuple, list, lambda pair: dict(zip("ab", pair, strict=True))])
def test_a_model_of_one_container(kind):
    """A tuple of one hands it over; without that, the sentence says so."""
    model, target = OfOne(), torch.ones(4)
    inputs = kind((torch.zeros(4, 3), torch.ones(4, 3)))
    assert names_of(states_and_costates(model, weighed, (inputs,), target)) == ["add", "fc"]
    with pytest.raises(TypeError, match=r"got a (tuple|list|dict), and .*pass a tuple of one: "):
        states_and_costates(model, weighed, inputs, target)
    with pytest.raises(TypeError, match=r"a mapping becomes keyword arguments, a tuple or list"):
        FullBatch(model, weighed, [(inputs, target)]).loss({})


def names_of(trajectory):
    return [layer.name for layer in trajectory.layers]


def test_an_error_of_the_models_own_stays():
    class Wrong(nn.Module):
        def forward(self, x):
            return len(3)

    with pytest.raises(TypeError, match="^object of type 'int' has no len"):
        states_and_costates(Wrong(), weighed, torch.zeros(4, 3), torch.ones(4))


def test_backward_hooks_are_left_out_and_come_back():
    """Full backward hooks put functions of their own into the graph; the model keeps them."""
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    inputs, target = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1])
    loss_fn = nn.CrossEntropyLoss(reduction="none")
    plain = states_and_costates(model, loss_fn, inputs, target)
    called = []
    model[0].register_full_backward_hook(lambda *_: called.append(1))
    found = states_and_costates(model, loss_fn, inputs, target)
    for ours, wanted in zip(found.costates, plain.costates, strict=True):
        torch.testing.assert_close(ours, wanted)
    assert not called
    loss_fn(model(inputs.requires_grad_()), target).mean().backward()
    assert called == [1]
