"""Section 7.7 and the head of section 7: identities that hold whatever the network."""

import socket
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import float64, full, linspace, nn, ones, randn
from torch.testing import assert_close

from lowland.connectivity import (
    Cycle,
    Path,
    Schedule,
    band,
    find_path,
    insert_equal,
    linear_path,
    points_between,
    project,
    redistribute,
    segment_lengths,
    stack,
    tangents,
)
from lowland.connectivity.ends import read_ends
from oracles.one_rank import SCHEDULE, search
from oracles.slow_neb import slow_redistribute, slow_tangent
from small_networks import class_batches, losses, two
from small_networks import mlp as plain_mlp

# random networks, not minima: a few steps need not beat the line
pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")

KINDS = ("paper", "improved", "official")


def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


def random_path(seed, pivots, params=5):
    draws = torch.Generator().manual_seed(seed)
    path = randn(pivots, params, dtype=float64, generator=draws)
    weights = torch.rand(pivots - 1, dtype=float64, generator=draws) + 0.1
    return path, weights / weights.sum(), draws


PATHS = st.builds(random_path, st.integers(0, 10**6), st.integers(3, 12))


@given(st.integers(0, 10**6), st.integers(1, 20))
def test_an_even_line_is_left_alone(seed, interior):
    """Redistributing an equidistant path with equal weights is the identity to 1e-12."""
    ends, _, _ = random_path(seed, 2)
    path, weights = insert_equal(ends, ones(1, dtype=float64), interior)
    assert_close(redistribute(path, weights), path, rtol=0, atol=1e-12)


def test_even_pivots_on_a_bent_path_are_left_alone():
    """Pivots at equal distances on a circle stay, too."""
    angle = linspace(0, 3, 13, dtype=float64)
    path = torch.stack([angle.cos(), angle.sin()], dim=1)
    assert_close(redistribute(path, full((12,), 1 / 12, dtype=float64)), path, rtol=0, atol=1e-12)


@given(PATHS)
def test_redistribution_equals_the_slow_walk(drawn):
    path, weights, _ = drawn
    slow = torch.tensor(slow_redistribute(path.tolist(), weights.tolist()), dtype=float64)
    assert_close(redistribute(path, weights), slow, rtol=0, atol=1e-12)


@given(PATHS)
def test_redistribution_never_makes_a_path_longer(drawn):
    """New pivots lie on the old polyline, so that they cut corners; the ends stay to the bit."""
    path, weights, _ = drawn
    new = redistribute(path, weights)
    assert segment_lengths(new).sum() <= segment_lengths(path).sum() + 1e-12
    assert torch.equal(new[[0, -1]], path[[0, -1]])


@given(PATHS)
def test_redistribution_of_the_reversed_path(drawn):
    path, weights, _ = drawn
    back = redistribute(path.flip(0), weights.flip(0)).flip(0)
    assert_close(back, redistribute(path, weights), rtol=0, atol=1e-12)


@given(PATHS, st.sampled_from(KINDS))
def test_tangents_equal_the_slow_ones(drawn, kind):
    path, _, draws = drawn
    height = randn(len(path), dtype=float64, generator=draws)
    slow = [
        slow_tangent(path[i - 1 : i + 2].tolist(), height[i - 1 : i + 2].tolist(), kind)
        for i in range(1, len(path) - 1)
    ]
    along = tangents(path, height, kind)
    assert_close(along, torch.tensor(slow, dtype=float64), rtol=0, atol=1e-12)


@given(PATHS, st.sampled_from(KINDS))
def test_the_force_has_no_part_along_the_path(drawn, kind):
    """F . tau = 0 to 1e-12; what is left has not lost anything across."""
    path, _, draws = drawn
    along = tangents(path, randn(len(path), dtype=float64, generator=draws), kind)
    grads = randn(path[1:-1].shape, dtype=float64, generator=draws)
    across = project(grads, along)
    assert (across * along).sum(1).abs().max() < 1e-12
    lost = grads - across
    assert_close(lost, (grads * along).sum(1, keepdim=True) * along, rtol=0, atol=1e-12)


