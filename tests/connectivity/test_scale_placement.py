"""Where pivots lie follows from bytes: those given here by hand, or counted layer by layer."""

import pytest
import torch
from torch import nn

from lowland.connectivity import (
    Comparison,
    Cycle,
    Schedule,
    compare_paths,
    connect_minima,
    find_path,
    placement,
    probe,
)
from lowland.connectivity.ends import make_stack
from lowland.connectivity.folder import load_result
from lowland.connectivity.pairs import from_files
from lowland.connectivity.placement import Placement, placed
from lowland.connectivity.schedule import paper
from lowland.results import read_json
from small_networks import SHORT, class_batches, losses, mlp, two

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")

# A pivot of 10 bytes whose pass keeps 70: 80 at hand, 100 brought from the host. Ten of them take
# 1200 at rest. Half of the memory may be used.
TEN = {"pivots": 10, "vector": 10, "activations": 70}

CASES = [
    ("auto", GPU, 4000, "device", None),  # 2000: 1200 and ten passes
    ("auto", GPU, 3998, "device", 9),
    ("auto", GPU, 2560, "device", 1),  # 1280: 1200 and one pass
    ("auto", GPU, 2558, "cpu", None),  # 1279 are twelve from the host
    ("auto", GPU, 1998, "cpu", 9),
    ("auto", GPU, 400, "cpu", 2),
    ("auto", GPU, 100, "cpu", 1),  # all of it, as less is no use
    ("device", GPU, 2000, "device", 1),  # as asked
    ("cpu", GPU, 10**9, "cpu", None),
    ("cpu", GPU, 600, "cpu", 3),
    ("auto", CPU, 2558, "device", 1),  # there is no other place
    ("auto", CPU, 100, "device", 1),
    ("cpu", CPU, 400, "cpu", 2),
]


@pytest.mark.parametrize(("asked", "device", "free", "where", "rows"), CASES)
def test_by_hand(asked, device, free, where, rows):
    assert placed(asked, device, free, **TEN) == Placement(where, rows)


@pytest.mark.parametrize(("asked", "device", "free"), [("auto", GPU, 99), ("device", GPU, 79)])
def test_not_even_one(asked, device, free):
    sentence = "must fit into the memory of cuda:0; it takes at least .* and 0.0 MiB are free. Pass"
    with pytest.raises(torch.OutOfMemoryError, match=sentence):
        placed(asked, device, free, **TEN)


def test_not_even_one_in_a_search(monkeypatch):
    """Before a step is taken."""
    model, end = two(mlp)
    monkeypatch.setattr(placement, "free_bytes", lambda _: 100)
    with pytest.raises(torch.OutOfMemoryError, match="one pivot at a time must fit"):
        find_path(model, losses, class_batches(4), model, end, schedule=SHORT)


def test_what_a_pass_keeps():
    """A linear layer its input, tanh its output; the batch and parameters are there anyway.

    Of 8 examples tanh keeps 8 x 6, which is the next layer's input too; logsumexp keeps 8 x 3
    outputs and 8 results.
    """
    model, _ = two(mlp)
    stack = make_stack(model, losses, model.state_dict(), batch_norm="recalibrate")
    found = probe.pass_bytes(stack, stack.layout.flatten(model.state_dict()), class_batches(4)[0])
    least = 4 * (8 * 6 + 8 * 3 + 8)
    assert least <= found <= least + 8 * 8 + 4 * 8  # and indices or a copy of the losses, at most

    deeper = nn.Sequential(model[0], nn.Tanh(), nn.Tanh(), nn.Tanh(), model[2])
    stack = make_stack(deeper, losses, deeper.state_dict(), batch_norm="recalibrate")
    other = probe.pass_bytes(stack, stack.layout.flatten(deeper.state_dict()), class_batches(4)[0])
    assert other - found == 2 * 4 * 8 * 6


def test_how_many_pivots_there_may_be():
    """The paper's schedule: 3 and at most two in each of 13 cycles, 29; and the ends."""
    assert placement.most_pivots(paper()) == 31
    cycles = (Cycle(1, 0.1, insert="equal", count=1), Cycle(1, 0.1, insert="equal", count=2))
    assert placement.most_pivots(Schedule(cycles)) == 7  # 1 segment, 2, 6


