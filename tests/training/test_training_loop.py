"""``train`` does what twenty lines of plain torch do, and leaves alone what it does not promise."""

import json
import random
import signal
from math import isnan

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from lowland.data import Batches
from lowland.errors import OutcomeError
from lowland.results import Status
from lowland.training import evaluate, settings, train

cross_entropy = nn.CrossEntropyLoss(reduction="none")


def sgd(params):
    return torch.optim.SGD(params, lr=0.1, momentum=0.9)


def classifier():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def data():
    numbers = torch.Generator().manual_seed(0)
    return torch.randn(23, 5, generator=numbers), torch.randint(3, (23,), generator=numbers)


@pytest.fixture
def batches(data):
    """Three batches; the last one is smaller."""
    return list(zip(data[0].split(10), data[1].split(10), strict=True))


def plain_torch(batches, epochs):
    """The slow and obvious way."""
    model = classifier()
    optimizer = sgd(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for x, y in batches:
            loss = cross_entropy(model(x), y).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(y)
        losses.append(total / 23)
    return model, losses, optimizer.param_groups[0]["lr"]


def test_same_bits_as_plain_torch(batches):
    expected, losses, learning_rate = plain_torch(batches, epochs=4)
    model = classifier()
    result = train(
        model,
        cross_entropy,
        batches,
        epochs=4,
        optimizer=sgd,
        schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
        test_batches=batches[:1],
    )
    assert (result.status, result.steps) == (Status.FINISHED, 12)
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
        assert torch.equal(result.state[name], value)
    assert [row["train_loss"] for row in result.curve] == losses
    assert [(row["epoch"], row["step"]) for row in result.curve] == [
        (1, 3),
        (2, 6),
        (3, 9),
        (4, 12),
    ]
    assert result.curve[-1]["learning_rate"] == learning_rate
    test = evaluate(expected, cross_entropy, batches[:1])
    assert (result.curve[-1]["test_loss"], result.curve[-1]["test_error"]) == (
        test.loss,
        test.error,
    )
    result.raise_for_status()


def test_rows_of_the_curve(batches):
    """Rows come every ``evaluate_every`` epochs and at the end; data for them may be given."""
    result = train(
        classifier(),
        cross_entropy,
        batches,
        steps=10,
        optimizer=sgd,
        evaluate_every=2,
        evaluation_batches=batches,
    )
    assert [(row["epoch"], row["step"]) for row in result.curve] == [(2, 6), (3, 10)]
    final = classifier()
    final.load_state_dict(result.state)
    found = evaluate(final, cross_entropy, batches)
    last = result.curve[-1]
    assert (last["train_loss"], last["train_error"]) == (found.loss, found.error)
    assert last["test_loss"] is None


def test_whole_epochs_are_counted_when_steps_are_given(batches):
    result = train(classifier(), cross_entropy, batches, steps=6, optimizer=sgd)
    assert [(row["epoch"], row["step"]) for row in result.curve] == [(1, 3), (2, 6)]


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, a, b):
        return self.weight[0] * a + self.weight[1] * b


def test_until_ends_the_run_after_a_row(batches, tmp_path):
    """What it sees is the whole curve; the run is then the one of so many epochs."""
    seen = []

    def enough(curve):
        seen.append([row["epoch"] for row in curve])
        return len(curve) == 2

    model, plain = classifier(), classifier()
    options = {"optimizer": sgd, "seed": 3, "evaluate_every": 2}
    result = train(model, cross_entropy, batches, epochs=9, until=enough, out=tmp_path, **options)
    assert (result.status, result.steps, seen) == (Status.FINISHED, 12, [[2], [2, 4]])
    assert "stopped after step 12, as asked" in result.message
    train(plain, cross_entropy, batches, epochs=4, **options)
    assert all(map(torch.equal, model.parameters(), plain.parameters()))
    again = train(
        classifier(), cross_entropy, batches, epochs=9, until=enough, out=tmp_path, **options
    )
    assert again.record() == result.record()
    assert len(seen) == 2


class Watcher:
    """Adds up the weights after every update."""

    def __init__(self, model):
        self.model, self.seen = model, []

    def record(self, step):
        self.seen.append(
            [step, sum(p.detach().double().sum().item() for p in self.model.parameters())]
        )

    def state_dict(self):
        return {"seen": [list(item) for item in self.seen]}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_an_observer_sees_every_update_once(batches, tmp_path):
    """Also in slices, and without changing a bit."""
    plain, whole, sliced = classifier(), classifier(), classifier()
    train(plain, cross_entropy, batches, epochs=3, optimizer=sgd)
    watcher = Watcher(whole)
    train(whole, cross_entropy, batches, epochs=3, optimizer=sgd, observer=watcher)
    assert all(map(torch.equal, whole.parameters(), plain.parameters()))
    assert [step for step, _ in watcher.seen] == [*range(10)]
    for _ in range(3):
        again = Watcher(sliced)
        train(
            sliced, cross_entropy, batches, epochs=3, optimizer=sgd, observer=again,
            out=tmp_path, max_steps_now=4,
        )  # fmt: skip
    assert again.seen == watcher.seen


