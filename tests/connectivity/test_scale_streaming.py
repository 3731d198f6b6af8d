"""Pivots that lie on the host and are brought a few at a time give the bits of those at hand."""

import weakref
from dataclasses import replace
from functools import partial
from itertools import repeat

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lowland.connectivity import (
    Path,
    along,
    find_path,
    linear_path,
    measure_path,
    measure_plane,
    placement,
    relax,
    sweep,
)
from lowland.connectivity.band import band_of
from lowland.connectivity.ends import make_stack
from lowland.connectivity.placement import Placement
from lowland.connectivity.stack import losses_and_grads, per_example, recalibrated
from lowland.connectivity.task import Task
from lowland.training import mode
from small_networks import SHORT, class_batches, conv_net, losses, mlp, norm_mlp, two

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")

WAYS = {
    "loop": {"backend": "loop"},
    "vmap": {"backend": "vmap"},
    "interpolate": {"backend": "vmap", "batch_norm": "interpolate"},
    "published": {"backend": "loop", "schedule": replace(SHORT, shared_batch=False)},
    "bf16": {"backend": "loop", "precision": "bf16"},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_path(way, monkeypatch):
    """Pivots, losses of all cycles and forces, to the bit, two pivots at a time either way."""
    start, end = two(norm_mlp)
    batches = class_batches(4, sizes=(8, 8, 5))
    settings = {"schedule": SHORT, "test_batches": batches[1:]} | WAYS[way]
    arguments = (start, losses, batches, start, end)
    room_for(2, monkeypatch)
    resident, streamed = (
        find_path(*arguments, pivots_on=where, **settings) for where in ("device", "cpu")
    )
    assert [found.settings["pivots_on"] for found in (resident, streamed)] == ["device", "cpu"]
    assert streamed.settings["rows_at_once"] == 2
    assert torch.equal(streamed.path.pivots, resident.path.pivots)
    assert torch.equal(streamed.profile.test_loss, resident.profile.test_loss)
    for one, other in zip(streamed.cycles, resident.cycles, strict=True):
        assert torch.equal(one.profile.train_loss, other.profile.train_loss)
        assert one.force == other.force


def room_for(rows, monkeypatch):
    """Let memory be enough for so many pivots at once."""
    monkeypatch.setattr(placement, "placed", lambda asked, *_: Placement(asked, rows))


class Watch(TorchDispatchMode):
    """Sees which vectors are copied, and how many bytes of new tensors are alive at once."""

    def __init__(self, size, *known):
        super().__init__()
        self.size, self.moved = size, []
        self.seen = {tensor.untyped_storage()._cdata for tensor in known}
        self.alive = self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and found.shape[-1:] == (self.size,):
            self.moved.append(found.numel() // self.size)
        for tensor in found if isinstance(found, tuple | list) else [found]:
            if isinstance(tensor, torch.Tensor):
                self.note(tensor.untyped_storage())
        return found

    def note(self, storage):
        """Count a storage that is new, until it goes."""
        if storage._cdata in self.seen:
            return
        self.seen.add(storage._cdata)
        size = storage.nbytes()
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self.forget, storage._cdata, size)

    def forget(self, key, size):
        self.seen.discard(key)
        self.alive -= size


def wide():
    return nn.Sequential(nn.Linear(4, 100), nn.Tanh(), nn.Linear(100, 3))


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_a_few_at_a_time(backend):
    """Two of 6 or 18 rows are copied together, and the memory beside the stack is the same."""
    model, _ = two(wide)
    inputs, target = class_batches(4)[0]
    stack = make_stack(model, losses, model.state_dict(), batch_norm="recalibrate")
    stack = replace(stack, backend=backend, streams=True, rows_at_once=2)
    size, together, most = stack.layout.size, 1 + (backend == "vmap"), []
    for rows in (6, 18):
        path, grads = torch.randn(rows, size), torch.zeros(rows, size)
        for run in (partial(losses_and_grads, out=grads), per_example):
            with mode(model, norm_trains=True), Watch(size, path, grads) as watch:
                run(stack, path, inputs, target)
            assert watch.moved == [together] * (rows // together)
            most.append(watch.most)
    room = 4 * size  # bytes of a row
    assert most[0] > 2 * together * room  # what is copied, and its gradient
    assert most[2] - most[0] < room / 2
    assert most[3] - most[1] < room / 2


def test_what_a_band_holds_at_rest(monkeypatch):
    """All pivots in one operation, as on a GPU: no more vectors than the placement counts on."""
    monkeypatch.setattr(sweep, "NUMBERS_AT_ONCE", 10**9)
    size, most = 1000, []
    for rows in (10, 40):
        path, weights = torch.randn(rows, size), torch.full((rows - 1,), 1 / (rows - 1))
        grads = torch.randn(rows - 2, size)
        with Watch(size) as watch:
            relax(
                path, weights, lambda path, g=grads: (torch.zeros(len(path)), g),
                steps=51, learning_rate=0.01,
            )  # fmt: skip
        most.append(watch.most)
    path_before_and_best = 2
    assert (most[1] - most[0]) / (30 * 4 * size) <= placement.KEPT - path_before_and_best


def test_points_of_an_evaluation(monkeypatch):
    """They are brought once for all batches, no more together than there is room for."""
    model, end = two(mlp)
    batches = class_batches(4)
    room_for(2, monkeypatch)
    with Watch(51) as watch:
        find_path(model, losses, batches, model, end, schedule=SHORT, pivots_on="cpu")
    assert watch.moved
    assert max(watch.moved) == 2


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize("batch_norm", ["recalibrate", "interpolate"])
@pytest.mark.parametrize("make", [mlp, norm_mlp, conv_net])
def test_two_devices(make, batch_norm, backend):
    """Tensors without data, the network's on a device of its own: torch refuses to mix them."""
    shape = (8, 1, 4, 4) if make is conv_net else (8, 4)
    with FakeTensorMode():
        model = elsewhere(make())
        batch = torch.empty(shape, device="meta"), torch.zeros(8, dtype=torch.long, device="meta")
        stack = make_stack(model, losses, model.state_dict(), batch_norm=batch_norm)
        stack = replace(stack, streams=True, backend=backend, rows_at_once=2)
        path = torch.zeros(5, stack.layout.size)
        with mode(model, norm_trains=True):
            found = [
                *losses_and_grads(stack, path, *batch, weight_decay=0.1),
                *band_of(stack, repeat(batch), weight_decay=0.1)(path),
                *band_of(stack, repeat(batch), shared_batch=False)(path),
            ]
            statistics = recalibrated(stack, path, [batch]).values()
        measured = per_example(stack, path, *batch)
    assert {tensor.device.type for tensor in found} == {"cpu"}
    assert {tensor.device.type for tensor in (*measured, *statistics)} == {"meta"}


@pytest.mark.parametrize("batch_norm", ["recalibrate", "interpolate"])
def test_a_path_on_the_host(batch_norm, monkeypatch):
    """Beside a model elsewhere it stays where it lies, and nothing of it but a few rows moves.

    Tensors without data, the model's on a device of its own: torch refuses to mix them.
    """
    with FakeTensorMode():
        model = elsewhere(norm_mlp())
        batch = torch.empty(8, 4, device="meta"), torch.zeros(8, dtype=torch.long, device="meta")
        own = make_stack(norm_mlp(), losses, {}, batch_norm="recalibrate")
        path = Path(torch.zeros(5, own.layout.size), torch.full((4,), 0.25), own.layout)
        stack = make_stack(model, losses, model.state_dict(), batch_norm=batch_norm)
        vector = torch.zeros(stack.layout.size, device="meta")
        made = Task(stack, vector, vector, [batch], [batch], None, [batch], [batch], 0)
        monkeypatch.setattr(along, "make_task", lambda *_, **__: made)
        task, found = along.read_path(model, losses, [batch], path, calibration=8, seed=0)
    assert task.stack.streams
    assert found.pivots.device.type == "cpu"
    assert found.pivots.shape == (5, stack.layout.size)


def elsewhere(model):
    """A module whose tensors lie on the other device."""
    for module in model.modules():
        for name, value in [*module.named_parameters(recurse=False)]:
            setattr(module, name, nn.Parameter(torch.empty_like(value, device="meta")))
        for name, value in [*module.named_buffers(recurse=False)]:
            setattr(module, name, torch.empty_like(value, device="meta"))
    return model


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_beside_an_accelerator(backend):
    """The path lies on the host and is that of pivots on the device, to 1e-9 in float64."""
    start, end = (model.cuda() for model in two(norm_mlp, torch.float64))
    batches = class_batches(4, dtype=torch.float64)
    settings = {"schedule": SHORT, "backend": backend}
    found = [
        find_path(start, losses, batches, start, end, pivots_on=where, **settings).path.pivots
        for where in ("device", "cpu")
    ]
    assert [pivots.device.type for pivots in found] == ["cuda", "cpu"]
    torch.testing.assert_close(found[1], found[0].cpu(), rtol=0, atol=1e-9)


@pytest.mark.gpu
def test_a_measurement_beside_an_accelerator():
    """To 1e-9 in float64 a path on the host is measured as one on the device."""
    model, end = (net.cuda() for net in two(norm_mlp, torch.float64))
    batches = class_batches(4, dtype=torch.float64)
    path = linear_path(model, losses, batches, model, end, backend="loop").path
    host = replace(path, pivots=path.pivots.cpu())
    found = [measure_path(model, losses, batches, one).train_loss for one in (path, host)]
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-9)
    plane = measure_plane(model, losses, batches, host, resolution=3).loss
    at_hand = measure_plane(model, losses, batches, path, resolution=3).loss
    torch.testing.assert_close(plane, at_hand.cpu(), rtol=0, atol=1e-9)
