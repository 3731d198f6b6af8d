"""``train_with_importance``: the loop in a driver, resumable to the bit, both clocks recorded."""

import json
import signal

import pytest
import torch
from killed_training import STEPS, killed, run
from torch import nn

import forked
from lowland.errors import NoEffectWarning
from lowland.importance import ImportanceSampling, train_with_importance
from lowland.results import Status, read_json
from lowland.training import train, use_threads
from small_networks import class_batches, mlp, seeded

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.FallbackWarning")

loss_fn = nn.CrossEntropyLoss(reduction="none")


@pytest.fixture(autouse=True)
def one_thread():
    with use_threads(1):
        yield


def sgd(params):
    return torch.optim.SGD(params, 0.3)


def eager(model, presample=2):
    """A sampling that is soon on."""
    return ImportanceSampling(
        model, loss_fn, presample=presample, tau_threshold=1.01, smoothing=0.5
    )


def timeless(value):
    """A record without what a clock decides."""
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if name != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def assert_same(result, expected):
    assert timeless(result.record()) == timeless(expected.record())
    for name, value in expected.training.state.items():
        assert torch.equal(result.training.state[name], value)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    """Rows that were read but not used, draws that wait, tau, and dropout's generator go on."""
    assert forked.run(killed, tmp_path) == -signal.SIGKILL
    expected = run()
    assert 0 < expected.active_steps < STEPS
    assert_same(run(tmp_path), expected)
    assert_same(run(tmp_path), expected)  # finished: read, not run
    assert timeless(read_json(tmp_path / "result.json")) == timeless(expected.record())


@pytest.mark.parametrize("piece", [1, 7])
def test_a_run_in_slices(tmp_path, piece):
    expected, result = run(), None
    while result is None or result.status is Status.INTERRUPTED:
        result = run(tmp_path, max_steps_now=piece)
    assert_same(result, expected)


def test_another_sampling_is_another_run(tmp_path):
    run(tmp_path, max_steps_now=3)
    with pytest.raises(ValueError, match="presample"):
        run(tmp_path, presample=3.5)


def test_never_on_is_plain_training():
    """The same bits as ``train``, and a word about it."""
    models = [seeded(mlp, 1) for _ in range(2)]
    batches = class_batches(4)
    plain = train(models[0], loss_fn, batches, epochs=4, optimizer=sgd)
    with pytest.warns(NoEffectWarning, match=r"never switched on in 12 steps: tau .* below 1e\+03"):
        result = train_with_importance(
            models[1], loss_fn, batches, epochs=4, optimizer=sgd, tau_threshold=1000
        )
    assert result.active_steps == 0
    assert not result.switches
    assert [row["train_loss"] for row in plain.curve] == [row["train_loss"] for row in result.curve]
    for name, value in plain.state.items():
        assert torch.equal(result.training.state[name], value)


def test_epochs_are_plain_updates():
    """As many updates as plain epochs have, whatever the pools read."""
    model, batches = seeded(mlp, 1), class_batches(4, sizes=(8,) * 6)
    result = train_with_importance(
        model, loss_fn, batches, epochs=5, optimizer=sgd, sampling=eager(model)
    )
    assert result.training.steps == 30
    assert result.curve[-1]["epoch"] > 5
    assert result.curve[-1]["seconds"] > 0
    with pytest.raises(ValueError, match="Give steps instead"):
        train_with_importance(seeded(mlp, 1), loss_fn, iter_only(), epochs=1, optimizer=sgd)


@pytest.mark.parametrize("epochs", [0, 0.5, 1.5])
@pytest.mark.untyped
def test_epochs_that_are_no_number_of_passes(epochs):
    with pytest.raises(
        ValueError, match=f"epochs must be a whole number, at least 1; got {epochs}"
    ):
        train_with_importance(
            seeded(mlp, 1), loss_fn, class_batches(4), epochs=epochs, optimizer=sgd
        )


def test_no_batches():
    with pytest.raises(ValueError, match="at least one batch; got none. Is the loader empty"):
        train_with_importance(seeded(mlp, 1), loss_fn, [], epochs=1, optimizer=sgd)


