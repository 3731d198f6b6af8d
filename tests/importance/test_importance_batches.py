"""Batches of every kind give the same pools, and scoring leaves a model and its modes alone."""

from collections.abc import Mapping
from copy import deepcopy

import pytest
import torch
from scored_batches import ALWAYS, BATCHES, Notes, taken
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lowland.importance import ImportanceSampling
from small_networks import (
    Named,
    class_batches,
    dropout,
    generators,
    losses,
    mlp,
    norm_mlp,
    same,
    seeded,
    snapshot,
)

# Batches of every kind


class Stream(IterableDataset):
    """Rows without a length or an index."""

    def __iter__(self):
        for x, y in BATCHES:
            yield from zip(x, y, strict=True)


def test_loaders_and_streams():
    """A list, a generator, a loader and a stream hand out the same pools."""
    rows = TensorDataset(*(torch.cat(part) for part in zip(*BATCHES, strict=True)))
    sources = [
        BATCHES,
        ((x, y) for x, y in BATCHES),
        DataLoader(rows, 8),
        DataLoader(Stream(), 8),
        DataLoader(Stream(), 24),
    ]
    found = []
    for source in sources:
        size = {"batch_size": 8} if source is sources[-1] else {}
        sampling = ImportanceSampling(seeded(mlp, 0), losses, **ALWAYS, **size)
        found.append([tuple(batch) for batch in taken(sampling, source)])
    assert len(found[0]) == 4
    for other in found[1:]:
        assert same(other, found[0])


class Labeled(Named):
    """Takes its two inputs by name, as models for text do, and returns an object with logits."""

    def forward(self, left, right):
        return super().forward(left, right)


@pytest.mark.parametrize("kind", ["mapping", "nested", "own"])
def test_batches_of_every_shape(kind):
    """A mapping with labels, a tuple of inputs, and anything else by two functions."""
    rng = torch.Generator().manual_seed(0)
    model = seeded(Labeled, 0)
    parts = [
        (torch.randn(4, 3, generator=rng), torch.randn(4, 2, generator=rng), torch.arange(4) % 3)
        for _ in range(6)
    ]
    make = {
        "mapping": lambda a, b, y: {"left": a, "right": b, "labels": y, "scale": torch.tensor(2.0)},
        "nested": lambda a, b, y: ((a, b), y),
        "own": lambda a, b, y: [y, {"deep": [a, b]}],
    }[kind]
    options = {}
    if kind == "own":
        options = {"get_inputs": lambda b: tuple(b[1]["deep"]), "get_targets": lambda b: b[0]}
    if kind == "mapping":
        options = {"get_inputs": lambda b: {"left": b["left"], "right": b["right"]}}
    notes = Notes()
    sampling = ImportanceSampling(model, losses, **ALWAYS, **options, **notes())
    steps = 0
    for batch in sampling([make(*part) for part in parts]):
        left, right, target = (torch.cat(p) for p in zip(*parts[3 * steps :][:3], strict=True))
        index = notes.draws[-1][1]
        if kind == "mapping":
            assert isinstance(batch, Mapping)
            assert batch["scale"] == 2
            a, b, y = batch["left"], batch["right"], batch["labels"]
        elif kind == "nested":
            (a, b), y = batch
        else:
            y, (a, b) = batch[0], batch[1]["deep"]
        assert torch.equal(a, left[index])
        assert torch.equal(b, right[index])
        assert torch.equal(y, target[index])
        sampling.loss(model(a, b), y).backward()
        steps += 1
    assert steps == 2


def test_a_pool_at_hand():
    """``select`` chooses from what another loop hands out, with the same draws and weights."""
    model = seeded(mlp, 0)
    with torch.no_grad():
        model[2].weight *= 4
    one = ImportanceSampling(model, losses, tau_threshold=1.01, smoothing=0.0)
    two = ImportanceSampling(model, losses, tau_threshold=1.01, smoothing=0.0)
    pools = [tuple(torch.cat(p) for p in zip(*BATCHES[i : i + 3], strict=True)) for i in (0, 3, 6)]
    x, y = one.select(pools[0])
    assert torch.equal(x, BATCHES[0][0])  # not active yet: the first rows
    one.loss(model(x), y)
    found = [(x, y, one.weight)]
    for pool in pools[1:]:
        x, y = one.select(pool)
        found.append((x, y, one.weight))
        assert one.is_active
        one.loss(model(x), y)
    one.close()
    expected = []
    for x, y in two([BATCHES[0], *BATCHES[3:9]]):
        two.loss(model(x), y)
        expected.append((x, y, two.weight))
    assert same(found, expected)
    assert one.tau == two.tau


# Nothing else is touched


@pytest.mark.parametrize("make", [mlp, norm_mlp, dropout])
@pytest.mark.parametrize("score", ["bound", "loss", "gradient_norm", "last_layer"])
@pytest.mark.filterwarnings("ignore::lowland.errors.FallbackWarning")
def test_scoring_leaves_the_model_as_it_was(make, score):
    """Modes, hooks, buffers, gradients and the global generators."""
    model = seeded(make, 0)
    before, randomness = snapshot(model), generators()
    sampling = ImportanceSampling(model, losses, score=score, **ALWAYS)
    for _ in taken(sampling, BATCHES):
        assert all(m.training for m in model.modules())
    assert same(snapshot(model), before)
    assert same(generators(), randomness)