@pytest.mark.parametrize("kind", [tuple, list, lambda pair: dict(zip("ab", pair, strict=True))])
def test_inputs_may_be_tuples_or_mappings(kind):
    a, b = torch.eye(2)
    model = TwoInputs()
    train(
        model,
        lambda output, target: (output - target) ** 2,
        [(kind((a, b)), 3 * a - b)],
        steps=60,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.3),
    )
    torch.testing.assert_close(model.weight.data, torch.tensor([3.0, -1.0]))


def loaders(data):
    images = torch.arange(23 * 4).reshape(23, 1, 2, 2).to(torch.uint8)
    yield nn.Linear(5, 3), DataLoader(TensorDataset(*data), batch_size=4, shuffle=True)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    yield flat, Batches(images, data[1], 4, augment="crop-flip")


def test_seed_decides_and_the_users_generators_do_not(data):
    for model, loader in loaders(data):
        start = {name: value.clone() for name, value in model.state_dict().items()}

        def final(seed, model=model, loader=loader, start=start):
            model.load_state_dict(start)
            result = train(model, cross_entropy, loader, epochs=3, optimizer=sgd, seed=seed)
            return torch.cat([value.flatten() for value in result.state.values()])

        torch.manual_seed(0)
        first = final(1)
        torch.manual_seed(99)
        next(iter(loader))
        assert torch.equal(final(1), first)
        if not isinstance(loader, Batches):  # these are a function of their own seed
            assert not torch.equal(final(2), first)


