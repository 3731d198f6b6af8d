"""Killed, or shared by machines and ranks, an exploration ends as one that was left alone."""

import os
import signal
import socket
import subprocess
import sys

import pytest
import two_explorations
from killed_exploration import SECOND, explore, killed
from test_connect_minima import assert_same
from torch.testing import assert_close

from forked import run, run_ranks
from lowland.connectivity import Landscape, claims, pairs
from lowland.connectivity.claims import Claims
from lowland.results import read_json, write_json
from lowland.training import use_threads

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")


@pytest.fixture(autouse=True)
def one_thread():
    with use_threads(1):
        yield


@pytest.mark.slow
def test_a_killed_exploration_goes_on_to_the_same_bits(tmp_path):
    """It died in the second cycle of its second pair; what was finished is not done again."""
    assert run(killed, tmp_path) == -signal.SIGKILL
    assert {folder.name for folder in (tmp_path / "pairs").iterdir()} == {"1-3", SECOND}
    assert not (tmp_path / "pairs" / SECOND / "result.json").exists()
    assert (tmp_path / "claims" / SECOND).exists()
    kept = [
        tmp_path / "minima.json",
        tmp_path / "pairs" / "1-3" / "result.json",
        tmp_path / "pairs" / SECOND / "cycle-01.safetensors",
    ]
    before = [file.stat().st_mtime_ns for file in kept]
    resumed = explore(tmp_path, budget=2)
    assert [file.stat().st_mtime_ns for file in kept] == before
    assert_same(resumed, explore(budget=2))
    assert Landscape.load(tmp_path).record() == resumed.record()


@pytest.mark.slow
def test_two_machines_on_one_folder(tmp_path):
    """Both end with the whole landscape, that of one machine with as many pairs in flight."""
    run_ranks(two_explorations.as_machine, tmp_path)
    for rule in ("paper", "early"):
        alone = explore(in_flight=two_explorations.IN_FLIGHT, budget=3, suggest=rule)
        for number in range(2):
            assert_same(Landscape.load(tmp_path / f"{rule}-{number}"), alone)
        assert not any((tmp_path / "shared" / rule / "claims").iterdir())


@pytest.mark.slow
def test_two_ranks_that_share_the_pivots(tmp_path):
    """Saddles agree with those of one process to rounding, on both ranks to the bit."""
    run_ranks(two_explorations.as_rank, tmp_path)
    found = [Landscape.load(tmp_path / f"result-{number}") for number in range(2)]
    alone = explore(count=3, budget=1)
    assert_same(*found)
    assert [(e.a, e.b) for e in found[0].edges] == [(e.a, e.b) for e in alone.edges]
    assert_close(found[0].saddles(), alone.saddles(), rtol=1e-5, atol=1e-5)


def elsewhere(folder, name, host="elsewhere", process=1):
    """The claim of another process."""
    sign = {"host": host, "process": process, "beat": 0}
    return write_json(folder / name / "owner.json", sign)


def test_a_claim_is_for_one(tmp_path):
    """The second is refused until the first gives it back, and both may ask again."""
    with Claims(tmp_path) as first, Claims(tmp_path) as second:
        assert first.take("a")
        assert first.take("a")
        write_json(tmp_path / "a" / "owner.json", {"host": "x", "process": 1, "beat": 0})
        assert not second.take("a")
        assert second.take("b")
        first.release("a")
        assert second.take("a")
    assert not any(tmp_path.iterdir())


def test_a_dead_process_of_this_machine_has_no_claim(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    elsewhere(tmp_path, "a", socket.gethostname(), child.pid)
    elsewhere(tmp_path, "b", socket.gethostname(), os.getppid())
    with Claims(tmp_path) as mine:
        assert mine.take("a")
        assert not mine.take("b")


def test_without_signs_of_life_a_claim_ends(tmp_path, monkeypatch):
    """Not when the owner's clock is wrong, but when we have seen no change for a while."""
    now = 0.0
    monkeypatch.setattr(claims, "monotonic", lambda: now)
    file = elsewhere(tmp_path, "a")
    with Claims(tmp_path) as mine:
        assert not mine.take("a")
        now += claims.STALE - 1
        assert not mine.take("a")
        write_json(file, read_json(file) | {"beat": 1})
        now += claims.STALE - 1
        assert not mine.take("a")
        now += claims.STALE + 1
        assert mine.take("a")


def test_an_owner_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.01)
    with Claims(tmp_path) as mine:
        mine.take("a")
        while read_json(tmp_path / "a" / "owner.json")["beat"] < 3:
            pass


def test_a_pair_of_a_machine_that_died_is_taken_over(tmp_path, monkeypatch):
    """Meanwhile the other pair in flight is searched, then nothing but waiting is left."""
    alone, waits, now = explore(count=3, in_flight=2), [], 0.0
    elsewhere(tmp_path / "claims", "1-2")

    def wait(seconds):
        nonlocal now
        waits.append(sorted(f.parent.name for f in tmp_path.glob("pairs/*/result.json")))
        now += 30

    monkeypatch.setattr(claims, "monotonic", lambda: now)
    monkeypatch.setattr(pairs, "sleep", wait)
    assert_same(explore(tmp_path, count=3, in_flight=2), alone)
    assert waits
    assert {*map(tuple, waits)} == {("0-1",)}
