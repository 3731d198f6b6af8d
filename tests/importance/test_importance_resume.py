"""A run that was saved and taken up again has the same bits as one that was not."""

from copy import deepcopy
from itertools import islice

import pytest
import torch
from scored_batches import ALWAYS, BATCHES, taken

from lowland.importance import ImportanceSampling
from small_networks import losses, mlp, same, seeded

# Repeatability


def test_the_seed_decides():
    found = []
    for seed in (0, 0, 1):
        sampling = ImportanceSampling(seeded(mlp, 0), losses, seed=seed, **ALWAYS)
        found.append(list(taken(sampling, BATCHES)))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def run(steps, state=None, presample=2.5):
    """Train for some steps of several epochs; give all that is needed to go on."""
    model = seeded(mlp, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    options = {"tau_threshold": 1.05, "presample": presample, "smoothing": 0.5}
    sampling = ImportanceSampling(model, losses, **options)
    done = read = 0
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        sampling.load_state_dict(state["sampling"])
        done, read = state["done"], state["read"]

    def stream():
        nonlocal read
        while read < 60:
            read += 1
            yield BATCHES[(read - 1) % len(BATCHES)]

    for x, y in sampling(stream()):
        sampling.loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        done += 1
        if done == steps:
            break_state = {
                "model": deepcopy(model.state_dict()),
                "optimizer": deepcopy(optimizer.state_dict()),
                "sampling": deepcopy(sampling.state_dict()),
                "done": done,
                "read": read,
            }
            break
    return break_state, sampling


def timeless(state):
    """A saved state without what the clock wrote into it."""
    of_switch = ("estimate", "is_active", "steps", "active_steps", "switches", "history")
    switch = {name: state["switch"][name] for name in of_switch}
    return {name: state[name] for name in ("generator", "size", "held")} | switch


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 7, 11])
def test_a_run_goes_on_with_the_same_bits(stop, tmp_path):
    """Saved in the middle of a pass, rows that were read but not handed out included."""
    whole, sampling = run(14)
    assert 0 < sampling.active_steps < 14
    part, _ = run(stop)
    torch.save(part, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed, _ = run(14, state)
    assert same(dict(resumed["model"]), dict(whole["model"]))
    assert resumed["read"] == whole["read"]
    assert same(timeless(resumed["sampling"]), timeless(whole["sampling"]))


def test_a_run_goes_on_within_amortized_pools():
    """Batches that were drawn and wait are part of the state."""
    found = []
    for cut in (None, 1, 2, 4):
        options = {"amortize": 3, **ALWAYS}
        first = ImportanceSampling(seeded(mlp, 0), losses, **options)
        if cut is None:
            found.append(list(taken(first, BATCHES)))
            continue
        stream = iter(BATCHES)
        batches = list(islice(passing := taken(first, stream), cut))
        second = ImportanceSampling(seeded(mlp, 0), losses, **options)
        second.load_state_dict(deepcopy(first.state_dict()))
        passing.close()
        found.append(batches + list(taken(second, stream)))
    assert len(found[0]) == 12
    for other in found[1:]:
        assert same(other, found[0])
