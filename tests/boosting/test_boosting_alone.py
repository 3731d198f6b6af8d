"""Where one of two processes cannot begin, both end in words; none waits for the other."""

import pytest
import torch
from boosted import batched, examples, tower
from torch import distributed as dist

from forked import run_ranks
from lowland.boosting import refine, train_boosted
from lowland.results import read_json, write_json

CALLS = {
    "empty": lambda rank, data: train_boosted(tower(1), data, test_batches=[data, []][rank]),
    "missing": lambda rank, data: train_boosted(tower(1), data, test_batches=[data, None][rank]),
    "weights": lambda rank, data: train_boosted(
        tower(1), data, sample_weights=[None, torch.ones(16)][rank]
    ),
    "labels": lambda rank, data: train_boosted(tower(1), [(x, y + 9 * rank) for x, y in data]),
    "argument": lambda rank, data: train_boosted(tower(1), data, objective=["ce", "hinge"][rank]),
    "refined": lambda rank, data: refine(tower(1), data, epochs=1, test_batches=[data, []][rank]),
}  # fmt: skip
OTHER = "all processes must be able to begin; 1 of 2 cannot, though this one can."


def said(call, rank):
    try:
        call(rank, batched(*examples(16)))
    except ValueError as error:
        return str(error)
    return ""


def one_process(rank, out):
    meeting = f"file://{out / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    write_json(out / f"rank-{rank}.json", {name: said(call, rank) for name, call in CALLS.items()})
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    run_ranks(one_process, out)
    return [read_json(out / f"rank-{rank}.json") for rank in (0, 1)]


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("empty", "batches must hold at least one example; got none."),
        ("labels", "classes must lie in 0..2, one for each output of the model; got"),
        ("argument", "objective must be one of"),
        ("refined", "test_batches must yield at least one batch; got none."),
    ],
)
def test_the_error_of_one_ends_both(words, name, own):
    """The process that failed says why, the other that it was not the one."""
    assert words[0][name].startswith(OTHER)
    assert words[1][name].startswith(own)


@pytest.mark.parametrize(
    ("name", "argument"), [("missing", "test_batches"), ("weights", "sample_weights")]
)
def test_what_only_one_was_given(words, name, argument):
    for found in words:
        assert found[name].startswith(f"{argument} must be given on all processes or on none; got")
