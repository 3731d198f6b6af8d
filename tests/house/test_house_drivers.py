"""What the drivers of all rooms promise: results in one grammar, and a model that is not harmed."""

import inspect
import json
import random
from copy import deepcopy

import numpy as np
import pytest
import torch
from rooms import driven, observing
from torch import nn
from torch.utils.data import DataLoader
from trials import loader, timeless

from lowland.data import Batches
from lowland.results import Status, plain
from small_networks import class_batches, generators, losses, norm_mlp, same, seeded, snapshot, two

pytestmark = [
    pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning"),
    pytest.mark.filterwarnings("ignore::lowland.errors.FallbackWarning"),
]

DRIVERS = pytest.mark.parametrize(
    ("driver", "call"), driven(), ids=lambda value: getattr(value, "__name__", str(value))
)
OBSERVERS = pytest.mark.parametrize("call", observing(), ids=lambda call: call.__name__)


def takes_a_loss(driver):
    """Whether the loss is the user's; a theory may bring its own."""
    return "loss_fn" in inspect.signature(driver).parameters


@DRIVERS
def test_every_driver_takes_the_same_words(driver, call):
    """Model, loss function if any, and batches come first; seed, progress, out are keywords."""
    parameters = inspect.signature(driver).parameters
    first = ["model", "loss_fn", "batches"] if takes_a_loss(driver) else ["model", "batches"]
    assert [*parameters][: len(first)] == first
    for name in ("seed", "progress", "out"):
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["out"].default is None
    assert not parameters["progress"].default


@DRIVERS
def test_a_result_survives_json(driver, call, tmp_path):
    """It has a status, a record of plain finite values, saves to a folder, and is read again."""
    words = {"out": tmp_path / "out", "progress": False}
    result = call(seeded(norm_mlp, 1), losses, loader(), **words)
    assert isinstance(result.status, Status)
    record = result.record()
    assert plain(record) == record
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["status"] == "finished"
    folder = result.save(tmp_path / "saved")
    assert any(folder.iterdir())
    for file in [*tmp_path.rglob("*.json")]:
        json.loads(file.read_text(), parse_constant=pytest.fail)
    again = call(seeded(norm_mlp, 1), losses, loader(), **words)
    assert timeless(again.record()) == timeless(record)


@DRIVERS
def test_the_same_seed_gives_the_same_result(driver, call):
    """Whatever the global generators say; another seed gives another result."""
    records = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        with torch.random.fork_rng(devices=[]):
            model = seeded(norm_mlp, 1)
            torch.manual_seed(noise)
            records.append(timeless(call(model, losses, loader(), seed=seed).record()))
            records[-1].pop("settings", None)
    assert records[0] == records[1]
    assert records[0] != records[2]


