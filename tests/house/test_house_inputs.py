"""What every driver takes: inputs of three kinds, bad ones in words, and any executor."""

import inspect
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from rooms import driven
from torch import nn
from trials import CALLS, MEASURES, differences, leaves, numbers_in, timeless

from small_networks import class_batches, losses, mlp, seeded

pytestmark = [
    pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning"),
    pytest.mark.filterwarnings("ignore::lowland.errors.FallbackWarning"),
]
NAMES = pytest.mark.parametrize("name", CALLS)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 5)

    def forward(self, x):
        return x + torch.tanh(self.linear(x))


class Eyes(nn.Module):
    """Takes two inputs by name or by place, or both in one tensor; then come residual blocks."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 5), nn.Linear(1, 5)
        self.blocks, self.out = nn.ModuleList([Block(), Block()]), nn.Linear(5, 3)

    def forward(self, left, right=None):
        if right is None:
            left, right = left[:, :3], left[:, 3:]
        x = self.left(left) + self.right(right)
        for block in self.blocks:
            x = block(x)
        return self.out(x)


@NAMES
def test_inputs_are_a_tensor_a_tuple_or_a_mapping(name):
    """``model(x)`` is ``model(*x)`` up to rounding, and that is ``model(**x)`` to the bit."""
    whole = class_batches(4)
    pairs = [((x[:, :3], x[:, 3:]), y) for x, y in whole]
    named = [({"right": right, "left": left}, y) for (left, right), y in pairs]
    one, two, three = (
        dict(leaves(numbers_in(CALLS[name](seeded(Eyes, 1), losses, batches)), {"settings"}))
        for batches in (whole, pairs, named)
    )
    assert two == three
    assert differences(one, two, 1e-4) == []


@NAMES
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (lambda folder: {"seed": 1.5}, "seed must be a whole number; got 1.5"),
        (lambda folder: {"out": folder / "file"}, "out must be a folder; .*file is a file"),
        (lambda folder: {"out": folder / "used"}, "must belong to the run that continues in it"),
    ],
    ids=["seed", "file", "used"],
)
def test_bad_words_are_refused_in_words(name, words, sentence, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "lowland.json").write_text('{"made by": "another run"}')
    (tmp_path / "used" / "result.json").write_text("{}")
    with pytest.raises(ValueError, match=sentence):
        CALLS[name](seeded(mlp, 1), losses, class_batches(4), **words(tmp_path))
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(file.name for file in (tmp_path / "used").iterdir()) == [
        "lowland.json", "result.json",
    ]  # fmt: skip


@NAMES
def test_batches_of_one_pass_are_refused(name):
    with pytest.raises(
        ValueError, match="batches must be .*; got a list_iterator, which .* one pass"
    ):
        CALLS[name](seeded(mlp, 1), losses, iter(class_batches(4)))


@NAMES
def test_a_number_that_is_none_never_reaches_a_record(name):
    """One example is NaN: a sentence, or a status with step and place; the weights stay finite."""
    model, batches = seeded(mlp, 1), class_batches(4)
    batches[1][0][2, 1] = torch.nan
    try:
        record = CALLS[name](model, losses, batches).record()
        sentence = record.get("message", "")
    except (ValueError, FloatingPointError) as error:
        record, sentence = {"status": "not_finite"}, str(error)
    json.dumps(record, allow_nan=False)
    if name not in MEASURES:
        assert record["status"] == "not_finite"
        assert "finite" in sentence or " nan" in sentence
    assert all(value.isfinite().all() for value in model.state_dict().values())


class Plain:
    """The least that an executor can be."""

    def submit(self, function, *arguments):
        return Done(function(*arguments))


class Done:
    def __init__(self, value):
        self.value = value

    def result(self):
        return self.value


def pool():
    return ProcessPoolExecutor(1, get_context("spawn"))


WITH_EXECUTOR = [f.__name__ for f, _ in driven() if "executor" in inspect.signature(f).parameters]


@pytest.mark.parametrize("name", WITH_EXECUTOR)
@pytest.mark.parametrize("make", [Plain, pytest.param(pool, marks=pytest.mark.slow)])
def test_any_object_with_submit_will_do(name, make):
    """The same result as without one."""
    found = []
    for executor in (None, make()):
        result = CALLS[name](seeded(mlp, 1), losses, class_batches(4), executor=executor)
        found.append(timeless(result.record()))
        found[-1].pop("settings", None)
    assert found[0] == found[1]
