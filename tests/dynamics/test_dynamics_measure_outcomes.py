"""What is seen is never thrown away, belongs to its folder, and is read back as it was saved."""

import json

import pytest
import torch
from torch import nn

from lowland.dynamics import Dynamics, LangevinSGD, measure_dynamics
from lowland.errors import OutcomeError
from lowland.results import Status
from small_networks import class_batches, losses, mlp, norm_mlp, seeded

OPTIONS = {"waits": [0, 3], "lags": [1, 2], "noise_batches": 3}


def sgd(rate):
    return lambda params: torch.optim.SGD(params, lr=rate)


def with_a_bad_batch():
    """Four batches, and a fifth that is not finite."""
    batches = class_batches(4, sizes=(8,) * 5)
    return batches[:4], [*batches[:4], (batches[4][0] * float("nan"), batches[4][1])]


def test_noise_that_is_not_finite_ends_no_run():
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    found = measure_dynamics(
        model, lambda output, target: losses(output, target) * 1e30, class_batches(4), steps=40,
        optimizer=sgd(1e6), noise_times=[0, 4], clone_times=[4], **OPTIONS,
    )  # fmt: skip
    assert found.status is Status.NOT_FINITE
    assert [row["step"] for row in found.noise] == [0]
    assert found.losses[0]["loss"] > 0
    assert found.clones == []
    json.dumps(found.record(), allow_nan=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise_times": [2], "noise_batches": 5}, "gradient noise was not finite at update 2"),
        ({"noise_times": [0], "noise_batches": 5}, "gradient noise was not finite at update 0"),
        ({"clone_times": [1], "clone_lags": [1, 5]}, "a clone of update 1 was not finite at lag"),
    ],
)
def test_what_only_measuring_meets(options, words, tmp_path):
    """Training never reads the bad batch, and ends with its own weights."""
    good, bad = with_a_bad_batch()
    weights = []
    for batches, further in ((good, {"noise_batches": 0}), (bad, options)):
        model = seeded(mlp, 1)
        found = measure_dynamics(
            model, losses, batches, steps=4, loss_batches=good, **OPTIONS | further
        )
        weights.append(nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(*weights)
    assert (found.status, found.steps) == (Status.NOT_FINITE, 4)
    assert found.losses[-1]["step"] == 4
    with pytest.raises(OutcomeError, match=words):
        found.raise_for_status()
    model = seeded(mlp, 1)
    for most in (2, None):
        again = measure_dynamics(
            model, losses, bad, steps=4, loss_batches=good, out=tmp_path, max_steps_now=most,
            **OPTIONS | options,
        )  # fmt: skip
    assert again.message == found.message


@pytest.mark.parametrize("slices", [[None], [25, 25, 25]])
def test_the_age_is_the_sum_of_the_rates_that_were_used(slices, tmp_path):
    """A cosine from 0.1 over 60 updates: 0.05 (60 + 1), as the cosines add up to 1."""
    cosine = lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)  # noqa: E731
    for most in slices:
        found = measure_dynamics(
            seeded(mlp, 1), losses, class_batches(4), steps=60, optimizer=sgd(0.1),
            schedule=cosine, loss_times=[0, 1, 60], out=tmp_path, max_steps_now=most,
            **OPTIONS | {"noise_batches": 0},
        )  # fmt: skip
    assert [row["age"] for row in found.losses] == pytest.approx([0.0, 0.1, 3.05])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"noise_batches": 4}, "noise_batches = 3, now observer.noise_batches = 4"),
        ({"noise_times": [0, 2]}, "noise_times.1 = 3, now observer.noise_times.1 = 2"),
        ({"loss_times": [0]}, "observer.loss_times = "),
        ({"clone_times": [1]}, "observer.clone_times = "),
        ({"clone_lags": [1]}, "observer.clone_lags = "),
        ({"replicas": 3}, "replicas = 2, now observer.replicas = 3"),
        ({"lags": [1, 3], "clone_lags": [1, 2]}, "recorder.lags.1 = 2, now"),
        ({"waits": [0, 2], "noise_times": [0, 3]}, "recorder.waits.1 = 3, now"),
        ({"recorder": {"per_layer": True}}, "recorder.per_layer = False, now"),
    ],
)
def test_a_folder_knows_what_was_measured(other, words, tmp_path):
    def measured(**further):
        return measure_dynamics(
            seeded(mlp, 1), losses, class_batches(4), steps=6, out=tmp_path, **OPTIONS | further
        )

    first = measured().record()
    assert measured().record() == first
    with pytest.raises(ValueError, match=words):
        measured(**other)


def test_it_is_read_back_as_it_was_saved(tmp_path):
    found = measure_dynamics(
        seeded(norm_mlp, 1), losses, class_batches(4), steps=12, clone_times=[3], **OPTIONS
    )
    again = Dynamics.load(found.save(tmp_path))
    assert again.record() == found.record()
    assert again.training.state.keys() == found.training.state.keys()
    for name, value in found.training.state.items():
        assert torch.equal(again.training.state[name], value)


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (sgd(0.1), "is a pure number"),
        (lambda params: torch.optim.Adam(params, 1e-3), "an update of Adam is not the rate times"),
        (lambda params: LangevinSGD(params, 0.1, temperature=1e-4), "an update of LangevinSGD"),
    ],
    ids=["sgd", "adam", "langevin"],
)
def test_only_the_updates_of_sgd_have_the_unit_of_the_noise(optimizer, words):
    """The two-time recorder, noise and clones run on each."""
    found = measure_dynamics(
        seeded(mlp, 1), losses, class_batches(4), steps=6, optimizer=optimizer, clone_times=[3],
        clone_lags=[2], **OPTIONS,
    )  # fmt: skip
    assert found.status is Status.FINISHED
    assert found.dimensionless == (words == "is a pure number")
    assert found.record()["dimensionless"] == found.dimensionless
    assert words in found.record()["normalization"]
