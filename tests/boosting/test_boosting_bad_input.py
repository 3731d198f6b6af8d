"""Everything that cannot be boosted is refused in a sentence, and before anything was changed."""

from copy import deepcopy

import pytest
import torch
from boosted import Residual, batched, boost, data, examples, tower
from torch import nn

from lowland.boosting import RandomFeatures, as_chain, train_boosted
from lowland.errors import LowlandError, UnsupportedModelError
from lowland.models import build
from small_networks import same, snapshot

x, y = examples(40)

WORDS = [
    ({"objective": "hinge"}, r"objective must be one of \['ce', 'exp', 'released'\]; got 'hinge'"),
    ({"alpha": "open"}, "alpha must be one of closed, line_search; got 'open'"),
    ({"head": "small"}, "head must be one of plain, .*downstream-4; got 'small'"),
    ({"init": "one"}, "init must be one of default, zero, copy_previous; got 'one'"),
    ({"stop": "never"}, "stop must be one of"),
    ({"schedule": "random"}, "schedule must be one of sequential, parallel; got 'random'"),
    ({"cache": "cloud"}, "cache must be one of"),
    ({"cache_dtype": "int8"}, "dtype must be one of"),
    ({"precision": "fp4"}, "precision must be one of"),
    ({"device": "abacus"}, 'device must be "auto" or a device of this machine; got "abacus"'),
    ({"epochs": 0}, "epochs must be a whole number, at least 1; got 0"),
    ({"epochs": 1.5}, "epochs must be a whole number, at least 1; got 1.5"),
    ({"epochs": float("nan")}, "epochs must be a whole number, at least 1; got nan"),
    ({"check_every": 0}, "check_every must be a whole number"),
    ({"batch_size": 0}, "batch_size must be a whole number"),
    ({"batch_size": float("inf")}, "batch_size must be a whole number"),
    ({"module_size": 0}, "module_size must be a whole number"),
    ({"refine_epochs": -1}, "refine_epochs must be a whole number, at least 0; got -1"),
    ({"max_steps_now": 0}, "max_steps_now must be a whole number, at least 1; got 0"),
    ({"views": 0}, "views must be at least 1"),
    ({"transport": 0.0}, "transport must be positive; got 0.0. None leaves it out"),
    ({"transport": float("nan")}, "transport must be positive; got nan"),
    ({"l1": -1.0}, "l1 must be positive; got -1.0"),
    ({"gamma_threshold": 1.0}, "gamma_threshold must lie between -1 and 1; got 1.0"),
    ({"edge_start": float("nan")}, "edge_start must lie between -1 and 1; got nan"),
    ({"optimizer": torch.optim.SGD([torch.zeros(1)], 0.1)}, "optimizer must be a function of the"),
    ({"rate_schedule": 0.9}, "rate_schedule must be a function of the optimizer; got a float"),
    ({"oracle": 3}, "oracle must be a function of values, target, .* and head; got a int"),
    ({"stop": "validation"}, "must be given together; got stop='validation' without batches"),
    ({"validation_batches": data(16)}, "must be given together; got stop='fixed' with them"),
    ({"schedule": "parallel", "stop": "paper"}, 'must have stop="fixed" and no oracle'),
    ({"schedule": "parallel", "oracle": print}, 'must have stop="fixed" and no oracle'),
    ({"schedule": "parallel", "head": "downstream"}, "must have heads of their own"),
    ({"sample_weights": torch.ones(3)}, r"sample_weights must have shape \(40,\)"),
    ({"sample_weights": -torch.ones(40)}, "sample_weights must be finite, not negative"),
    ({"head": lambda values, classes: nn.Linear(6, 2)}, "must turn its features into 3 numbers"),
    ({"evaluation_batches": iter(data(16))}, "batches must be iterable more than once"),
    ({"test_batches": []}, "batches must hold at least one example; got none"),
]  # fmt: skip


@pytest.mark.untyped
def name_of(value):
    """Names without addresses in memory: several processes must see the same tests."""
    return value[:30] if isinstance(value, str) else type(value).__name__


def names_of(value):
    return value[:40] if isinstance(value, str) else ", ".join(value)


@pytest.mark.parametrize(("options", "words"), WORDS, ids=names_of)
def test_options(options, words):
    model = tower()
    before = snapshot(model)
    with pytest.raises(ValueError, match=words):
        boost(model, batched(x, y), **options)
    if "max_steps_now" not in options and not callable(options.get("head")):
        assert same(snapshot(model), before)