@given(PATHS, st.sampled_from(("paper", "improved")))
def test_tangents_do_not_see_a_constant_and_turn_round_with_the_path(drawn, kind):
    path, _, draws = drawn
    height = randn(len(path), dtype=float64, generator=draws)
    along = tangents(path, height, kind)
    assert_close(tangents(path, height + 3, kind), along, rtol=0, atol=1e-9)
    assert torch.equal(tangents(path, 4 * height, kind), along)
    back = tangents(path.flip(0), height.flip(0), kind).flip(0)
    assert_close(-back, along, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_neighbors_give_finite_tangents(kind):
    """A flat loss, and equal neighbors of a peak: unit vectors, never a NaN."""
    path, _, _ = random_path(3, 5)
    for height in ([1.0, 1, 1, 1, 1], [0.0, 1, 0, 1, 0], [1.0, 1, 2, 2, 2]):
        along = tangents(path, torch.tensor(height, dtype=float64), kind)
        assert_close(along.norm(dim=1), ones(3, dtype=float64))


def stack_and_path(pivots=7):
    """Two random networks and the noisy line between them, float64, one batch."""
    start, end = two(mlp, float64)
    copies, a, b = read_ends(start, losses, start, end, batch_norm="recalibrate")
    path, _ = insert_equal(torch.stack([a, b]), ones(1, dtype=float64), pivots - 2)
    draws = torch.Generator().manual_seed(0)
    path = path + 0.1 * randn(path.shape, dtype=float64, generator=draws)
    return copies, path, class_batches(4, sizes=(16,), dtype=float64)[0]


def slow_losses_and_grads(copies, path, inputs, target):
    """Copy each vector into the module and call backward."""
    found = []
    for vector in path:
        copies.model.load_state_dict(copies.layout.views(vector))
        loss = losses(copies.model(inputs), target).mean()
        parts = torch.autograd.grad(loss, list(copies.model.parameters()))
        found.append((loss.detach(), torch.cat([part.flatten() for part in parts])))
    return [torch.stack(column) for column in zip(*found, strict=True)]


def test_loop_and_vmap_equal_the_module_itself():
    """Losses and gradients of all pivots agree to 1e-12 in float64."""
    copies, path, (inputs, target) = stack_and_path()
    for backend in ("loop", "vmap"):
        found = stack.losses_and_grads(copies.with_backend(backend), path, inputs, target)
        slow = slow_losses_and_grads(copies, path, inputs, target)
        for a, b in zip(found, slow, strict=True):
            assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_chunked_equals_unchunked(rows):
    copies, path, (inputs, target) = stack_and_path()
    copies = copies.with_backend("vmap")
    chunked = replace(copies, examples_in_flight=rows * len(target))
    whole = stack.losses_and_grads(copies, path, inputs, target)
    for a, b in zip(stack.losses_and_grads(chunked, path, inputs, target), whole, strict=True):
        assert_close(a, b, rtol=0, atol=1e-12)
    whole = stack.per_example(copies, path, inputs, target)
    for a, b in zip(stack.per_example(chunked, path, inputs, target), whole, strict=True):
        assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("world", [2, 3, 9])
def test_shards_add_up_to_the_single_process(world, monkeypatch):
    """What the processes compute, each alone, sums to what one computes; nine are too many."""
    copies, path, (inputs, target) = stack_and_path()
    whole = stack.losses_and_grads(copies, path[1:-1], inputs, target, weight_decay=0.1)
    shards = []
    for rank in range(world):
        monkeypatch.setattr(band, "rank_and_world", lambda rank=rank: (rank, world))
        monkeypatch.setattr(band, "all_sum", lambda tensor, device=None: tensor)
        shards.append(band.sharded(copies, path[1:-1], inputs, target, weight_decay=0.1))
    for parts, expected in zip(zip(*shards, strict=True), whole, strict=True):
        assert_close(torch.stack(parts).sum(0), expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_two_processes_find_the_path_of_one(tmp_path):
    """Pivots sharded over gloo: every process ends with the path of a single process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    torch.multiprocessing.spawn(search, (2, port, tmp_path), nprocs=2)
    start, end = two(plain_mlp, float64)
    batches = class_batches(4, dtype=float64)
    alone = find_path(start, losses, batches, start, end, schedule=SCHEDULE, backend="loop")
    for rank in (0, 1):
        found = Path.load(tmp_path / f"{rank}.safetensors")
        assert_close(found.pivots, alone.path.pivots, rtol=0, atol=1e-12)


def test_loop_and_vmap_find_the_same_path():
    """Two cycles through the driver; differences of rounding only."""
    start, end = two(mlp, float64)
    schedule = Schedule((Cycle(20, 0.1, insert="equal", count=3), Cycle(20, 0.1)), threshold=0.0)
    batches = class_batches(4, dtype=float64)
    found = [
        find_path(start, losses, batches, start, end, schedule=schedule, backend=backend)
        for backend in ("loop", "vmap")
    ]
    assert_close(found[0].path.pivots, found[1].path.pivots, rtol=0, atol=1e-10)
    assert found[0].saddle == pytest.approx(found[1].saddle, abs=1e-10)


def test_a_reversed_search_finds_the_reversed_path():
    """Same batches, ends exchanged: the mirror image."""
    start, end = two(mlp, float64)
    schedule = Schedule((Cycle(20, 0.1, insert="equal", count=3), Cycle(20, 0.1)), threshold=0.0)
    batches = class_batches(4, dtype=float64)
    settings = {"schedule": schedule, "backend": "vmap"}
    there = find_path(start, losses, batches, start, end, **settings)
    back = find_path(start, losses, batches, end, start, **settings)
    assert_close(back.path.reversed().pivots, there.path.pivots, rtol=0, atol=1e-9)
    assert_close(back.profile.train_loss.flip(0), there.profile.train_loss, rtol=0, atol=1e-9)


def test_the_ends_of_a_found_path_are_the_minima_to_the_bit():
    start, end = two(mlp, float64)
    schedule = Schedule((Cycle(10, 0.1, insert="equal", count=2),))
    batches = class_batches(4, dtype=float64)
    result = find_path(start, losses, batches, start, end, schedule=schedule, backend="loop")
    for t, module in ((0, start), (1, end)):
        found = result.path.state_dict(t)
        assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize("search", [linear_path, find_path])
def test_equal_networks_give_a_trivial_path(search):
    """Saddle = end loss, no barrier of any kind, length 0, and no division by it."""
    model, _ = two(mlp, float64)
    batches = class_batches(4, dtype=float64)
    result = search(model, losses, batches, model, model.state_dict(), backend="loop")
    ends = result.profile.train_loss[[0, -1]]
    assert result.saddle == pytest.approx(ends[0].item(), abs=1e-14)
    barriers = (result.barrier_max, result.barrier_mid, result.barrier_lin)
    assert barriers == pytest.approx((0, 0, 0), abs=1e-14)
    assert result.path.length() == 0
    assert torch.isfinite(result.profile.t).all()


@given(PATHS, st.integers(0, 7))
def test_dense_points_hold_the_pivots_to_the_bit(drawn, samples):
    path, _, _ = drawn
    points = points_between(path, samples)
    assert len(points) == (len(path) - 1) * (samples + 1) + 1
    assert torch.equal(points[:: samples + 1], path)
