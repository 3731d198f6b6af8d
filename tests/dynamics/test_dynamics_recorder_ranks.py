"""Two processes record what one would: from shards, and from copies that must be the same."""

import pytest
import torch
import two_recorders
from torch.testing import assert_close

from forked import run_ranks
from lowland.dynamics.sketch import relative_error
from lowland.results import read_json


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both processes left."""
    out = tmp_path_factory.mktemp("recorders")
    run_ranks(two_recorders.one_process, out)
    names = ("exact", "sketch", "same", "apart")
    return {name: [read_json(out / f"{name}-{rank}.json") for rank in (0, 1)] for name in names}


def test_shards_are_the_whole(ranks):
    first, second = ranks["exact"]
    alone = two_recorders.record(**two_recorders.OPTIONS["exact"])
    assert first["params"] == second["params"] == sum(two_recorders.SIZES)
    for name in ("displacement", "quartic", "overlap", "norm", "path_length", "layers"):
        assert first[name] == second[name]
        assert_close(first[name], alone[name], rtol=1e-12, atol=1e-14)


def test_sketches_of_shards_add_up(ranks):
    first, second = ranks["sketch"]
    alone = two_recorders.record()
    assert first["displacement"] == second["displacement"]
    found, exact = (torch.tensor(r["displacement"]) for r in (first, alone))
    assert_close(found, exact, rtol=4 * relative_error(4096), atol=0)
    assert_close(first["quartic"], alone["quartic"], rtol=1e-9, atol=0)
    assert first["quartic_sample"] == alone["quartic_sample"] == sum(two_recorders.SIZES)


def test_copies_are_compared(ranks):
    first, second = ranks["same"]
    alone = two_recorders.record()
    assert first["displacement"] == second["displacement"] == alone["displacement"]
    for words in ranks["apart"]:
        assert "must hold the same weights; after update 9 they do not" in words
