"""What drivers promise of their processes: they may be killed, are two or one, and stay in ``out``.

All of them are forked from one process, since nothing here costs more than the import of torch.
"""

import processes
import pytest
from rooms import pieces
from trials import CALLS, TOGETHER, content, differences, leaves, outcome

import forked


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What every driver left that was killed once, watched, and one of two."""
    out = tmp_path_factory.mktemp("once")
    assert forked.run(processes.main, out, 1) == 0
    return out


@pytest.fixture(scope="module")
def left_by_ten(tmp_path_factory):
    """What every driver left that was killed ten times."""
    out = tmp_path_factory.mktemp("ten")
    assert forked.run(processes.main, out, 10) == 0
    return out


@pytest.mark.parametrize("name", CALLS)
def test_a_killed_run_ends_with_the_same_bits(name, left):
    assert_same_end(left / "killed" / name, 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CALLS)
def test_ten_killed_runs_end_with_the_same_bits(name, left_by_ten):
    assert_same_end(left_by_ten / "killed" / name, 10)


def assert_same_end(folder, times):
    """Numbers, weights, and all that ``save`` writes; only clocks may differ."""
    assert set(content(folder / "codes.json")) <= {0, -9}
    whole = outcome(folder / "whole")
    assert len(whole) > 1
    for number in range(times):
        found = outcome(folder / str(number))
        assert list(found) == list(whole)
        assert [file for file in whole if found[file] != whole[file]] == [], number


@pytest.mark.parametrize("name", [*CALLS, *pieces()])
def test_nothing_happens_outside(name, left):
    """Neither a file nor a socket; the folder it was called in stays empty, and so does home."""
    assert content(left / "watched" / name / "watched.json") == {"outside": [], "home": []}


@pytest.mark.parametrize("name", TOGETHER)
def test_two_processes_are_one(name, left):
    """All numbers and weights, but those that a process says of itself."""
    out = left / "together" / name
    assert content(out / "codes.json") == [0, 0, 0]
    first, second, alone = (
        dict(leaves(content(out / f"{who}.json"), TOGETHER[name].of_itself))
        for who in (0, 1, "alone")
    )
    assert len(first) > 1
    assert first == second
    if TOGETHER[name].share != "batches of its own":
        assert differences(first, alone, 1e-9) == []
