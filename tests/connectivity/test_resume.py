"""A search that was killed, interrupted or torn ends with the bits of one that was not."""

import os
import signal
from dataclasses import replace

import killed_search
import pytest
from killed_search import BACKENDS, later, search

from forked import together
from lowland.connectivity import PathResult, autoneb
from lowland.results import Status, read_json, write_json
from lowland.training import use_threads
from small_networks import SHORT, losses, norm_mlp, same, seeded

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")


@pytest.fixture(autouse=True)
def one_thread():
    with use_threads(1):
        yield


@pytest.fixture(scope="module")
def uninterrupted():
    with use_threads(1):
        return search(None)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folders of searches whose process was killed in the third cycle."""
    out = tmp_path_factory.mktemp("killed")
    calls = [(out / backend, backend) for backend in BACKENDS]
    assert together(killed_search.killed, calls) == [-signal.SIGKILL] * len(calls)
    return {backend: out / backend for backend in BACKENDS}


def timeless(value):
    """A record without what a clock decides."""
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if name != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def assert_same(result, expected):
    assert timeless(result.record()) == timeless(expected.record())
    assert same(result.path.pivots, expected.path.pivots)
    assert same(result.path.weights, expected.path.weights)


def files(folder):
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".tmp")


BEGUN = ["lowland.json", "placement.json"]
CYCLES = [f"cycle-0{number}.{kind}" for number in (1, 2, 3) for kind in ("json", "safetensors")]


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_bits(killed, uninterrupted):
    """Two cycles are on disk; they are not done again."""
    folder = killed["loop"]
    assert files(folder) == sorted([*CYCLES[:4], *BEGUN])
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    resumed = search(folder)
    assert_same(resumed, uninterrupted)
    assert_same(PathResult.load(folder), uninterrupted)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert files(folder) == sorted([*CYCLES, *BEGUN, "result.json", "path.safetensors"])


def test_the_choice_of_a_backend_is_taken_from_disk(killed, monkeypatch):
    """Also that of the cycle that was killed, whatever the clock would say now."""
    folder = killed["auto"]
    on_disk = {n: read_json(folder / f"cycle-0{n}-backend.json") for n in (1, 2, 3)}
    assert set(on_disk.values()) <= {"loop", "vmap"}
    on_disk[3] = {"loop": "vmap", "vmap": "loop"}[on_disk[2]]
    write_json(folder / "cycle-03-backend.json", on_disk[3])

    def no_clock(*_):
        raise AssertionError("the choice is on disk")

    monkeypatch.setattr(autoneb, "faster_backend", no_clock)
    resumed = search(folder, "auto")
    assert [cycle.backend for cycle in resumed.cycles[1:]] == [*on_disk.values()]
    choices = iter(on_disk.values())
    monkeypatch.setattr(autoneb, "faster_backend", lambda *_: next(choices))
    assert_same(resumed, search(None, "auto"))


class Death(BaseException):
    """Like SIGKILL, passes every ``except Exception`` and ``except KeyboardInterrupt``."""


def test_death_at_every_write(tmp_path, monkeypatch):
    """Before, or after, the first, second, ... renaming of a file; then the same call again."""
    schedule = replace(SHORT, cycles=SHORT.cycles[:2])
    uninterrupted = search(None, schedule=schedule)
    rename, deaths = os.replace, 0

    def dying_replace(old, new):
        nonlocal left
        left -= 1
        if left == 0 and deaths % 2:
            raise Death
        rename(old, new)
        if left == 0:
            raise Death

    while True:
        folder, left = tmp_path / str(deaths), 1 + deaths // 2
        monkeypatch.setattr(os, "replace", dying_replace)
        try:
            search(folder, schedule=schedule)
            break
        except Death:
            deaths += 1
        monkeypatch.setattr(os, "replace", rename)
        assert_same(search(folder, schedule=schedule), uninterrupted)
    assert deaths == 2 * len([*CYCLES[:4], *BEGUN, "path.safetensors", "result.json"])


def press_ctrl_c():
    raise KeyboardInterrupt


def test_ctrl_c_keeps_the_finished_cycles(tmp_path, uninterrupted):
    """The result is that of the cycles there are; the same call goes on."""
    stopped = search(tmp_path, before_batch=later(tmp_path, 1, press_ctrl_c))
    assert stopped.status is Status.INTERRUPTED
    assert stopped.message == "1 of 3 cycles are finished."
    assert [cycle.number for cycle in stopped.cycles] == [0, 1]
    for cycle, expected in zip(stopped.cycles, uninterrupted.cycles, strict=False):
        assert same(cycle.profile.train_loss, expected.profile.train_loss)
    assert PathResult.load(tmp_path).status is Status.INTERRUPTED
    assert files(tmp_path) == sorted([*CYCLES[:2], *BEGUN, "result.json", "path.safetensors"])
    assert_same(search(tmp_path), uninterrupted)


def test_ctrl_c_of_a_keyboard(tmp_path, uninterrupted):
    """The signal itself: the step it falls into is finished first."""
    handler = signal.getsignal(signal.SIGINT)
    press = later(tmp_path, 1, lambda: signal.raise_signal(signal.SIGINT))
    stopped = search(tmp_path, before_batch=press)
    assert (stopped.status, len(stopped.cycles)) == (Status.INTERRUPTED, 2)
    assert signal.getsignal(signal.SIGINT) is handler
    assert_same(search(tmp_path), uninterrupted)


def test_ctrl_c_without_a_folder():
    """Nothing is thrown away: neither in mid-cycle, nor in the last evaluation."""

    def stop_at(number):
        count = iter(range(number))
        return lambda: next(count, None) is None and press_ctrl_c()

    taken = []
    whole = search(None, before_batch=lambda: taken.append(1))
    stopped = search(None, before_batch=stop_at(len(taken) // 2))
    assert stopped.status is Status.INTERRUPTED
    assert stopped.message == f"{len(stopped.cycles) - 1} of 3 cycles are finished."
    assert 1 < len(stopped.cycles) < 4
    assert same(stopped.cycles[1].profile.train_loss, whole.cycles[1].profile.train_loss)
    last = search(None, before_batch=stop_at(len(taken) - 1))
    assert (last.status, last.message) == (Status.INTERRUPTED, "all cycles are finished.")
    assert same(last.path.pivots, whole.path.pivots)
    assert same(last.profile.train_loss, last.cycles[last.best_cycle].profile.train_loss)


def test_a_finished_folder_answers_at_once(tmp_path, uninterrupted):
    """Without a single evaluation of the network."""
    search(tmp_path)

    def losses(output, target):
        raise AssertionError("nothing is to be computed")

    losses.__qualname__ = "losses"  # a folder knows its loss function by name
    assert_same(search(str(tmp_path), loss_fn=losses), uninterrupted)


OTHERS = [
    ({"seed": 1}, "seed = 0, now seed = 1"),
    ({"backend": "vmap"}, "backend = loop, now backend = vmap"),
    ({"tangent": "improved"}, "schedule.tangent = paper, now schedule.tangent = improved"),
    (
        {"schedule": replace(SHORT, cycles=(SHORT.cycles[0], replace(SHORT.cycles[1], steps=7)))},
        "schedule.cycles = ",
    ),
]


def test_a_folder_of_another_search(tmp_path, uninterrupted):
    """It is refused with the setting that differs; ``restart`` forgets it."""
    search(tmp_path, schedule=replace(SHORT, cycles=SHORT.cycles[:1]))
    with pytest.raises(ValueError, match="must belong to the run.*Choose another folder"):
        search(tmp_path)
    assert_same(search(tmp_path, restart=True), uninterrupted)
    for changes, sentence in OTHERS:
        with pytest.raises(ValueError, match=sentence):
            search(tmp_path, **changes)
    model = seeded(norm_mlp, 5)
    arguments = (model, losses, killed_search.Watched(lambda: None), model, seeded(norm_mlp, 6))
    with pytest.raises(ValueError, match="start = [0-9a-f]{16}, now start = "):
        autoneb.find_path(*arguments, schedule=SHORT, backend="loop", out=tmp_path)
    assert_same(PathResult.load(tmp_path), uninterrupted)
