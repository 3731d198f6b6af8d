"""Resuming from a checkpoint gives the bits of an uninterrupted run."""

import pytest
import torch

from lowland.dynamics.clock import growing
from lowland.dynamics.recorder import TwoTimeRecorder
from lowland.results import plain
from small_networks import class_batches, dropout, losses, same, seeded

BATCHES = class_batches(4)


def parts(**options):
    model = seeded(dropout, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    return model, optimizer, TwoTimeRecorder(model, **options)


def train(model, optimizer, recorder, first, last):
    if first == 1:
        recorder.record(0)
    for n in range(first, last + 1):
        torch.manual_seed(n)
        x, y = BATCHES[n % 3]
        optimizer.zero_grad()
        losses(model(x), y).mean().backward()
        optimizer.step()
        recorder.record(n)


KINDS = {
    "exact": {"total": 120, "memory": "exact", "bins": 4},
    "sketch": {"total": 120, "memory": "sketch", "sketch_size": 64, "per_layer": True},
    "path": {"waits": [0, 30], "lags": [1, 40, 90], "path_length": True},
    "growing": {"clock": growing(horizon=60)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [1, 40, 60, 103])
def test_a_run_in_two_parts(kind, stop, tmp_path):
    options = KINDS[kind]
    whole = parts(**options)
    train(*whole, 1, 120)
    first = parts(**options)
    train(*first, 1, stop)
    torch.save([part.state_dict() for part in first], tmp_path / "state.pt")
    second = parts(**options)
    for part, state in zip(
        second, torch.load(tmp_path / "state.pt", weights_only=True), strict=True
    ):
        part.load_state_dict(state)
    train(*second, stop + 1, 120)
    assert same(second[0].state_dict(), whole[0].state_dict())
    assert same(second[2].state_dict(), whole[2].state_dict())
    assert plain(second[2].result()) == plain(whole[2].result())


def test_a_state_is_a_copy():
    """Going on does not change what was saved."""
    model, optimizer, recorder = parts(**KINDS["sketch"])
    train(model, optimizer, recorder, 1, 50)
    state, again = recorder.state_dict(), recorder.state_dict()
    train(model, optimizer, recorder, 51, 80)
    assert same(state, again)
    assert not same(state, recorder.state_dict())


def test_a_diverged_run_stays_diverged():
    w = torch.zeros(3)
    recorder = TwoTimeRecorder([w], waits=[0], lags=[1, 2, 5])
    recorder.record(0)
    w += torch.nan
    recorder.record(1)
    other = TwoTimeRecorder([w], waits=[0], lags=[1, 2, 5])
    other.load_state_dict(recorder.state_dict())
    for n in range(2, 9):
        other.record(n)
    assert other.result().diverged_at == 1
    assert other.result().times.tolist() == [0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (KINDS["exact"] | {"total": 121}, "the same clock"),
        (KINDS["exact"] | {"bins": 5}, "bins was 4 and is 5"),
        (KINDS["exact"] | {"memory": "sketch"}, "memory was exact and is sketch"),
        ({}, "the same clock"),
    ],
)
def test_a_state_of_another_recorder(options, words):
    state = parts(**KINDS["exact"])[2].state_dict()
    if not options:
        state["settings"]["bins"] = 0
    with pytest.raises(ValueError, match=words):
        parts(**options)[2].load_state_dict(state)
    with pytest.raises(ValueError, match="it lacks"):
        parts(**options)[2].load_state_dict({"last": 3})
    with pytest.raises(ValueError, match="shapes was"):
        TwoTimeRecorder([torch.zeros(3)], total=120, bins=4).load_state_dict(
            parts(**KINDS["exact"])[2].state_dict()
        )
