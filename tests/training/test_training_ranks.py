"""Learning curves of two processes that make the same weights are those of one with all rows."""

import json

import torch
from two_curves import ROWS, curve, share, tell

from forked import run_ranks
from small_networks import mlp, seeded


def test_two_processes_have_the_curve_of_one(tmp_path):
    """By the number of rows of each; networks of their own keep their own curves."""
    run_ranks(tell, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    with torch.random.fork_rng(devices=[]):
        model = seeded(mlp, 0).double()
    alone = torch.tensor(curve(model, ROWS))
    assert first["together"] == second["together"]
    torch.testing.assert_close(torch.tensor(first["together"]), alone)
    for rank, found in enumerate((first, second)):
        assert found["apart"] == curve(model, share(rank))
    assert first["apart"] != second["apart"]
