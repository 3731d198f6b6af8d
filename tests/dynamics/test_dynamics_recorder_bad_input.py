"""What the recorder refuses, and in which words."""

import re

import pytest
import torch
from torch import nn

from lowland.dynamics.clock import pairs_of
from lowland.dynamics.recorder import TwoTimeRecorder
from lowland.errors import UnsupportedModelError
from small_networks import mlp

GRID = {"waits": [0, 5], "lags": [1, 10]}


def recorded(steps, source=None, **options):
    recorder = TwoTimeRecorder(torch.zeros(1, 3) if source is None else source, **(GRID | options))
    for step in steps:
        recorder.record(step)
    return recorder


def test_tensors_in_a_sequence_may_be_one():
    assert recorded([0, 1]).result().params == 3


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([0, 1, 1], "grow from call to call; got 1 after 1"),
        ([0, 1, 0], "grow from call to call; got 0 after 1"),
        ([-1], "grow from call to call; got -1 after nothing"),
        ([3], "update 0 must be recorded"),
        ([0, 1, 4, 6], "update 5 must be recorded"),
    ],
)
def test_numbers_of_updates(steps, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        recorded(steps)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lags": None}, "give waits and lags together"),
        ({"waits": None, "lags": None, "total": 5}, "at least 20 updates"),
        ({"clock": pairs_of([0], [1])}, "waits and a clock"),
        ({"waits": None, "clock": pairs_of([0], [1])}, "lags and a clock"),
        ({"waits": [-3]}, "waits must be whole numbers"),
        ({"total": 0}, "ends within the run"),
        ({"memory": "disk"}, "memory must be one of"),
        ({"ranks": "all"}, "ranks one of"),
        ({"bins": -1}, "must not be negative"),
        ({"sketch_size": 1}, "sketch_size at least 2"),
        ({"bins": 3, "ranks": "sharded"}, "whole weights"),
    ],
)
def test_arguments(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        recorded([], **options)


def frozen():
    return mlp().requires_grad_(False)


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        (frozen, ValueError, "a parameter that requires a gradient"),
        (list, ValueError, "at least one tensor"),
        (lambda: mlp().bfloat16(), UnsupportedModelError, "float32 master copies"),
        (lambda: mlp().half(), UnsupportedModelError, "float32 master copies"),
        (lambda: [torch.zeros(2, dtype=torch.complex64)], UnsupportedModelError, "dense and real"),
        (lambda: [torch.eye(2).to_sparse()], UnsupportedModelError, "dense and real"),
        (lambda: [torch.zeros(2), torch.zeros(2).double()], ValueError, "one dtype"),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()), ValueError, "one dtype"),
        (lambda: [torch.zeros(2), torch.zeros(2, device="meta")], ValueError, "one device"),
    ],
)
def test_weights(source, kind, words):
    with pytest.raises(kind, match=re.escape(words)):
        recorded([], source())


@pytest.mark.untyped
@pytest.mark.parametrize("step", [1.5, 2.5, float("inf"), float("nan")])
def test_half_an_update(step):
    """Where the clock looks, and between its instants."""
    with pytest.raises(
        ValueError, match=f"must be whole and grow from call to call; got {step} after"
    ):
        recorded([0, 1, step])


@pytest.mark.untyped
def test_weights_of_another_kind():
    with pytest.raises(TypeError, match="weights must be a module or tensors; 0 is a float"):
        recorded([], [1.0])


def freeze(model):
    model[0].requires_grad_(False)


def replace(model):
    model[0] = nn.Linear(4, 6)


def resize(model):
    model[0].weight.data = torch.zeros(6, 5)


def widen(model):
    model.double()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (freeze, "now trains 2 others than the 4"),
        (replace, "now trains 4 others than the 4"),
        (resize, "0.weight was (6, 4) of torch.float32 on cpu and is (6, 5)"),
        (widen, "0.weight was (6, 4) of torch.float32 on cpu and is (6, 4) of torch.float64"),
    ],
)
def test_weights_that_change_their_kind(change, words):
    """Noticed at the next waiting time at the latest, before anything is measured."""
    model = mlp()
    recorder = recorded([0], model, waits=[0, 2])
    change(model)

    def follow():
        for step in (1, 2):
            recorder.record(step)

    with pytest.raises(ValueError, match=re.escape(words)):
        follow()


def test_tables_say_what_they_have():
    result = recorded(range(16)).result()
    with pytest.raises(ValueError, match=re.escape("got 7. There are [0, 5]")):
        result.curve(7)
    with pytest.raises(ValueError, match=re.escape("got (0, 3)")):
        result.at(0, 3)
