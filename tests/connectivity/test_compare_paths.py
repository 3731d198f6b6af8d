"""``compare_paths``: its rows are those of the single calls, and it goes on where it was."""

import json
import signal
from dataclasses import replace
from importlib import import_module
from inspect import signature
from unittest.mock import patch

import pytest
import torch
from killed_curve import at_batch
from killed_search import Watched
from torch import nn

from lowland.connectivity import (
    Comparison,
    Cycle,
    align,
    compare_paths,
    find_path,
    fit_curve,
    linear_path,
)
from lowland.errors import OutcomeError
from lowland.results import Status
from lowland.training import use_threads
from small_networks import SHORT, class_batches, losses, mlp, norm_mlp, same, two

pytestmark = [
    pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning"),
    pytest.mark.filterwarnings("ignore::lowland.errors.FallbackWarning"),
]
compare_module = import_module("lowland.connectivity.compare")
NAMES = ["line", "aligned-line", "bezier", "polychain", "autoneb"]
TESTS = class_batches(4, sizes=(5,), seed=7)


@pytest.fixture(autouse=True)
def one_thread():
    with use_threads(1):
        yield


POINTS = 7


def compare(before_batch=lambda: None, make=norm_mlp, **options):
    """On seven points of each line and curve."""
    model, end = two(make, batches=class_batches(4))
    options = {"schedule": SHORT, "steps": 60, "backend": "loop", "test_batches": TESTS} | options
    with patch("lowland.connectivity.compare.POINTS", POINTS):
        return compare_paths(model, losses, Watched(before_batch), model, end, **options)


def test_lines_have_as_many_points_as_curves_have_by_default():
    assert signature(fit_curve).parameters["points"].default == compare_module.POINTS == 61


@pytest.fixture(scope="module")
def whole():
    with use_threads(1):
        return compare()


def timeless(value):
    """A record without what a clock decides."""
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if name != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def assert_same(found, expected):
    assert timeless(found.record()) == timeless(expected.record())
    assert list(found.results) == list(expected.results)
    for name, result in found.results.items():
        assert timeless(result.record()) == timeless(expected.results[name].record())
        assert same(result.path.pivots, expected.results[name].path.pivots)


def test_rows_are_those_of_the_single_calls(whole):
    """Bit for bit, and every number of a row is read off its profile."""
    model, end = two(norm_mlp, batches=class_batches(4))
    batches = Watched(lambda: None)
    shared = {"test_batches": TESTS, "backend": "loop"}
    line = {"samples": POINTS - 2, "calibration": SHORT.calibration} | shared
    curve = {"steps": 60, "points": POINTS, "examples": SHORT.examples} | shared
    curve |= {"calibration": SHORT.calibration}
    aligned = align(model, batches, model, end).state
    expected = [
        linear_path(model, losses, batches, model, end, **line),
        linear_path(model, losses, batches, model, aligned, **line),
        fit_curve(model, losses, batches, model, end, **curve),
        fit_curve(model, losses, batches, model, end, kind="polychain", **curve),
        find_path(model, losses, batches, model, end, schedule=SHORT, **shared),
    ]
    assert list(whole.results) == NAMES
    gradients = [0, 0, 60, 60, sum(c.steps * c.num_pivots for c in expected[4].cycles)]
    found = zip(whole.rows, whole.results.values(), expected, gradients, strict=True)
    for row, result, single, count in found:
        assert same(result.path.pivots, single.path.pivots)
        assert same(result.profile.train_loss, single.profile.train_loss)
        assert (row.saddle, row.barrier_max) == (single.saddle, single.barrier_max)
        assert (row.barrier_mid, row.barrier_lin) == (single.barrier_mid, single.barrier_lin)
        assert row.test_loss == float(single.profile.test_loss.max())
        assert row.test_error == float(single.profile.test_error.max())
        assert row.length_ratio == single.length_ratio
        assert row.gradients == count
        assert row.seconds > 0
        assert row.status is Status.FINISHED
    assert len({row.method for row in whole.rows}) == 5
    alignment = whole.results["aligned-line"].settings["alignment"]
    assert alignment["objective"][1] >= alignment["objective"][0]


def test_the_table(whole):
    """A line of names and one for each path; columns end at the same place."""
    lines = whole.table().splitlines()
    assert len(lines) == 6
    names = "method saddle barrier max barrier mid barrier lin test loss test error length ratio"
    assert " ".join(lines[0].split()) == f"{names} gradients seconds"
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "straight line", "aligned line", "Bezier curve", "polygonal chain", "AutoNEB",
    ]  # fmt: skip
    assert len({len(line) for line in lines}) == 1
    assert f"{whole.rows[0].saddle:.4g}" in lines[1]
    without = compare(test_batches=None, make=mlp, steps=2).table().splitlines()
    assert without[1].split().count("-") == 2


