"""A fit of a curve that was killed, interrupted or torn ends with the bits of one that was not."""

import os
import signal

import killed_curve
import pytest
import torch
from killed_curve import KINDS, at_batch, fit

from forked import together
from lowland.connectivity import Path, PathResult
from lowland.results import Status
from lowland.training import use_threads
from lowland.training.run_folder import load_run_state
from small_networks import losses, same

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")
FILES = {
    "backend.json",
    "control.safetensors",
    "lowland.json",
    "path.safetensors",
    "result.json",
    "state.pt",
    "state-previous.pt",
}


@pytest.fixture(autouse=True)
def one_thread():
    with use_threads(1):
        yield


@pytest.fixture(scope="module")
def uninterrupted():
    with use_threads(1):
        return {kind: fit(None, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folders of fits whose process was killed."""
    out = tmp_path_factory.mktemp("killed")
    calls = [(out / kind, kind) for kind in KINDS]
    assert together(killed_curve.killed, calls) == [-signal.SIGKILL] * len(calls)
    return out


def timeless(value):
    """A record without what a clock decides."""
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if name != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def assert_same(result, expected):
    assert timeless(result.record()) == timeless(expected.record())
    assert same(result.path.pivots, expected.path.pivots)
    assert same(result.path.weights, expected.path.weights)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_fit_goes_on_to_the_same_bits(killed, uninterrupted, kind):
    """From the state after step 100, in the middle of a pass; the control points are kept."""
    folder = killed / kind
    assert not (folder / "result.json").exists()
    state = load_run_state(folder)
    assert (state["step"], state["epoch"], state["batch"]) == (100, 33, 1)
    resumed = fit(folder, kind)
    assert_same(resumed, uninterrupted[kind])
    assert_same(PathResult.load(folder), uninterrupted[kind])
    assert {file.name for file in folder.iterdir()} == FILES
    control = Path.load(folder / "control.safetensors")
    assert control.pivots.shape == (4, resumed.path.layout.size)
    assert torch.equal(control.pivots[[0, -1]], resumed.path.pivots[[0, -1]])
    if kind == "polychain":
        assert torch.equal(control.pivots, resumed.path.pivots)


class Death(BaseException):
    """Like SIGKILL, passes every ``except Exception`` and ``except KeyboardInterrupt``."""


@pytest.mark.slow
def test_death_at_every_write(tmp_path, monkeypatch):
    """Before, or after, the first, second, ... renaming of a file; then the same call again."""
    short = {"steps": 55, "points": 3}
    uninterrupted, rename, deaths = fit(None, **short), os.replace, 0

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
            fit(folder, **short)
            break
        except Death:
            deaths += 1
        monkeypatch.setattr(os, "replace", rename)
        assert_same(fit(folder, **short), uninterrupted)
    assert deaths == 2 * (len(FILES) + 1)  # the newest state is written twice, and moved once


@pytest.mark.parametrize("name", ["state.pt", "backend.json"])
def test_torn_files(tmp_path, uninterrupted, name):
    """A torn state is passed over with a warning; a torn choice is named."""
    stopped = fit(tmp_path, before_batch=at_batch(160, press_ctrl_c))
    assert stopped.status is Status.INTERRUPTED
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-3])
    if name == "backend.json":
        with pytest.raises(ValueError, match="must hold JSON; it is damaged"):
            fit(tmp_path)
        return
    with pytest.warns(UserWarning, match="cannot be read.*going on from the state before it"):
        assert_same(fit(tmp_path), uninterrupted["bezier"])


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("batch", [20, 75, 160])
def test_ctrl_c_of_a_keyboard(tmp_path, uninterrupted, batch):
    """The step it falls into is finished and saved; the same call goes on to the same bits."""
    handler = signal.getsignal(signal.SIGINT)
    stopped = fit(tmp_path, before_batch=at_batch(batch, press_ctrl_c))
    assert signal.getsignal(signal.SIGINT) is handler
    assert stopped.status is Status.INTERRUPTED
    done = stopped.cycles[1].steps
    assert stopped.message == f"{done} of 130 steps are done."
    assert load_run_state(tmp_path)["step"] == done
    assert PathResult.load(tmp_path).status is Status.INTERRUPTED
    assert stopped.profile.test_loss is None
    assert_same(fit(tmp_path), uninterrupted["bezier"])


def stop_at(number):
    def stop():
        raise KeyboardInterrupt

    return at_batch(number, stop)


def test_ctrl_c_without_a_folder(uninterrupted):
    """Nothing is thrown away: neither in mid-step, nor in the last evaluation."""
    taken = []
    fit(None, before_batch=lambda: taken.append(1))
    stopped = fit(None, before_batch=stop_at(len(taken) // 2))
    assert stopped.status is Status.INTERRUPTED
    assert 0 < stopped.cycles[1].steps < 130
    assert stopped.profile.train_loss.isfinite().all()
    last = fit(None, before_batch=stop_at(len(taken) - 1))
    assert (last.status, last.message) == (Status.INTERRUPTED, "all steps are done.")
    assert same(last.path.pivots, uninterrupted["bezier"].path.pivots)


def test_a_finished_folder_answers_at_once(tmp_path, uninterrupted):
    """Without a single evaluation of the network."""
    fit(tmp_path)

    def losses(output, target):
        raise AssertionError("nothing is to be computed")

    losses.__qualname__ = "losses"  # a folder knows its loss function by name
    assert_same(fit(str(tmp_path), loss_fn=losses), uninterrupted["bezier"])


def test_the_choice_of_a_backend_is_taken_from_disk(tmp_path):
    """Whatever the clock would say the second time."""
    fit(tmp_path, backend="auto", before_batch=at_batch(160, press_ctrl_c))
    other = {"loop": "vmap", "vmap": "loop"}
    file = tmp_path / "backend.json"
    file.write_text(f'"{other[file.read_text().strip()[1:-1]]}"\n')
    resumed = fit(tmp_path, backend="auto")
    assert resumed.settings["backend"] == file.read_text().strip()[1:-1]


def test_a_folder_of_another_fit(tmp_path, uninterrupted):
    """It is refused with the setting that differs; ``restart`` forgets it."""
    fit(tmp_path, steps=5)
    for changes, sentence in (
        ({}, "curve.steps = 5, now curve.steps = 130"),
        ({"steps": 5, "seed": 1}, "seed = 0, now seed = 1"),
        ({"steps": 5, "kind": "polychain"}, "curve.kind = bezier, now curve.kind = polychain"),
        ({"steps": 5, "backend": "vmap"}, "asked = loop, now asked = vmap"),
    ):
        with pytest.raises(ValueError, match=sentence):
            fit(tmp_path, **changes)
    assert_same(fit(tmp_path, restart=True), uninterrupted["bezier"])
    assert fit(None, loss_fn=losses, seed=1).saddle != uninterrupted["bezier"].saddle
