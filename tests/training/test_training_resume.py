"""A run that was killed, torn or stopped ends with the bits of one that was not."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from killed_run import both_runs, killed, small_model
from torch import nn
from torch.optim.swa_utils import AveragedModel

import forked
from lowland.errors import CheckpointError, FallbackWarning
from lowland.results import Status
from lowland.training import read_state, train, use_threads


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    with use_threads(1):
        return both_runs(tmp_path_factory.mktemp("uninterrupted"))


def without_seconds(curve):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in curve]


def assert_same(result, expected):
    assert result.status is expected.status
    assert result.steps == expected.steps
    assert without_seconds(result.curve) == without_seconds(expected.curve)
    for got, want in ((result.state, expected.state), (result.average, expected.average)):
        assert list(got) == list(want)
        assert all(torch.equal(got[name], want[name]) for name in want)


def assert_all_same(results, uninterrupted):
    for result, expected in zip(results, uninterrupted, strict=True):
        assert result.status is Status.FINISHED
        assert_same(result, expected)


def test_killed_run_ends_with_the_same_bits(tmp_path, uninterrupted):
    """Another process stops one run in mid-epoch, and dies by SIGKILL in mid-epoch of the other."""
    assert forked.run(killed, tmp_path) == -signal.SIGKILL
    saved = [torch.load(tmp_path / run / "state.pt") for run in ("loader", "batches")]
    assert [(state["step"], state["batch"]) for state in saved] == [(14, 4), (7, 2)]
    with use_threads(1):
        assert_all_same(both_runs(tmp_path), uninterrupted)
    lines = (tmp_path / "loader/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(steps)


def test_death_at_every_write(tmp_path, uninterrupted, monkeypatch):
    """A run that dies before, or after, its first, second, ... renaming of a file, goes on."""

    class Death(BaseException):
        """Like SIGKILL, passes every ``except Exception``."""

    def dying_replace(old, new):
        nonlocal left
        left -= 1
        if left == 0 and died % 2:
            raise Death
        rename(old, new)
        if left == 0:
            raise Death

    rename, died, results = os.replace, 0, None
    monkeypatch.setattr(os, "replace", dying_replace)
    while results is None:
        left = 1 + died // 2
        try:
            with use_threads(1):
                results = both_runs(tmp_path)
        except Death:
            died += 1
    assert died > 10
    assert_all_same(results, uninterrupted)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_torn_newest_state_falls_back(tmp_path, uninterrupted, damage):
    with use_threads(1):
        both_runs(tmp_path, max_steps_now=8)
        for run in ("loader", "batches"):
            file = tmp_path / run / "state.pt"
            data = file.read_bytes()
            middle = len(data) // 2
            flipped = bytes(byte ^ 255 for byte in data[middle : middle + 2000])
            damaged = {
                "truncated": data[:middle],
                "flipped": data[:middle] + flipped + data[middle + 2000 :],
                "empty": b"",
            }
            file.write_bytes(damaged[damage])
        with pytest.warns(FallbackWarning, match=r"state\.pt cannot be read"):
            results = both_runs(tmp_path)
    assert_all_same(results, uninterrupted)


def test_run_in_slices(tmp_path, uninterrupted):
    """Stops after every third step, twice at the end of an epoch, change nothing."""
    with use_threads(1):
        for done in range(3, 18, 3):
            results = both_runs(tmp_path, max_steps_now=3)
            assert [result.steps for result in results] == [done, done]
            assert all(result.status is Status.INTERRUPTED for result in results)
            assert "the same call goes on" in results[0].message
        assert_all_same(both_runs(tmp_path), uninterrupted)


def test_finished_run_returns_the_same_result(tmp_path, uninterrupted):
    with use_threads(1):
        first, again = both_runs(tmp_path), both_runs(tmp_path, max_steps_now=1)
    for a, b, expected in zip(first, again, uninterrupted, strict=True):
        assert_same(a, expected)
        assert_same(b, expected)
        assert (a.curve, a.seconds, a.message) == (b.curve, b.seconds, b.message)
    saved = read_state(tmp_path / "loader/model.safetensors")
    assert all(torch.equal(saved[name], first[0].state[name]) for name in saved)
    record = json.loads((tmp_path / "loader/result.json").read_text())
    assert record["status"] == "finished"
    assert record["curve"] == first[0].curve


def short_run(out, **options):
    defaults = {
        "epochs": 2,
        "optimizer": lambda params: torch.optim.SGD(params, lr=0.1),
        "out": out,
    }
    batches = [(torch.eye(6), torch.arange(6) % 3)]
    loss_fn = nn.CrossEntropyLoss(reduction="none")
    return train(small_model(6), loss_fn, batches, **(defaults | options))


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"epochs": 3}, "epochs = 2, now epochs = 3"),
        ({"seed": 1}, "seed = 0, now seed = 1"),
        (
            {"optimizer": lambda params: torch.optim.SGD(params, lr=0.2)},
            r"parameter_groups\.0\.lr = 0\.1, now parameter_groups\.0\.lr = 0\.2",
        ),
        ({"optimizer": torch.optim.Adam}, "optimizer = SGD, now optimizer = Adam"),
        ({"weight_average": AveragedModel}, "weight_average = None"),
    ],
)
def test_folder_of_other_settings_is_refused(tmp_path, options, difference):
    short_run(tmp_path)
    with pytest.raises(ValueError, match=difference):
        short_run(tmp_path, **options)


def test_state_that_could_not_be_read_back_is_refused_at_once(tmp_path):
    class Odd(torch.optim.SGD):
        def state_dict(self):
            return super().state_dict() | {"secret": Path(__file__)}

    with pytest.raises(CheckpointError, match="so that the run can resume without unpickling"):
        short_run(tmp_path, optimizer=lambda params: Odd(params, lr=0.1))


def test_the_two_last_states_are_kept_and_nothing_else(tmp_path):
    short_run(tmp_path, save_every=0.0)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "lowland.json",
        "metrics.jsonl",
        "model.safetensors",
        "result.json",
        "state-previous.pt",
        "state.pt",
    ]
    for name in ("state.pt", "state-previous.pt"):
        torch.load(tmp_path / name, weights_only=True)