def test_by_default_as_many_steps_as_autoneb():
    found = compare(make=mlp, steps=None)
    assert [row.gradients for row in found.rows[2:4]] == [SHORT.steps] * 2


def test_files(tmp_path, whole):
    """Saved and loaded it is the same; with ``out`` each path has a folder of its own."""
    assert_same(Comparison.load(whole.save(tmp_path / "saved")), whole)
    found = compare(out=tmp_path / "run")
    assert_same(found, whole)
    assert {folder.name for folder in (tmp_path / "run").iterdir()} == {
        *NAMES, "comparison.json", "lowland.json",
    }  # fmt: skip
    taken = []
    again = compare(out=tmp_path / "run", before_batch=lambda: taken.append(1))
    assert again.record() == found.record()
    assert len(taken) <= 8  # the task is made again, nothing is searched
    with pytest.raises(ValueError, match="curve.steps = 60, now curve.steps = 61"):
        compare(out=tmp_path / "run", steps=61)
    assert compare(out=tmp_path / "run", steps=61, restart=True).rows[2].gradients == 61


@pytest.mark.parametrize("share", [0.2, pytest.param(0.9, marks=pytest.mark.slow)])
def test_ctrl_c_keeps_what_is_finished(tmp_path, whole, share):
    """The first press ends the search it falls into; the same call goes on to the same bits."""
    taken = []
    compare(before_batch=lambda: taken.append(1))
    handler = signal.getsignal(signal.SIGINT)
    press = at_batch(int(share * len(taken)), lambda: signal.raise_signal(signal.SIGINT))
    stopped = compare(out=tmp_path, before_batch=press)
    assert signal.getsignal(signal.SIGINT) is handler
    assert stopped.status is Status.INTERRUPTED
    assert stopped.message == f"{len(stopped.rows)} of 5 paths are finished."
    assert len(stopped.rows) < 5
    assert Comparison.load(tmp_path).status is Status.INTERRUPTED
    with pytest.raises(OutcomeError, match="of 5 paths are finished"):
        stopped.raise_for_status()
    assert_same(compare(out=tmp_path), whole)


class Death(BaseException):
    """Like SIGKILL, passes every ``except Exception`` and ``except KeyboardInterrupt``."""


@pytest.mark.slow
def test_a_death_in_the_middle(tmp_path, whole):
    """What is finished is not done again, and the rest ends with the same bits."""

    def die():
        raise Death

    taken = []
    compare(before_batch=lambda: taken.append(1))
    with pytest.raises(Death):
        compare(out=tmp_path, before_batch=at_batch(int(0.7 * len(taken)), die))
    assert not (tmp_path / "comparison.json").exists()
    done = {file: file.stat().st_mtime_ns for file in tmp_path.glob("bezier/state*.pt")}
    assert done
    assert_same(compare(out=tmp_path), whole)
    assert all(file.stat().st_mtime_ns == time for file, time in done.items())


def test_a_path_that_diverges():
    """Its row says so; the others are there; no NaN reaches the record."""
    schedule = replace(SHORT, cycles=(SHORT.cycles[0], Cycle(5, 1e38)))
    found = compare(make=mlp, schedule=schedule)
    assert [row.status for row in found.rows[:4]] == [Status.FINISHED] * 4
    assert found.status is found.rows[4].status is Status.NOT_FINITE
    assert found.message.startswith("AutoNEB: cycle 2: the loss of pivot ")
    json.dumps(found.record(), allow_nan=False)


def test_bad_input():
    for options, sentence in (
        ({"schedule": "quick"}, "'laptop', 'paper', 'official', or a Schedule; got 'quick'"),
        ({"steps": -1}, "steps must be a whole number, at least 0; got -1"),
        ({"bends": 0}, "bends must be a whole number, at least 1; got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite; got 0.0"),
        ({"backend": "jit"}, "backend must be 'auto', 'vmap' or 'loop'; got 'jit'"),
        ({"test_batches": []}, "at least one batch.*got none"),
    ):
        with pytest.raises(ValueError, match=sentence):
            compare(**options)
    model, _ = two(mlp)
    with pytest.raises(ValueError, match="end must fit the model"):
        compare_paths(model, losses, class_batches(4), model, nn.Linear(2, 2))
    state = model.state_dict() | {"2.bias": torch.tensor([3e38, -3e38, 0.0])}
    with pytest.raises(ValueError, match="must have a finite loss; that of end is inf. Check"):
        compare_paths(model, losses, class_batches(4), model, state)
