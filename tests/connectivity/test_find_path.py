"""``find_path`` on a user's own model: what it reports is what loops over state dicts measure."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lowland.connectivity import SCHEDULES, Cycle, Schedule, find_path, linear_path
from lowland.errors import NoEffectWarning
from lowland.results import Status
from lowland.training import save_state
from oracles.slow_profile import by_hand
from small_networks import (
    SHORT,
    Named,
    Tied,
    class_batches,
    conv_net,
    losses,
    mlp,
    norm_mlp,
    same,
    squared,
    two,
)

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")


def named_batches(kind, dtype=torch.float64):
    """Inputs as a mapping, a tuple or a list; the last batch is smaller."""
    draws = torch.Generator().manual_seed(3)
    for size in (8, 8, 5):
        left = torch.randn(size, 3, dtype=dtype, generator=draws)
        right = torch.randn(size, 2, dtype=dtype, generator=draws)
        target = (left[:, 0] + right[:, 1] > 0).long()
        yield {"right": right, "left": left} if kind is dict else kind([left, right]), target


@pytest.mark.parametrize("kind", [dict, tuple, list])
def test_numbers_are_those_of_loops_over_state_dicts(kind):
    """Losses, saddle and all three barriers, with a ragged last batch, in float64."""
    batches = list(named_batches(kind))
    tests = [(inputs, target.flip(0)) for inputs, target in batches[1:]]
    model, end = two(Named, torch.float64, batches)
    result = find_path(
        model, losses, batches, model, end, schedule=SHORT, test_batches=tests, backend="loop"
    )
    assert result.status is Status.FINISHED
    assert result.best_cycle > 0
    profile, samples = result.profile, SHORT.samples
    train = by_hand(end, result.path, samples, batches, losses)
    assert_close(profile.train_loss, train, rtol=0, atol=1e-12)
    assert_close(profile.test_loss, by_hand(end, result.path, samples, tests, losses))
    assert result.saddle == profile.train_loss.max() == pytest.approx(max(train))
    higher, mean = max(train[0], train[-1]), (train[0] + train[-1]) / 2
    assert result.barrier_max == pytest.approx(float(max(train) - higher), abs=1e-12)
    assert result.barrier_mid == pytest.approx(float(max(train) - mean), abs=1e-12)
    excess = [
        float(value - (1 - t) * train[0] - t * train[-1])
        for t, value in zip(profile.t, train, strict=True)
    ]
    assert result.barrier_lin == pytest.approx(max(excess), abs=1e-12)
    with pytest.raises(KeyError, match=r"train_loss, train_error, test_loss, test_error; got 'x'"):
        profile.saddle("x")


def test_errors_are_shares_of_wrong_classes():
    batches, tests = class_batches(4), class_batches(4, sizes=(7,), seed=5)
    model, end = two(mlp)
    line = linear_path(model, losses, batches, model, end, samples=3, test_batches=tests)

    def wrong(output, target):
        return (output.argmax(1) != target).float()

    for metric, data in (("train_error", batches), ("test_error", tests)):
        assert_close(line.profile.values(metric), by_hand(end, line.path, 3, data, wrong))
        assert 0 < line.profile.saddle(metric) <= 1


def test_regression_has_no_error():
    """A model that gives numbers: losses are there, errors are None."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=draws)
    batches = [(x, x.sum(1)), (x.flip(1), x.prod(1))]
    model, end = two(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)),
        batches=batches, loss_fn=squared,
    )  # fmt: skip
    result = find_path(
        model, squared, batches, model, end, schedule=SHORT, test_batches=batches[:1]
    )
    assert result.profile.train_error is result.profile.test_error is None
    assert result.record()["profile"]["train_error"] is None
    train = by_hand(end, result.path, SHORT.samples, batches, squared)
    assert_close(result.profile.train_loss, train, rtol=1e-5, atol=1e-6)
    with pytest.raises(KeyError, match="one of train_loss, test_loss; got 'train_error'"):
        result.profile.saddle("train_error")


