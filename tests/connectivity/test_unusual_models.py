"""``find_path`` where a user's model, batches or code around it are not of the plain kind."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, IterableDataset

from lowland.connectivity import find_path, linear_path
from oracles.slow_profile import by_hand, state_dicts_along
from small_networks import SHORT, class_batches, losses, mlp, same, two

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")


class Unusual(nn.Module):
    """A table that is no part of the state dict, a layer that is there twice, a frozen tie."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.linspace(0.5, 1, 4), persistent=False)
        self.norm = nn.BatchNorm1d(4)
        self.inner, self.again = nn.Linear(4, 4), self.norm
        self.frozen, self.same = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        nn.init.eye_(self.frozen.weight).requires_grad_(requires_grad=False)
        self.same.weight = self.frozen.weight

    def forward(self, x):
        x = self.again(self.inner(self.norm(x * self.table)))
        return self.same(self.frozen(x))[:, :3]


@pytest.mark.parametrize("batch_norm", ["recalibrate", "interpolate"])
def test_an_unusual_model(batch_norm):
    model, end = two(Unusual)
    result = find_path(
        model, losses, class_batches(4), model, end, schedule=SHORT, batch_norm=batch_norm
    )
    for t in (0, 0.5, 1):
        end.load_state_dict(result.path.state_dict(t), strict=True)


class Counted:
    """Batches with epochs, as a distributed sampler has them."""

    def __init__(self):
        self.epoch, self.seen = 5, []

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        self.seen.append(self.epoch)
        self.epoch += 1
        return iter(class_batches(4))


def test_epochs():
    """No cycle sees an epoch of another; afterwards the user's count is as it was."""
    model, end = two(mlp)
    batches = Counted()
    plain = class_batches(4)
    find_path(
        model, losses, batches, model, end,
        schedule=SHORT, backend="loop", evaluation_batches=plain,
    )  # fmt: skip
    relaxing = batches.seen[1:]  # the first is a look at what the batches are
    assert len(relaxing) == len({*relaxing}) >= 3
    assert batches.epoch == 5


class Stream(IterableDataset):
    """Has no length, as data that is read from a network."""

    def __iter__(self):
        return iter(class_batches(4))


def test_batches_without_a_length(tmp_path):
    model, end = two(mlp)
    stream = DataLoader(Stream(), batch_size=None)
    for batches in (stream, class_batches(4)):
        folder = tmp_path / type(batches).__name__
        found = find_path(model, losses, batches, model, end, schedule=SHORT, out=folder)
        assert found.settings["batches"][0] == (None if batches is stream else 3)
        assert found.cycles[-1].number == 3


class Scratch(nn.Module):
    """Writes into a buffer in its forward pass, and reads what an earlier pass left there."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * self.calls


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_a_buffer_that_is_written_to(backend):
    """Every network of a path starts from the user's value, which stays."""
    model, end = two(Scratch, torch.float64)
    batches = class_batches(4, dtype=torch.float64)
    line = linear_path(model, losses, batches, model, end, samples=2, backend=backend)
    model.calls.zero_()
    expected = []
    for state in state_dicts_along(line.path, 2):
        model.layer.load_state_dict({n.removeprefix("layer."): v for n, v in state.items()})
        each = [losses(model.layer(inputs), target) for inputs, target in batches]
        expected.append(torch.cat(each).mean().detach())
    assert_close(line.profile.train_loss, torch.stack(expected), rtol=0, atol=1e-12)
    assert end.calls == 0


class Augmented:
    """Batches that know how to be read for evaluation."""

    def __init__(self, plain):
        self.plain = plain

    def __iter__(self):
        return ((inputs + 1, target) for inputs, target in self.plain)

    def evaluation(self):
        return self.plain


def test_reported_losses_are_on_unaugmented_data():
    """Unless the user says otherwise; relaxing sees the augmented data."""
    plain = class_batches(4)
    model, end = two(mlp)
    batches = Augmented(plain)
    line = linear_path(model, losses, batches, model, end, samples=2)
    assert_close(
        line.profile.train_loss, by_hand(end, line.path, 2, plain, losses), rtol=1e-5, atol=1e-6
    )
    model, end = two(mlp)
    line = linear_path(model, losses, batches, model, end, samples=2, evaluation_batches=batches)
    assert_close(
        line.profile.train_loss, by_hand(end, line.path, 2, batches, losses), rtol=1e-5, atol=1e-6
    )


def test_gradients_switched_off_outside():
    """A search needs them, whatever the user's code around it says."""
    batches = class_batches(4)
    model, end = two(mlp, batches=batches)
    arguments = (model, losses, batches, model, end)
    expected = find_path(*arguments, schedule=SHORT, backend="loop")
    with torch.no_grad():
        found = find_path(*arguments, schedule=SHORT, backend="loop")
        assert not torch.is_grad_enabled()
    assert expected.best_cycle > 0
    assert same(found.path.pivots, expected.path.pivots)
