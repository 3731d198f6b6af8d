"""Products of models with attention, recurrence, several inputs and outputs, or a coin."""

import pytest
import torch
from torch import float64, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from lowland.dynamics.products import hessian_product
from lowland.errors import FallbackWarning, UnsupportedModelError
from oracles.slow_hessian import slow_hessian
from small_networks import (
    Named,
    class_batches,
    losses,
    mlp,
    seeded,
)

RAGGED = (8, 5, 3)


def ready(make, *shape, seed=1):
    """A network in float64 and ragged batches for it."""
    shape = shape or (4,)
    with torch.random.fork_rng(devices=[]):
        return seeded(make, seed).double(), class_batches(*shape, sizes=RAGGED, dtype=float64)


def block_of(size, rng, count=3):
    return torch.randn(size, count, dtype=float64, generator=rng)


class Attention(nn.Module):
    """Fused attention, which has no second derivative on a CPU."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(3, 12), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.into(x).chunk(3, dim=-1)
        return self.out(scaled_dot_product_attention(q, k, v)).mean(1)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(3, 4, batch_first=True, dropout=0.0), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize("make", [Attention, Recurrent], ids=lambda f: f.__name__)
def test_sequences(make, rng):
    model, batches = ready(make, 5, 3)
    operator = hessian_product(model, losses, batches)
    vector = block_of(operator.size, rng, 1)[:, 0]
    vector /= vector.norm()
    expected = hessian_product(model, losses, batches, mode="difference")(vector)
    assert_close(operator(vector), expected, rtol=1e-6, atol=1e-8)


class Several(nn.Module):
    """Returns a mapping, part of which no gradient goes through."""

    def __init__(self):
        super().__init__()
        self.first, self.unused = mlp(), nn.Linear(2, 2)

    def forward(self, left, right):
        score = self.first(torch.cat([left, right], 1))
        return {"score": score, "half": (score[:, :1] / 2, score.argmax(1))}


def several_losses(output, target):
    return losses(output["score"], target) + output["half"][0].squeeze(1).square()


def test_inputs_and_outputs_of_several_tensors():
    """Mappings and tuples; a parameter that is never used has zero rows."""
    model, batches = ready(Several)
    given = [({"left": x[:, :1], "right": x[:, 1:]}, y) for x, y in batches]
    single = nn.ModuleDict({"first": model.first, "unused": model.unused})
    single.forward = lambda x: model(x[:, :1], x[:, 1:])
    full = slow_hessian(single, several_losses, batches)
    assert_close(hessian_product(model, several_losses, given).dense(), full)
    newton = hessian_product(model, several_losses, given, kind="gauss_newton").dense()
    assert torch.linalg.eigvalsh(newton).min() > -1e-14
    assert not newton[-6:].any()
    named, batches = ready(Named)
    pairs = [((x[:, :3], x[:, 2:]), y) for x, y in batches]
    assert hessian_product(named, losses, pairs).dense().abs().max() > 0
    with pytest.raises(UnsupportedModelError, match='Take mode="reverse"'):
        hessian_product(model, several_losses, given, kind="gauss_newton", mode="forward").dense()


class Coin(nn.Module):
    """Random even in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return torch.dropout(self.linear(x), 0.5, True)


def test_a_random_model_is_told():
    """And measured at one draw, the same in every product."""
    model, batches = ready(Coin)
    with pytest.warns(FallbackWarning, match="give the same loss twice"):
        operator = hessian_product(model, losses, batches, max_bytes=0)
    vector = torch.ones(operator.size, dtype=float64)
    assert torch.equal(operator(vector), operator(vector))


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
def test_weight_norm(norm, mode):
    """Its fused kernel loses terms of the second derivative; the gradient's slope does not."""
    model, batches = ready(lambda: nn.Sequential(norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)))
    written = hessian_product(model, losses, batches, mode="difference").dense()
    assert_close(hessian_product(model, losses, batches, mode=mode).dense(), written)


class Bag(nn.Sequential):
    """Means of embeddings, which have no second derivative."""

    def __init__(self):
        super().__init__(nn.EmbeddingBag(9, 4), nn.Tanh(), nn.Linear(4, 3))


class Table(nn.Sequential):
    """The same means by layers that have one."""

    def __init__(self, bag):
        super().__init__(nn.Embedding(9, 4), nn.Tanh(), nn.Linear(4, 3))
        self.double().load_state_dict(bag.state_dict())

    def forward(self, tokens):
        return self[2](self[1](self[0](tokens).mean(1)))


def test_a_missing_derivative_is_named(rng):
    """With the mode that goes on; its products are those of layers that have the derivative."""
    model = seeded(Bag, 1).double()
    tokens = torch.randint(9, (6, 2), generator=rng)
    batches = [(tokens, torch.randint(3, (6,), generator=rng))]
    with pytest.raises(UnsupportedModelError, match=r'embedding_bag.*mode="difference"'):
        hessian_product(model, losses, batches).dense()
    with pytest.raises(UnsupportedModelError, match=r'embedding_bag.*mode="difference"'):
        hessian_product(model, losses, batches, max_bytes=0, mode="forward").dense()
    found = hessian_product(model, losses, batches, mode="difference").dense()
    expected = hessian_product(Table(model), losses, batches).dense()
    assert_close(found, expected, rtol=1e-6, atol=1e-8)
