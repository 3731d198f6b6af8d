"""However the pivots are run, one by one or as one batched network, they give the same numbers."""

import re
import warnings
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import float64, nn
from torch.testing import assert_close

from lowland.connectivity import find_path, linear_path, measure_plane
from lowland.connectivity.ends import make_stack
from lowland.connectivity.stack import losses_and_grads, per_example
from lowland.errors import FallbackWarning, UnsupportedModelError
from lowland.params import call
from lowland.training import mode, tensors_in
from small_networks import (
    SHORT,
    Branching,
    Named,
    Tied,
    class_batches,
    conv_net,
    dropout,
    generators,
    group_norm,
    losses,
    mlp,
    norm_mlp,
    same,
    two,
)

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")

MODELS = [mlp, norm_mlp, conv_net, group_norm, dropout, Tied, Named]


def batches_for(make):
    if make is Named:
        batch = (torch.ones(8, 3), torch.arange(16.0).view(8, 2) / 16)
        return [({"left": batch[0].double(), "right": batch[1].double()}, torch.arange(8) % 3)]
    return class_batches(*((1, 4, 4) if make is conv_net else (4,)), dtype=float64)


def stack_of(make):
    model, _ = two(make, float64)
    return make_stack(model, losses, model.state_dict(), batch_norm="recalibrate"), model


