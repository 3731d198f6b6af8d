"""Measured or not, training ends with the same bits; what is seen is what the pieces see."""

import json
from copy import deepcopy
from math import isfinite

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lowland.data import Batches
from lowland.dynamics import gradient_noise, measure_dynamics, over_integral, over_noise
from lowland.results import Status
from lowland.training import evaluate, train
from small_networks import class_batches, losses, norm_mlp, same, seeded

OPTIONS = {"waits": [0, 3, 6], "lags": [1, 2, 4], "noise_batches": 3}


def dropout_net():
    return nn.Sequential(norm_mlp(), nn.Dropout(0.3))


def momentum(params):
    return torch.optim.SGD(params, lr=0.05, momentum=0.9)


def test_training_does_not_notice():
    """Dropout, batch norm and momentum; losses, noise and clones are all measured."""
    batches, plain = class_batches(4), seeded(dropout_net, 1)
    watched = deepcopy(plain)
    train(plain, losses, batches, steps=12, optimizer=momentum, seed=3)
    found = measure_dynamics(
        watched, losses, batches, steps=12, optimizer=momentum, seed=3, clone_times=[3], **OPTIONS
    )
    assert same(dict(plain.state_dict()), dict(watched.state_dict()))
    assert found.status is Status.FINISHED
    assert found.steps == 12


def test_what_is_seen_is_what_the_pieces_see():
    batches, model = class_batches(4, dtype=torch.float64), seeded(norm_mlp, 1).double()
    weights = [[p.detach().clone() for p in model.parameters()]]
    plain = deepcopy(model)
    first = evaluate(model, losses, batches)
    noise = gradient_noise(model, losses, batches, n_batches=3, seed=0)
    found = measure_dynamics(model, losses, batches, steps=12, clone_times=[6], **OPTIONS)
    optimizer = lambda params: torch.optim.SGD(params, lr=0.1)  # noqa: E731
    for steps in (3, 4):
        twin = deepcopy(plain)
        train(twin, losses, batches, steps=steps, optimizer=optimizer)
        weights.append([p.detach().clone() for p in twin.parameters()])
    size = sum(p.numel() for p in model.parameters())
    apart = sum((a - b).square().sum() for a, b in zip(*weights[1:], strict=True)) / size
    assert found.two_time.at(3, 1) == pytest.approx(apart.item(), rel=1e-12)
    assert found.losses[0] == pytest.approx(
        {"step": 0, "learning_rate": 0.1, "age": 0.0, "loss": first.loss, "error": first.error}
    )
    assert found.losses[-1]["age"] == pytest.approx(1.2)
    assert found.noise[0]["trace"] == pytest.approx(noise.trace, rel=1e-12)
    assert [row["step"] for row in found.noise] == [0, 3, 6]
    assert [(row["waiting_time"], row["lag"]) for row in found.clones] == [(6, 1), (6, 2), (6, 4)]
    assert all(row["displacement"] > 0 for row in found.clones)


@pytest.mark.parametrize("kind", ["by epoch", "loader"])
def test_noise_is_measured_on_new_batches(kind):
    """At every waiting time another order; training reads what it reads without being watched."""
    images = torch.zeros(12, 1, 2, 2, dtype=torch.uint8)
    seen, trained = [], []

    def batches():
        if kind == "by epoch":
            return Batches(images, torch.arange(12), 3, seed=5)
        pairs = TensorDataset(images.float(), torch.arange(12))
        return DataLoader(pairs, 3, shuffle=True, generator=torch.Generator().manual_seed(4))

    def loss_fn(output, target):
        (trained if model.training else seen).append(tuple(target.tolist()))
        return output[:, 0].square() + target * output[:, 0]

    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    twin = deepcopy(model)
    options = {"waits": [0, 3, 6], "lags": [1], "loss_times": []}
    orders = []
    for _ in range(2):
        model = deepcopy(twin)
        seen.clear()
        trained.clear()
        measure_dynamics(model, loss_fn, batches(), steps=9, noise_batches=4, **options)
        found = [tuple(seen[k : k + 4]) for k in range(0, len(seen), 4)]
        orders.append(found)
        assert len({*found}) == len(found) == 3
        for order in found:
            assert sorted(number for batch in order for number in batch) == [*range(12)]
    assert orders[0] == orders[1]
    watched, weights = [*trained], model.state_dict()
    model = deepcopy(twin)
    trained.clear()
    train(
        model, loss_fn, batches(), steps=9, optimizer=lambda params: torch.optim.SGD(params, lr=0.1)
    )
    assert trained == watched
    assert same(dict(model.state_dict()), dict(weights))


