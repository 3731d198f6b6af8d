"""Every bad input of specification 8 meets a sentence: what must hold, what came, what to do."""

from copy import deepcopy
from dataclasses import replace
from math import inf, nan

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lowland.connectivity import (
    Cycle,
    Schedule,
    align,
    compare_paths,
    connect_minima,
    find_path,
    fit_curve,
    linear_path,
    measure_ensemble,
    measure_path,
    measure_plane,
    tangents,
)
from lowland.errors import CheckpointError
from lowland.results import Status
from small_networks import SHORT, Tied, class_batches, losses, mlp, norm_mlp, two


def search(make=mlp, start=None, end=None, loss_fn=losses, batches=None, **options):
    a, b = two(make)
    return find_path(
        a,
        loss_fn,
        class_batches(4) if batches is None else batches,
        a if start is None else start,
        b if end is None else end,
        **{"schedule": SHORT, "backend": "loop"} | options,
    )


def test_different_keys():
    """The first five of each kind, with the nearest names."""
    state = mlp().state_dict()
    state["0.wieght"] = state.pop("0.weight")
    state |= {f"extra.{i}": torch.ones(1) for i in range(6)}
    with pytest.raises(ValueError, match="end must fit the model; missing: 0.weight") as caught:
        search(end=state)
    assert isinstance(caught.value, CheckpointError)
    assert "missing: 0.weight (near 0.wieght)" in str(caught.value)
    assert "extra.3 and 2 more" in str(caught.value)
    assert "extra.4" not in str(caught.value)


def test_different_shapes():
    wider = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3))
    with pytest.raises(CheckpointError, match=r"start must fit.*0.weight: \(7, 4\) for \(6, 4\)"):
        search(start=wider)


@pytest.mark.parametrize("name", ["weights.onnx", "weights"])
def test_unknown_file_type(tmp_path, name):
    (tmp_path / name).write_bytes(b"1")
    with pytest.raises(CheckpointError, match="one of .safetensors, .pt, .*Save it with"):
        search(start=tmp_path / name)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"must exist; .*no.pt does not"):
        search(end=tmp_path / "no.pt")


@pytest.mark.untyped
def test_strange_source():
    with pytest.raises(CheckpointError, match="state dict, a module or a path; got a int"):
        search(end=3)


@pytest.mark.parametrize("batch_norm", ["recalibrate", "interpolate"])
def test_equal_ends(batch_norm, recwarn):
    """A trivial path: one point, no barrier, nothing divided by zero."""
    model, _ = two(norm_mlp)
    result = search(norm_mlp, model, deepcopy(model).state_dict(), batch_norm=batch_norm)
    assert result.status is Status.FINISHED
    assert result.message == "the ends are equal, so the path is a point."
    assert (result.distance, result.path.length(), result.length_ratio) == (0.0, 0.0, 1.0)
    assert result.profile.train_loss.isfinite().all()
    loss = float(result.profile.train_loss[0])
    assert result.saddle == pytest.approx(loss)
    assert result.barrier_max == result.barrier_lin == pytest.approx(0, abs=1e-7)
    assert torch.equal(result.path.at(0.5), result.path.pivots[0])
    model.load_state_dict(result.path.state_dict(0.5))
    line = linear_path(model, losses, class_batches(4), model, model, batch_norm=batch_norm)
    assert (line.length_ratio, line.barrier_max) == (1.0, pytest.approx(0, abs=1e-7))
    assert not recwarn.list
    with pytest.raises(ValueError, match="the ends of the path must differ"):
        measure_plane(model, losses, class_batches(4), line.path)


@pytest.mark.parametrize(("which", "value"), [("start", nan), ("end", inf)])
def test_non_finite_parameters(which, value):
    state = mlp().state_dict()
    state["2.bias"] = torch.tensor([value, 0.0, 0.0])
    with pytest.raises(ValueError, match=f"{which} must hold finite parameters; 2.bias does not"):
        search(**{which: state})


@pytest.mark.parametrize("which", ["start", "end"])
def test_non_finite_loss_at_an_end(which):
    state = mlp().state_dict()
    state["2.bias"] = torch.tensor([3e38, -3e38, 0.0])
    with pytest.raises(ValueError, match=f"must have a finite loss; that of {which} is inf. Check"):
        search(**{which: state})