@pytest.mark.parametrize("make", MODELS)
def test_losses_and_gradients(make, rng):
    """Loop, vmap, and vmap in chunks that do not divide the rows; all as plain autograd."""
    stack, model = stack_of(make)
    rows = torch.randn(5, stack.layout.size, dtype=float64, generator=rng)
    inputs, target = batches_for(make)[0]
    chunked = replace(stack, backend="vmap", examples_in_flight=2 * len(target) + 1)
    with mode(model, norm_trains=True):
        found = [
            losses_and_grads(one, rows.clone(), inputs, target)
            for one in (stack, stack.with_backend("vmap"), chunked)
        ]
    for other in found[1:]:
        assert_close(other, found[0], rtol=0, atol=1e-12)
    for row, loss, slope in zip(rows, *found[0], strict=True):
        own = deepcopy(model)
        state = stack.layout.views(row)
        own.load_state_dict(state | {n: state[kept] for n, kept in stack.layout.aliases}, False)
        for module in own.modules():
            module.train(not isinstance(module, nn.Dropout))
        expected = losses(call(own, inputs), target).mean()
        expected.backward()
        assert_close(loss, expected.detach(), rtol=0, atol=1e-12)
        for name, part in stack.layout.views(slope).items():
            assert_close(part, own.get_parameter(name).grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize("make", MODELS)
def test_weight_decay_on_the_way(make, backend, rng):
    """The same bits as adding it afterwards; statistics that are coordinates have none."""
    model, _ = two(make)
    batch = [part.float() if part.is_floating_point() else part for part in flat(batches_for(make))]
    batch = ({"left": batch[0], "right": batch[1]} if make is Named else batch[0], batch[-1])
    for batch_norm in ("recalibrate", "interpolate"):
        copies = make_stack(model, losses, model.state_dict(), batch_norm=batch_norm)
        rows = torch.rand(3, copies.layout.size, generator=rng)
        plain, decayed = rows.clone(), rows.clone()
        with mode(model, norm_trains=True):
            copies = copies.with_backend(backend)
            found, slopes = losses_and_grads(copies, plain, *batch)
            other, given = losses_and_grads(copies, decayed, *batch, weight_decay=0.01)
        slopes[:, : copies.params.size].add_(rows[:, : copies.params.size], alpha=0.01)
        assert torch.equal(found, other)
        assert torch.equal(slopes, given)
        assert torch.equal(plain, decayed)


def flat(batches):
    """The tensors of the first batch, target last."""
    return [*tensors_in(batches[0])]


@pytest.mark.parametrize("make", MODELS)
def test_whole_searches(make):
    """In float64 the pivots of both ways agree to 1e-12 after all cycles, and so do the losses."""
    batches = batches_for(make)
    model, end = two(make, float64, batches)
    loop, vmap = (
        find_path(model, losses, batches, model, end, schedule=SHORT, backend=backend)
        for backend in ("loop", "vmap")
    )
    assert_close(vmap.path.pivots, loop.path.pivots, rtol=0, atol=1e-12)
    for one, other in zip(vmap.cycles, loop.cycles, strict=True):
        assert_close(one.profile.train_loss, other.profile.train_loss, rtol=0, atol=1e-12)
        assert one.force == pytest.approx(other.force)
    assert [cycle.backend for cycle in vmap.cycles] == ["vmap"] * 4
    assert [cycle.backend for cycle in loop.cycles] == ["loop"] * 4


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize("make", [mlp, norm_mlp])
def test_a_network_in_bfloat16(make, backend):
    """Its path is kept in float32, where differences of segments do not cancel."""
    model, end = two(make, torch.bfloat16)
    batches = class_batches(4, dtype=torch.bfloat16)
    for batch_norm in ("recalibrate", "interpolate"):
        result = find_path(
            model, losses, batches, model, end,
            schedule=SHORT, backend=backend, batch_norm=batch_norm,
        )  # fmt: skip
        assert result.path.pivots.dtype is torch.float32
        assert result.raise_for_status().profile.train_loss.dtype is float64
        state = result.path.state_dict(1)
        assert torch.equal(state["0.weight"].bfloat16(), end[0].weight)
        deepcopy(model).load_state_dict(state, strict=True)


def test_lines_and_planes():
    model, end = two(norm_mlp, float64)
    batches = batches_for(norm_mlp)
    lines = [
        linear_path(model, losses, batches, model, end, samples=3, backend=backend)
        for backend in ("loop", "vmap", "auto")
    ]
    for line in lines:
        assert_close(line.profile.train_loss, lines[0].profile.train_loss, rtol=0, atol=1e-12)
    planes = [
        measure_plane(model, losses, batches, lines[0].path, resolution=3, backend=backend)
        for backend in ("loop", "vmap", "auto")
    ]
    for plane in planes:
        assert_close(plane.loss, planes[0].loss, rtol=0, atol=1e-12)
        assert_close(plane.pivots, planes[0].pivots)


def test_the_plane_by_hand():
    """Every grid point is the network at start + x e1 + y e2, with the axes of the pivots."""
    model, end = two(mlp, float64)
    batches = batches_for(mlp)
    path = find_path(model, losses, batches, model, end, schedule=SHORT, backend="loop").path
    bent = replace(path, pivots=torch.stack([path.pivots[0], path.at(0.4) + 1, path.pivots[-1]]))
    plane = measure_plane(model, losses, batches, bent, resolution=3, examples=8, backend="loop")
    start, middle, stop = bent.pivots
    first = (stop - start) / (stop - start).norm()
    across = (start + middle + stop) / 3 - start
    across = across - (across @ first) * first
    second = across / across.norm()
    inputs, target = batches[0]
    for column, x in enumerate(plane.x):
        for row, y in enumerate(plane.y):
            state = bent.layout.views(start + x * first + y * second)
            model.load_state_dict(state)
            loss = losses(model(inputs), target).mean()
            assert_close(plane.loss[row, column], loss.detach())
    assert_close(plane.pivots[0], torch.zeros(2, dtype=float64))
    assert_close(plane.pivots[-1], torch.stack([(stop - start).norm(), torch.tensor(0.0)]).double())
    assert plane.x.min() < 0 < (stop - start).norm() < plane.x.max()


class Inner(nn.Module):
    """A good layer, and one that branches on its values."""

    def __init__(self):
        super().__init__()
        self.good, self.branch = nn.Linear(4, 3), Branching()

    def forward(self, x):
        return self.branch(self.good(x))


class Outermost(nn.Linear):
    """The branch is in the model's own forward pass."""

    def forward(self, x):
        y = super().forward(x)
        return y * y.mean().item()


class InPlace(nn.Module):
    """Adds a parameter in place to a copy of the inputs."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.ones(4))
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        y = x.clone()
        y += self.shift
        return self.out(y)


def averaging():
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, momentum=None), nn.Linear(5, 3))


REFUSED = [
    (Inner, r"branch \(Branching\)"),
    (lambda: Outermost(4, 3), r"the model \(Outermost\)"),
    (InPlace, r"the model \(InPlace\)"),
    (averaging, r"1 \(BatchNorm1d\)"),
]


@pytest.mark.parametrize(("make", "layer"), REFUSED, ids=["inner", "own", "in place", "average"])
def test_what_cannot_be_batched(make, layer):
    """``auto`` takes the loop and says once which layer and why; ``vmap`` refuses."""
    model, end = two(make, float64)
    batches = class_batches(4, dtype=float64)
    arguments = (model, losses, batches, model, end)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        auto = find_path(*arguments, schedule=SHORT)
    (message,) = [str(w.message) for w in caught if w.category is FallbackWarning]
    assert re.search(f"run one by one.*: {layer}: .*[a-z]", message)
    loop = find_path(*arguments, schedule=SHORT, backend="loop")
    assert torch.equal(auto.path.pivots, loop.path.pivots)
    assert {cycle.backend for cycle in auto.cycles} == {"loop"}
    with pytest.raises(UnsupportedModelError, match=f"{layer}: .* Use backend='loop'"):
        find_path(*arguments, schedule=SHORT, backend="vmap")
    with pytest.raises(TypeError, match="torch.func.vmap"):
        linear_path(*arguments, backend="vmap")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_loss_that_cannot_be_batched():
    model, end = two(mlp)

    def branching(output, target):
        return losses(output, target) * (1 if output.sum() > 0 else 2)

    with pytest.raises(UnsupportedModelError, match="vmap can batch; loss_fn: "):
        find_path(model, branching, class_batches(4), model, end, backend="vmap")


def test_the_faster_one_is_taken(monkeypatch):
    """``auto`` times both in every cycle, and says in the result what it took."""
    times = iter([2.0, 1.0, 1.0, 2.0, 3.0, 2.0])  # vmap, loop; vmap, loop; ...
    monkeypatch.setattr("lowland.connectivity.band.seconds_of", lambda *_: next(times))
    model, end = two(mlp, float64)
    arguments = (model, losses, class_batches(4, dtype=float64), model, end)
    auto = find_path(*arguments, schedule=SHORT)
    assert [cycle.backend for cycle in auto.cycles] == ["loop", "loop", "vmap", "loop"]
    loop = find_path(*arguments, schedule=SHORT, backend="loop")
    assert_close(auto.path.pivots, loop.path.pivots, rtol=0, atol=1e-12)


class Noisy(nn.Module):
    """Random in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return nn.functional.dropout(self.layer(x), 0.5, training=True)


def test_choosing_draws_no_random_numbers(monkeypatch):
    """Neither the user's, nor those of the cycle: a choice that is read from disk draws none."""
    model, end = two(Noisy)
    arguments = (model, losses, class_batches(4), model, end)
    before = generators()
    monkeypatch.setattr("lowland.connectivity.band.seconds_of", seconds_that_prefer_the_loop)
    auto = find_path(*arguments, schedule=SHORT)
    linear_path(*arguments, samples=1)
    assert same(generators(), before)
    loop = find_path(*arguments, schedule=SHORT, backend="loop")
    assert torch.equal(auto.path.pivots, loop.path.pivots)


def seconds_that_prefer_the_loop(stack, *arguments):
    torch.rand(3)
    return 1.0 + (stack.backend == "vmap")


def test_dropout_is_off_while_relaxing():
    """The loss of a step is that of an evaluation."""
    stack, own = stack_of(dropout)
    inputs, target = batches_for(dropout)[0]
    row = stack.layout.flatten(own.state_dict())[None]
    with mode(own, norm_trains=True):
        relaxing = losses_and_grads(stack, row, inputs, target)[0]
    with mode(own, norm_trains=False):
        reporting = per_example(stack, row, inputs, target)[0].mean(1)
    assert torch.equal(relaxing, reporting)


@pytest.mark.gpu
def test_the_accelerator_agrees():
    """In float64 to 1e-9, whichever way the pivots are run."""
    model, end = two(norm_mlp, float64)
    batches = batches_for(norm_mlp)
    there = deepcopy(model).to("cuda")
    found = find_path(model, losses, batches, model, end, schedule=SHORT, backend="loop")
    for backend in ("loop", "vmap"):
        other = find_path(there, losses, batches, model, end, schedule=SHORT, backend=backend)
        assert other.path.pivots.device.type == "cuda"
        assert_close(other.path.pivots.cpu(), found.path.pivots, rtol=0, atol=1e-9)