def test_the_reported_path_is_that_of_the_best_cycle():
    """Cycles are the schedule's; the lowest saddle wins; positions are shares of the length."""
    batches = class_batches(4)
    model, end = two(mlp, batches=batches)
    result = find_path(model, losses, batches, model, end, schedule=SHORT, backend="loop")
    assert [cycle.number for cycle in result.cycles] == [0, 1, 2, 3]
    assert [cycle.steps for cycle in result.cycles] == [0, 6, 6, 4]
    saddles = [cycle.profile.saddle() for cycle in result.cycles]
    assert result.best_cycle == min(range(4), key=saddles.__getitem__)
    assert result.cycles[1].num_pivots == 2
    for before, after in zip(result.cycles[1:], result.cycles[2:], strict=False):
        assert after.num_pivots == before.num_pivots + len(after.inserted) <= before.num_pivots + 1
    best = result.cycles[result.best_cycle]
    assert len(result.path.pivots) == best.num_pivots + 2
    assert_close(best.profile.train_loss, result.profile.train_loss)  # examples are all there are
    steps = (result.path.pivots[1:] - result.path.pivots[:-1]).double().norm(dim=1)
    assert result.path.length() == pytest.approx(float(steps.sum()))
    assert result.length_ratio == pytest.approx(float(steps.sum()) / result.distance)
    at_pivots = result.profile.t[:: SHORT.samples + 1]
    expected = [float(steps[:i].sum() / steps.sum()) for i in range(len(steps) + 1)]
    assert_close(at_pivots, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("make", [mlp, norm_mlp, Tied, conv_net])
@pytest.mark.parametrize("batch_norm", ["recalibrate", "interpolate"])
def test_state_dicts_along_the_path(make, batch_norm):
    """Ends come back bit for bit, and every point loads strictly into the model."""
    batches = class_batches(1, 4, 4) if make is conv_net else class_batches(4)
    model, end = two(make, batches=batches)
    result = find_path(
        model, losses, batches, model.state_dict(), end, schedule=SHORT, batch_norm=batch_norm
    )
    moving = {name for name, _ in model.named_parameters()}
    if batch_norm == "interpolate":
        moving |= {name for name in model.state_dict() if name.endswith(("_mean", "_var"))}
    for t, minimum in ((0, model), (1, end)):
        state, own = result.path.state_dict(t), minimum.state_dict()
        assert state.keys() == own.keys()
        assert all(torch.equal(state[name], own[name]) for name in moving)
        make().load_state_dict(state, strict=True)
    make().load_state_dict(result.state_dict(0.3), strict=True)
    assert same(result.state_dict(0.3), result.path.state_dict(0.3))
    before = result.path.pivots.clone()
    result.path.state_dict(0)[result.path.layout.names[0]].zero_()  # a copy
    assert torch.equal(result.path.pivots, before)


def test_ends_from_files_modules_and_state_dicts(tmp_path):
    """All kinds of ends give the same bits."""
    model, end = two(mlp, batches=class_batches(4))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.ckpt")
    save_state(tmp_path / "b.safetensors", end)
    found = [
        find_path(model, losses, class_batches(4), a, b, schedule=SHORT, backend="loop")
        for a, b in (
            (model, end),
            (model.state_dict(), end.state_dict()),
            (tmp_path / "a.ckpt", str(tmp_path / "b.safetensors")),
        )
    ]
    assert found[0].best_cycle > 0
    assert all(torch.equal(one.path.pivots, found[0].path.pivots) for one in found)


class Wells(nn.Module):
    """A function of the parameters alone: minima at all corners, every way over exactly 1."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, x):
        return (self.place.square() - 1).square().sum() + 0 * x[:, 0]


def test_a_symmetric_start_is_left():
    """From corner to opposite corner: the diagonal (2.0) feels no force, the way around is 1.0."""
    model = Wells()
    opposite = {"place": -torch.ones(2, dtype=torch.float64)}
    schedule = Schedule(
        (Cycle(150, 0.02, insert="equal", count=7), Cycle(50, 0.001, count=0)), samples=9
    )
    batches = [(torch.zeros(2, 1), torch.zeros(2))]
    arguments = (model, lambda output, target: output, batches, model, opposite)
    result = find_path(*arguments, schedule=schedule, backend="loop")
    assert [cycle.perturbed for cycle in result.cycles] == [False, True, False]
    assert result.cycles[0].profile.saddle() == pytest.approx(2)
    assert 1 <= result.saddle < 1.01


def test_a_warning_where_nothing_was_gained():
    """Two points of one bowl: the straight line is the best path, and the user is told."""
    model = nn.Linear(2, 1).double()
    x = torch.eye(2, dtype=torch.float64)
    batches = [(x, torch.zeros(2, dtype=torch.float64))]
    ends = [{"weight": w * torch.ones(1, 2).double(), "bias": torch.zeros(1)} for w in (-1, 1)]
    with pytest.warns(NoEffectWarning, match="no relaxed path was lower than the straight line"):
        result = find_path(model, squared, batches, *ends, schedule=SHORT, backend="loop")
    assert result.best_cycle == 0
    assert len(result.path.pivots) == 2


def test_presets():
    """The paper's totals; a tenth of them; what the published code does otherwise."""
    paper, laptop, official = (SCHEDULES[name]() for name in ("paper", "laptop", "official"))
    assert len(paper.cycles) == 14
    assert paper.steps == 16_000
    assert [cycle.steps for cycle in paper.cycles] == [1000] * 4 + [2000] * 2 + [1000] * 8
    assert [c.learning_rate for c in paper.cycles] == [0.1] * 6 + [0.01] * 4 + [0.001] * 4
    assert [cycle.insert for cycle in paper.cycles] == ["equal"] + ["highest"] * 13
    assert [cycle.count for cycle in paper.cycles] == [3] + [2] * 13
    assert sum(cycle.count for cycle in paper.cycles) == 29
    assert (paper.momentum, paper.weight_decay, paper.samples) == (0.9, 1e-4, 9)
    assert (paper.threshold, paper.tangent, paper.batch_norm) == (0.2, "paper", "recalibrate")
    assert paper.shared_batch
    tenth = tuple(replace(cycle, steps=cycle.steps // 10) for cycle in paper.cycles)
    assert laptop == replace(paper, cycles=tenth)
    assert laptop.steps == 1600
    assert official == replace(
        paper, threshold=0.1, tangent="official", batch_norm="interpolate", shared_batch=False
    )


def test_tangent_and_batch_norm_override_the_schedule():
    model, end = two(norm_mlp)
    schedule = replace(SHORT, shared_batch=False)  # as published: a batch for each pivot
    found = [
        find_path(
            model, losses, class_batches(4), model, end, schedule=schedule, backend="loop", **names
        )
        for names in ({}, {"tangent": "official", "batch_norm": "interpolate"})
    ]
    assert found[1].settings["schedule"]["tangent"] == "official"
    assert found[1].path.layout.size == found[0].path.layout.size + 2 * (6 + 5)
    assert not same(found[0].path.pivots, found[1].path.pivots)
