"""Block by block: the model ends as the function of its certificate, all at once is plain training.

The oracles are the model itself, measured from outside, and ``lowland.training.train``.
"""

import json
from copy import deepcopy

import pytest
import torch
from boosted import Residual, adam, agrees, batched, boost, data, examples, outputs, still, tower
from look_alikes import Classifier, Padded, TimmResNet, VisionResNet, VisionTransformer, tokens
from torch import nn
from torch.nn.functional import cross_entropy

from lowland.boosting import as_chain, certificate, train_boosted
from lowland.models import build
from lowland.results import Status, plain
from lowland.training import train
from small_networks import generators, same, seeded, snapshot


def test_all_blocks_in_one_module_is_ordinary_training():
    """O14, with batch norm and dropout: every bit of weights, buffers and losses."""
    batches = data(40)
    ours, theirs = tower(drop=0.3), tower(drop=0.3)
    result = boost(
        ours, batches, module_size=4, init="default", cache="recompute", epochs=3, seed=5
    )
    expected = train(
        theirs,
        lambda output, target: cross_entropy(output, target, reduction="none"),
        batches,
        epochs=3,
        optimizer=adam(),
        seed=5,
    )
    assert same(ours.state_dict(), theirs.state_dict())
    rows = [[row["train_loss"] for row in one.curve] for one in (*result.rounds, expected)]
    assert rows[0] == rows[1]
    assert result.rounds[0].updates == expected.steps
    assert result.rounds[0].module_updates == 4 * expected.steps


def test_a_zero_start_leaves_the_logits():
    """O14: with nothing trained all rounds are the first one, and so is the model."""
    model, batches = tower(), data(40)
    result = boost(model, batches, optimizer=still)
    first, *others = result.rounds
    agrees(model, batches, result)
    for found in others:
        assert found.loss == pytest.approx(first.loss, abs=1e-14) or found.alpha == 0
        assert found.train_error == first.train_error


def test_a_zero_start_goes_on_where_the_round_before_ended():
    """The first loss of a round, of the whole set as one batch, is the last one before it."""
    x, y = examples(40)
    batches, model = [(x, y)], tower()
    for block in list(model)[1:-1]:
        block.norm = nn.Identity()
    model = nn.Sequential(model[0], *[Plain(block) for block in list(model)[1:-1]], model[-1])
    result = boost(model, batches, batch_size=40, epochs=30, optimizer=adam(0.01))
    for before, found in zip(result.rounds, result.rounds[1:], strict=False):
        assert found.curve[0]["train_loss"] < before.curve[-1]["train_loss"]
        assert found.curve[0]["train_loss"] > 0.8 * before.curve[-1]["train_loss"]
    losses = [found.loss for found in result.rounds]
    assert losses == sorted(losses, reverse=True)


class Plain(nn.Module):
    """The same block without its norm."""

    def __init__(self, block):
        super().__init__()
        self.linear1, self.linear2 = block.linear1, block.linear2

    def forward(self, x):
        return x + self.linear2(torch.relu(self.linear1(x)))


def images(count=24, size=8, dtype=torch.float64):
    return batched(*examples(count, 3, size, size, dtype=dtype), 8)


def texts(mapping):
    ids = torch.cat([tokens(torch.Generator().manual_seed(seed)) for seed in range(4)])
    masks, y = (ids != 0).long(), (ids[:, 0] + ids[:, 1]) % 3
    parts = zip(ids.split(5), masks.split(5), y.split(5), strict=True)
    if mapping:
        return [({"input_ids": i, "attention_mask": m}, t) for i, m, t in parts]
    return [((i,), t) for i, _, t in parts]


MODELS = {
    "sequential": (tower, data),
    "torchvision": (lambda: seeded(VisionResNet, 0).double(), images),
    "timm": (lambda: seeded(lambda: TimmResNet(0.2), 0).double(), images),
    "vit": (lambda: seeded(VisionTransformer, 0).double(), images),
    "text": (lambda: seeded(Classifier, 0).double(), lambda: texts(True)),
    "torch encoder": (lambda: seeded(Padded, 0).double(), lambda: texts(False)),
    "res-mlp": (lambda: build("res-mlp-4-8-3x3").double(), data),
    "pad-resnet": (
        lambda: build("pad-resnet-8-2", in_shape=(3, 8, 8), classes=3).double(), images
    ),
}  # fmt: skip


@pytest.fixture(params=MODELS)
def case(request, monkeypatch):
    monkeypatch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)
    make, batches = MODELS[request.param]
    torch.backends.mha.set_fastpath_enabled(False)
    yield make(), batches()
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
def test_the_model_is_the_function_of_its_last_certificate(case):
    """C11: the same object, class and keys; error, loss and bounds from its own logits."""
    model, batches = case
    kind, keys, places = type(model), [*model.state_dict()], [id(p) for p in model.parameters()]
    result = boost(model, batches, epochs=2, exits=True)
    assert result.status is Status.FINISHED
    assert result.model is model
    assert type(model) is kind
    assert [*model.state_dict()] == keys
    assert [id(parameter) for parameter in model.parameters()] == places
    found = agrees(model, batches, result)
    assert found.bounds["B1"] == pytest.approx(result.certified.bounds["B1"], rel=1e-13)
    assert json.loads(json.dumps(result.record(), allow_nan=False)) == plain(result.record())
    logits, _ = outputs(model, batches)
    chain = as_chain(model, batches[0][0])
    with torch.no_grad():
        model.eval()
        assert torch.equal(torch.cat([chain(inputs) for inputs, _ in batches]), logits)


