"""Kept features are those of the frozen parts run again (oracle O13), wherever they are kept."""

import gc
import weakref

import pytest
import torch
from tiny_parts import CPU, TinyPart, as_batches, rows
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from lowland.boosting.features import read_features
from lowland.boosting.storage import Storage
from lowland.training import train

PLACES = ["device", "host", "disk"]
ALL = [*PLACES, "recompute"]


def read(batches, **options):
    """Read batches whose inputs are what enters the first part."""
    return read_features(batches, lambda inputs: (inputs,), device=CPU, **options)


def through(parts, x, size=None):
    """The slow and obvious features: parts one after the other, in eval mode."""
    found = []
    for some in x.split(size or len(x)):
        values = (some,)
        for part in parts:
            values = part.eval()(*values)
        found.append(values[0].detach())
    return torch.cat(found)


@pytest.mark.parametrize("cache", ALL)
def test_features_are_those_of_the_parts_one_after_the_other(cache):
    x, y = rows()
    parts = [TinyPart(4, 0), TinyPart(4, 1, wider=7), TinyPart(7, 2)]
    features = read(as_batches(x, y), cache=cache)
    assert (features.count, features.views, features.cache) == (20, 1, cache)
    for depth in range(4):
        values, target, weights = zip(*features.chunks(), strict=True)
        assert torch.equal(
            torch.cat([hidden for (hidden,) in values]), through(parts[:depth], x, 6)
        )
        assert torch.equal(torch.cat(target), y)
        assert torch.equal(features.target, y)
        assert set(weights) == {None}
        assert features.bytes() == (0 if cache == "recompute" else 20 * 8 * (4, 4, 7, 7)[depth])
        if depth < 3:
            features.advance(parts[depth])
    assert features.frozen == parts


@pytest.mark.parametrize("cache", ALL)
def test_losses_and_gradients_are_those_of_the_assembled_network_with_detach(cache):
    """O13: to the bit, and what is frozen stays as it is to the bit."""
    x, y = rows(24)
    prefix, part, head = TinyPart(4, 0), TinyPart(4, 1), nn.Linear(4, 3).double()
    part.dropout.p = 0.0
    features = read(as_batches(x, y, 8), cache=cache)
    inputs = list(features.batches(8, seed=3))
    features.advance(prefix)
    frozen = {name: value.clone() for name, value in prefix.state_dict().items()}
    prefix.train()  # as model.train() would; kept features cannot care, recomputed must not
    for (values, target), ((raw,), same) in zip(features.batches(8, seed=3), inputs, strict=True):
        found = gradients(head(part(*values)[0]), target, [part, head])
        expected = gradients(head(part(through([prefix], raw))[0]), target, [part, head])
        assert torch.equal(target, same)
        assert all(map(torch.equal, found, expected))
    for name, value in prefix.state_dict().items():
        assert torch.equal(value, frozen[name])
    assert all(parameter.grad is None for parameter in prefix.parameters())


def gradients(output, target, modules):
    """The loss and its gradients."""
    params = [parameter for module in modules for parameter in module.parameters()]
    loss = cross_entropy(output, target)
    return [loss.detach(), *torch.autograd.grad(loss, params)]


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "float16"])
def test_all_places_give_the_same_bits(dtype):
    x, y = rows()
    seen = {}
    for cache in PLACES:
        features = read(as_batches(x, y), cache=cache, dtype=dtype)
        features.advance(TinyPart(4, 0))
        seen[cache] = [
            part for values, target in features.batches(7, seed=0) for part in (*values, target)
        ]
        kept = x if dtype is None else x.to(getattr(torch, dtype)).double()
        hidden = through([TinyPart(4, 0)], kept, 6)
        hidden = hidden if dtype is None else hidden.to(getattr(torch, dtype)).double()
        assert torch.equal(torch.cat([v[0] for v, _, _ in features.chunks()]), hidden)
        assert features.bytes() == 20 * 4 * {None: 8, "float32": 4}.get(dtype, 2)
    for cache in PLACES[1:]:
        assert all(map(torch.equal, seen["device"], seen[cache]))


def test_an_epoch_has_every_example_once_in_an_order_of_seed_and_epoch():
    x, y = rows()
    features = read(as_batches(x, y))
    before = torch.get_rng_state()
    batches = features.batches(6, seed=5)
    assert len(batches) == 4
    first, second = list(batches), list(batches)
    batches.set_epoch(0)
    again = list(batches)
    other = list(features.batches(6, seed=6))
    assert [len(target) for _, target in first] == [6, 6, 6, 2]
    for epoch in (first, second, other):
        order = find(torch.cat([values[0] for values, _ in epoch]), x)
        assert sorted(order) == list(range(20))
        assert torch.equal(torch.cat([target for _, target in epoch]), y[order])
    assert torch.equal(first[0][0][0], again[0][0][0])
    assert not torch.equal(first[0][0][0], second[0][0][0])
    assert not torch.equal(first[0][0][0], other[0][0][0])
    assert torch.equal(torch.get_rng_state(), before)


def find(some, x):
    """Positions of rows."""
    return [int((x == row).all(1).nonzero()[0]) for row in some]