def test_model_and_generators_come_back_unharmed(data):
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    model[0].requires_grad_(False)
    model.train()
    model[2].eval()
    gradient = model[3].weight.grad = torch.ones(3, 8)
    frozen = model[0].weight.clone()
    hook = model[3].register_forward_hook(lambda *_: None)
    modes = [module.training for module in model.modules()]
    loader = DataLoader(TensorDataset(*data), batch_size=4, shuffle=True)

    def numbers():
        return torch.rand(2).tolist(), random.random(), np.random.rand()  # noqa: NPY002

    def seeded():
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002

    seeded()
    expected = numbers()
    seeded()
    train(model, cross_entropy, loader, epochs=2, optimizer=sgd, test_batches=loader)
    assert numbers() == expected
    assert [module.training for module in model.modules()] == modes
    assert model[3].weight.grad is gradient
    assert torch.equal(gradient, torch.ones(3, 8))
    assert [parameter.requires_grad for parameter in model[0].parameters()] == [False, False]
    assert torch.equal(model[0].weight, frozen)
    assert hook.id in model[3]._forward_hooks
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_loss_that_is_not_finite_ends_at_the_last_good_weights(tmp_path):
    """Batch 130 of 200 is infinite; checks come every 50 steps, so step 100 is kept."""
    x = torch.ones(200, 2)
    x[129] = torch.inf
    batches = [(row[None], torch.zeros(1)) for row in x]

    def loss_fn(output, target):
        return (output[:, 0] - target) ** 2

    def options(**more):
        return {"optimizer": lambda params: torch.optim.SGD(params, lr=1e-3)} | more

    models = [nn.Linear(2, 1) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    train(models[0], loss_fn, batches, **options(steps=100))
    result = train(models[1], loss_fn, batches, **options(epochs=1, out=tmp_path))
    assert result.status is Status.NOT_FINITE
    assert result.steps == 100
    assert result.message.startswith("the loss of step 130 is inf; the model is back at step 100.")
    assert torch.equal(models[1].weight, models[0].weight)
    with pytest.raises(OutcomeError, match="step 130"):
        result.raise_for_status()
    again = train(nn.Linear(2, 1), loss_fn, batches, **options(epochs=1, out=tmp_path))
    assert again.status is Status.NOT_FINITE
    assert torch.equal(again.state["weight"], models[0].weight)
    assert "NaN" not in (tmp_path / "result.json").read_text()


def test_parameter_that_is_not_finite_is_named():
    """The loss is sqrt(0 w) = 0, and its gradient infinity times zero."""
    model = nn.Linear(1, 1, bias=False)
    result = train(
        model,
        lambda output, target: (output[:, 0] * 0).abs().sqrt(),
        [(torch.ones(1, 1), torch.ones(1))],
        epochs=1,
        optimizer=sgd,
    )
    assert result.status is Status.NOT_FINITE
    assert "parameter weight is not finite after step 1; the model is back at step 0" in (
        result.message
    )
    assert not isnan(model.weight.item())


def test_ctrl_c_saves_and_the_same_call_goes_on(batches, tmp_path):
    calls = 0

    def loss_fn(output, target):
        nonlocal calls
        calls += 1
        if calls == 5:
            signal.raise_signal(signal.SIGINT)
        return cross_entropy(output, target)

    options = {"epochs": 4, "optimizer": sgd, "out": tmp_path}
    result = train(classifier(), loss_fn, batches, **options)
    assert result.status is Status.INTERRUPTED
    assert result.message == (
        f"stopped after step 5; the same call goes on from what was saved in {tmp_path}."
    )
    assert not (tmp_path / "result.json").exists()
    result = train(classifier(), loss_fn, batches, **options)
    expected = train(classifier(), cross_entropy, batches, epochs=4, optimizer=sgd)
    assert result.status is Status.FINISHED
    assert all(torch.equal(result.state[name], v) for name, v in expected.state.items())
    assert calls == 12


def test_second_ctrl_c_is_immediate(batches):
    def loss_fn(output, target):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return cross_entropy(output, target)

    with pytest.raises(KeyboardInterrupt):
        train(classifier(), loss_fn, batches, epochs=1, optimizer=sgd)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_average_is_the_mean_over_the_steps(batches):
    """``AveragedModel`` keeps the mean of the weights after each update."""
    weights = []

    def loss_fn(output, target):
        weights.append(model[3].weight.detach().clone())
        return cross_entropy(output, target)

    model = classifier()
    result = train(model, loss_fn, batches, epochs=2, optimizer=sgd, weight_average=AveragedModel)
    mean = torch.stack([*weights[1:], model[3].weight.detach()]).mean(dim=0)
    assert list(result.average) == list(model.state_dict())
    torch.testing.assert_close(result.average["3.weight"], mean)


def test_metrics_and_log_tell_the_same(batches, tmp_path):
    seen = []
    result = train(
        classifier(),
        cross_entropy,
        batches,
        epochs=40,
        optimizer=sgd,
        evaluate_every=20,
        test_batches=batches,
        out=tmp_path,
        log=lambda values, step: seen.append((step, values)),
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [values for _, values in seen]
    assert [step for step, _ in seen] == [50, 60, 60, 110, 120, 120]
    assert lines[-1]["test_loss"] == result.curve[-1]["test_loss"]
    assert {"step", "epoch", "loss", "learning_rate", "seconds"} == set(lines[0])


def test_result_record_is_plain(batches, tmp_path):
    result = train(classifier(), cross_entropy, batches, epochs=1, optimizer=sgd)
    record = result.record()
    assert json.loads(json.dumps(record)) == record
    assert record["status"] == "finished"
    result.save(tmp_path / "saved")
    assert sorted(file.name for file in (tmp_path / "saved").iterdir()) == [
        "model.safetensors",
        "result.json",
    ]


def test_bf16_trains_float32_weights(batches):
    model = classifier()
    result = train(model, cross_entropy, batches, epochs=30, optimizer=sgd, precision="bf16")
    assert model[0].weight.dtype == torch.float32
    assert result.curve[-1]["train_loss"] < 0.5 * result.curve[0]["train_loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of epochs and steps must be given; got epochs=None, steps=None"),
        ({"epochs": 1, "steps": 1}, "exactly one of epochs and steps"),
        ({"epochs": 0}, "epochs must be a whole number, at least 1; got 0"),
        ({"epochs": 1, "evaluate_every": 0}, "evaluate_every must be a whole number, at least 1"),
        ({"epochs": 1.5}, "epochs must be a whole number, at least 1; got 1.5"),
        ({"epochs": 1, "batches": iter([])}, "iterable more than once; got a list_iterator"),
        ({"epochs": 1, "batches": 3}, r"iterable of \(inputs, target\); got a int"),
        ({"epochs": 1, "batches": []}, "at least one batch; got none. Is the loader empty"),
        ({"epochs": 1, "precision": "fp8"}, "precision must be one of .* got 'fp8'"),
        ({"epochs": 1, "device": "cpux"}, "device must be"),
        (
            {"epochs": 1, "optimizer": torch.optim.SGD([torch.ones(1)], lr=1)},
            "a function of the parameters; got SGD. Pass lambda params",
        ),
        (
            {"epochs": 1, "loss_fn": nn.CrossEntropyLoss()},
            r"one loss per example, shape \(10,\); got a scalar",
        ),
    ],
)
def test_bad_input_is_told_in_words(batches, options, message):
    options = {"loss_fn": cross_entropy, "batches": batches, "optimizer": sgd} | options
    with pytest.raises(ValueError, match=message):
        train(classifier(), **options)


def test_several_processes_cannot_share_a_folder(batches, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "rank_and_world", lambda: (1, 2))
    with pytest.raises(ValueError, match="out must be None where several processes train"):
        train(classifier(), cross_entropy, batches, epochs=1, optimizer=sgd, out=tmp_path)
    assert not list(tmp_path.iterdir())