@pytest.mark.parametrize("backend", ["loop", "vmap", "auto"])
def test_mean_reduced_loss_fn(backend):
    sentence = r'one loss per example, shape \(8,\); got a scalar. Pass reduction="none".'
    with pytest.raises(ValueError, match=sentence):
        search(loss_fn=nn.functional.cross_entropy, backend=backend)
    with pytest.raises(ValueError, match=r"shape \(8,\); got shape \(8, 3\). Average"):
        search(loss_fn=lambda output, target: output, backend=backend)


def test_batches_that_are_not_pairs():
    with pytest.raises(ValueError, match=r"pairs \(inputs, target\); got a list of 3"):
        search(batches=[[torch.ones(8, 4)] * 3])


@pytest.mark.parametrize("which", ["batches", "evaluation_batches", "test_batches"])
def test_empty_and_used_up_batches(which):
    """Before anything is computed, whichever batches they are."""
    loader = DataLoader(TensorDataset(torch.ones(3, 4), torch.ones(3)), 8, drop_last=True)
    for empty in ([], loader):
        with pytest.raises(ValueError, match="must yield at least one batch; got none"):
            search(**{which: empty})
    used_up = (batch for batch in class_batches(4))
    with pytest.raises(
        ValueError, match="iterable more than once; got a generator, .* Pass a list"
    ):
        search(**{which: used_up})
    assert next(used_up) is not None
    with pytest.raises(ValueError, match="got a map"):
        linear_path(
            mlp(), losses, **{"batches": class_batches(4), which: map(tuple, class_batches(4))},
            start=mlp(), end=mlp(),
        )  # fmt: skip


@pytest.mark.parametrize("bad", [None, 3, losses], ids=["none", "number", "function"])
def test_batches_that_are_none(bad):
    """Each is told by the name of its argument, from every way in."""
    a, b = two(mlp)
    good = class_batches(4)
    sentence = (
        rf"batches must be an iterable of \(inputs, target\).*got a {type(bad).__name__}. Pass"
    )
    for way in (find_path, linear_path, fit_curve, compare_paths):
        with pytest.raises(ValueError, match=f"^{sentence}"):
            way(a, losses, bad, a, b)
    with pytest.raises(ValueError, match=f"^{sentence}"):
        connect_minima(a, losses, bad, [a, b])
    with pytest.raises(ValueError, match=f"^{sentence}"):
        align(a, bad, a, b)
    line = linear_path(a, losses, good, a, b, samples=1).path
    with pytest.raises(ValueError, match=f"test_{sentence}"):
        measure_ensemble(a, losses, good, line, bad)
    if bad is not None:
        for name in ("evaluation_batches", "test_batches"):
            with pytest.raises(ValueError, match=name.replace("batches", sentence)):
                find_path(a, losses, good, a, b, **{name: bad})


@pytest.mark.untyped
@pytest.mark.parametrize("bad", [1.5, "two", None, True])
def test_counts_that_are_not_whole(bad):
    """No bare TypeError from inside: name and value are told before any work."""
    a, b = two(mlp)
    good = class_batches(4)
    line = linear_path(a, losses, good, a, b, samples=1).path
    calls = {
        "passes": lambda: align(a, good, a, b, passes=bad),
        "points": lambda: fit_curve(a, losses, good, a, b, points=bad),
        "samples": lambda: measure_path(a, losses, good, line, samples=bad),
        "resolution": lambda: measure_plane(a, losses, good, line, resolution=bad),
        "calibration": lambda: linear_path(a, losses, good, a, b, calibration=bad),
        "examples": lambda: align(a, good, a, b, examples=bad),
        "bends": lambda: fit_curve(a, losses, good, a, b, bends=bad),
    }
    if bad is not None:  # which means no limit
        calls["budget"] = lambda: connect_minima(a, losses, good, [a, b], budget=bad)
        calls["in_flight"] = lambda: connect_minima(a, losses, good, [a, b], in_flight=bad)
        calls["until_cycle"] = lambda: find_path(a, losses, good, a, b, until_cycle=bad)
    for name, call in calls.items():
        with pytest.raises(
            ValueError, match=f"^{name} must be a whole number, .*got {bad!r}. Pass"
        ):
            call()
    with pytest.raises(ValueError, match=r"points must be a whole number, at least 2; got"):
        measure_ensemble(a, losses, good, line, good, points=bad)