@pytest.mark.parametrize("cache", ["device", "recompute"])
def test_the_training_loop_takes_them(cache):
    """And a resumed epoch number decides the order."""
    x, y = rows()
    features = read(as_batches(x, y), cache=cache)
    features.advance(TinyPart(4, 0))
    model = Headed(TinyPart(4, 1), nn.Linear(4, 3).double())
    result = train(
        model,
        lambda output, target: cross_entropy(output, target, reduction="none"),
        features.batches(6, seed=0),
        epochs=20,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
    )
    assert result.steps == 80
    assert result.curve[-1]["train_loss"] < result.curve[0]["train_loss"]


class Headed(nn.Module):
    """A part and a head on what it puts out first."""

    def __init__(self, part, head):
        super().__init__()
        self.part, self.head = part, head

    def forward(self, *values):
        return self.head(self.part(*values)[0])


@pytest.mark.parametrize("cache", ALL)
def test_what_goes_along_is_the_same_for_every_part_and_kept_once(cache):
    """Side inputs of any type, found at the right rows; a mapping of inputs is fine."""
    x, y = rows()
    mask = torch.arange(40).reshape(20, 2) % 3 == 0
    batches = [
        ({"x": a, "mask": m}, b)
        for a, m, b in zip(x.split(6), mask.split(6), y.split(6), strict=True)
    ]
    features = read_features(
        batches,
        lambda inputs: (inputs["x"], inputs["mask"]),
        device=CPU,
        cache=cache,
        dtype="float32",
    )
    sides = None if cache == "recompute" else features.stores[1]
    part = TinyPart(4, 0)
    features.advance(part)
    assert cache == "recompute" or features.stores[1] is sides
    exact = x if cache == "recompute" else x.float().double()
    for (hidden, side), target in features.batches(20, seed=0):
        assert side.dtype == torch.bool
        index = [
            int(
                (mask == m)
                .all(1)
                .logical_and(y == t)
                .logical_and((through([part], exact) - h).abs().amax(1) < 1e-5)
                .nonzero()[0]
            )
            for h, m, t in zip(hidden, side, target, strict=True)
        ]
        assert len(index) == len(target)


@pytest.mark.parametrize("cache", ALL)
def test_a_part_that_works_in_place_changes_no_data(cache):
    x, y = rows()
    original = x.clone()
    part = InPlace()
    features = read(as_batches(x, y), cache=cache, parts=[part])
    assert torch.equal(x, original)
    if cache == "recompute":
        return  # there the user's own tensors go in, as they do when the model runs
    for values, _, _ in features.chunks():
        part(*values)
    for values, _ in features.batches(6, seed=0):
        part(*values)
    assert torch.equal(torch.cat([values[0] for values, _, _ in features.chunks()]), original)
    features.advance(part)
    assert torch.equal(torch.cat([v[0] for v, _, _ in features.chunks()]), original.relu())
    assert torch.equal(x, original)


class InPlace(nn.Module):
    """A block that begins with a rectifier in place."""

    def forward(self, hidden):
        return (hidden.relu_(),)


def test_two_layers_are_there_at_a_time(monkeypatch):
    """While a part is frozen; one before and after."""
    alive, most = weakref.WeakSet(), []
    plain = Storage.write

    def write(self, start, values):
        alive.add(self)
        most.append(len(alive))
        return plain(self, start, values)

    monkeypatch.setattr(Storage, "write", write)
    features = read(as_batches(*rows()))
    for seed in range(5):
        features.advance(TinyPart(4, seed))
        gc.collect()
        assert len(alive) == 1
    assert max(most) == 2


def test_frozen_parts_stay_frozen():
    part = TinyPart(4, 0).train()
    features = read(as_batches(*rows()))
    features.advance(part)
    assert not part.training
    assert not part.norm.training
    assert not any(parameter.requires_grad for parameter in part.parameters())
    assert int(part.norm.num_batches_tracked) == 0


@pytest.mark.parametrize("cache", PLACES)
def test_a_part_whose_features_are_not_finite_is_not_frozen(cache):
    x, y = rows()
    features = read(as_batches(x, y), cache=cache)
    broken = TinyPart(4, 0).train()
    broken.linear.weight.data[0, 0] = float("inf")
    with pytest.raises(FloatingPointError, match="finite as they are kept.*behind part 1"):
        features.advance(broken)
    assert features.frozen == []
    assert broken.training
    assert torch.equal(torch.cat([values[0] for values, _, _ in features.chunks()]), x)
    with pytest.raises(FloatingPointError, match="65504"):
        read(as_batches(x * 1e5, y), cache=cache, dtype="float16")


@pytest.mark.parametrize("cache", ALL)
def test_weights_go_with_their_examples(cache):
    x, y = rows()
    weights = torch.arange(20.0).double()
    features = read(as_batches(x, y), cache=cache, sample_weights=weights)
    assert torch.equal(features.weights, weights)
    parts = list(features.chunks())
    assert torch.equal(torch.cat([weight for _, _, weight in parts]), weights)
    for values, (target, some) in features.batches(6, seed=0):
        index = find(values[0], x)
        assert torch.equal(some, weights[index])
        assert torch.equal(target, y[index])


def test_a_large_batch_goes_through_a_part_in_chunks():
    x, y = rows(1300)
    part = TinyPart(4, 0)
    sizes = []
    part.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    features = read([(x, y)])
    features.advance(part)
    assert sizes == [500, 500, 300]
    assert_close(torch.cat([v[0] for v, _, _ in features.chunks(7)]), through([part], x))
