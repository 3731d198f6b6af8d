"""``train_msa`` is method B with a schedule: killed, sliced or spread, it gives the same bits."""

import signal

import pytest
import torch
import two_trainers
from killed_msa import killed, run
from torch import nn
from torch.testing import assert_close

import forked
from lowland.control import (
    DiscreteMSA,
    discrete_parameters,
    discretize,
    nonzero_share,
    train_msa,
    values_of,
)
from lowland.control.schedules import annealing, nonzero_schedule, per_epoch
from lowland.errors import NoEffectWarning
from lowland.results import Status, read_json
from lowland.training import evaluate
from small_networks import class_batches, mlp, norm_mlp, seeded

losses = nn.CrossEntropyLoss(reduction="none")


def assert_same(one, other):
    assert one.status is other.status is Status.FINISHED
    assert one.nonzero == other.nonzero
    assert_close(dict(one.state), dict(other.state), rtol=0, atol=0)


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    assert forked.run(killed, tmp_path) == -signal.SIGKILL
    expected = run()
    assert_same(run(tmp_path), expected)
    assert_same(run(tmp_path), expected)  # finished: read, not run
    assert read_json(tmp_path / "result.json")["nonzero"] == expected.nonzero


def test_a_run_in_slices(tmp_path):
    expected, result = run(), None
    while result is None or result.status is Status.INTERRUPTED:
        result = run(tmp_path, max_steps_now=11)
    assert_same(result, expected)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    """Each has half of every batch; the weights are those of whole batches."""
    forked.run_ranks(two_trainers.one_process, tmp_path)
    first, second = (read_json(tmp_path / f"rank-{rank}.json") for rank in (0, 1))
    alone = two_trainers.train(two_trainers.data())
    assert first == second
    for name, value in alone.items():
        assert_close(torch.tensor(first[name]), torch.tensor(value), rtol=1e-9, atol=1e-12)
    assert first["0.weight"] == alone["0.weight"]


def test_equals_the_optimizers_by_hand():
    """The driver is DiscreteMSA and Adam, stepped one after the other."""
    batches = class_batches(4, sizes=(8, 8))
    model = seeded(norm_mlp, 2)
    result = train_msa(
        model, losses, batches, values=(-1, 1), steps=6, decay=0.5, paper_exact=False,
        float_optimizer=lambda p: torch.optim.Adam(p, 0.02), skip=["6"],
    )  # fmt: skip
    mine = discretize(seeded(norm_mlp, 2), (-1, 1), skip=["6"], seed=0)
    discrete = DiscreteMSA(discrete_parameters(mine), schedule=per_epoch(0.5, 2))
    held = {id(p) for g in discrete.param_groups for p in g["params"]}
    adam = torch.optim.Adam([p for p in mine.parameters() if id(p) not in held], 0.02)
    mine.train()
    for _ in range(3):
        for x, y in batches:
            mine.zero_grad()
            losses(mine(x), y).mean().backward()
            discrete.step()
            adam.step()
    for (name, value), (_, wanted) in zip(
        model.named_parameters(), mine.named_parameters(), strict=True
    ):
        assert_close(value, wanted, msg=name)
    assert result.steps == 6


def test_statistics_are_taken_anew():
    """The plain mean over training batches at the last weights, not a running average."""
    batches = class_batches(4, sizes=(16, 16))
    model = seeded(norm_mlp, 2)
    train_msa(model, losses, batches, steps=5, skip=["6"])
    with torch.no_grad():
        means = torch.stack([model[0](x).mean(0) for x, _ in batches]).mean(0)
    assert_close(model[1].running_mean, means)


def test_what_is_reported_is_what_is_left():
    """Errors in the summary are those of the model as it comes back; the curve has the share."""
    batches = class_batches(4)
    model = seeded(norm_mlp, 2)
    with pytest.warns(UserWarning, match="no normalization follows"):
        result = train_msa(model, losses, batches, epochs=4, test_batches=batches)
    found = evaluate(model, losses, batches)
    assert result.summary["test_loss"] == found.loss
    assert result.summary["test_error"] == found.error
    assert [row["epoch"] for row in result.curve] == [1, 2, 3, 4]
    assert result.curve[-1]["nonzero"] == result.nonzero == nonzero_share(model)
    assert set(values_of(model)) == {"0.weight", "3.weight", "6.weight"}