@pytest.mark.untyped
@pytest.mark.parametrize("bad", ["0.1", None, -0.1, inf])
def test_rates_that_are_no_numbers(bad):
    a, b = two(mlp)
    sentence = f"learning_rate must be positive and .*got {bad!r}. Begin"
    with pytest.raises(ValueError, match=sentence):
        fit_curve(a, losses, class_batches(4), a, b, learning_rate=bad)
    with pytest.raises(ValueError, match=sentence):
        Cycle(1, bad)


class OnlyOnce:
    """Batches that are used up, though they do not look it."""

    def __init__(self):
        self.source = iter(class_batches(4))

    def __iter__(self):
        return self.source


def test_batches_that_are_used_up_unnoticed():
    with pytest.raises(ValueError, match="got none. Is the loader empty, or used up"):
        search(batches=OnlyOnce())


def test_frozen_parameters_and_buffers_that_differ():
    """Named, five at most; batch-norm statistics may differ."""
    a, b = two(Tied)
    b.outer.bias.data.fill_(1.0)
    with pytest.raises(ValueError, match="equal at both ends.*these differ: outer.bias. Call req"):
        search(Tied, a, b)
    a, b = two(norm_mlp)
    for net in (a, b):
        for i in range(7):
            net[0].register_buffer(f"table{i}", torch.full((2,), float(net is b)))
    with pytest.raises(ValueError, match="0.table0, .*0.table4 and 2 more. Call"):
        find_path(a, losses, class_batches(4), a, b)
    a, b = two(norm_mlp)
    a.requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="must have a parameter that requires a gradient"):
        find_path(a, losses, class_batches(4), a, b)


NAMES = [
    ({"schedule": "quick"}, "'laptop', 'paper', 'official', or a Schedule; got 'quick'"),
    pytest.param({"schedule": 14}, "or a Schedule; got 14", marks=pytest.mark.untyped),
    ({"tangent": "uphill"}, "tangent must be 'paper', 'improved' or 'official'; got 'uphill'"),
    ({"batch_norm": "eval"}, "batch_norm must be 'recalibrate' or 'interpolate'; got 'eval'"),
    ({"backend": "jit"}, "backend must be 'auto', 'vmap' or 'loop'; got 'jit'"),
]


@pytest.mark.parametrize(("options", "sentence"), NAMES)
def test_unknown_names(options, sentence, tmp_path):
    """They are refused before a folder is made for them."""
    with pytest.raises(ValueError, match=sentence):
        search(**options, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_names_elsewhere():
    a, b = two(mlp)
    for option in ({"backend": "jit"}, {"batch_norm": "eval"}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} must be .*got"):
            linear_path(a, losses, class_batches(4), a, b, **option)
    with pytest.raises(ValueError, match="samples must be a whole number, at least 0; got -1"):
        linear_path(a, losses, class_batches(4), a, b, samples=-1)
    line = linear_path(a, losses, class_batches(4), a, b, samples=1)
    with pytest.raises(ValueError, match="resolution must be a whole number, at least 2; got 1"):
        measure_plane(a, losses, class_batches(4), line.path, resolution=1)
    with pytest.raises(ValueError, match="tangent must be"):
        tangents(torch.ones(3, 2), torch.ones(3), "uphill")


@pytest.mark.untyped
def test_a_list_in_the_place_of_a_name():
    """It is no key of a table, and is refused like any other value."""
    a, b = two(mlp)
    with pytest.raises(ValueError, match="schedule must be one of .*, or a Schedule; got \\[Cycle"):
        search(schedule=[Cycle(1, 0.1)])
    with pytest.raises(ValueError, match=r"suggest must be one of .*; got \['paper'\]"):
        connect_minima(a, losses, class_batches(4), [a, b], suggest=["paper"])


def test_paths_are_compared_by_identity():
    """Their tensors have no single truth value."""
    a, b = two(mlp)
    line = linear_path(a, losses, class_batches(4), a, b, backend="loop")
    assert line.path != line.path.reversed()
    assert line.profile != replace(line.profile, t=1 - line.profile.t)


def test_a_schedule_is_complete():
    """The smallest one that is allowed does something."""
    smallest = Schedule((Cycle(1, 0.1, insert="equal", count=1),), samples=0, examples=1)
    with pytest.warns(UserWarning, match="no relaxed path was lower"):
        result = search(schedule=smallest)
    assert [cycle.num_pivots for cycle in result.cycles] == [0, 1]
