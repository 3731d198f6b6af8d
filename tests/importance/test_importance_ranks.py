"""Two processes decide alike and step alike, each on rows of its own pools."""

import pytest
import torch
import two_samplers
from torch import nn
from torch.testing import assert_close

from forked import run_ranks
from lowland.importance import equivalent_batch, scores
from lowland.results import read_json
from small_networks import mlp, seeded


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both processes left, with the costs of a model and by the clock."""
    out = tmp_path_factory.mktemp("samplers")
    run_ranks(two_samplers.one_process, out)
    return {
        name: [read_json(out / f"{name}-{rank}.json") for rank in (0, 1)]
        for name in ("rank", "clock")
    }


@pytest.mark.parametrize("kind", ["rank", "clock"])
def test_one_decision(ranks, kind):
    """Tau, switches and weights agree to the bit; what is drawn does not."""
    first, second = ranks[kind]
    for name in ("taus", "switches", "params"):
        assert first[name] == second[name]


def test_own_pools(ranks):
    first, second = ranks["rank"]
    assert first["switches"]
    assert first["switches"][0][1]
    assert len(first["drawn"]) == len(second["drawn"]) > 10
    assert first["drawn"] != second["drawn"]


def test_tau_is_that_of_both_batches(ranks):
    """The first estimate, by hand: sums over the rows of both processes."""
    model = seeded(mlp, 1).double()
    loss_fn = nn.CrossEntropyLoss(reduction="none")
    both = torch.cat(
        [scores(loss_fn, model(x), y) for x, y in (two_samplers.data(rank)[0] for rank in (0, 1))]
    )
    taus = ranks["rank"][0]["taus"]
    assert_close(taus[1], 0.1 * float(equivalent_batch(both)), rtol=1e-12, atol=0)
