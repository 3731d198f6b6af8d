"""Means over a data set are sums over counts, whatever the batches; the model is left alone."""

import pytest
import torch
from torch import nn

from lowland.training import as_pair, batch_count, checked_losses, evaluate

cross_entropy = nn.CrossEntropyLoss(reduction="none")


@pytest.fixture
def data():
    numbers = torch.Generator().manual_seed(0)
    return torch.randn(23, 5, generator=numbers), torch.randint(3, (23,), generator=numbers)


def classifier():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


def test_uneven_batches_give_the_mean_over_examples(data):
    model, (x, y) = classifier().double(), data
    batches = list(zip(x.double().split(10), y.split(10), strict=True))
    model.eval()
    output = model(x.double())
    model.train()
    found = evaluate(model, cross_entropy, batches)
    assert found.loss == pytest.approx(cross_entropy(output, y).mean().item(), rel=1e-14)
    assert found.error == (output.argmax(1) != y).sum().item() / 23
    assert found.count == 23


def test_model_and_generators_are_left_as_they_were(data):
    model = classifier()
    model[2].eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*data), batch_size=4, shuffle=True
    )
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first = evaluate(model, cross_entropy, loader)
    assert torch.equal(torch.rand(3), expected)
    assert evaluate(model, cross_entropy, loader) == first
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_limit_stops_after_whole_batches(data):
    x, y = data
    batches = list(zip(x.split(4), y.split(4), strict=True))
    assert evaluate(classifier(), cross_entropy, batches, limit=5).count == 8
    assert evaluate(classifier(), cross_entropy, batches, limit=8).count == 8


def test_regression_has_no_error(data):
    model = nn.Linear(5, 1)
    batches = [(data[0], data[0][:, 0])]
    found = evaluate(model, lambda output, target: (output[:, 0] - target) ** 2, batches)
    assert found.error is None


class TwoInputs(nn.Module):
    def forward(self, a, b):
        return a * b


@pytest.mark.parametrize("kind", [tuple, list, lambda pair: dict(zip("ab", pair, strict=True))])
def test_inputs_may_be_tuples_or_mappings(kind):
    a, b = torch.arange(4.0), torch.full((4,), 2.0)
    batches = [(kind((a, b)), a * b + 3)]
    found = evaluate(TwoInputs(), lambda output, target: (output - target).abs(), batches)
    assert found.loss == 3


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (nn.CrossEntropyLoss(), r"shape \(23,\); got a scalar\. Pass reduction=\"none\"\."),
        (lambda o, t: o, r"got shape \(23, 3\)\. Average each example over its other axes\."),
        (lambda o, t: 1.0, r"got a float\. Return a tensor\."),
    ],
)
def test_loss_must_be_per_example(data, loss_fn, message):
    with pytest.raises(ValueError, match=message):
        checked_losses(loss_fn, torch.zeros(23, 3), data[1])


def test_empty_batches_are_refused():
    with pytest.raises(ValueError, match="at least one example; got none"):
        evaluate(classifier(), cross_entropy, [])


def test_batch_must_be_a_pair():
    x = torch.ones(2)
    assert as_pair([x, x]) == (x, x)
    with pytest.raises(ValueError, match=r"got a tuple of 3.*\(\(a, b\), target\)"):
        as_pair((x, x, x))
    with pytest.raises(ValueError, match="got a dict of 2"):
        as_pair({"image": x, "label": x})


def test_batch_count_is_the_first_axis_of_the_first_tensor():
    assert batch_count(None, {"a": [torch.tensor(1.0), torch.ones(7, 2)]}) == 7
    with pytest.raises(ValueError, match="a tensor whose first axis counts"):
        batch_count("words", 3)