BATCHES = [
    ([], "batches must yield at least one batch; got none. Is the loader empty"),
    (iter(batched(x, y)), "batches must be iterable more than once; got a list_iterator"),
    ((pair for pair in batched(x, y)), "iterable more than once; got a generator"),
    ([[x]], r"batches must yield pairs \(inputs, target\); got a list of 1"),
    (batched(x, y + 1), r"classes must lie in 0..2, one for each output.*got 3"),
    (batched(x, y - 1), "classes must be 0, 1, ..., C - 1; got -1. Number them from 0"),
    (batched(x, y * 0 + 1), "at least two classes; got class 1 only"),
    (batched(x, y.double()), r"integers of shape \(batch,\); got torch.float64 of shape \(8,\)"),
    (batched(x, nn.functional.one_hot(y)), r"integers of shape \(batch,\); got torch.int64 of"),
    (batched(x, y[:, None]), r"shape \(8, 1\). Take the arg max"),
    (batched(x, y > 1), "got torch.bool"),
]


@pytest.mark.parametrize(("batches", "words"), BATCHES, ids=name_of)
def test_batches(batches, words):
    model = tower()
    before = snapshot(model)
    with pytest.raises(ValueError, match=words):
        train_boosted(model, batches)
    assert same(snapshot(model), before)


def test_weights_need_an_order():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 8, shuffle=True)
    with pytest.raises(ValueError, match="stable index: examples must come in the same order"):
        boost(tower(), loader, sample_weights=torch.ones(40))


class Halves(nn.Module):
    """Changes the number of examples."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4).double()

    def forward(self, x):
        return self.linear(x)[::2]


class Rounds(nn.Module):
    """Returns integers."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4).double()

    def forward(self, x):
        return self.linear(x.double()).long()


class Real(nn.Linear):
    """A layer that takes integers."""

    def forward(self, x):
        return super().forward(x.double())


def linear(classes=3):
    return nn.Linear(4, classes).double()


def shared():
    block = Residual(4).double()
    return nn.Sequential(block, block, Residual(4).double(), linear())


MODELS = {
    "one output": (lambda: tower(classes=1), ValueError, r"two classes or more; got \(40, 1\)"),
    "one layer": (linear, LowlandError, "at least two blocks"),
    "empty": (nn.Sequential, LowlandError, "."),
    "another batch": (lambda: nn.Sequential(Halves(), Halves(), linear()), LowlandError,
                      "a part must return 40 examples for 40, along the first axis"),
    "integers": (lambda: nn.Sequential(Rounds(), Rounds(), Real(4, 3).double()), LowlandError,
                 "features between parts must be real numbers; '0' returns torch.int64"),
    "twice": (shared, LowlandError, "must not share weights or buffers|called twice"),
    "meta": (lambda: tower().to("meta"), ValueError, r"one device with memory; got \['meta'\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    make, kind, words = MODELS[name]
    with pytest.raises(kind, match=words):
        train_boosted(make(), [(x, y)])


@pytest.mark.untyped
def test_a_language_model_gives_a_row_for_each_token():
    with pytest.raises(UnsupportedModelError, match=r"must return logits \(batch, classes\)"):
        train_boosted(build("res-mlp-4-8-3x2").double()[1:], [(x.view(10, 4, 4), y[:10])])


def test_a_chain_of_another_model():
    model, other = tower(), tower()
    with pytest.raises(ValueError, match="chain must be that of the model; got one of another"):
        boost(model, [(x, y)], chain=as_chain(other, x))
    chain = as_chain(model, x)
    model[4] = nn.Linear(6, 3).double()
    with pytest.raises(UnsupportedModelError, match="must give the logits of the model"):
        boost(model, [(x, y)], chain=chain)


def test_fitted_blocks_are_trained_alone():
    block = RandomFeatures(6, 8, generator=torch.Generator().manual_seed(0)).double()
    model = tower(2)
    model = nn.Sequential(model[0], model[1], block, model[3])
    blocks = ["1", "2"]
    chain = as_chain(model, x, blocks=blocks)
    for options in ({"module_size": 3}, {"schedule": "parallel"}):
        with pytest.raises(ValueError, match="a block that is fitted must be trained alone"):
            boost(model, [(x, y)], chain=chain, **options)


def test_an_oracle_that_fails_leaves_the_flags():
    model = tower()
    before = deepcopy(model)

    def fails(*_):
        raise ZeroDivisionError("enough")

    with pytest.raises(ZeroDivisionError, match="enough"):
        boost(model, [(x, y)], oracle=fails)
    flags = [[p.requires_grad for p in one.parameters()] for one in (model, before)]
    assert flags[0] == flags[1]
