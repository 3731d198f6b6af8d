"""What a batch holds beside tensors goes with its rows: never to other ones, or it is refused."""

from collections import UserDict

import numpy as np
import pytest
import torch
from torch import nn

from lowland.errors import FallbackWarning
from lowland.importance import ImportanceSampling, RandomSubset, diagnose
from lowland.importance.rows import count_rows, join, select
from small_networks import losses, mlp, seeded

ALWAYS = {"replay": [[0, True]]}
X = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
STARTS = range(0, 96, 16)


def inputs_of(batch):
    return batch["x"]


def batches(extra):
    """Mappings whose ``"id"`` is made from the numbers of the rows."""
    return [
        {"x": X[i : i + 16], "labels": Y[i : i + 16], "id": extra(range(i, i + 16))} for i in STARTS
    ]


def passing(data, **options):
    """A pass on chosen rows, with the inputs by ``get_inputs``."""
    model = seeded(mlp, 0)
    sampling = ImportanceSampling(model, losses, get_inputs=inputs_of, **options)
    for batch in sampling(data):
        sampling.loss(model(batch["x"]), batch["labels"]).backward()
        yield batch


KINDS = {
    "list": list,
    "tuple": tuple,
    "strings": lambda ids: [str(i) for i in ids],
    "array": lambda ids: np.array(ids),
    "mappings": lambda ids: [{"number": i} for i in ids],
    "lists of lists": lambda ids: [[i] * (1 + i % 3) for i in ids],
    "scalars": lambda ids: [torch.tensor(i) for i in ids],
    "inside": lambda ids: {"deep": (list(ids), torch.tensor(ids))},
}


def number(entry):
    """The number of a row, from its entry."""
    if isinstance(entry, dict):
        return entry["number"]
    return int(entry[0] if isinstance(entry, list) else entry)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [ALWAYS, {"batch_size": 10}, {"batch_size": 10} | ALWAYS])
def test_every_entry_stays_with_its_row(kind, options):
    """In pools, in rests of pools, and in batches that were cut anew."""
    for batch in passing(batches(KINDS[kind]), **options):
        ids = batch["id"]["deep"][0] if kind == "inside" else batch["id"]
        assert type(ids) is type(batches(KINDS[kind])[0]["id"]) or kind == "inside"
        assert torch.equal(X[[number(entry) for entry in ids]], batch["x"])


def test_a_pool_at_hand_and_the_methods_to_beat():
    model = seeded(mlp, 0)
    sampling = ImportanceSampling(model, losses, get_inputs=inputs_of, **ALWAYS)
    batch = sampling.select(join(batches(list)[:3]))
    assert len(batch["id"]) == 16
    assert torch.equal(X[batch["id"]], batch["x"])
    for batch in RandomSubset(losses)(batches(list)):
        assert torch.equal(X[batch["id"]], batch["x"])


@pytest.mark.parametrize("make", [list, np.array], ids=["list", "array"])
def test_targets_that_are_no_tensors(make):
    """Uniform and on chosen rows, with a loss that makes a tensor of them."""

    def loss_fn(output, target):
        return losses(output, torch.as_tensor(target))

    model = seeded(mlp, 0)
    data = [(X[i : i + 16], make(range(i, i + 16))) for i in STARTS]
    data = [(x, make([n % 3 for n in numbers])) for x, numbers in data]
    for options in ({}, ALWAYS):
        sampling = ImportanceSampling(model, loss_fn, **options)
        for x, y in sampling(data):
            sampling.loss(model(x), y).backward()
            rows = [int((row == X).all(1).nonzero()) for row in x]
            assert [int(n) for n in y] == [row % 3 for row in rows]


def test_what_belongs_to_no_row_must_not_differ():
    """Names the key, before a row is handed out."""
    for extra, key in (
        (lambda ids: ids[0], r"batch\['id'\]"),
        (lambda ids: torch.tensor(float(ids[0])), r"batch\['id'\]"),
        (lambda ids: f"file {ids[0]}", r"batch\['id'\]"),
        (lambda ids: list(ids)[:15], r"batch\['id'\]"),
        (lambda ids: np.array(ids)[:7], r"batch\['id'\]"),
        (lambda ids: {"deep": ids[0]}, r"batch\['id'\]\['deep'\]"),
    ):
        with pytest.raises(ValueError, match=f"{key}.* belongs to no single example.*must be the"):
            next(passing(batches(extra), **ALWAYS))
    for extra in (lambda ids: 2.5, lambda ids: torch.tensor(3), lambda ids: (224, 224)):
        found = [batch["id"] for batch in passing(batches(extra), **ALWAYS)]
        assert len(found) == 2
        assert all(np.array_equal(item, extra(())) for item in found)


def test_what_cannot_be_told_is_refused():
    with pytest.raises(
        ValueError, match=r"batch\['id'\] must be a tensor, a list.*got a set of 16"
    ):
        next(passing(batches(set), **ALWAYS))
    square = {"x": X[:2], "labels": Y[:2], "id": [[1, 2], [3, 4]]}
    with pytest.raises(ValueError, match=r"batch\['id'\] must say which of its axes counts"):
        select(square, slice(0, 1))
    with pytest.raises(ValueError, match="must hold a tensor.*got none. Make a tensor of"):
        count_rows((["a", "b"], [0, 1]))


def test_two_columns_of_texts_are_two():
    """Inputs that are a tuple of lists, beside a target that is a tensor."""
    texts = [f"left {i}" for i in range(6)], [f"right {i}" for i in range(6)]
    found = select((texts, torch.arange(6)), torch.tensor([4, 4, 1]))
    assert found[0] == (["left 4", "left 4", "left 1"], ["right 4", "right 4", "right 1"])
    assert found[1].tolist() == [4, 4, 1]


def test_containers_come_back_as_they_were():
    parts = [UserDict(x=X[i : i + 4], id=[i] * 4) for i in (0, 4)]
    found = join(parts)
    assert type(found) is UserDict
    assert list(found) == ["x", "id"]
    assert found["id"] == [0] * 4 + [4] * 4
    assert list(parts[0]["id"]) == [0] * 4


def test_pools_that_are_padded_each_to_its_own_length():
    """Cut into batches while the switch is off; the rest of one is a pool of its own."""
    data = [(torch.zeros(24, n), torch.arange(24) + 100 * n) for n in (4, 5, 6, 5)]
    numbers = []
    sampling = ImportanceSampling(
        nn.Flatten(), lambda output, target: output.sum(1), batch_size=8, replay=[[2, True]]
    )
    for x, y in sampling(data):
        assert (y // 100 == x.shape[1]).all()
        assert len(sampling.weight) == 8
        numbers.append((x.shape[1], sampling.is_active))
    assert numbers == [(4, False)] * 3 + [(n, True) for n in (5, 6, 5)]


def test_exact_norms_of_texts():
    """One by one, where torch.func cannot batch a model of texts."""
    data = [(["a" * (i + 1) for i in range(4)], torch.arange(4) % 3) for _ in range(3)]
    with pytest.warns(FallbackWarning, match="one by one"):
        assert diagnose(Words(), losses, data, pools=1).pool == 12


class Words(nn.Module):
    """Takes words one by one, as lists of inputs come."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 3)

    def forward(self, *words):
        return self.head(torch.tensor([[float(len(word))] for word in words]))
