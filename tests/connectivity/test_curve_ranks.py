"""Two processes that share the evaluation of a curve out give what one process gives."""

import pytest
import torch
import two_fits
from torch.testing import assert_close

from forked import run_ranks
from lowland.connectivity import PathResult
from lowland.training import use_threads

pytestmark = pytest.mark.slow  # the search's own ranks are tried in every run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What both processes left."""
    out = tmp_path_factory.mktemp("ranks")
    run_ranks(two_fits.one_process, out)
    return out


def test_two_processes_as_one(folder):
    """The same curve to the bit, and losses to 1e-12 in float64."""
    with use_threads(1):
        one = two_fits.fit()
    for rank in range(2):
        result = PathResult.load(folder / f"rank-{rank}")
        assert torch.equal(result.path.pivots, one.path.pivots)
        for metric in ("train_loss", "train_error", "test_loss", "test_error"):
            found, expected = (r.profile.values(metric) for r in (result, one))
            assert_close(found, expected, rtol=0, atol=1e-12)


def test_only_rank_zero_writes(folder):
    """Each was given a folder of its own; that of rank 1 was never made."""
    assert not (folder / "run-1").exists()
    names = {file.name for file in (folder / "run-0").iterdir()}
    assert {"lowland.json", "state.pt", "control.safetensors", "result.json"} <= names


def test_a_finished_folder_is_read_by_both(folder):
    again = [PathResult.load(folder / f"again-{rank}").record() for rank in range(2)]
    assert again[0] == again[1] == PathResult.load(folder / "run-0").record()
