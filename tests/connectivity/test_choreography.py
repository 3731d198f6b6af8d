"""Section 7.4: hidden units that change places, with and without an idle one to help them."""

import pytest
import torch
from torch import float64, nn
from torch.func import vmap

from lowland.connectivity import (
    Cycle,
    Schedule,
    find_path,
    from_potential,
    insert_equal,
    linear_path,
    points_between,
    redistribute,
    relax,
)
from lowland.params import call_at, trainable
from lowland.problems import XorNetwork, choreography, logistic_loss, xor_data, xor_ends

FOUND_LOSS = 0.0264894723  # of the XOR minimum; the specification prints .0265


def squared(output, target):
    return (output - target).square().sum(1)


def teacher(rng, hidden):
    """A ReLU network whose last hidden unit is idle, and what it says on random inputs."""
    model = nn.Sequential(nn.Linear(3, hidden), nn.ReLU(), nn.Linear(hidden, 2)).double()
    state = {}
    for name, value in model.state_dict().items():
        scale = value.shape[1] ** -0.5 if value.ndim == 2 else 1.0
        state[name] = scale * torch.randn(value.shape, dtype=float64, generator=rng)
    state["2.weight"][:, -1] = 0
    inputs = torch.randn(128, 3, dtype=float64, generator=rng)
    return model, state, inputs


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_every_segment_is_flat(rng, backend):
    """Each segment reports saddle = end loss to 1e-12; the straight line has a barrier."""
    model, state, inputs = teacher(rng, 6)
    said = call_at(model, state, inputs)
    target = said + 0.5 * torch.randn(said.shape, dtype=float64, generator=rng)
    path = choreography(state, 1, 3, 5)
    settings = {"samples": 9, "backend": backend}
    batches = [(inputs[:80], target[:80]), (inputs[80:], target[80:])]
    for here, there in zip(path[:-1], path[1:], strict=True):
        result = linear_path(model, squared, batches, here, there, **settings)
        losses = result.profile.train_loss
        assert result.saddle == pytest.approx(losses[-1].item(), abs=1e-12)
        assert losses.max() - losses.min() < 1e-14
        assert result.barrier_max < 1e-12
    direct = linear_path(model, squared, batches, path[0], path[-1], **settings)
    ends = direct.profile.train_loss[[0, -1]].tolist()
    assert ends[0] == pytest.approx(ends[1], abs=1e-14)
    assert direct.barrier_max > 0.01


def test_pivots_that_slide_along_it_stay_at_the_same_loss(rng):
    """Redistribution moves pivots along the polyline only, so all of them keep the loss."""
    model, state, inputs = teacher(rng, 6)
    layout = trainable(model)
    path = torch.stack([layout.flatten(stop) for stop in choreography(state, 0, 2, 5)])
    slid = redistribute(path, torch.full((60,), 1 / 60))
    said = [call_at(model, layout.views(vector), inputs) for vector in slid]
    assert len(slid) == 61
    assert max((one - said[0]).abs().max().item() for one in said) < 1e-13


@pytest.mark.parametrize("hidden", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_autoneb_finds_a_way_with_one_idle_unit(rng, hidden):
    """Both ends are the teacher itself, loss 0, and so is the best path."""
    model, state, inputs = teacher(rng, hidden)
    model.load_state_dict(state)
    batches = [(inputs, model(inputs).detach())]
    cycles = [Cycle(300, 0.02, insert="equal", count=9), *[Cycle(100, 0.02)] * 3]
    path = choreography(state, 0, 1, hidden - 1)
    result = find_path(
        model,
        squared,
        batches,
        path[0],
        path[-1],
        schedule=Schedule(tuple(cycles), weight_decay=0.0),
        backend="vmap",
    )
    line = result.cycles[0].profile.saddle()
    assert line > 0.1
    assert 0 <= result.barrier_max < 0.02 * line


def xor_band(hidden, seed, steps, learning_rate=0.1):
    """Dense maximum of loss and error on the line and on the relaxed band, 21 pivots."""
    model, (inputs, target) = XorNetwork(hidden), xor_data()
    layout = trainable(model)

    def output(vectors):
        return vmap(lambda vector: call_at(model, layout.views(vector), inputs))(vectors)

    def value(vectors):
        return vmap(lambda scores: logistic_loss(scores, target).mean())(output(vectors))

    def highest(path):
        points = points_between(path, 49)
        wrong = (output(points).argmax(-1) != target).double().mean(1)
        return value(points).max().item(), wrong.max().item()

    ends = torch.stack([layout.flatten(state) for state in xor_ends(hidden)])
    path, weights = insert_equal(ends, torch.ones(1, dtype=float64), 21)
    line = highest(path)
    noise = torch.Generator().manual_seed(seed)
    path[1:-1] += 0.3 * torch.randn(path[1:-1].shape, dtype=float64, generator=noise)
    loss_and_grad = from_potential(value)
    band = relax(path, weights, loss_and_grad, steps=steps, learning_rate=learning_rate)
    return line, highest(band.path)


def test_xor_with_two_units_has_a_barrier():
    """Line 1.992 and 50 %; the band comes down to .478, one point of four wrong."""
    line, (saddle, error) = xor_band(2, seed=0, steps=600, learning_rate=0.4)
    assert line == (pytest.approx(1.992, abs=5.1e-4), 0.5)
    assert saddle == pytest.approx(0.478, abs=5.1e-4)
    assert error == 0.25


def test_xor_with_a_third_unit_may_have_none():
    """From most starts the band finds the way around, from some a bad one: .347, 50 %."""
    assert xor_band(3, seed=0, steps=300)[1] == (pytest.approx(FOUND_LOSS, abs=1e-9), 0)
    assert xor_band(3, seed=5, steps=400)[1] == (pytest.approx(0.347, abs=5e-3), 0.5)


def test_xor_with_four_units_has_no_barrier():
    line, relaxed = xor_band(4, seed=0, steps=300)
    assert line[0] == pytest.approx(1.992, abs=5.1e-4)  # the idle units change nothing
    assert relaxed == (pytest.approx(FOUND_LOSS, abs=1e-9), 0)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [2, 3, 4, 6])
def test_xor_from_six_starts(hidden):
    """As printed, 3,000 steps; with three units 4 of 6 or more come through, the rest at .347."""
    found = [xor_band(hidden, seed, 3000)[1] for seed in range(6)]
    if hidden == 2:
        assert found == [(pytest.approx(0.478, abs=5.1e-4), 0.25)] * 6
        return
    through = [pair for pair in found if pair == (pytest.approx(FOUND_LOSS, abs=1e-9), 0)]
    stuck = [pair for pair in found if pair == (pytest.approx(0.347, abs=5.1e-4), 0.5)]
    assert len(through) + len(stuck) == 6
    assert len(through) >= (4 if hidden == 3 else 6)


def test_find_path_takes_the_xor_network():
    """The same through the driver: the module, the data, the error rate."""
    inputs, target = xor_data()
    start, end = xor_ends(2)
    schedule = Schedule((Cycle(600, 0.1, insert="equal", count=9),), weight_decay=0.0, samples=19)
    result = find_path(
        XorNetwork(2),
        logistic_loss,
        [(inputs, target)],
        start,
        end,
        schedule=schedule,
        backend="vmap",
    )
    assert result.cycles[0].profile.saddle() == pytest.approx(1.992, abs=5.1e-4)
    assert 0.4775 < result.saddle < 0.7
    assert result.profile.saddle("train_error") in (0.25, 0.5)
    assert result.profile.train_error[[0, -1]].tolist() == [0, 0]