def test_slices_are_the_whole_run(tmp_path):
    """Stopped and continued: the same record, but for the clock."""
    batches, records = class_batches(4), []
    for where, slices in (("whole", [None]), ("sliced", [4, 4, 4])):
        for most in slices:
            model = seeded(dropout_net, 1)
            found = measure_dynamics(
                model, losses, batches, steps=12, optimizer=momentum, seed=3, clone_times=[6],
                out=tmp_path / where, max_steps_now=most, **OPTIONS,
            )  # fmt: skip
        record = found.record()
        record.pop("seconds")
        records.append((record, dict(model.state_dict())))
    assert records[0][0] == records[1][0]
    assert same(records[0][1], records[1][1])
    saved = json.loads((tmp_path / "whole" / "dynamics.json").read_text())
    assert saved["two_time"] == records[0][0]["two_time"]


def test_a_run_that_diverges_keeps_what_was_seen():
    model = seeded(norm_mlp, 1)
    found = measure_dynamics(
        model, lambda output, target: losses(output, target) * 1e30, class_batches(4), steps=60,
        optimizer=lambda params: torch.optim.SGD(params, lr=1e30), waits=[0, 1], lags=[1, 2],
        noise_batches=0,
    )  # fmt: skip
    assert found.status is Status.NOT_FINITE
    json.dumps(found.record(), allow_nan=False)


def test_phases_of_a_run():
    found = measure_dynamics(
        seeded(norm_mlp, 1), losses, class_batches(4), steps=60, noise_batches=3
    )
    phases = found.phases(samples=10)
    assert isfinite(phases.t1)
    assert phases.seeds == 1
    assert set(phases.scores["all"]) == {"raw", "over_noise", "over_integral"}
    steps, traces = ([row[name] for row in found.noise] for name in ("step", "trace"))
    noise = torch.tensor(steps), torch.tensor(traces, dtype=torch.float64)
    divided = over_noise(found.two_time, noise)
    wait = steps[1]  # where D was measured nothing is interpolated
    lag, quotient = (column[0].item() for column in divided[wait])
    assert quotient == pytest.approx(found.two_time.at(wait, int(lag)) / traces[1], rel=1e-9)
    assert set(divided) == set(over_integral(found.two_time, noise))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps must be a whole number, at least 1; got 0"),
        ({"steps": 5, "noise_batches": 1}, "noise_batches must be 0 or at least 2; got 1"),
        ({"steps": 5, "waits": [9], "lags": [1]}, "a pair that ends within the run"),
        ({"steps": 50, "recorder": {"memory": "none"}}, "memory must be one of"),
        ({"steps": 50, "lags": [1]}, "give waits and lags together, .* got lags alone"),
        ({"steps": 50, "loss_times": [-1]}, "loss_times must be whole .* to 50, the last; got"),
        ({"steps": 50, "noise_times": [51]}, "noise_times must be whole .* to 50, the last; got"),
        pytest.param(
            {"steps": 50, "clone_times": [2.5]},
            "clone_times must be whole .* to 50, the last; got",
            marks=pytest.mark.untyped,
        ),
        ({"steps": 50, "clone_times": [20], "replicas": 1}, "replicas must be .* 2; got 1"),
        pytest.param(
            {"steps": 50, "clone_times": [20], "clone_lags": [1.5]},
            "clone_lags must be whole",
            marks=pytest.mark.untyped,
        ),
        ({"steps": 50, "loss_batches": iter([])}, "loss_batches must be iterable more"),
    ],
)
def test_bad_input_is_told_in_words(options, words):
    """Before the first update, not when its time has come."""
    model = seeded(norm_mlp, 1)
    before = deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=words):
        measure_dynamics(model, losses, class_batches(4), **options)
    assert same(dict(before), dict(model.state_dict()))