def test_a_broken_loop_lets_go():
    """Leaving the loop early takes hooks and modes back too."""
    model = seeded(norm_mlp, 0)
    before = snapshot(model)
    sampling = ImportanceSampling(model, losses, score="last_layer", batch_norm="frozen", **ALWAYS)
    stream = sampling(BATCHES)
    next(stream)
    stream.close()
    assert same(snapshot(model), before)
    with pytest.raises(ValueError, match="handed out"):
        sampling.loss(torch.zeros(8, 3), BATCHES[0][1])


def statistics(model):
    return {name: value.clone() for name, value in model.named_buffers()}


@pytest.mark.filterwarnings("ignore::lowland.errors.FallbackWarning")
def test_what_batch_norms_learn():
    """Of chosen rows by default, nothing when frozen, of the uniform pool with ``"pool"``."""
    pool = torch.cat([x for x, _ in BATCHES[:3]])
    for mode in ("eval_score", "frozen", "pool"):
        model = seeded(norm_mlp, 0)
        start = statistics(model)
        by_hand = deepcopy(model)
        sampling = ImportanceSampling(model, losses, batch_norm=mode, **ALWAYS)
        for x, y in sampling(BATCHES[:3]):
            sampling.loss(model(x), y).backward()
            if mode == "eval_score":
                by_hand(x)
            elif mode == "pool":
                by_hand(pool)
        found, expected = statistics(model), statistics(by_hand)
        for name in start:
            if "num_batches" not in name:
                assert_close(found[name], expected[name])
        assert model.training


class DropPath(nn.Module):
    """Stochastic depth under the name and with the attribute that timm gives it."""

    drop_prob = 0.3

    def forward(self, x):
        return x


def deep_dropout():
    return nn.Sequential(nn.Linear(4, 6), DropPath(), nn.Linear(6, 3))


class Recurrent(nn.Module):
    """Dropout between the layers, inside of one module."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 5, 2, batch_first=True, dropout=0.2), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.rnn(x[:, None])[0][:, -1])


def recurrent():
    return Recurrent()


def test_other_modes_are_noted_once():
    """Nothing is warned of on a default path; the summary says it, and a saved state keeps it."""
    for make, what in (
        (norm_mlp, "batch norm"),
        (dropout, "dropout"),
        (deep_dropout, "stochastic depth"),
        (recurrent, "dropout"),
    ):
        sampling = ImportanceSampling(seeded(make, 0), losses, **ALWAYS)
        assert sampling.notes == []
        assert len([*taken(sampling, BATCHES)]) == 4
        (note,) = sampling.notes
        assert note.startswith("rows are scored in evaluation mode, but")
        assert what in note
        assert sampling.summary().endswith(note)
        later = ImportanceSampling(seeded(make, 0), losses, **ALWAYS)
        later.load_state_dict(sampling.state_dict())
        assert later.notes == [note]


def test_without_chosen_rows_there_is_nothing_to_note():
    sampling = ImportanceSampling(seeded(norm_mlp, 0), losses, tau_threshold=1e9)
    assert len([*taken(sampling, BATCHES)]) == len(BATCHES)
    assert sampling.notes == []


@pytest.mark.parametrize(("batch_norm", "found"), [("pool", 1), ("frozen", 0)])
def test_an_output_that_is_normalized_over_the_batch_is_noted(batch_norm, found):
    """Its losses depend on the other rows, which the bound excludes; not where it is frozen."""
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), 0)
    sampling = ImportanceSampling(model, losses, batch_norm=batch_norm, **ALWAYS)
    for x, y in sampling(BATCHES):
        sampling.loss(model(x), y).backward()
    assert sum("output is normalized over the batch" in note for note in sampling.notes) == found


class Counted(nn.Linear):
    """Notes how many rows each forward pass has."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.runs = []

    def forward(self, x):
        self.runs.append(len(x))
        return super().forward(x)


def test_a_frozen_trunk_runs_once_per_pool():
    """What it made of the chosen rows is used again: the same losses and gradients."""
    found = {}
    for has_trunk in (False, True):
        model = seeded(lambda: nn.Sequential(Counted(4, 6), nn.Tanh(), nn.Linear(6, 3)), 0).double()
        trunk = model[0].requires_grad_(requires_grad=False)
        options = {"trunk": trunk} if has_trunk else {}
        sampling = ImportanceSampling(model, losses, **options, **ALWAYS)
        found[has_trunk] = []
        for x, y in sampling(class_batches(4, sizes=(8,) * 6, dtype=torch.float64)):
            loss = sampling.loss(model(x), y)
            found[has_trunk] += [loss, *torch.autograd.grad(loss, [*model[2].parameters()])]
        assert trunk.runs == [24, 24] if has_trunk else [24, 8, 24, 8]
    for ours, plain in zip(found[True], found[False], strict=True):
        assert_close(ours, plain)