def test_paper_exact(rng):
    """Batch norm with epsilon 1e-4, scales within two deviations, and no new statistics."""
    model = nn.Sequential(nn.Linear(4, 200, bias=False), nn.BatchNorm1d(200), nn.ReLU(),
                          nn.Linear(200, 3, bias=False), nn.BatchNorm1d(3))  # fmt: skip
    seen = []
    model[1].register_forward_pre_hook(lambda layer, _: seen.append(layer.weight.detach().clone()))
    train_msa(model, losses, class_batches(4), epochs=1, paper_exact=True, lam=1e-7)
    assert model[1].eps == 1e-4
    assert seen[0].abs().max() <= 2
    assert (seen[0] < 0).any()
    assert 0.7 < seen[0].std() < 1.0  # 0.88 for a normal cut at two deviations
    assert model[1].num_batches_tracked == 3


def test_published_schedule_and_ours():
    """1 - alpha falls by the factor per epoch, or exponentially over the run."""
    assert [per_epoch(0.95, 10)(step) for step in (0, 9, 10, 25)] == [1.0, 1.0, 0.95, 0.95**2]
    assert_close(annealing(100)(50), 0.2)
    share = nonzero_schedule(0.02, 100, until=0.5)
    assert share(0) == 2 / 3
    assert share(50) == share(99) == 0.02
    assert_close(share(25), 0.02 + (2 / 3 - 0.02) / 8)


def test_a_gradient_that_is_not_finite_ends_the_run():
    """With the last good weights and a message that names the layer."""
    x, y = class_batches(4, sizes=(8,))[0]
    batches = [(x, y)] * 3 + [(x * float("nan"), y)]
    model = seeded(mlp, 1)
    with pytest.warns(UserWarning, match="no normalization follows"):
        result = train_msa(model, losses, batches, epochs=2)
    assert result.status is Status.NOT_FINITE
    assert all(value.isfinite().all() for value in result.state.values())


def test_a_layer_without_gradient_is_named():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.used(x)

    with (
        pytest.warns(UserWarning, match="no normalization follows"),
        pytest.warns(NoEffectWarning, match=r"no gradient ever reached unused\.weight"),
    ):
        train_msa(Half(), losses, class_batches(4), epochs=1)


BAD = [
    ({}, "exactly one of epochs and steps must be given"),
    ({"epochs": 1, "decay": 1.5}, r"decay, a factor on 1 - alpha per epoch, must be in \(0, 1\]"),
    ({"epochs": 1, "values": ()}, "values must be different finite numbers"),
    ({"epochs": 1, "values": (-1, 1), "target_nonzero": 0.1}, r"needs the values \(-1, 0, 1\)"),
    ({"epochs": 1, "lam": 1e-4, "target_nonzero": 0.1}, "only one of target_nonzero, .*, and lam"),
    ({"epochs": 1, "target_nonzero": 1.5}, "target_nonzero must be a share .* got 1.5"),
    ({"epochs": 1, "weight_average": lambda m: m}, "weight_average must be None"),
    ({"epochs": 1, "skip": ["head"]}, r"\['head'\] met none"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_input(options, message):
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match=message):
        train_msa(model, losses, class_batches(4), **options)


def test_a_folder_knows_the_dial(tmp_path):
    """Another target, schedule or penalty is another run."""
    run(tmp_path, max_steps_now=3)
    for other in ({"target_nonzero": 0.2}, {"decay": 0.5}, {"rho": 0.1}, {"alpha": 0.9}):
        with pytest.raises(ValueError, match="must belong to the run that continues"):
            run(tmp_path, **other)


@pytest.mark.parametrize(
    "options", [{"epochs": 0}, {"epochs": 1, "rho": -1.0}, {"epochs": 1, "precision": "int3"}]
)
def test_a_refused_call_leaves_the_model_alone(options):
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3))
    before = model[0].weight.clone()
    with pytest.raises(ValueError, match="must be"):
        train_msa(model, losses, class_batches(4), **options, paper_exact=True)
    assert_close(model[0].weight, before, rtol=0, atol=0)
    assert not values_of(model)
    assert model[1].eps == 1e-5


def test_a_discrete_model_goes_on_from_its_weights():
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3))
    train_msa(model, losses, class_batches(4), values=(-1, 1), epochs=1)
    before = model[0].weight.clone()
    train_msa(model, losses, class_batches(4), epochs=1, rho=1.0)
    assert_close(model[0].weight, before, rtol=0, atol=0)
    with pytest.raises(ValueError, match="values and skip are for a model without"):
        train_msa(model, losses, class_batches(4), values=(-1, 0, 1), epochs=1)


def test_a_generator_is_refused():
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="ends after one pass"):
        train_msa(model, losses, iter(class_batches(4)), steps=2)
