"""A run that is broken off and goes on ends with the bits and the record of one that never was.

The oracle is the run in one go.
"""

import signal

import pytest
import torch
from boosted import adam, boost, data, tower
from killed_boosting import killed, run
from test_boosting_stops import against

import forked
from lowland.results import Status, read_json
from small_networks import same


def timeless(value):
    if isinstance(value, dict):
        left_out = ("seconds", "environment")
        return {name: timeless(item) for name, item in value.items() if name not in left_out}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def equal(one, other):
    """Weights, heads of all exits, and all numbers but those of a clock."""
    assert same(one.model.state_dict(), other.model.state_dict())
    assert len(one.exits) == len(other.exits)
    for head, again in zip(one.exits, other.exits, strict=True):
        assert same(head.state_dict(), again.state_dict())
    assert timeless(one.record()) == timeless(other.record())


def in_slices(out, steps=5, **options):
    """Call after call, until the run is finished."""
    for number in range(40):
        result = run(out, max_steps_now=steps, **options)
        if result.status is not Status.INTERRUPTED:
            return result, number
        assert result.certified is None or result.refinement is not None
        assert "goes on from what was saved" in result.message
    raise AssertionError("it never ends")


OPTIONS = {
    "plain": {},
    "stop": {"stop": "paper", "gamma_threshold": 0.3, "alpha": "line_search"},
    "copied": {"init": "copy_previous", "recalibrate": True, "cache": "recompute"},
    "parallel": {"schedule": "parallel", "transport": 1.0},
    "refined": {"refine_epochs": 2, "l1": 1.0},
    "two": {"module_size": 2, "head": "deep"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_slices(name, tmp_path):
    options = OPTIONS[name]
    result, calls = in_slices(tmp_path / "sliced", **options)
    assert calls >= 2
    equal(result, run(**options))
    again = run(tmp_path / "sliced", at_update=lambda number: pytest.fail("trained"), **options)
    equal(result, again)
    assert timeless(read_json(tmp_path / "sliced" / "result.json")) == timeless(again.record())


@pytest.mark.slow
def test_killed_in_mid_block(tmp_path):
    assert forked.run(killed, tmp_path / "out") == -signal.SIGKILL
    assert (tmp_path / "out" / "round-01" / "round.json").exists()
    assert not (tmp_path / "out" / "round-02" / "round.json").exists()
    updates = []
    result = run(tmp_path / "out", at_update=updates.append)
    assert 0 < len(updates) < 24
    equal(result, run())


def test_a_finished_folder_reads_features_of_no_depth(tmp_path, monkeypatch):
    """All rounds come from the folder, and no data goes through any block."""
    first = run(tmp_path)
    monkeypatch.setattr("lowland.boosting.rounds.Data.advance", lambda *_: pytest.fail("advanced"))
    monkeypatch.setattr("lowland.boosting.rounds.measure", lambda *_: pytest.fail("measured"))
    equal(first, run(tmp_path))


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 3}, {"seed": 1}, {"head": "deep"}, {"objective": "exp"},
        {"optimizer": adam(0.5)}, {"cache": "recompute"}, {"cache_dtype": "bfloat16"},
        {"sample_weights": torch.arange(40.0)},
        {"test_batches": data(16)}, {"refine_epochs": 1}, {"alpha": "line_search"},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_other_settings_are_refused(options, tmp_path):
    boost(tower(1), data(40), out=tmp_path, epochs=1)
    with pytest.raises(ValueError, match="must belong to the run that continues in it"):
        boost(tower(1), data(40), **{"out": tmp_path, "epochs": 1} | options)


def test_another_place_of_the_cache_is_the_same_run(tmp_path):
    """The numbers do not depend on it."""
    first = boost(tower(1), data(40), out=tmp_path, epochs=1, cache="host")
    again = boost(tower(1), data(40), out=tmp_path, epochs=1, cache="disk")
    assert same(first.model.state_dict(), again.model.state_dict())


@pytest.mark.parametrize("drop", [False, True])
def test_rounds_that_were_put_back_come_back_so(drop, tmp_path):
    options = {"oracle": against, "stop": "paper", "drop": drop, "exits": True}
    first = boost(tower(), data(40), out=tmp_path, **options)
    assert first.rounds[2].status == ("dropped" if drop else "identity")
    equal(first, boost(tower(), data(40), out=tmp_path, **options))


def test_the_same_object_goes_on(tmp_path):
    """A user who stops and calls again has a model that is half trained."""
    model = tower(2)
    for _ in range(40):
        result = boost(model, data(40), out=tmp_path, max_steps_now=3)
        if result.status is Status.FINISHED:
            break
    expected = boost(tower(2), data(40))
    assert same(model.state_dict(), expected.model.state_dict())
