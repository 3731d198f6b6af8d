"""AdaBoost.MM obeys its theorem draw by draw; checkpointing changes nothing but memory."""

from math import atanh, log, prod, sqrt

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lowland.boosting.baselines import (
    Vote,
    Voted,
    adaboost_mm,
    checkpointed,
    costs_of,
    entry,
    measure_edge,
    measure_votes,
    wrong_costs,
)
from lowland.boosting.chain import as_chain
from lowland.boosting.costs import edge, exponential_loss
from lowland.boosting.features import read_features
from lowland.models import build
from lowland.results import Status
from lowland.training.memory import saved_bytes


class Says(nn.Module):
    """Votes for what is written in a column of the inputs."""

    def __init__(self, column, classes):
        super().__init__()
        self.column, self.classes = column, classes
        self.unused = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        said = torch.nn.functional.one_hot(x[:, self.column].long(), self.classes).to(x)
        return said + self.unused


def as_features(inputs, target, classes):
    batches = [(inputs[:7], target[:7]), (inputs[7:], target[7:])]
    return read_features(batches, entry(classes), device=torch.device("cpu"), cache="device")


def test_first_round_on_known_accuracy():
    """O8: accuracy p gives the edge p - (1 - p) / (C - 1); C = 10, p = 0.8."""
    target = torch.arange(10)
    said = torch.where(target < 8, target, (target + 1) % 10)
    features = as_features(said[:, None].double(), target, 10)
    voter = Says(0, 10)
    found = measure_edge(features, voter)
    assert found == pytest.approx(0.8 - 0.2 / 9)
    features.advance(Voted(voter, atanh(found)))
    loss, error = measure_votes(features)
    assert error == pytest.approx(0.2)
    # right: nine pairs at exp(-alpha); wrong: one at exp(alpha), eight at 1
    alpha = 0.5 * log((1 + found) / (1 - found))
    assert alpha == pytest.approx(1.039721, abs=1e-6)
    assert loss == pytest.approx(0.8 * 9 * 2.71828182846**-alpha + 0.2 * (2.71828182846**alpha + 8))
    assert loss == pytest.approx(4.711270, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_loss_obeys_the_theorem(classes, rng):
    """L <= K prod sqrt(1 - edge^2), equality for two classes; edges are those of the cost file."""
    target = torch.randint(classes, (30,), generator=rng)
    target[:classes] = torch.arange(classes)
    noise = torch.rand(30, 6, generator=rng) < 0.4
    said = torch.where(noise, torch.randint(classes, (30, 6), generator=rng), target[:, None])
    features = as_features(said.double(), target, classes)
    votes, edges, alphas = torch.zeros(30, classes, dtype=torch.float64), [], []
    for column in range(6):
        voter = Says(column, classes)
        edges.append(measure_edge(features, voter))
        one_hot = torch.eye(classes, dtype=torch.float64)[said[:, column]]
        total = sum(alphas)  # votes are in [0, 1] after division
        mean = votes / max(total, 1.0)
        expected = edge(one_hot, target, previous=mean, alpha=max(total, 1.0))
        assert edges[-1] == pytest.approx(expected)
        alpha = atanh(edges[-1])
        alphas.append(abs(alpha))
        votes = votes + alpha * one_hot
        features.advance(Voted(voter, alpha))
        loss, error = measure_votes(features)
        bound = (classes - 1) * prod(sqrt(1 - value**2) for value in edges)
        assert error <= loss <= bound * (1 + 1e-12)
        total = max(sum(alphas), 1.0)
        assert loss == pytest.approx(exponential_loss(votes / total, target, total))
        if classes == 2:
            assert loss == pytest.approx(bound)


def test_the_loss_of_a_round_is_the_formula_written_out(rng):
    votes = torch.randn(6, 4, dtype=torch.float64, generator=rng)
    z = torch.randn(6, 4, dtype=torch.float64, generator=rng)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    expected = []
    for i in range(6):
        cost = [(votes[i, c] - votes[i, y[i]]).exp() for c in range(4)]
        wrong = [c for c in range(4) if c != y[i]]
        w = sum(cost[c] for c in wrong)
        inner = sum(3 * cost[c] / w * (z[i, c] - z[i, y[i]]).exp() for c in wrong)
        expected.append(w * (1 + inner).log() / 2.5)
    torch.testing.assert_close(costs_of(2.5)((z, votes), y), torch.stack(expected))
    plain = costs_of(3.0)((z, torch.zeros_like(votes)), y)
    torch.testing.assert_close(plain, cross_entropy(z, y, reduction="none"))
    assert wrong_costs(votes, y).gather(1, y[:, None]).eq(0).all()


def blobs(rng, count=200):
    y = torch.randint(3, (count,), generator=rng)
    y[:3] = torch.arange(3)
    x = torch.eye(3)[y] * 1.5 + torch.randn(count, 3, generator=rng)
    return list(zip(x.split(50), y.split(50), strict=True))


def weak(number):
    """A network too small for three classes: one hidden unit."""
    return nn.Sequential(nn.Linear(3, 1), nn.Tanh(), nn.Linear(1, 3))


def fast(params):
    return torch.optim.Adam(params, lr=0.03)


def test_weak_networks_are_boosted(rng):
    batches = blobs(rng)
    state = torch.get_rng_state()
    results = [
        adaboost_mm(weak, batches, 6, classes=3, epochs=4, batch_size=20, optimizer=fast, seed=1)
        for _ in range(2)
    ]
    assert torch.equal(state, torch.get_rng_state())
    first, again = results
    assert first.status is Status.FINISHED
    assert len(first.rounds) == len(first.model.voters) == 6
    assert [row.updates for row in first.rounds] == [40] * 6
    for one, other in zip(first.rounds, again.rounds, strict=True):
        assert (one.edge, one.loss, one.train_error) == (other.edge, other.loss, other.train_error)
    losses = [2.0, *(row.loss for row in first.rounds)]
    for row, before, after in zip(first.rounds, losses, losses[1:], strict=False):
        assert after <= before * sqrt(1 - row.edge**2) * (1 + 1e-12)
        assert row.alpha == pytest.approx(atanh(row.edge))
    assert first.rounds[-1].train_error < first.rounds[0].train_error - 0.05
    x, y = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    wrong = (first.model(x).argmax(1) != y).double().mean()
    assert float(wrong) == pytest.approx(first.rounds[-1].train_error)
    assert first.record()["rounds"][0]["edge"] == first.rounds[0].edge
    assert not any(module.training for module in first.model.modules())


def test_a_network_below_chance_ends_the_run(rng):
    """It is left out of the vote; an empty vote gives zeros."""

    class Never(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.scale * torch.tensor([0.0, 0.0, 1e-3]).expand(len(x), 3) * 0

    x, y = torch.randn(12, 3, generator=rng), torch.arange(12) % 2 + 1
    y[0] = 0
    result = adaboost_mm(lambda _: Never(), [(x, y)], 3, classes=3, epochs=1)
    assert result.status is Status.CONVERGED
    assert "round 0 ended the run: edge -" in result.message
    assert torch.equal(result.model(x), torch.zeros(12, 3))


def test_a_perfect_network_has_a_finite_vote(rng):
    target = torch.arange(9) % 3
    batches = [(target[:, None].double(), target)]
    result = adaboost_mm(lambda _: Says(0, 3), batches, 2, classes=3, epochs=1)
    assert [row.edge for row in result.rounds] == [1.0, 1.0]
    assert [row.alpha for row in result.rounds] == [12.0, 12.0]
    assert result.rounds[-1].train_error == 0


def test_bad_input_meets_a_sentence():
    batches = [(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))]
    with pytest.raises(ValueError, match="must be positive and classes at least 2; got 0, 5, 100"):
        adaboost_mm(weak, batches, 0, classes=3)
    with pytest.raises(ValueError, match="inputs must be a tensor or a tuple of tensors; got dict"):
        adaboost_mm(weak, [({"x": torch.zeros(4, 3)}, batches[0][1])], 2, classes=3)


def resnet_and_images(rng, batch=6):
    """A small ResNet with dropout in its stem, in train mode."""
    model = build("pad-resnet-8-4", in_shape=(3, 8, 8), classes=5).double()
    images = torch.rand(batch, 3, 8, 8, dtype=torch.float64, generator=rng)
    return model, images, torch.arange(batch) % 5


def state_after_a_step(model, run, images, target):
    torch.manual_seed(3)
    cross_entropy(run(images), target).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return gradients | buffers


@pytest.mark.parametrize("momentum", [0.1, None])
def test_checkpointing_is_exact(momentum, rng):
    """Gradients and running statistics to the bit; the latter are updated once, not twice."""
    results = []
    for is_checkpointed in (False, True):
        model, images, target = resnet_and_images(torch.Generator().manual_seed(0))
        model.relu = nn.Sequential(nn.ReLU(), nn.Dropout(0.5))  # draws the same numbers twice
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
        run = checkpointed(as_chain(model)) if is_checkpointed else model
        kept = dict(model.named_buffers())
        results.append(state_after_a_step(model, run, images, target))
        assert all(buffer is kept[name] for name, buffer in model.named_buffers())
        if is_checkpointed:
            assert sum(p.numel() for p in run.parameters()) == sum(
                p.numel() for p in model.parameters()
            )
    plain, other = results
    assert plain.keys() == other.keys()
    assert plain["norm.num_batches_tracked"] == 1
    for name, value in plain.items():
        assert torch.equal(value, other[name]), name


def test_checkpointing_works_on_a_watched_encoder(rng):
    """Tuples of inputs, masks beside the features."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(3, 8)
            layers = [nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(3)]
            self.layers = nn.ModuleList(layers)
            self.out = nn.Linear(8, 4)

        def forward(self, x, padding):
            x = self.embed(x)
            for layer in self.layers:
                x = layer(x, src_key_padding_mask=padding)
            return self.out(x.mean(1))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Encoder().double()
    x = torch.randn(4, 5, 3, dtype=torch.float64, generator=rng)
    padding = torch.zeros(4, 5, dtype=torch.bool)
    padding[:, 4] = True
    target = torch.arange(4)
    chain = as_chain(model, (x, padding))
    expected = state_after_a_step(model, lambda x: model(x, padding), x, target)
    model.zero_grad()
    found = state_after_a_step(model, lambda x: checkpointed(chain)(x, padding), x, target)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)


def test_checkpointing_keeps_less(rng):
    model, images, target = resnet_and_images(rng, batch=20)
    run = checkpointed(as_chain(model))
    plain, less = (
        saved_bytes(lambda module=module: cross_entropy(module(images), target), model)
        for module in (model, run)
    )
    assert less < plain / 2.5
    with torch.no_grad():
        model.eval()
        assert torch.equal(run(images), model(images))


@pytest.mark.slow
def test_stored_bytes_of_the_large_resnet(rng):
    """O12: 93.4 MiB between the 25 parts at a batch of 100, within 10 %."""
    model = build("pad-resnet-50")
    images = torch.rand(100, 3, 32, 32, generator=rng)
    run = checkpointed(as_chain(model))
    found = saved_bytes(lambda: cross_entropy(run(images), torch.arange(100) % 10), model)
    assert found / 2**20 == pytest.approx(93.4, rel=0.1)


def test_an_empty_vote_knows_its_classes():
    assert Vote([], [], 4)(torch.zeros(3, 2)).shape == (3, 4)
