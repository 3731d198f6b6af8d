"""Two processes end with the same weights; the oracle is one process with all of the data."""

import pytest
import torch
from two_growers import RUNS, grow, net, one_process, share

from forked import run_ranks
from lowland.boosting import refine
from lowland.results import read_json


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks")
    run_ranks(one_process, out)
    return [read_json(out / f"rank-{rank}.json") for rank in (0, 1)]


def flat(value):
    """All numbers of nested values, in their order."""
    if isinstance(value, dict):
        return [number for item in value.values() for number in flat(item)]
    if isinstance(value, list | tuple):
        return [number for item in value for number in flat(item)]
    return [value] if isinstance(value, float) else []


@pytest.mark.parametrize("name", RUNS)
def test_both_end_alike(ranks, name):
    """To the bit, and with the same rounds, whichever rule stopped them."""
    assert ranks[0][name] == ranks[1][name]
    assert len(ranks[0][name]["rounds"]) == 3


@pytest.mark.parametrize("name", RUNS)
def test_two_are_one(ranks, name):
    """Weights and statistics of the union, up to the order of sums."""
    torch.manual_seed(0)
    model = net()
    torch.manual_seed(0)
    expected = grow(net(), *share(), name)
    words = [[(found["name"], found["status"], found["updates"]) for found in one["rounds"]]
             for one in (expected, ranks[0][name])]  # fmt: skip
    assert words[0] == words[1]
    assert flat(ranks[0][name]) == pytest.approx(flat(expected), rel=1e-6, abs=1e-8)
    start = {key: value.tolist() for key, value in model.state_dict().items()}
    assert flat(start) != pytest.approx(flat(expected["weights"]), abs=1e-3)


def test_refinement_of_two_is_that_of_one(ranks):
    torch.manual_seed(0)
    model = net()
    refine(model, share()[0], epochs=2, optimizer=lambda p: torch.optim.SGD(p, 0.3))
    expected = {key: value.tolist() for key, value in model.state_dict().items()}
    assert ranks[0]["refined"] == ranks[1]["refined"]
    assert flat(ranks[0]["refined"]) == pytest.approx(flat(expected), abs=1e-10)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unequal", "ValueError: every process must have the same number of batches; got 6, 5."),
        ("unequal refinement", "ValueError: every process must have the same number of batches"),
        ("out", "ValueError: out and oracle must be None where several processes"),
        ("oracle", "ValueError: out and oracle must be None where several processes"),
        ("fitted", "ValueError: a block that is fitted needs all data in one process"),
    ],
)  # fmt: skip
def test_refused_on_both(ranks, name, words):
    for found in ranks:
        assert found["refused"][name].startswith(words)
