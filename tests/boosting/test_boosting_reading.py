"""Two passes tell whether data is the same, in another order, or random: never kept silently."""

import random
import warnings

import numpy as np
import pytest
import torch
from tiny_parts import CPU, TinyPart, as_batches, rows
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from lowland.boosting import features as features_file
from lowland.boosting.features import read_features
from lowland.boosting.reading import Fingerprints, one_pass
from lowland.data import Batches
from lowland.errors import FallbackWarning, NoEffectWarning
from small_networks import generators


def read(batches, **options):
    """Read batches whose inputs are what enters the first part."""
    return read_features(batches, lambda inputs: (inputs,), device=CPU, **options)


def hidden(features):
    """All rows in the order of the statistics."""
    return torch.cat([values[0] for values, _, _ in features.chunks()])


class Noisy(Dataset):
    """Rows with noise of their own: from torch, Python or NumPy."""

    def __init__(self, x, y, source="torch"):
        self.x, self.y, self.source = x, y, source

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        draw = {
            "torch": lambda: torch.randn(()).item(),
            "python": random.random,
            "numpy": lambda: np.random.rand(),  # noqa: NPY002
            "none": lambda: 0.0,
        }[self.source]
        return self.x[index] + draw(), self.y[index]


def test_a_shuffling_loader_is_kept_and_has_no_stable_order():
    x, y = rows()
    loader = DataLoader(TensorDataset(x, y), 6, shuffle=True)
    features = read(loader)
    assert (features.cache, features.is_random, features.is_stable) == ("device", False, False)
    assert torch.equal(hidden(features).sort(0).values, x.sort(0).values)
    with pytest.raises(ValueError, match="sample_weights need a stable index"):
        read(loader, sample_weights=torch.ones(20))


def test_a_loader_in_order_is_stable():
    x, y = rows()
    for batches in (as_batches(x, y), DataLoader(TensorDataset(x, y), 6)):
        features = read(batches)
        assert (features.is_random, features.is_stable) == (False, True)
        assert torch.equal(hidden(features), x)


@pytest.mark.parametrize("source", ["torch", "python", "numpy"])
@pytest.mark.parametrize("cache", ["auto", "device", "disk"])
def test_random_data_is_recomputed_and_said_to_be(source, cache):
    x, y = rows()
    loader = DataLoader(Noisy(x, y, source), 6)
    with pytest.warns(FallbackWarning, match="different examples.*Pass views=R"):
        features = read(loader, cache=cache)
    assert (features.cache, features.is_random, features.is_stable) == ("recompute", True, True)
    part = TinyPart(4, 0)
    features.advance(part)
    assert torch.equal(hidden(features), hidden(features))  # the same in every pass of statistics
    batches = features.batches(6, seed=0)
    first, second = (torch.cat([v[0] for v, _ in batches]) for _ in range(2))
    batches.set_epoch(0)
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.cat([v[0] for v, _ in batches]))


@pytest.mark.parametrize("workers", [0, 2])
def test_statistics_of_recomputed_data_see_the_same_pass_again(workers):
    """The order and the noise of the pass in which the labels were read."""
    x, y = rows()
    loader = DataLoader(Noisy(x, y), 6, shuffle=True, num_workers=workers)
    features = read(loader, cache="recompute")
    first, second = (list(features.chunks()) for _ in range(2))
    for (values, target, _), (others, again, _) in zip(first, second, strict=True):
        assert torch.equal(values[0], others[0])
        assert torch.equal(target, again)
    assert torch.equal(torch.cat([target for _, target, _ in first]), features.target)


@pytest.mark.parametrize(
    "loader",
    [
        lambda x, y: DataLoader(TensorDataset(x, y), 6, shuffle=True, drop_last=True),
        lambda x, y: DataLoader(
            TensorDataset(x, y), 6, sampler=WeightedRandomSampler(torch.ones(20), 20)
        ),
        lambda x, y: Batches(
            torch.arange(20 * 192, dtype=torch.int32).reshape(20, 3, 8, 8).to(torch.uint8),
            y, 6, augment="crop-flip", shuffle=False,
        ),
    ],
)  # fmt: skip
def test_other_kinds_of_random_data(loader):
    with pytest.warns(FallbackWarning, match="recomputed"):
        assert read(loader(*rows())).cache == "recompute"


