"""One command for every driver, tried in processes of its own by those that kill, watch, or join.

The scripts that import this fork: torch is there once, and has computed nothing yet.
"""

import json
import os
import sys
import traceback
from pathlib import Path

import torch
from rooms import ROOMS, driven, example
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lowland.results import plain, read_tensors, write_json
from small_networks import class_batches, losses, norm_mlp, seeded

CALLS = {driver.__name__: call for driver, call in driven()}
BY_THE_CLOCK = {driver.__name__ for room in ROOMS for driver in example(room).SAVES_BY_THE_CLOCK}
MEASURES = {driver.__name__ for room in ROOMS for driver in example(room).MEASURES}
TOGETHER = {name: found for room in ROOMS for name, found in example(room).TOGETHER.items()}


def loader(seed=0, **options):
    """A user's loader that shuffles with a generator of its own."""
    parts = zip(*class_batches(4, sizes=(8, 8, 5), seed=seed), strict=True)
    return DataLoader(TensorDataset(*map(torch.cat, parts)), 8, shuffle=True, **options)


def timeless(value):
    """Plain values without what a clock decides, or somebody who commits meanwhile."""
    if isinstance(value, dict):
        left_out = ("seconds", "environment")
        return {name: timeless(item) for name, item in value.items() if name not in left_out}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def with_dropout():
    return nn.Sequential(*seeded(norm_mlp, 1), nn.Dropout(0.1))


def trial(name, folder, **options):
    """The same command every time: batch norm, dropout, shuffling, a ragged last batch."""
    often = {"save_every": 0.0} if name in BY_THE_CLOCK else {}
    model = with_dropout()
    result = CALLS[name](model, losses, loader(), out=folder / "out", **often | options)
    result.save(folder / "saved")
    weights = {name: value.tolist() for name, value in model.state_dict().items()}
    write_json(folder / "left.json", {"record": result.record(), "weights": weights})


def outcome(folder):
    """All that a trial saved, by file: bytes, and JSON without its clocks.

    A file that was being written when its process died keeps its temporary name, with a dot.
    """
    files = [folder / "left.json", *sorted(folder.glob("saved/**/[!.]*"))]
    return {str(file.relative_to(folder)): content(file) for file in files if file.is_file()}


def content(file):
    if file.suffix == ".safetensors":  # the order of its header differs
        tensors, metadata = read_tensors(file)
        return {name: value.tolist() for name, value in tensors.items()}, metadata
    if file.suffix == ".json":
        return timeless(json.loads(file.read_text()))
    if file.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in file.read_text().splitlines()]
    return file.read_bytes()


def begin(work, *arguments):
    """Work in a process of its own, which says on stderr why it failed; its number."""
    child = os.fork()
    if child:
        return child
    try:
        torch.set_num_threads(1)
        work(*arguments)
        sys.stdout.flush()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def end(child):
    """Wait for a process; its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def warm_up():
    """Import what torch leaves for the first optimizer, so that no child pays for it."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)


def under(folder, file):
    """Whether a file lies in a folder."""
    return Path(folder) in Path(os.path.abspath(file)).parents


def numbers_in(result):
    """What a driver or a piece returns, as plain values without clocks."""
    return timeless(plain(result.record() if hasattr(result, "record") else result))


def leaves(value, left_out=(), path=()):
    """Every single value in nested ones, by its path."""
    if isinstance(value, dict | list):
        named = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in named:
            if name not in left_out:
                yield from leaves(item, left_out, (*path, name))
    else:
        yield path, value


def differences(found, wanted, tolerance):
    """Which of some leaves differ by more than a tolerance, relative to 1 or to the value."""
    return [
        path
        for path in found | wanted
        if found.get(path, "missing") != wanted.get(path, "missing")
        and not is_near(found.get(path), wanted.get(path), tolerance)
    ]


def is_near(one, other, tolerance):
    if not isinstance(one, float) or not isinstance(other, float):
        return False
    return abs(one - other) <= tolerance * max(1, abs(other))
