"""Where one of two processes has nothing to read, both end in words; none waits for the other."""

import pytest
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from forked import run_ranks
from lowland.importance import train_with_importance
from lowland.results import read_json, write_json
from small_networks import class_batches, losses, mlp, seeded

DATA = class_batches(4, sizes=(4,) * 3)
ARGUMENTS = {
    "empty test batches": lambda rank: {"test_batches": [DATA, []][rank]},
    "no test batches": lambda rank: {"test_batches": [DATA, None][rank]},
    "empty batches": lambda rank: {"batches": [DATA, []][rank]},
}


def said(given):
    model = DistributedDataParallel(seeded(mlp, 1))
    try:
        train_with_importance(
            model,
            losses,
            **{"batches": DATA, "steps": 2, "optimizer": torch.optim.SGD} | given,
        )
    except ValueError as error:
        return str(error)
    return ""


def one_process(rank, out):
    meeting = f"file://{out / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    found = {name: said(given(rank)) for name, given in ARGUMENTS.items()}
    write_json(out / f"rank-{rank}.json", found)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    run_ranks(one_process, out)
    return [read_json(out / f"rank-{rank}.json") for rank in (0, 1)]


@pytest.mark.parametrize("name", ["test_batches", "batches"])
def test_one_has_none(words, name):
    other, own = (found["empty " + name.replace("_", " ")] for found in words)
    assert other.startswith("all processes must be able to begin; 1 of 2 cannot")
    assert own.startswith(f"{name} must yield at least one batch; got none.")


def test_one_was_not_given_any(words):
    for found in words:
        assert found["no test batches"].startswith("test_batches must be given on all processes or")