def test_batches_that_only_shuffle_are_kept():
    images = torch.randint(256, (20, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    batches = Batches(images.to(torch.uint8), rows()[1], 6, seed=1)
    batches.set_epoch(7)
    features = read(batches)
    assert (features.cache, features.is_random, features.is_stable) == ("device", False, False)
    assert batches.epoch == 7


@pytest.mark.parametrize("cache", ["device", "host", "disk"])
def test_views_are_kept_and_drawn_one_for_each_example(cache):
    x, y = rows()
    weights = torch.arange(20.0).double()
    loader = DataLoader(Noisy(x, y), 6)
    features = read(loader, cache=cache, views=3, sample_weights=weights)
    assert (features.count, features.views, len(features.target)) == (20, 3, 20)
    assert features.bytes() == 3 * 20 * 4 * 8
    features.advance(TinyPart(4, 0))
    kept = features.stores[0].data.reshape(3, 20, 4)
    assert torch.equal(hidden(features), kept[0])
    assert not torch.equal(kept[0], kept[1])
    seen = set()
    for _ in range(6):
        places = []
        for values, (target, weight) in features.batches(6, seed=len(seen)):
            for row, label, number in zip(values[0], target, weight, strict=True):
                view, place = (kept == row).all(2).nonzero()[0].tolist()
                assert (int(y[place]), float(weights[place])) == (int(label), float(number))
                places.append(place)
                seen.add((view, place))
        assert sorted(places) == list(range(20))  # each example once in every epoch
    assert len(seen) > 30


def test_views_of_a_shuffling_loader_are_drawn_without_repeats():
    x, y = rows()
    features = read(DataLoader(Noisy(x, y), 6, shuffle=True), views=3)
    kept = features.stores[0].data
    found = torch.cat([values[0] for values, _ in features.batches(6, seed=0)])
    places = [int((kept == row).all(1).nonzero()[0]) for row in found]
    assert len(set(places)) == 20
    assert max(places) >= 20


def test_one_view_keeps_random_data_on_request():
    x, y = rows()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = read(DataLoader(Noisy(x, y), 6), views=1)
    assert (features.cache, features.is_random) == ("device", True)


def test_views_of_data_that_is_not_random_are_one():
    x, y = rows()
    with pytest.warns(NoEffectWarning, match="views=3 has no effect.*are the same"):
        assert read(as_batches(x, y), views=3).views == 1
    with pytest.warns(NoEffectWarning, match="views=3 has no effect.*'recompute'"):
        assert read(DataLoader(Noisy(x, y), 6), views=3, cache="recompute").views == 1


@pytest.mark.parametrize("cache", ["device", "recompute"])
def test_nothing_of_the_users_randomness_is_used_up(cache):
    """A loader with its own generator, and the global ones."""
    x, y = rows()
    own = torch.Generator().manual_seed(4)
    loader = DataLoader(Noisy(x, y, "none"), 6, shuffle=True, generator=own)
    before = own.get_state(), generators()
    features = read(loader, cache=cache)
    for values, _ in features.batches(6, seed=0):
        torch.equal(*values, *values)
    hidden(features)
    assert torch.equal(own.get_state(), before[0])
    after = generators()
    assert torch.equal(after.pop("torch"), before[1].pop("torch"))
    assert after == before[1]


def test_whoever_uses_a_batch_draws_what_they_would_have_drawn():
    """And what they draw does not change the data."""
    x, y = rows()
    loader = DataLoader(Noisy(x, y), 6, shuffle=True)
    torch.manual_seed(0)
    quiet = [batch[0] for batch in one_pass(loader, 0, "a", epoch=0)]
    after = torch.rand(4)
    torch.manual_seed(0)
    busy, drawn = [], []
    for batch in one_pass(loader, 0, "a", epoch=0):
        busy.append(batch[0])
        drawn.append(torch.rand(()))
    assert all(map(torch.equal, quiet, busy))
    assert torch.equal(torch.stack(drawn), after)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.uint8, torch.bool]
)
def test_fingerprints_tell_rows_apart_and_do_not_see_the_order(dtype):
    """Among them rows that differ by signs only, and the same inputs with another class."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(40, 33, generator=draws) * 3
    x = x > 0 if dtype == torch.bool else x.abs().to(dtype)
    if dtype.is_floating_point:
        x[20:] = x[:20]
        x[20:, :2] = -x[:20, :2]
    y = torch.arange(40) % 2
    one, two, three = Fingerprints(), Fingerprints(), Fingerprints()
    order = torch.randperm(40, generator=draws)
    for batch in as_batches(x, y, 7):
        one.add(batch)
    for batch in as_batches(x[order], y[order], 11):
        two.add(batch)
    for batch in as_batches(x, 1 - y, 7):
        three.add(batch)
    assert one.has_same_examples(two)
    assert not one.has_same_order(two)
    assert not one.has_same_examples(three)
    assert len(torch.cat(one.keys).unique()) == 40
    assert (one.count, one.largest, two.largest) == (40, 7, 11)


def test_batches_padded_each_to_its_own_length_are_recomputed():
    _, y = rows()
    batches = [(torch.ones(6, n, dtype=torch.float64), y[:6]) for n in (3, 5)]
    with pytest.warns(FallbackWarning, match="differ in shape.*Pad all"):
        features = read(batches)
    assert features.cache == "recompute"
    assert [values[0].shape for values, _, _ in features.chunks()] == [(6, 3), (6, 5)]


def test_the_choice_looks_at_what_is_free(monkeypatch):
    """Twice the largest layer in half of what is free: 20 rows of 4, then of 9 numbers."""
    x, y = rows()
    parts = [TinyPart(4, 0), TinyPart(4, 1, wider=9)]
    parts[0].train()
    free = {"memory": 4 * 20 * 9 * 8, "disk": 4 * 20 * 9 * 8}
    monkeypatch.setattr(features_file, "free_bytes", lambda device: free["memory"])
    monkeypatch.setattr(features_file, "free_disk", lambda folder: free["disk"])
    features = read(as_batches(x, y), parts=parts)
    assert features.cache == "device"
    assert "20 examples are kept on cpu as float64" in features.describe()
    assert parts[0].training
    free["memory"] -= 1
    assert read(as_batches(x, y), parts=parts).cache == "disk"
    assert read(as_batches(x, y), parts=parts, dtype="float32").cache == "device"
    free["disk"] -= 1
    with pytest.warns(FallbackWarning, match="two layers need .* GiB.*larger disk"):
        features = read(as_batches(x, y), parts=parts)
    assert "are not kept, as two layers need" in features.describe()


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ([], {}, "at least one example; got none"),
        (iter(as_batches(*rows())), {}, "iterable more than once; got a list_iterator"),
        (3, {}, "iterable of .inputs, target.; got a int"),
        ([rows()[0]], {}, "batches must yield pairs"),
        ([(rows()[0], rows()[0][:, 0])], {}, "integers of shape .batch,.; got torch.float64"),
        ([(rows()[0], rows()[1][:, None])], {}, r"got torch.int64 of shape \(20, 1\)"),
        ([(rows()[0], rows()[1] - 1)], {}, "classes must be 0, 1, ..., C - 1; got -1"),
        ([(rows()[0], rows()[1])], {"classes": 2}, r"must lie in 0..1, .*; got 2"),
        ([(rows()[0], rows()[1] * 0)], {}, "at least two classes to tell apart; got 1"),
        ([(rows()[0], rows()[1] * 0)], {"classes": 3}, "at least two classes; got class 0"),
        ([rows()], {"cache": "gpu"}, "cache must be one of .*; got 'gpu'"),
        ([rows()], {"dtype": "int8"}, "dtype must be one of .*; got 'int8'"),
        ([rows()], {"views": 0}, "views must be at least 1"),
        ([rows()], {"sample_weights": torch.ones(3)}, r"shape \(20,\), one for each example"),
        ([rows()], {"sample_weights": -torch.ones(20)}, "finite, not negative"),
        ([rows()], {"sample_weights": torch.zeros(20)}, "not all zero"),
        ([(rows()[0][:5], rows()[1])], {}, "must have the batch, 20 examples, as first axis"),
    ],
)  # fmt: skip
def test_bad_input(batches, options, message):
    with pytest.raises(ValueError, match=message):
        read(batches, **options)


def test_a_bad_batch_size():
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        read(as_batches(*rows())).batches(0, seed=0)
