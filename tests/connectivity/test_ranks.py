"""Two processes that share the pivots out give what one process gives."""

import pytest
from torch.testing import assert_close
from two_searches import CASES, one_process, search

from forked import run_ranks
from lowland.connectivity import PathResult

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What both processes left."""
    out = tmp_path_factory.mktemp("ranks")
    run_ranks(one_process, out)
    return out


@pytest.mark.parametrize("case", CASES)
def test_two_processes_as_one(folder, case):
    """Pivots and losses of all cycles agree to 1e-12 in float64, on both ranks to the bit."""
    one = search(case)
    ranks = [PathResult.load(folder / f"rank-{rank}" / case) for rank in range(2)]
    for result in ranks:
        assert_close(result.path.pivots, one.path.pivots, rtol=0, atol=1e-12)
        assert len(result.cycles) == len(one.cycles) == 4
        for cycle, expected in zip(result.cycles, one.cycles, strict=True):
            assert cycle.force == pytest.approx(expected.force, abs=1e-12)
            for metric in ("train_loss", "train_error"):
                values, wanted = (c.profile.values(metric) for c in (cycle, expected))
                assert_close(values, wanted, rtol=0, atol=1e-12)
        assert_close(result.profile.test_loss, one.profile.test_loss, rtol=0, atol=1e-12)
    assert (ranks[0].path.pivots == ranks[1].path.pivots).all()
    backends = [[cycle.backend for cycle in result.cycles] for result in ranks]
    assert backends[0] == backends[1]


def test_only_rank_zero_writes(folder):
    """Each was given a folder of its own; that of rank 1 was never made."""
    assert not (folder / "run-1").exists()
    for case in CASES:
        names = {file.name for file in (folder / "run-0" / case).iterdir()}
        assert {"lowland.json", "cycle-03.json", "result.json", "path.safetensors"} <= names


def test_a_finished_folder_is_read_by_both(folder):
    again = [PathResult.load(folder / f"rank-{rank}" / "again") for rank in range(2)]
    assert again[0].record() == again[1].record()
    assert again[0].record() == PathResult.load(folder / "run-0" / "loop").record()