def test_each_certificate_is_about_its_depth():
    """From the features of each depth and the heads that were kept, all numbers again."""
    model, batches = tower(), data(40)
    result = boost(model, batches, exits=True)
    chain, target = as_chain(model, batches[0][0]), torch.cat([y for _, y in batches])
    model.eval()
    values = (torch.cat([x for x, _ in batches]),)
    before, last = None, {"alpha_previous": 0.0, "edge_previous": 0.0}
    for part, head, found in zip(chain.parts, result.exits, result.rounds, strict=True):
        with torch.no_grad():
            values = part(*values)
            rows = head(*values).softmax(1)
        expected = certificate(rows, target, previous=before, **last)
        for name in ("edge", "gamma", "alpha", "loss", "covariance", "step_ratio"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-11), name
        assert found.train_error == expected.error
        for name, value in expected.bounds.items():
            assert found.bounds[name] == pytest.approx(value, abs=1e-11)
        for theta, share, bound in found.margins:
            assert share == expected.margin_share(theta)
            assert bound == pytest.approx(expected.margin_bound(theta), abs=1e-11)
        before, last = rows, {"alpha_previous": found.alpha_closed, "edge_previous": found.edge}


@pytest.mark.parametrize("cache", ["host", "recompute"])
@pytest.mark.parametrize("head", ["plain", "deep", "downstream"])
def test_what_is_frozen_does_not_move(cache, head):
    """Bit by bit, statistics of batch norms too, whatever calls ``model.train()`` meanwhile."""
    model, batches, seen = seeded(VisionResNet, 0), images(dtype=torch.float32), []
    chain = as_chain(model, batches[0][0])

    def looks(rows):
        model.train()
        model.requires_grad_(requires_grad=True)
        if len(rows) == 1:
            seen.append([deepcopy(part.state_dict()) for part in chain.parts[: len(seen)]])
        return False

    result = boost(model, batches, chain=chain, stop=looks, epochs=2, cache=cache, head=head)
    assert len(seen) == 5 == len(result.rounds)
    agrees(model, batches, result, abs=1e-6)
    final = [part.state_dict() for part in chain.parts]
    for number, states in enumerate(seen):
        assert len(states) == number
        assert same(states, final[:number])


def test_downstream_heads_train_later_blocks():
    model, batches = seeded(VisionResNet, 0), images(dtype=torch.float32)
    names = ["layer2.0.conv1.weight", "fc.weight", "layer1.1.conv1.weight", "layer2.1.conv1.weight"]
    before = {name: model.get_parameter(name).detach().clone() for name in names}
    boost(model, batches, head="downstream", init="default", epochs=1, max_steps_now=1)
    changed = [not torch.equal(before[name], model.get_parameter(name)) for name in names]
    assert changed == [True, True, False, False]


def test_the_model_comes_back_as_it_was():
    """Modes, flags, hooks, gradients; weights that the user has frozen; the generators."""
    model, batches = tower(drop=0.2), data(40)
    model[2].linear1.requires_grad_(requires_grad=False)
    model[0].bias.requires_grad_(requires_grad=False)
    model[3].eval()
    model[1].register_forward_hook(lambda *_: None)
    model[1].linear1.weight.grad = torch.ones_like(model[1].linear1.weight)
    before, states = snapshot(model), generators()
    boost(model, batches, out=None)
    after = snapshot(model)
    for name in ("identities", "buffers", "gradients", "modules"):
        assert same(before[name], after[name]), name
    assert same(states, generators())
    for name in ("2.linear1.weight", "2.linear1.bias", "0.bias"):
        assert torch.equal(before["bits"][name], after["bits"][name])
    assert not torch.equal(before["bits"]["2.linear2.weight"], after["bits"]["2.linear2.weight"])


@pytest.mark.parametrize("init", ["default", "zero", "copy_previous"])
def test_a_block_that_the_user_has_frozen_stays(init):
    model, batches = tower(), data(40)
    model[2].requires_grad_(requires_grad=False)
    model[4].requires_grad_(requires_grad=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = boost(model, batches, init=init)
    kept = [name for name, _ in model.named_parameters() if name[0] in "24"]
    assert len(kept) == 8
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in kept)
    agrees(model, batches, result)


def test_a_model_that_is_frozen_is_only_measured():
    model, batches = tower().requires_grad_(requires_grad=False), data(40)
    before = deepcopy(model.state_dict())
    result = boost(model, batches)
    assert same(before, model.state_dict())
    assert [found.updates for found in result.rounds] == [0] * 4
    agrees(model, batches, result)


def test_without_what_training_alone_needs(monkeypatch):
    """Bytes are counted without a trace; a round of one block keeps less than all of them."""
    model, batches = tower(6, drop=0.3), data(40)
    alone = boost(deepcopy(model), batches, epochs=1).rounds
    together = boost(deepcopy(model), batches, epochs=1, module_size=7).rounds
    assert 0 < max(found.bytes for found in alone) < together[0].bytes / 3


def test_two_in_a_row(rng):
    """A second call takes the trained model further; a Residual of another width is a new chain."""
    model, batches = tower(), data(40)
    first = boost(model, batches)
    again = boost(model, batches, init="default")
    assert again.rounds[-1].loss < first.rounds[-1].loss
    wide = nn.Sequential(nn.Linear(4, 5), Residual(5), Residual(5), nn.Linear(5, 3)).double()
    assert train_boosted(wide, batches, epochs=1).status is Status.FINISHED