def lived_in():
    """A model with everything that could be lost: modes, hooks, gradients, buffers, momentum."""
    model = seeded(norm_mlp, 1)
    model.append(nn.Dropout(0.5)).append(nn.LSTM(3, 3)).append(Last())
    model[1].eval()
    model[4].momentum = 0.3
    model[0].bias.requires_grad_(requires_grad=False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[3].register_forward_hook(lambda *_: None)
    model[3].register_forward_pre_hook(lambda *_: None)
    model[6].register_full_backward_hook(lambda *_: None)
    model[6].weight.register_hook(lambda grad: grad)
    model.register_buffer("table", torch.arange(3.0), persistent=False)
    model.register_buffer("count", torch.tensor(5))
    return model


class Last(nn.Module):
    """Takes the output of a recurrent layer."""

    def forward(self, pair):
        return pair[0]


@OBSERVERS
def test_the_model_comes_back_unharmed(call):
    """Bits and identities, modes, hooks, gradients, momentum; generators, global and of loaders."""
    model = lived_in()
    batches, tests = loader(generator=torch.Generator()), loader(3, generator=torch.Generator())
    own = [data.generator.get_state() for data in (batches, tests)]
    before = snapshot(model), generators(), *own
    call(model, losses, batches, test_batches=tests)
    assert same(snapshot(model), before[0])
    assert same(generators(), before[1])
    assert same(batches.generator.get_state(), before[2])
    assert same(tests.generator.get_state(), before[3])


@OBSERVERS
def test_unharmed_after_an_error(call):
    """Also where the loss function gives up in the middle."""
    model, batches, left = lived_in(), loader(generator=torch.Generator()), 10**9

    def gives_up(output, target):
        nonlocal left
        left -= 1
        if not left:
            raise ZeroDivisionError("enough")
        return losses(output, target)

    before = snapshot(model), generators(), batches.generator.get_state()
    call(model, gives_up, batches)
    left = (10**9 - left) // 2
    with pytest.raises(ZeroDivisionError, match="enough"):
        call(model, gives_up, batches)
    assert same(snapshot(model), before[0])
    assert same(generators(), before[1])
    assert same(batches.generator.get_state(), before[2])


@OBSERVERS
def test_batches_of_this_library_keep_their_epoch(call):
    images = torch.randint(256, (20, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    batches = Batches(images.to(torch.uint8), torch.arange(20) % 3, 8, augment="crop-flip")
    batches.set_epoch(3)
    call(nn.Sequential(nn.Flatten(), seeded(norm_mlp, 1)), losses, batches)
    assert batches.epoch == 3


class Noisy(torch.utils.data.Dataset):
    """Draws from the global generators of torch, NumPy and Python, as users' augmentations do."""

    def __len__(self):
        return 16

    def __getitem__(self, index):
        draw = random.random() + np.random.rand()  # noqa: NPY002
        return torch.rand(4) + draw * index, index % 3


@pytest.mark.parametrize("call", observing(repeatable=True), ids=lambda call: call.__name__)
def test_random_augmentation_repeats(call):
    """The same numbers twice, whatever was drawn before."""
    runs = [call(seeded(norm_mlp, 1), losses, DataLoader(Noisy(), 8)) for _ in range(2)]
    first, second = (plain(run.record() if hasattr(run, "record") else run) for run in runs)
    assert timeless(first) == timeless(second)


@DRIVERS
def test_bad_input_is_refused_in_words(driver, call):
    model = seeded(norm_mlp, 1)
    if takes_a_loss(driver):
        with pytest.raises(ValueError, match=r"one loss per example, shape \(\d+,\); got a sc"):
            call(model, nn.functional.cross_entropy, loader())
    with pytest.raises(ValueError, match="at least one (batch|example).*got none"):
        call(model, losses, [])
    with pytest.raises(ValueError, match=r"pairs \(inputs, target\); got a list of 1"):
        call(model, losses, [[torch.ones(8, 4)]])


@DRIVERS
def test_float32_and_float64_agree(driver, call):
    """The same search in both precisions; what is compared are losses and lengths."""
    model, _ = two(norm_mlp, torch.float64)
    found = []
    for dtype in (torch.float32, torch.float64):
        batches = class_batches(4, dtype=torch.float64)
        batches = [(inputs.to(dtype), target) for inputs, target in batches]
        found.append(numbers(call(deepcopy(model).to(dtype), losses, batches).record()))
    assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-4)


@pytest.mark.gpu
@DRIVERS
def test_cpu_and_accelerator_agree(driver, call):
    model, _ = two(norm_mlp, torch.float64)
    batches = class_batches(4, dtype=torch.float64)
    here = numbers(call(deepcopy(model), losses, batches).record())
    there = numbers(call(deepcopy(model).to("cuda"), losses, batches).record())
    assert there == pytest.approx(here, abs=1e-9)


def numbers(record):
    """The numbers at the top of a record that are no clock's."""
    return {
        name: value
        for name, value in record.items()
        if isinstance(value, int | float) and name != "seconds"
    }
