"""Paths and results come back from disk bit for bit, and in JSON without a NaN."""

import json
from math import nan

import pytest
import torch
from torch import float64, nn
from torch.testing import assert_close

from lowland.connectivity import Path, PathResult, Profile, find_path, linear_path
from lowland.params import Layout
from lowland.results import write_json, write_tensors
from small_networks import (
    SHORT,
    Named,
    Tied,
    class_batches,
    losses,
    mlp,
    norm_mlp,
    same,
    two,
)

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")


def path_of(make, batch_norm="recalibrate", dtype=torch.float32):
    model, end = two(make, dtype)
    batches = class_batches(4, dtype=dtype)
    return find_path(
        model, losses, batches, model, end, schedule=SHORT, batch_norm=batch_norm, backend="loop"
    )


@pytest.mark.parametrize("make", [mlp, norm_mlp, Tied])
@pytest.mark.parametrize("batch_norm", ["recalibrate", "interpolate"])
@pytest.mark.parametrize("dtype", [torch.float32, float64])
def test_a_path_comes_back(make, batch_norm, dtype, tmp_path):
    """Pivots, weights, names, tied names, and what does not move, all with their types."""
    path = path_of(make, batch_norm, dtype).path
    file = path.save(tmp_path / "new" / "path.safetensors")
    loaded = Path.load(file)
    assert same(loaded.pivots, path.pivots)
    assert same(loaded.weights, path.weights)
    assert loaded.layout == path.layout
    assert same(dict(sorted(loaded.fixed.items())), dict(sorted(path.fixed.items())))
    for t in (0, 0.37, 1):
        found, expected = loaded.state_dict(t), path.state_dict(t)
        assert same(dict(sorted(found.items())), dict(sorted(expected.items())))


def test_points_of_a_path():
    """A path with a corner, by hand: 3 along x, then 1 along y."""
    corner = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    path = Path(corner, torch.full((2,), 0.5), Layout(("x", "y"), ((), ())))
    assert path.length() == 4
    for t, point in ((0, (0, 0)), (0.25, (1, 0)), (0.75, (3, 0)), (0.875, (3, 0.5)), (1, (3, 1))):
        assert_close(path.at(t), torch.tensor(point, dtype=torch.float32))
        back = path.reversed()
        assert_close(back.at(1 - t), path.at(t))
    assert path.reversed().weights.tolist() == path.weights.flip(0).tolist()
    assert path.state_dict(0.25) == {"x": torch.tensor(1.0), "y": torch.tensor(0.0)}
    for t in (-0.1, 1.1, nan):
        with pytest.raises(ValueError, match=f"t must lie between 0 .* and 1 .*; got {t}"):
            path.at(t)


def test_another_file_is_refused(tmp_path):
    file = write_tensors(tmp_path / "weights.safetensors", {"a": torch.ones(2)})
    with pytest.raises(ValueError, match="must be a path written by Path.save"):
        Path.load(file)


@pytest.mark.parametrize("tests", [None, class_batches(4, sizes=(5,), seed=9)])
def test_a_result_comes_back(tests, tmp_path):
    """Everything, cycles included; saved again the JSON has the same bytes."""
    batches = class_batches(4)
    model, end = two(mlp, batches=batches)
    result = find_path(
        model, losses, batches, model, end, schedule=SHORT, test_batches=tests, backend="loop"
    )
    result.save(tmp_path / "a")
    loaded = PathResult.load(str(tmp_path / "a"))
    assert loaded.record() == result.record()
    assert loaded.status is result.status
    assert loaded.cycles[1].status is result.cycles[1].status
    assert loaded.cycles[-1].inserted == result.cycles[-1].inserted
    assert type(loaded.cycles) is tuple
    assert same(loaded.path.pivots, result.path.pivots)
    for name in ("t", "train_loss", "train_error", "test_loss", "test_error"):
        assert same(getattr(loaded.profile, name), getattr(result.profile, name))
    for name in ("saddle", "barrier_max", "barrier_mid", "barrier_lin", "length_ratio"):
        assert getattr(loaded, name) == getattr(result, name)
    loaded.save(tmp_path / "b")
    first, second = (tmp_path / folder / "result.json" for folder in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_what_a_record_holds():
    """Plain values: numbers of the path and of every cycle, and the settings that decided them."""
    batches = class_batches(4)
    model, end = two(mlp, batches=batches)
    result = find_path(model, losses, batches, model, end, schedule=SHORT, backend="loop", seed=3)
    record = json.loads(json.dumps(result.record(), allow_nan=False))
    assert record == result.record()
    assert record["saddle"] == result.saddle == max(record["profile"]["train_loss"])
    assert record["status"] == "finished"
    assert record["settings"]["seed"] == 3
    assert record["settings"]["schedule"]["cycles"][1] == {
        "steps": 6, "learning_rate": 0.1, "insert": "highest", "count": 1,
    }  # fmt: skip
    assert [cycle["backend"] for cycle in record["cycles"]] == ["loop"] * 4
    assert "path" not in record


def test_no_nan_in_a_record(tmp_path):
    """A loss that is not finite counts as infinite, and is a hole in the file."""
    model, end = two(lambda: nn.Linear(4, 3))
    line = linear_path(model, losses, class_batches(4), model, end, samples=1)
    values = line.profile.train_loss.clone()
    values[1] = nan
    broken = Profile(line.profile.t, values)
    assert broken.saddle() == broken.barrier_max() == float("inf")
    holes = {"saddle": broken.saddle(), "profile": broken}
    text = write_json(tmp_path / "a.json", holes).read_text()
    assert json.loads(text)["profile"]["train_loss"][1] is None
    assert json.loads(text)["saddle"] is None
    assert "NaN" not in text


def test_barriers_by_hand():
    """Three definitions on numbers where they differ."""
    t = torch.tensor([0.0, 0.2, 0.6, 1.0], dtype=float64)
    profile = Profile(t, torch.tensor([1.0, 3.0, 3.5, 2.0], dtype=float64))
    assert profile.saddle() == 3.5
    assert profile.barrier_max() == 1.5
    assert profile.barrier_mid() == 2.0
    assert profile.barrier_lin() == pytest.approx(max(3.0 - 1.2, 3.5 - 1.6))
    flipped = Profile(t, -profile.train_loss, test_loss=profile.train_loss)
    assert flipped.barrier_max() == 0.0
    assert (flipped.saddle("test_loss"), flipped.barrier_mid("test_loss")) == (3.5, 2.0)
    with pytest.raises(KeyError, match="one of train_loss, test_loss; got 'test_error'"):
        flipped.saddle("test_error")


def test_named_inputs_in_a_saved_result(tmp_path):
    """The loaded state dict runs in the user's model and gives the reported loss."""
    model, end = two(Named, float64)
    inputs = {"left": torch.ones(4, 3).double(), "right": torch.arange(8).view(4, 2).double()}
    batches = [(inputs, torch.arange(4) % 3)]
    line = linear_path(model, losses, batches, model, end, samples=1)
    line.save(tmp_path)
    end.load_state_dict(PathResult.load(tmp_path).path.state_dict(0.5), strict=True)
    loss = losses(end(**inputs), batches[0][1]).mean().detach()
    assert float(loss) == pytest.approx(float(line.profile.train_loss[1]))