def test_a_sampling_of_another_model():
    model, batches = seeded(mlp, 1), class_batches(4)
    options = {"epochs": 1, "optimizer": sgd}
    other = ImportanceSampling(seeded(mlp, 1), loss_fn)
    with pytest.raises(ValueError, match="sampling must be of the model that is trained.*another"):
        train_with_importance(model, loss_fn, batches, sampling=other, **options)
    own = ImportanceSampling(nn.Sequential(model), loss_fn)  # a wrapper shares its parameters
    with pytest.raises(ValueError, match=r"got \['presample', 'costs'\] beside sampling="):
        train_with_importance(
            model, loss_fn, batches, sampling=own, presample=5, costs="modelled", **options
        )


class ByName(nn.Module):
    """Takes its inputs by name."""

    def __init__(self):
        super().__init__()
        self.net = seeded(mlp, 1)

    def forward(self, x):
        return self.net(x)


def test_batches_that_only_the_sampling_takes_apart():
    """A mapping with labels, and another one by two functions: as pairs."""
    pairs, found = class_batches(4, sizes=(8,) * 12), []
    for make, options in (
        (lambda x, y: (x, y), {}),
        (lambda x, y: {"x": x, "labels": y}, {}),
        (
            lambda x, y: {"a": x, "b": y},
            {"get_inputs": lambda b: b["a"], "get_targets": lambda b: b["b"]},
        ),
    ):
        model = ByName()
        sampling = ImportanceSampling(model, loss_fn, tau_threshold=1.01, smoothing=0.5, **options)
        batches = [make(x, y) for x, y in pairs]
        result = train_with_importance(
            model, loss_fn, batches, epochs=2, optimizer=sgd, sampling=sampling
        )
        assert result.active_steps
        found.append(result.training.state)
    for other in found[1:]:
        assert all(torch.equal(other[name], value) for name, value in found[0].items())


def iter_only():
    """Batches without a length."""

    class Stream:
        def __iter__(self):
            return iter(class_batches(4))

    return Stream()


def test_decisions_by_the_clock_can_be_repeated():
    """A run by measured costs, and one that replays its switches: the same bits."""
    batches = class_batches(4, sizes=(8,) * 12)

    def go(**options):
        model = seeded(mlp, 1)
        settings = {"presample": 3, "costs": "measured", "decision": "paper"} | options
        sampling = ImportanceSampling(model, loss_fn, **settings)
        return train_with_importance(
            model, loss_fn, batches, steps=60, optimizer=sgd, sampling=sampling
        )

    forced = [[10, True], [20, False], [33, True]]
    first = go(replay=forced)
    assert first.switches == forced
    assert first.active_steps == 10 + 60 - 33
    again = go(replay=json.loads(json.dumps(first.record()["switches"])))
    for name, value in first.training.state.items():
        assert torch.equal(again.training.state[name], value)


def test_a_loss_that_is_not_finite_ends_the_run():
    """With the last good weights and a status, not with an exception."""
    batches = class_batches(4, sizes=(8,) * 12)
    batches[9][0][3] = float("nan")
    model = seeded(mlp, 1)
    result = train_with_importance(
        model, loss_fn, batches, epochs=2, optimizer=sgd, sampling=eager(model)
    )
    assert result.active_steps
    assert result.status is Status.NOT_FINITE
    assert all(value.isfinite().all() for value in result.training.state.values())
    json.dumps(result.record(), allow_nan=False)


def test_learning_rate_grows_with_the_batch():
    """By kappa on chosen rows, and it is put back after every step."""
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["lr"])
            return super().step(closure)

    made = []

    def optimizer(params):
        made.append(Watched(params, 0.1))
        return made[0]

    model = seeded(mlp, 1)
    result = train_with_importance(
        model, loss_fn, class_batches(4, sizes=(8,) * 12), steps=20, optimizer=optimizer,
        sampling=eager(model), scale_learning_rate=True,
    )  # fmt: skip
    assert made[0].param_groups[0]["lr"] == 0.1
    first = result.switches[0][0]
    assert seen[:first] == [0.1] * first
    assert all(0.1 <= rate <= 0.2 for rate in seen[first:])


def test_save(tmp_path):
    result = run()
    files = {file.name for file in result.save(tmp_path).iterdir()}
    assert files == {"result.json", "model.safetensors"}
    assert read_json(tmp_path / "result.json")["costs"]["seconds"].keys() == {
        "uniform", "active", "wait", "score",
    }  # fmt: skip