def test_the_choice_is_kept(tmp_path, monkeypatch):
    """A search that goes on takes it from the disk, whatever memory there is now."""
    model, end = two(mlp)
    arguments = (model, losses, class_batches(4), model, end)
    settings = {"schedule": SHORT, "backend": "vmap", "out": tmp_path}
    real = placement.placed
    monkeypatch.setattr(placement, "placed", lambda *_: Placement("cpu", 2))
    first = find_path(*arguments, until_cycle=1, **settings)
    monkeypatch.setattr(placement, "placed", lambda *_: pytest.fail("it is on disk"))
    found = find_path(*arguments, **settings)
    for result in (first, found):
        assert (result.settings["pivots_on"], result.settings["rows_at_once"]) == ("cpu", 2)
    kept = {"asked": "auto", "pivots_on": "cpu", "rows_at_once": 2}
    assert read_json(tmp_path / "placement.json") == kept
    assert find_path(*arguments, **settings).settings == found.settings
    monkeypatch.setattr(placement, "placed", real)
    asked = find_path(*arguments, **settings | {"out": None}, pivots_on="device")
    assert asked.settings["pivots_on"] == "device"
    assert torch.equal(asked.path.pivots, found.path.pivots)


def test_another_wish_is_heard(tmp_path):
    """A search that did not fit goes on where it does."""
    model, end = two(mlp)
    arguments = (model, losses, class_batches(4), model, end)
    settings = {"schedule": SHORT, "backend": "loop"}
    find_path(*arguments, out=tmp_path, until_cycle=1, pivots_on="device", **settings)
    found = find_path(*arguments, out=tmp_path, pivots_on="cpu", **settings)
    assert found.settings["pivots_on"] == "cpu"
    assert torch.equal(found.path.pivots, find_path(*arguments, **settings).path.pivots)


@pytest.mark.parametrize(("asked", "where"), [("cpu", "cpu"), ("device", "meta")])
def test_results_go_where_the_pivots_lay(asked, where, tmp_path):
    """Read back for a model elsewhere: what was found on the host might not fit there."""
    model, end = two(mlp)
    arguments = (model, losses, class_batches(4), model, end)
    options = {"schedule": SHORT, "backend": "loop", "pivots_on": asked}
    folder = tmp_path / "one"
    find_path(*arguments, out=folder, **options)
    compare_paths(*arguments, steps=5, out=tmp_path / "five", **options)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    found = [
        load_result(folder, "meta"),
        from_files(files, "meta"),
        Comparison.load(tmp_path / "five", "meta").results["autoneb"],
    ]
    assert [result.path.pivots.device.type for result in found] == [where] * 3
    assert {result.settings["pivots_on"] for result in found} == {asked}


def test_an_exploration_passes_the_place_on(tmp_path):
    """Every pair is the path that a search with the same wish finds."""
    nets = two(mlp)
    options = {"schedule": SHORT, "backend": "loop", "pivots_on": "cpu"}
    found = connect_minima(nets[0], losses, class_batches(4), nets, out=tmp_path, **options)
    assert found.path(0, 1).settings["pivots_on"] == "cpu"
    alone = find_path(nets[0], losses, class_batches(4), *nets, **options)
    assert torch.equal(found.path(0, 1).path.pivots, alone.path.pivots)


@pytest.mark.parametrize("way", [find_path, compare_paths])
def test_an_unknown_place(way, tmp_path):
    """Before any work, and before a folder is made."""
    model, end = two(mlp)
    options = {"schedule": SHORT, "pivots_on": "gpu", "out": tmp_path / "out"}
    with pytest.raises(ValueError, match="must be 'auto', 'device' or 'cpu'; got 'gpu'"):
        way(model, losses, class_batches(4), model, end, **options)
    with pytest.raises(ValueError, match="must be 'auto', 'device' or 'cpu'; got 'gpu'"):
        connect_minima(model, losses, class_batches(4), [model, end], **options)
    assert not (tmp_path / "out").exists()
