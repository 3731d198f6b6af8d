"""A checkpoint saves memory and changes no number: the same model without it is the oracle."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from lowland.control.hamiltonian import hamiltonian_gradients
from lowland.control.trajectory import control_products, states_and_costates
from lowland.errors import UnsupportedModelError

EXACT = {"atol": 1e-12, "rtol": 0}


def weighed(output, target):
    """A terminal cost that needs no target of the output's shape."""
    rows = output.flatten(1)
    return (rows.sin() * torch.linspace(1, 2, rows.shape[1], dtype=rows.dtype)).sum(1) * target


class Checkpointed(nn.Module):
    """Blocks that are computed again in the backward pass; the second one holds a layer alone."""

    def __init__(self, width=5):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.last, self.use = nn.Linear(width, 3), True

    def block(self, x):
        return torch.tanh(self.second(F.relu(self.first(x)) * x)).exp()

    def forward(self, x):
        for block in (self.block, self.second):
            x = checkpoint(block, x, use_reentrant=False) if self.use else block(x)
        return self.last(x)


@pytest.mark.parametrize("batch", [5, 4])
@pytest.mark.parametrize("other", [False, True])
def test_checkpoints_change_nothing(rng, batch, other):
    """Equal sizes hid it: a block that is computed again mixes up what its layers have kept."""
    model = Checkpointed().double()
    x = torch.randn(batch, 5, dtype=torch.float64, generator=rng)
    target = torch.ones(batch, dtype=torch.float64)
    params = {"first.weight": torch.randn(5, 5, dtype=torch.float64, generator=rng)}
    found = []
    for model.use in (True, False):
        trajectory = states_and_costates(
            model, weighed, x, target, params=params if other else None
        )
        found.append([trajectory.costates, trajectory.initial_costates, trajectory.loss])
        found[-1] += [control_products(trajectory), hamiltonian_gradients(trajectory)]
    assert_close(*found, **EXACT)
    if not other:
        weighed(model(x), target).mean().backward()
        for name, parameter in model.named_parameters():
            assert_close(found[0][-2][name], -parameter.grad, **EXACT)
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None


class Marked(nn.Module):
    """Asks for the history of a tensor that no layer reads, as checkpoints of torch 2.11 do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return self.layer(x) if Mark.apply(x).grad_fn is not None else x


class Mark(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.new_empty(0)

    @staticmethod
    def backward(ctx, *slopes):
        raise AssertionError


def test_a_question_is_no_step(rng):
    model, x = Marked(), torch.randn(4, 5, generator=rng)
    found, expected = (
        states_and_costates(part, weighed, x, torch.ones(4)) for part in (model, model.layer)
    )
    assert_close(found.costates, expected.costates, **EXACT)


def test_a_checkpoint_with_other_hooks_around(rng):
    """Whoever keeps saved tensors elsewhere gets the same numbers, and keeps the hooks."""
    model, x = Checkpointed().double(), torch.randn(4, 5, dtype=torch.float64, generator=rng)
    expected = states_and_costates(model, weighed, x, torch.ones(4)).costates
    with torch.autograd.graph.save_on_cpu():
        top = torch._C._autograd._top_saved_tensors_default_hooks(True)
        found = states_and_costates(model, weighed, x, torch.ones(4)).costates
        assert torch._C._autograd._top_saved_tensors_default_hooks(True) == top
    assert_close(found, expected, **EXACT)


def test_a_checkpoint_inside_of_a_layer():
    """It would be computed again at the controls that the model has by then."""
    model = nn.Sequential(nn.Linear(5, 5), type("Block", (Checkpointed,), {"is_layer": True})())
    with pytest.raises(UnsupportedModelError, match="inside of the layer '1' a checkpoint"):
        states_and_costates(model, weighed, torch.zeros(4, 5), torch.ones(4))
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None
    model[1].use = False
    states_and_costates(model, weighed, torch.zeros(4, 5), torch.ones(4))


def test_a_checkpoint_that_fails_leaves_no_hook():
    model = Checkpointed()
    model.second = nn.Linear(4, 4)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        states_and_costates(model, weighed, torch.zeros(4, 5), torch.ones(4))
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None


def test_what_a_checkpointed_layer_writes_to_is_noticed():
    """Hooks on saved tensors switch autograd's own look at versions off."""

    class Writes(nn.Module):
        is_layer = True

        def forward(self, x):
            h = x.exp()
            h += 1
            return h

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = Writes()

        def forward(self, x):
            return checkpoint(self.part, x, use_reentrant=False)

    with pytest.raises(UnsupportedModelError, match=r"changed in place; one of shape \(4, 5\)"):
        states_and_costates(Around(), weighed, torch.zeros(4, 5), torch.ones(4))
