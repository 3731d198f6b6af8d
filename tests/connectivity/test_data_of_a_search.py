"""Which examples a search sees: every cycle its own, every evaluation pass the same."""

from itertools import repeat

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lowland.connectivity import find_path, insert_equal, linear_path, profile
from lowland.connectivity.band import band_of
from lowland.connectivity.ends import read_ends
from lowland.connectivity.stack import mode, per_example
from lowland.data import Batches
from small_networks import SHORT, class_batches, losses, mlp, norm_mlp, two

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")


def pixels(number=24):
    """Tiny images as bytes, and their classes."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(256, (number, 1, 2, 2), generator=draws, dtype=torch.uint8)
    return images, images.flatten(1).argmax(1) % 3


class Flat(nn.Sequential):
    """Four pixels to three classes."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def test_cycles_do_not_replay_each_other():
    """Each draws its batches from epochs of its own."""
    batches, seen = Batches(*pixels(), 8), []
    plain = batches.epoch_batches
    batches.epoch_batches = lambda epoch, start=0: seen.append(epoch) or plain(epoch, start)
    model, end = two(Flat)
    find_path(
        model, losses, batches, model, end, schedule=SHORT, evaluation_batches=class_batches(4)
    )
    assert len(set(seen[1:])) == len(seen[1:]) > 3  # the first one calibrates
    assert batches.epoch == 0


def test_chunks_of_points_see_the_same_examples(monkeypatch):
    """A shuffled loader that drops its last batch is read once for every chunk of points."""
    inputs = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(
        TensorDataset(inputs, inputs.abs().argmax(1) % 3), 8, shuffle=True, drop_last=True
    )
    model, end = two(mlp)
    whole = linear_path(model, losses, loader, model, end, samples=6).profile.train_loss
    monkeypatch.setattr(profile, "COORDINATES_AT_ONCE", 1)
    chunked = linear_path(model, losses, loader, model, end, samples=6).profile.train_loss
    torch.testing.assert_close(chunked, whole)


class Counting(nn.Module):
    """Counts its calls in a buffer that its output depends on."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += 1
        return self.layer(inputs) * self.calls


@pytest.mark.parametrize("backend", ["loop", "auto"])
@pytest.mark.filterwarnings("ignore::lowland.errors.FallbackWarning")
def test_a_forward_pass_cannot_write_into_another_pivot(backend):
    model, end = two(Counting)
    result = find_path(model, losses, class_batches(4), model, end, schedule=SHORT, backend=backend)
    assert model.calls == 0
    assert result.path.fixed["calls"] == 0


def test_weight_decay_leaves_moving_statistics_alone():
    """Their gradient is zero; that of a parameter has the decay in it."""
    model, end = two(norm_mlp)
    stack, a, b = read_ends(model, losses, model, end, batch_norm="interpolate")
    path, _ = insert_equal(torch.stack([a, b]), torch.ones(1), 2)
    batch = class_batches(4)[0]
    with mode(model, norm_trains=True):
        plain = band_of(stack, repeat(batch))(path.clone())[1]
        decayed = band_of(stack, repeat(batch), weight_decay=5.0)(path.clone())[1]
    size = stack.params.size
    assert (decayed[:, size:] == 0).all()
    torch.testing.assert_close(decayed[:, :size], plain[:, :size] + 5 * path[1:-1, :size])


def test_a_variance_below_zero_is_taken_for_zero():
    """The projection may carry a moving variance there; the loss stays a number."""
    model, end = two(norm_mlp)
    stack, a, _ = read_ends(model, losses, model, end, batch_norm="interpolate")
    for name, view in stack.layout.views(a).items():
        if name.endswith("running_var"):
            view.fill_(-1.0)
    with mode(model, norm_trains=False):
        assert torch.isfinite(per_example(stack, a.unsqueeze(0), *class_batches(4)[0])[0]).all()


@pytest.mark.parametrize("search", [find_path, linear_path])
def test_trouble_of_the_model_is_told_as_such(search):
    """Inputs of another type: one sentence with both types, not a story about batching."""
    model, end = two(mlp)
    wrong = [(inputs.double(), target) for inputs, target in class_batches(4)]
    with pytest.raises(ValueError, match=r"must run on the batches; .* torch.float64 \(8, 4\)"):
        search(model, losses, wrong, model, end)


def test_a_model_must_be_a_module():
    model, end = two(mlp)
    with pytest.raises(TypeError, match="model must be a torch.nn.Module"):
        find_path(model.state_dict(), losses, class_batches(4), model, end)


class Attention(nn.Module):
    """A transformer layer, whose fast path in evaluation mode has no derivative."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs):
        return self.head(self.layer(inputs.view(-1, 2, 4)).mean(1))


@pytest.mark.parametrize("backend", ["loop", "auto", "vmap"])
def test_attention(backend):
    """Torch's own words on what vmap runs one by one would be an error here."""
    fast = torch.backends.mha.get_fastpath_enabled()
    model, end = two(Attention)
    result = find_path(model, losses, class_batches(8), model, end, schedule=SHORT, backend=backend)
    assert result.saddle > 0
    assert torch.backends.mha.get_fastpath_enabled() == fast
